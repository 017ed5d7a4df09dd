"""Each argument rule of the two requests at its boundaries, and all of them restated."""

from __future__ import annotations

import errno
import os
import re
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pinfold.backends.rules import Redirection, check_install, check_seals, redirect_masks
from pinfold.linux import redirect

PAGE = 4096
TOP = 1 << 64
LAST = TOP - 1
CONTINUE = 1
HUGE = 1 << 20000
"""Longer in decimal than Python agrees to write."""

SHRINK, GROW, SEALED, WRITE, FUTURE_WRITE = 2, 4, 1, 8, 16

numbers = (
    st.sampled_from([0, 1, 2, 5, 6, PAGE - 1, PAGE, PAGE + 1, 1 << 31, 1 << 32, 1 << 63])
    | st.sampled_from([LAST, TOP, TOP - PAGE, TOP + PAGE, -1, -100, -(1 << 63), -(1 << 63) - 1])
    | st.integers(-(1 << 65), 1 << 65)
)
pages = numbers | st.integers(-2, (1 << 52) + 2).map(lambda page: page * PAGE)


def refusal(error: OSError) -> str:
    """Returns the text of an error that has the right errno, and is no errno's own text."""
    assert type(error) is OSError
    assert error.errno == errno.EINVAL
    text = error.strerror
    assert text
    assert text != os.strerror(errno.EINVAL)
    return text


# Pin install


@pytest.mark.parametrize(
    ("flags", "address", "size"),
    [
        (0, 0x70000000, PAGE),
        (0, 0, PAGE),
        (0, PAGE, PAGE),
        (0, 0, TOP - PAGE),
        (0, TOP - 2 * PAGE, PAGE),
        (0, 1 << 63, 1 << 62),
    ],
)
def test_installs_that_pass(flags: int, address: int, size: int) -> None:
    check_install(flags, address, size)


@pytest.mark.parametrize(
    ("flags", "address", "size", "rule", "value"),
    [
        (1, PAGE, PAGE, "flags", 1),
        (-1, PAGE, PAGE, "flags", -1),
        (1 << 32, PAGE, PAGE, "flags", 1 << 32),
        (0, PAGE, 0, "size must be greater than 0", 0),
        (0, PAGE, -PAGE, "size must be greater than 0", -PAGE),
        (0, PAGE, 1, "size must be a multiple", 1),
        (0, PAGE, PAGE - 1, "size must be a multiple", PAGE - 1),
        (0, PAGE, PAGE + 1, "size must be a multiple", PAGE + 1),
        (0, 0, TOP, "size must be a multiple", TOP),
        (0, 1, PAGE, "address must be a multiple", 1),
        (0, PAGE + 1, PAGE, "address must be a multiple", PAGE + 1),
        (0, LAST, PAGE, "address must be a multiple", LAST),
        (0, -PAGE, PAGE, "address must be a multiple", -PAGE),
        (0, TOP, PAGE, "address must be a multiple", TOP),
        (0, TOP - PAGE, PAGE, "address + size", TOP),
        (0, PAGE, TOP - PAGE, "address + size", TOP),
        (0, 1 << 63, 1 << 63, "address + size", TOP),
    ],
)
def test_installs_that_are_refused(
    flags: int, address: int, size: int, rule: str, value: int
) -> None:
    with pytest.raises(OSError, match="pin install") as caught:
        check_install(flags, address, size)
    text = refusal(caught.value)
    assert rule in text
    assert text.endswith(f" {value:#x}")


@given(st.sampled_from([0, 0, 0, 1, -1, 1 << 32]), pages, pages)
@example(0, TOP - 2 * PAGE, PAGE)
@example(0, TOP - PAGE, PAGE)
def test_an_install_passes_just_if_the_kernel_s_table_has_nothing_against_it(
    flags: int, address: int, size: int
) -> None:
    try:
        packed = redirect.encode_install(7, flags, 3, address, size)
    except struct.error:
        fine = False  # It does not even fit.
    else:
        _, flags_field, _, target_addr, size_field = struct.unpack("<QIIQQ", packed)
        fine = (
            flags_field == 0
            and size_field != 0
            and size_field & 0xFFF == 0
            and target_addr & 0xFFF == 0
            and (target_addr + size_field) & LAST > target_addr
        )
    if fine:
        check_install(flags, address, size)
    else:
        with pytest.raises(OSError, match="pin install") as caught:
            check_install(flags, address, size)
        refusal(caught.value)


# Redirect


