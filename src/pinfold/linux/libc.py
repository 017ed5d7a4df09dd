"""The one place where C functions are loaded and called.

``ctypes`` passes Python ints as C ``int`` unless told otherwise, which cuts pointers on a 64-bit
machine without a word; so every function used by pinfold gets its argument types here, and callers
elsewhere see Python functions that raise ``OSError`` with the errno and the name of the call.

Functions are looked up with ``library["name"]``, which makes a fresh function object each time: the
argument types set here cannot be changed by, or leak into, other users of ``ctypes``.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_library: Final = ctypes.CDLL(None, use_errno=True)
_releasing: Final = ctypes.CDLL(None)
_holding: Final = ctypes.PyDLL(None)


def function(name: str, result: Any, *arguments: Any) -> Callable[..., int]:
    """Returns the C function ``name`` with its types set: ctypes types, result first."""
    found = _library[name]
    found.restype = result
    found.argtypes = arguments
    return found


def lean(name: str, *, blocks: bool) -> Callable[..., int]:
    """Returns the C function ``name`` in the form that costs least to call, for the hot loop.

    Half of what a call through ``ctypes`` takes is the conversion to declared types. So none are
    declared: arguments must be ints that fit into a C ``int``, and results of ``ctypes.byref``,
    made beforehand; the result is a C ``int``. No errno is kept either. Where the call fails, make
    it again through its usual function, which raises what there is to say.

    Args:
        name: The function.
        blocks: Whether it can block. If not, the interpreter's lock is kept meanwhile: a thread
            that gives it up has to wait until it gets it back, up to 5 ms where others compute.
    """
    return (_releasing if blocks else _holding)[name]


_syscall = function("syscall", ctypes.c_long, *[ctypes.c_long] * 7)
_prctl = function("prctl", ctypes.c_int, ctypes.c_int, *[ctypes.c_ulong] * 4)


def error(call: str, subject: object = None) -> OSError:
    """Returns the ``OSError`` for the calling thread's current C errno.

    Args:
        call: Name of the function that failed.
        subject: What it was called on (a path, a task id), for the message.
    """
    number = ctypes.get_errno()
    where = call if subject is None else f"{call} {subject}"
    return OSError(number, f"{where}: {os.strerror(number)}")


def syscall(name: str, number: int, *args: int) -> int:
    """Returns the result of system call ``number`` made by this thread.

    Args:
        name: Its name, for the message of an error.
        number: Its number on this machine.
        *args: At most six integers or addresses; missing ones are zero.

    Raises:
        OSError: The kernel answered with an errno.

    Kernel: ``syscall(2)``.
    """
    result = _syscall(number, *args, *(0,) * (6 - len(args)))
    if result == -1:
        raise error(name)
    return result


def prctl(option: int, *args: int) -> int:
    """Returns the result of ``prctl(2)``; missing arguments are zero.

    Raises:
        OSError: The kernel answered with an errno.
    """
    result = _prctl(option, *args, *(0,) * (4 - len(args)))
    if result == -1:
        raise error(f"prctl({option})")
    return result
