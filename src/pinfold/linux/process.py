"""Process ids, descriptors and flags: ``pidfd_*``, ``tgkill``, ``prctl``."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import threading
import warnings

from pinfold.linux import libc
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import prctl as abi

_STATUS_BYTES = 8192


def take_descriptor(pidfd: int, number: int) -> int:
    """Returns a copy, in this process, of descriptor ``number`` of the process behind ``pidfd``.

    Raises:
        OSError: EPERM without ptrace permission over it, EBADF when it has no such descriptor.

    Kernel: ``pidfd_getfd(2)``.
    """
    return libc.syscall("pidfd_getfd", NR["pidfd_getfd"], pidfd, number)


def signal_thread(tgid: int, tid: int, number: int) -> None:
    """Sends a signal to one thread.

    Raises:
        OSError: ESRCH when it is gone.

    Kernel: ``tgkill(2)``.
    """
    libc.syscall("tgkill", NR["tgkill"], tgid, tid, number)


def fork() -> int:
    """Returns a child's id, and 0 in the child, which has garbage collection off.

    In a process with other threads the child may only make plain calls: it must not import, take
    locks or allocate much, and has to leave by ``os._exit`` or exec.

    Raises:
        OSError: EAGAIN, ENOMEM.
    """
    # The child is to start with collection off: its first allocation could set it off, and with it
    # finalizers of the parent's objects. One thread at a time: another one would turn it on again
    # meanwhile, and the filters of warnings, which belong to the process, would be put back in the
    # wrong order.
    with _forking.lock:
        collecting = gc.isenabled()
        gc.disable()
        pid = -1
        try:
            with warnings.catch_warnings():
                # It is about other threads; see above for what the child leaves out.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
        finally:
            if collecting and pid != 0:
                gc.enable()
    return pid


class _Forking:
    # Reentrant, as a signal handler may fork. A child of the host's own begins with a new one: who
    # held it does not exist there.

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def renew(self) -> None:
        self.lock = threading.RLock()


_forking = _Forking()
os.register_at_fork(after_in_child=_forking.renew)


def kill(pid: int) -> None:
    """Sends SIGKILL to a process; does nothing when it is gone.

    Raises:
        OSError: EPERM.
    """
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def set_dumpable(flag: bool) -> None:
    """Says whether processes with our user id may trace us and read our memory.

    Kernel: ``PR_SET_DUMPABLE`` in ``prctl(2)``.
    """
    libc.prctl(abi.PR_SET_DUMPABLE, int(flag))


def is_dumpable() -> bool:
    """Returns whether :func:`set_dumpable` was last given true (the default)."""
    return libc.prctl(abi.PR_GET_DUMPABLE) == 1


def set_name(name: bytes) -> None:
    """Sets the name of the calling thread, at most 15 bytes.

    Kernel: ``PR_SET_NAME`` in ``prctl(2)``.
    """
    text = ctypes.create_string_buffer(name)
    libc.prctl(abi.PR_SET_NAME, ctypes.addressof(text))


def die_with_parent(number: int) -> None:
    """Asks the kernel to send us a signal when the thread that forked us ends.

    Kernel: ``PR_SET_PDEATHSIG`` in ``prctl(2)``.
    """
    libc.prctl(abi.PR_SET_PDEATHSIG, number)


def status_field(tid: int, name: bytes) -> bytes | None:
    """Returns one field of ``/proc/TID/status``, None when the task is gone.

    Args:
        tid: The task.
        name: The field's name, without the colon.

    Raises:
        OSError: It may not be read.

    Kernel: ``proc_pid_status(5)``.
    """
    fields = status_fields(tid, name)
    return None if fields is None else fields[0]


def tracer_of(tid: int) -> int | None:
    """Returns which thread traces a task, 0 for none; None when the task is gone.

    Raises:
        OSError: It may not be read.
    """
    tracer = status_field(tid, b"TracerPid")
    return None if tracer is None else int(tracer)


def status_fields(tid: int, *names: bytes) -> list[bytes] | None:
    """Returns fields of ``/proc/TID/status`` as of one moment, None when the task is gone.

    Args:
        tid: The task.
        *names: Their names, without the colon.

    Raises:
        OSError: It may not be read.

    Kernel: ``proc_pid_status(5)``.
    """
    try:
        status = os.open(f"/proc/{tid}/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # The text is made by the first read; it is some 1,500 bytes, more with many groups.
            text = os.read(status, _STATUS_BYTES)
            while not text.endswith(b"\n") and (more := os.read(status, _STATUS_BYTES)):
                text += more
        finally:
            os.close(status)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH):
            raise
        return None
    found = []
    for name in names:
        # The first field is Name, and no other follows a newline of the task's making.
        start = text.index(b"\n" + name + b":") + len(name) + 2
        found.append(text[start : text.index(b"\n", start)].strip())
    return found


def process_of(tid: int) -> int:
    """Returns the process that a thread belongs to; ``tid`` itself when it is gone."""
    return int(status_field(tid, b"Tgid") or tid)