def test_masks_and_registers() -> None:
    assert redirect_masks({1: 0x70000000}, {1: 10}, CONTINUE) == Redirection(
        0b10, 0b10, (0, 0x70000000, 0, 0, 0, 0), (0, 10, 0, 0, 0, 0)
    )
    assert redirect_masks({0: -100, 5: LAST, 3: 0}, {5: LAST}, CONTINUE) == Redirection(
        0b101001, 0b100000, (TOP - 100, 0, 0, 0, 0, LAST), (0, 0, 0, 0, 0, LAST)
    )
    everything = {index: index for index in range(6)}
    lengths = {index: index + 1 for index in range(6)}
    assert redirect_masks(everything, lengths, CONTINUE) == Redirection(
        0b111111, 0b111111, (0, 1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 6)
    )


@pytest.mark.parametrize(
    ("value", "register"),
    [(-1, LAST), (-(1 << 63), 1 << 63), (LAST, LAST), (1 << 63, 1 << 63), (0, 0)],
)
def test_an_argument_stands_for_its_64_bits(value: int, register: int) -> None:
    assert redirect_masks({2: value}, {}, CONTINUE).args[2] == register


@pytest.mark.parametrize(
    ("args", "ptr_len", "flags", "rule"),
    [
        ({0: 1}, {}, 0, "flags must be .*, got 0x0$"),
        ({0: 1}, {}, 2, "flags must be .*, got 0x2$"),
        ({0: 1}, {}, 3, "flags must be .*, got 0x3$"),
        ({0: 1}, {}, -1, "flags must be .*, got -0x1$"),
        ({0: 1}, {}, (1 << 32) + 1, "flags must be .*, got 0x100000001$"),
        ({}, {}, CONTINUE, "at least one argument .*, got none$"),
        ({}, {0: 1}, CONTINUE, "at least one argument .*, got none$"),
        ({6: 1}, {}, CONTINUE, "index must be 0 to 5, got 0x6$"),
        ({-1: 1}, {}, CONTINUE, "index must be 0 to 5, got -0x1$"),
        ({0: 1, 32: 1}, {}, CONTINUE, "index must be 0 to 5, got 0x20$"),
        ({0: TOP}, {}, CONTINUE, "argument 0 must fit 64 bits, got 0x10{16}$"),
        ({0: -(1 << 63) - 1}, {}, CONTINUE, "argument 0 must fit 64 bits, got -0x80{14}1$"),
        ({0: 1}, {1: 1}, CONTINUE, "length must be that of a replaced argument, got 0x1$"),
        ({0: 1}, {6: 1}, CONTINUE, "length must be that of a replaced argument, got 0x6$"),
        ({0: 1}, {-1: 1}, CONTINUE, "length must be that of a replaced argument, got -0x1$"),
        ({0: 1}, {1: 0}, CONTINUE, "length must be that of a replaced argument, got 0x1$"),
        ({0: 1}, {0: 0}, CONTINUE, "length of argument 0 must be .*, got 0x0$"),
        ({0: 1}, {0: -1}, CONTINUE, "length of argument 0 must be .*, got -0x1$"),
        ({0: 1}, {0: TOP}, CONTINUE, "length of argument 0 must be .*, got 0x10{16}$"),
    ],
)
def test_redirects_that_are_refused(
    args: dict[int, int], ptr_len: dict[int, int], flags: int, rule: str
) -> None:
    with pytest.raises(OSError, match="redirect") as caught:
        redirect_masks(args, ptr_len, flags)
    assert re.search(rule, refusal(caught.value))


def test_numbers_too_long_to_be_written() -> None:
    for args, lengths in (({0: HUGE}, {}), ({0: -HUGE}, {}), ({HUGE: 0}, {}), ({0: 0}, {HUGE: 1})):
        with pytest.raises(OSError, match=r"redirect: .* got -?0x10{5000}$") as caught:
            redirect_masks(args, lengths, CONTINUE)
        refusal(caught.value)
    with pytest.raises(OSError, match=r"pin install: .* got 0x10{5000}$") as caught:
        check_install(0, 0, HUGE)
    refusal(caught.value)


indices = st.integers(0, 5) | st.sampled_from([0, 5, -1, 6, 31, 32, 64])
lengths = st.integers(1, 64) | numbers


