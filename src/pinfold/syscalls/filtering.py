"""Calls by which a task gets a filter of its own, or another that looks at where calls are made.

Such a filter sees the instruction pointer, and in one of the two forms in which a call is let go
(``backends.trace``) that one is not the program's own. So these calls are looked at, and let go.
"""

from __future__ import annotations

from typing import Final

from pinfold.syscalls.forms import Form, Forms
from pinfold.syscalls.numbers import X86_64
from pinfold.uapi.prctl import PR_SET_SECCOMP, PR_SET_SYSCALL_USER_DISPATCH
from pinfold.uapi.seccomp import SECCOMP_SET_MODE_FILTER

_LOW: Final = 0xFFFFFFFF

FILTERING: Final[dict[str, Forms]] = {
    "seccomp": (
        Form(((0, _LOW, SECCOMP_SET_MODE_FILTER),), passes=False),
        Form((), passes=True),
    ),
    "prctl": (
        Form(((0, _LOW, PR_SET_SECCOMP),), passes=False),
        Form(((0, _LOW, PR_SET_SYSCALL_USER_DISPATCH),), passes=False),
        Form((), passes=True),
    ),
}
"""By name of the call, which of its forms need not be looked at."""
NUMBERS: Final = {X86_64[name]: forms for name, forms in FILTERING.items()}
"""The same by number."""
