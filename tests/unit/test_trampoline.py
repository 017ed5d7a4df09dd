"""The code page: its instructions by a disassembler, and what they do by the processor."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from pinfold.arch.x86_64 import ARGUMENTS, R8, R9, R10, RDI, RDX, RSI, SYSCALL_INSTRUCTION
from pinfold.pins import trampoline
from pinfold.pins.arena import Arena, address_of
from pinfold.syscalls.numbers import X86_64 as NR

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {RDI: "rdi", RSI: "rsi", RDX: "rdx", R10: "r10", R8: "r8", R9: "r9"}
MOVE_TO_RAX = {
    RDI: b"\x48\x89\xf8",
    RSI: b"\x48\x89\xf0",
    RDX: b"\x48\x89\xd0",
    R10: b"\x4c\x89\xd0",
    R8: b"\x4c\x89\xc0",
    R9: b"\x4c\x89\xc8",
}
VALUE = 0xFEDCBA9876543210


def disassembled(code: bytes, path: Path) -> dict[int, str]:
    """Returns instructions by offset."""
    if shutil.which("objdump") is None:
        pytest.skip("there is no objdump")
    path.write_bytes(code)
    command = ("objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "-z", str(path))
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = (line.split("\t") for line in text.splitlines() if line.count("\t") == 2)
    return {
        int(offset.strip(" :"), 16): " ".join(said.split("#")[0].split())
        for offset, _, said in lines
    }


@pytest.mark.parametrize("register", ARGUMENTS, ids=NAMES.__getitem__)
def test_a_stub_by_a_disassembler(register: int, tmp_path: Path) -> None:
    found = disassembled(trampoline.CODE, tmp_path / "code")
    at = trampoline.stub_of(register)
    assert found[at - len(SYSCALL_INSTRUCTION)] == "syscall"
    assert found[at] == f"mov {NAMES[register]},r11"
    assert found[at + 3] == "jmp rcx"


def test_the_set_up_by_a_disassembler(tmp_path: Path) -> None:
    found = disassembled(trampoline.CODE, tmp_path / "code")
    code = [
        said
        for at, said in sorted(found.items())
        if trampoline.SET_UP <= at < trampoline.SET_UP_END
    ]
    assert code[0] == code[-1] == "syscall"
    assert code.count("syscall") == 5
    numbers = [said for said in code if said.startswith("mov eax,")]
    assert numbers == [f"mov eax,{NR[name]:#x}" for name in ("mseal", "mseal", "close")]
    # The one address is that of the page itself.
    ((at, end),) = [
        (at, following)
        for (at, said), (following, _) in itertools.pairwise(sorted(found.items()))
        if said.startswith("lea rdi,[rip")
    ]
    assert end + struct.unpack("<i", trampoline.CODE[at + 3 : end])[0] == 0
    # The one jump leads to where the descriptor is closed.
    (jump,) = [said for said in code if said.startswith("j")]
    assert found[int(jump.split("0x")[1], 16)] == "mov edi,r8d"
    # None touches memory: there is none that would be ours alone.
    assert not [said for said in code if "[" in said and not said.startswith("lea")]
    assert not [said for said in code if said.startswith(("push", "pop", "call"))]


def test_all_else_is_breakpoints() -> None:
    assert len(trampoline.CODE) == trampoline.SIZE
    assert trampoline.END <= trampoline.SET_UP
    rest = trampoline.CODE[trampoline.END : trampoline.SET_UP]
    assert set(rest + trampoline.CODE[trampoline.SET_UP_END :]) == {0xCC}


def test_what_is_inside() -> None:
    assert trampoline.inside(trampoline.START)
    assert trampoline.inside(trampoline.END - 1)
    assert not trampoline.inside(trampoline.START - 1)
    assert not trampoline.inside(trampoline.END)
    assert not trampoline.inside(trampoline.SET_UP_END)
    assert all(trampoline.inside(trampoline.stub_of(register)) for register in ARGUMENTS)


@pytest.mark.parametrize("register", ARGUMENTS, ids=NAMES.__getitem__)
def test_a_stub_by_the_processor(register: int) -> None:
    # The page as it is in an arena, and a function that goes through it as a call does.
    with mmap.mmap(
        -1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    ) as own:
        arena = Arena(0, mmap.PAGESIZE, code=True)
        rights = mmap.PROT_READ | mmap.PROT_EXEC
        page = _mapped(arena, rights)
        try:
            to = page + trampoline.stub_of(register)
            jump = b"\x48\xb8" + struct.pack("<Q", to) + b"\xff\xe0"  # mov rax, ...; jmp rax
            own[: len(jump) + 32] = b"".join(
                (
                    b"\x49\xbb" + struct.pack("<Q", VALUE),  # mov r11, ...
                    b"\x48\x8d\x0d" + struct.pack("<i", len(jump)),  # lea rcx, [rip + ...]
                    jump,
                    MOVE_TO_RAX[register],
                    b"\xc3",  # ret
                )
            ).ljust(len(jump) + 32, b"\xcc")
            function = ctypes.CFUNCTYPE(ctypes.c_uint64)(address_of(own))
            assert function() == VALUE
        finally:
            _munmap(page, trampoline.SIZE)
            arena.close()


def test_the_page_is_in_the_memfd_behind_the_slots() -> None:
    arena = Arena(0, 4 * mmap.PAGESIZE, code=True)
    try:
        assert arena.size == len(arena.view) == 4 * mmap.PAGESIZE
        with mmap.mmap(
            arena.fd, trampoline.SIZE, mmap.MAP_SHARED, mmap.PROT_READ, offset=arena.size
        ) as page:
            assert page[:] == trampoline.CODE
        with pytest.raises(PermissionError):
            mmap.mmap(arena.fd, trampoline.SIZE, mmap.MAP_SHARED, offset=arena.size)
    finally:
        arena.close()


_libc = ctypes.CDLL(None, use_errno=True)
_map = _libc.mmap
_map.restype = ctypes.c_void_p
_map.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)


def _mapped(arena: Arena, rights: int) -> int:
    at = _map(None, trampoline.SIZE, rights, mmap.MAP_SHARED, arena.fd, arena.size)
    assert at not in {None, ctypes.c_void_p(-1).value}
    return int(at)


def _munmap(at: int, size: int) -> None:
    assert _libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(size)) == 0