@st.composite
def redirects(draw: st.DrawFn) -> tuple[dict[int, int], dict[int, int], int]:
    """Mostly well-formed ones, so that many pass."""
    args = draw(st.dictionaries(st.integers(0, 5), numbers, max_size=6))
    if draw(st.integers(0, 4)) == 0:
        args.update(draw(st.dictionaries(indices, numbers, max_size=2)))
    pointers = draw(st.sets(st.sampled_from(sorted(args)))) if args else set()
    ptr_len = {index: draw(lengths) for index in pointers}
    if draw(st.integers(0, 4)) == 0:
        ptr_len.update(draw(st.dictionaries(indices, lengths, max_size=2)))
    return args, ptr_len, draw(st.sampled_from([1, 1, 1, 1, 1, 0, 2, 3, -1, (1 << 32) + 1]))


def allowed(packed: bytes) -> bool:
    """The table's EINVAL row, said again over the bytes that the kernel gets."""
    fields = struct.unpack("<Q4I12Q", packed)
    flags, args_mask, ptr_mask, pad = fields[1:5]
    ptr_len = fields[11:]
    return (
        flags == 1
        and args_mask not in {0, *range(64, 1 << 8)}
        and args_mask < 64
        and ptr_mask | args_mask == args_mask
        and pad == 0
        and all((ptr_len[i] > 0) == bool(ptr_mask >> i & 1) for i in range(6))
    )


@given(redirects())
def test_what_passes_is_what_the_kernel_s_table_has_nothing_against(
    wanted: tuple[dict[int, int], dict[int, int], int],
) -> None:
    args, ptr_len, flags = wanted
    try:
        got = redirect_masks(args, ptr_len, flags)
    except OSError as error:
        refusal(error)
        # Whoever packs it by the letter gets something that does not fit, or that is not allowed.
        assert not fits(args, ptr_len) or not allowed(by_the_letter(args, ptr_len, flags))
        return
    packed = redirect.encode_redirect(7, flags, *got)
    assert allowed(packed)
    assert packed == by_the_letter(args, ptr_len, flags)


def fits(args: dict[int, int], ptr_len: dict[int, int]) -> bool:
    return (
        all(0 <= index < 6 for index in (*args, *ptr_len))
        and all(-(2**63) <= value < 2**64 for value in args.values())
        and all(0 <= length < 2**64 for length in ptr_len.values())
    )


def by_the_letter(args: dict[int, int], ptr_len: dict[int, int], flags: int) -> bytes:
    def register(index: int) -> bytes:
        value = args.get(index, 0)
        return value.to_bytes(8, "little", signed=value < 0)

    masks = (sum(2**index for index in mapping) for mapping in (args, ptr_len))
    head = struct.pack("<Q4I", 7, flags & 0xFFFFFFFF if flags < 2**32 else 0, *masks, 0)
    return (
        head
        + b"".join(map(register, range(6)))
        + b"".join(ptr_len.get(index, 0).to_bytes(8, "little") for index in range(6))
    )


# Seals


@pytest.mark.parametrize("write", [WRITE, FUTURE_WRITE, WRITE | FUTURE_WRITE])
@pytest.mark.parametrize("others", [0, SHRINK, GROW | SEALED])
def test_either_write_seal_will_do(write: int, others: int) -> None:
    check_seals(write | others)
    check_seals(write | others, others)


@pytest.mark.parametrize("seals", [0, SHRINK, SEALED | SHRINK | GROW, 0x20])
def test_no_write_seal(seals: int) -> None:
    with pytest.raises(OSError, match=r"F_SEAL_WRITE or F_SEAL_FUTURE_WRITE") as caught:
        check_seals(seals)
    assert refusal(caught.value).endswith(f" {seals:#x}")


@pytest.mark.parametrize("seals", [WRITE, FUTURE_WRITE, FUTURE_WRITE | GROW | SEALED])
def test_a_needed_seal_is_missing(seals: int) -> None:
    check_seals(seals)
    with pytest.raises(OSError, match=r"seals 0x2") as caught:
        check_seals(seals, SHRINK)
    assert refusal(caught.value).endswith(f" {seals:#x}")
    with pytest.raises(OSError, match=r"seals 0x6"):
        check_seals(WRITE | SHRINK, SHRINK | GROW)


def test_the_module_is_pure() -> None:
    import ast
    import inspect

    from pinfold.backends import rules

    imported = {
        name.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(inspect.getsource(rules)))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in node.names
    }
    assert imported <= {
        "__future__",
        "collections.abc",
        "errno",
        "pinfold.uapi.mman",
        "pinfold.uapi.seccomp",
        "typing",
    }
