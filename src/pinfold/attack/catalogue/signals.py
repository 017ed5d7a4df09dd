"""Attacks on what a redirected call leaves behind: in registers, signal frames and new programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pinfold.attack.catalogue.model import TWO_STOPS, UNRESTORED, Attack

if TYPE_CHECKING:
    from collections.abc import Iterator

_FRAMES: Final = (
    ("usr", ("restart",), "another process sends SIGUSR1"),
    ("nested", ("restart", "nested"), "likewise, to a handler that makes redirected calls"),
    ("jump", ("jump",), "likewise, to a handler that never returns"),
    ("queue", ("restart",), "another process queues real-time signals"),
    ("timer", ("restart", "nested"), "the kernel sends SIGALRM"),
    ("trap", ("restart",), "another process sends SIGTRAP"),
    ("stop", ("restart",), "another process stops and continues the program"),
)
_BLOCKED: Final = (
    ("restart", ("restart", "nested"), "is restarted"),
    ("interrupt", ("nested",), "is interrupted"),
    ("jump", ("jump",), "is left by a jump"),
)
_SOURCES: Final = {"nested": "usr", "jump": "usr"}


def _signals() -> Iterator[Attack]:
    yield Attack(
        "signal-registers",
        "signal",
        "signal_leak",
        "looks at all registers after calls with pointers of many kinds",
        UNRESTORED,
        ("registers", "none"),
        attempts=1000,
        lost=800,
    )
    for name, how, about in _FRAMES:
        source = _SOURCES.get(name, name)
        yield from (
            Attack(
                f"signal-{where}-{name}",
                "signal",
                "signal_leak",
                f"looks at {at} of redirected calls while {about}",
                UNRESTORED,
                (where, source, *how),
                attempts=400,
                lost=lost,
                chance=where == "frames",
            )
            for where, at, lost in (
                ("frames", "the signal frames", 10),
                ("registers", "the registers", 100),
            )
        )
    for name, how, about in _BLOCKED:
        yield Attack(
            f"signal-blocked-{name}",
            "signal",
            "signal_leak",
            f"looks at the signal frames of a blocked call that {about}",
            UNRESTORED,
            ("frames", "blocked", *how),
            attempts=30,
            lost=5,
            chance=True,
        )
    for way, about in (
        ("first", "that was executed by a redirected call"),
        ("thread", "that a thread executed while another made redirected calls"),
    ):
        yield Attack(
            f"signal-exec-{way}",
            "signal",
            "signal_exec",
            f"looks at the registers of a new program {about}",
            UNRESTORED,
            (way,),
            attempts=40,
            control_attempts=100 if way == "thread" else 40,
            lost=10 if way == "first" else 1,
            chance=way == "thread",
            helpers=(("signal_fresh", ("-static", "-nostdlib")),),
        )


SIGNALS: Final[tuple[Attack, ...]] = tuple(
    one._replace(backends=(*one.backends, TWO_STOPS)) for one in _signals()
)
