"""What the fuzz targets have in common.

A target is a module with a function ``one(data)``, which takes any bytes and raises where something
is wrong. Run as a program it is fuzzed by atheris:

    python fuzz/NAME.py [libFuzzer options] [CORPUS...]

Imported it is a plain function, on any Python: tests replay its corpus without atheris.

What is found goes to ``.build/fuzz``: ``NAME/`` for inputs that reach something new,
``NAME-crash-…`` for those that fail. Seeds are in ``fuzz/corpus/NAME``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

FUZZ: Final = Path(__file__).resolve().parent
FOUND: Final = FUZZ.parent / ".build" / "fuzz"
TARGETS: Final = ("codec", "policy", "patterns", "audit", "bpf", "names", "wire")
"""Every target, by the name of its module."""

_OPTIONS: Final = {
    "-timeout": "120",
    "-rss_limit_mb": "2048",
    "-max_len": "1024",
    "-len_control": "0",
}
"""Options of libFuzzer that hold where nothing else is said. An input that takes longer, or more
memory, is a finding. Most inputs are choices, of which short ones make little: their length is not
grown slowly."""


@contextlib.contextmanager
def instrumented(name: str) -> Iterator[None]:
    """Imports what is to be fuzzed, instrumented if the target is being run as a program.

    Args:
        name: The target's ``__name__``.
    """
    if name != "__main__":
        yield
        return
    import atheris  # noqa: PLC0415 (not needed for a replay)

    with atheris.instrument_imports(include=["pinfold"]):
        yield


def main(name: str, one: Callable[[bytes], None]) -> None:
    """Fuzzes a target until libFuzzer's options say that it is enough, or something is wrong.

    Args:
        name: Of the target.
        one: Takes one input.
    """
    import atheris  # noqa: PLC0415 (not needed for a replay)

    from pinfold.linux import process  # noqa: PLC0415 (not before it is instrumented)

    given = sys.argv[1:]
    arguments = [sys.argv[0], *given]
    options = {word.partition("=")[0] for word in given if word.startswith("-")}
    for option, value in _OPTIONS.items():
        if option not in options:
            arguments.append(f"{option}={value}")
    FOUND.mkdir(parents=True, exist_ok=True)
    if "-artifact_prefix" not in options:
        arguments.append(f"-artifact_prefix={FOUND / name}-")
    words = FUZZ / "dictionaries" / f"{name}.dict"
    if "-dict" not in options and words.exists():
        arguments.append(f"-dict={words}")
    if all(word.startswith("-") for word in given):
        mine = FOUND / name
        mine.mkdir(exist_ok=True)
        arguments += [os.fspath(mine), os.fspath(FUZZ / "corpus" / name)]
    # libFuzzer leaves without a word to Python: what the target put somewhere is removed here.
    child = os.fork()
    if child == 0:
        process.die_with_parent(signal.SIGKILL)
        atheris.Setup(arguments, one)
        atheris.Fuzz()
        os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it goes to both
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(status if status >= 0 else 128 - status)


class Given:
    """An input, taken apart from its start; where it ends, zeros follow.

    Args:
        data: The input.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Returns whether there is more of it."""
        return self._at < len(self._data)

    def take(self, length: int) -> bytes:
        """Returns so many bytes."""
        taken = self._data[self._at : self._at + length]
        self._at += length
        return taken + bytes(length - len(taken))

    def rest(self) -> bytes:
        """Returns all that is left."""
        taken = self._data[self._at :]
        self._at = len(self._data)
        return taken

    def number(self, width: int = 8) -> int:
        """Returns an unsigned number of so many bytes."""
        return int.from_bytes(self.take(width), "little")

    def below(self, limit: int) -> int:
        """Returns a number below ``limit``, which is 65,536 at most."""
        return self.number(1 if limit <= 1 << 8 else 2) % limit

    def pick(self, choices: Sequence[T]) -> T:
        """Returns one of these."""
        return choices[self.below(len(choices))]

    def text(self, most: int = 64) -> bytes:
        """Returns bytes whose number comes first."""
        return self.take(min(self.below(most + 1), len(self._data)))


def refused(call: Callable[..., T], *arguments: Any, by: type[Exception]) -> T | None:
    """Returns what a call gives, None when it raises that error and no other."""
    try:
        return call(*arguments)
    except by:
        return None
