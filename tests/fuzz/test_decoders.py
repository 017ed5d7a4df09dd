"""Decoders against memory that holds anything: through real calls, in a real sandbox.

``tests/programs/fuzz_decoders.c`` calls with pointers to random bytes, to pointers, to ends of
pages, to nothing. The supervisor must get through it, log each call in a line of JSON, and leave
the program's memory alone.

``PINFOLD_FUZZ_SECONDS=3600 PINFOLD_FUZZ_SEED=7`` looks longer, and elsewhere.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from pinfold.supervisor.shapes import EVERYTHING
from pinfold.syscalls.kinds import PINNED, POINTERS, WRITTEN, Kind
from pinfold.syscalls.numbers import X86_64
from tests.differential.compare import bare
from tests.programs import values

if TYPE_CHECKING:
    from tests.kernel.support import User

SECONDS: Final = float(os.environ.get("PINFOLD_FUZZ_SECONDS", "8"))
SEED: Final = os.environ.get("PINFOLD_FUZZ_SEED", "1")

LEFT_OUT: Final = {
    "mq_open": "would leave queues of random names behind, which belong to the machine",
    "mq_unlink": "would remove queues of others",
}
"""Calls that could hurt the machine, and why. What others are kept from by their arguments:

- paths have no ``/`` (a program of root's), modes are not those of devices, which to open can
  restart a machine;
- sockets are bound to the loopback device before they are used;
- ``request_key`` gets no callout information, with which the kernel starts a program outside;
- keys go to a key ring that ends with the process;
- swapping, accounting, modules and host names take rights that the program must not have.
"""

_LETTERS: Final = {
    Kind.DIRFD: "d",
    Kind.FD: "f",
    Kind.SIZE: "z",
    Kind.MODE: "m",
    Kind.XATTR_ARGS_OUT: "x",
    Kind.PAYLOAD: "p",
}


def letters() -> str:
    """Returns the calls as the program wants them: name, number, a letter for each argument."""
    lines = []
    for shape in EVERYTHING.values():
        row = shape.row
        if row.name in LEFT_OUT:
            continue
        kinds = ""
        for name, kind in row.arguments:
            if kind in PINNED:
                kinds += "0" if name == "callout" else "p"
            elif kind in WRITTEN:
                kinds += "o"
            elif row.group == "send" and kind is Kind.FLAGS:
                kinds += "s"
            elif name == "keyring":
                kinds += "k"
            else:
                assert kind in _LETTERS or kind not in POINTERS, (row.name, name)
                kinds += _LETTERS.get(kind, "n")
        lines.append(f"{row.name} {row.number} {kinds}\n")
    return "".join(lines)


@pytest.mark.timeout(200 + 10 * int(SECONDS))
def test_random_memory(someone: User) -> None:
    program = someone.program("fuzz_decoders")
    work = someone.directory / "work"
    work.mkdir()
    someone.own(work)
    log = someone.directory / "audit.jsonl"
    done = someone.pinfold(
        *("--inspect", "all", "--audit", log, "--", program, SEED, str(SECONDS)),
        cwd=work,
        input=letters(),
        timeout=100 + 5 * SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:]
    found = values(done.stdout)
    made = {name: int(value.split("/")[0]) for name, value in found.items() if "/" in value}
    assert len(made) == len(EVERYTHING) - len(LEFT_OUT)
    assert min(made.values()) == int(found["rounds"]) >= 10 * SECONDS
    # Not everything fails: good arguments are tried between the bad ones.
    assert int(found["succeeded"]) > int(found["total"]) // 100
    logged: Counter[str] = Counter()
    with open(log, encoding="ascii") as lines:
        for line in lines:
            record = json.loads(line)
            if record["type"] != "call":
                continue
            assert record["verdict"] in {"allow", "error"}, line
            assert isinstance(record["args"], dict), line
            logged[record["syscall"]] += 1
    for name, count in made.items():
        # sendto without an address passes, and sendmmsg is as many calls as it has messages.
        if name not in {"sendto", "sendmmsg"}:
            assert logged[name] >= count, name
    assert set(logged) <= {row.row.name for row in EVERYTHING.values()}


@pytest.mark.timeout(200)
def test_random_memory_without_a_sandbox(someone: User) -> None:
    # The program itself: what it demands of memory is what the kernel does.
    outcome = bare(someone, someone.program("fuzz_decoders"), SEED, "2", text=letters())
    assert (outcome.status, outcome.complaints) == (0, "")
    found = values("\n".join(outcome.lines))
    assert int(found["succeeded"]) > int(found["total"]) // 100


def test_a_change_of_memory_is_seen(someone: User) -> None:
    # A call that writes to where others only read from.
    calls = f"getcwd {X86_64['getcwd']} pz\n"
    outcome = bare(someone, someone.program("fuzz_decoders"), SEED, "20", text=calls)
    assert outcome.status == 1
    assert outcome.lines[0].startswith("changed getcwd(")


def test_every_call_is_tried_or_left_out_for_a_reason() -> None:
    assert LEFT_OUT.keys() <= X86_64.keys()
    tried = {line.split()[0] for line in letters().splitlines()}
    assert tried | LEFT_OUT.keys() == {shape.row.name for shape in EVERYTHING.values()}
    assert "request_key 249 pp0k\n" in letters()
