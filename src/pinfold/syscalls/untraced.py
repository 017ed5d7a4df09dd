"""Calls that are looked at where nobody traces: what a tracer would have been told of them.

- ``clone`` of a *process* that shares its working directory or its descriptors with its parent: a
  relative path of either may then change its meaning while it is judged. (Threads, which share both
  as a rule, the kernel counts for whoever asks.)
- ``ptrace(PTRACE_TRACEME)``, by which a process makes its parent its tracer. The parent of COMMAND
  is the supervisor, which would have to wait for its every stop.

What is looked at is in registers, and the calls are made as they are.
"""

from __future__ import annotations

from typing import Final

from pinfold.syscalls.forms import Form, Forms
from pinfold.syscalls.numbers import X86_64
from pinfold.uapi.prctl import CLONE_FILES, CLONE_FS, CLONE_THREAD
from pinfold.uapi.ptrace import PTRACE_TRACEME

_ALL: Final = (1 << 64) - 1

UNTRACED: Final[dict[str, Forms]] = {
    "clone": tuple(
        Form(((0, CLONE_THREAD | shared, shared),), passes=False)
        for shared in (CLONE_FS, CLONE_FILES)
    ),
    "ptrace": (Form(((0, _ALL, PTRACE_TRACEME),), passes=False),),
}
"""By name of the call, its forms that are looked at."""
NUMBERS: Final = {X86_64[name]: forms for name, forms in UNTRACED.items()}
"""The same by number."""
