"""Attacks on pins: what is in them, what is mapped there, and how they come there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pinfold.attack.catalogue.model import NAIVE, PINNED, TRACE, UNVERIFIED, WRITABLE, Attack

if TYPE_CHECKING:
    from collections.abc import Iterator

_WRITING: Final = (
    ("store", WRITABLE, "writes into the pin while a call is judged"),
    ("vm-writev", WRITABLE, "likewise, by process_vm_writev()"),
    ("child-vm-writev", WRITABLE, "likewise, by process_vm_writev() from a child"),
    ("proc-mem", WRITABLE, "likewise, through /proc/self/mem"),
    ("child-proc-mem", WRITABLE, "likewise, a child through /proc/PID/mem"),
    ("read", WRITABLE, "likewise, by read() into it"),
    ("mprotect", UNVERIFIED, "makes the pin writable by mprotect(), and writes"),
    ("pkey-mprotect", UNVERIFIED, "makes the pin writable by pkey_mprotect(), and writes"),
    ("mremap-copy", UNVERIFIED, "maps the pin's pages a second time by mremap(), and writes"),
    ("map-files", UNVERIFIED, "opens the pin through /proc/self/map_files, and writes"),
)
_REPLACING: Final = (
    ("mmap", "maps memory of its own over the pin"),
    ("file", "maps a file of its own over the pin"),
    ("munmap", "unmaps the pin, and maps memory of its own there"),
    ("mremap-away", "moves the pin away, and maps memory of its own there"),
    ("mremap-onto", "moves memory of its own onto the pin"),
    ("shmat", "attaches shared memory of its own over the pin"),
    ("remap-file-pages", "has the pin show another page of its file"),
)
_IMAGES: Final = (
    ("dontfork", 40, "forks without the pin, and maps memory of its own there"),
    ("exec", 30, "maps memory of its own where the pin was before an exec"),
    ("vfork", 30, "likewise, when a vfork child has executed"),
    ("clonevm", 30, "likewise, when a process that shared the memory has executed"),
    ("thread", 30, "likewise, when a thread has executed while others opened files"),
)
_INSTALLING: Final = (
    ("descriptor", "puts a file of its own onto the descriptor that a pin is made of"),
    ("replace", "maps a file of its own over a pin that is being made"),
    ("unmap", "unmaps a pin that is being made, and maps a file of its own there"),
    ("instruction", "overwrites the call instruction while a pin is being made"),
    ("copy-map", "copies the descriptor that a pin is made of, and maps it writable"),
    ("copy-write", "copies the descriptor that a pin is made of, and writes to it"),
    ("copy-grow", "copies the descriptor that a pin is made of, and changes the file's size"),
    ("copy-seal", "copies the descriptor that a pin is made of, and seals the file"),
    ("keep", "claims that this descriptor was closed, by a filter of its own"),
    ("forbid-mmap", "forbids mmap() by a filter of its own, and rewrites the path"),
    ("fake-mmap", "claims success of mmap() by a filter of its own, and rewrites the path"),
    ("fake-seal", "claims success of mseal() by a filter of its own, and replaces the pin"),
    ("delivery", "answers the call that asks for the descriptor, and rewrites the path"),
)
_ENDS: Final = {"kill": "are killed", "stop": "are stopped", "exit": "end by another thread"}


def _altered() -> Iterator[Attack]:
    for way, control, about in _WRITING:
        yield Attack(
            f"pin-write-{way}",
            "pin",
            "pin_alter",
            about,
            control,
            (way,),
            attempts=1000,
            control_attempts=2000,
            lost=10,
            chance=True,
        )
    for way, about in _REPLACING:
        yield Attack(
            f"pin-replace-{way}",
            "pin",
            "pin_alter",
            about,
            UNVERIFIED,
            (way,),
            attempts=100,
            control_attempts=50,
            lost=40,
        )
    yield Attack(
        "pin-advice",
        "pin",
        "pin_alter",
        "has the kernel drop, lock, move and guard the pin's pages",
        "",
        ("advice",),
        attempts=100,
        alone="advice loses pages or makes them unreadable; it brings no other bytes there",
    )


def _images() -> Iterator[Attack]:
    for way, attempts, about in _IMAGES:
        yield Attack(
            f"pin-image-{way}",
            "pin",
            "pin_image",
            about,
            UNVERIFIED,
            (way,),
            attempts=attempts,
            lost=attempts // 2,
            flags=("-static",),
        )


def _stale() -> Iterator[Attack]:
    for who in ("thread", "child"):
        yield Attack(
            f"pin-stale-{who}",
            "pin",
            "pin_stale",
            f"passes a path that an earlier call left in the pin, while a {who} makes others",
            UNVERIFIED,
            (who,),
            attempts=1000,
            lost=10,
            chance=True,
        )


def _installing() -> Iterator[Attack]:
    for way, about in _INSTALLING:
        yield Attack(
            f"pin-install-{way}",
            "pin",
            "pin_install",
            about,
            UNVERIFIED,
            (way,),
            attempts=30,
            control_attempts=60,
            # The call instruction has to be another one for a single step.
            lost=1 if way == "instruction" else 3,
            chance=True,
            # Only there it is a call that a filter can answer.
            backends=(TRACE,) if way == "delivery" else PINNED,
            flags=("-static",),
        )


def _killed() -> Iterator[Attack]:
    for how in ("kill", "stop", "exit"):
        yield Attack(
            f"pin-{how}",
            "pin",
            "pin_end",
            f"rewrites the path while processes {_ENDS[how]} in the middle of their calls",
            NAIVE,
            (how,),
            attempts=30 if how == "stop" else 100,
            lost=5,
            chance=True,
        )


PINS: Final[tuple[Attack, ...]] = (*_altered(), *_images(), *_installing(), *_stale(), *_killed())
