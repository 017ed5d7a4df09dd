"""A supervisor that does it the common wrong way: the control that every race test must see lose.

It is told of each path call through a seccomp listener, reads the path out of the caller's memory,
refuses it with EACCES when the path matches a glob, and otherwise tells the kernel to continue. The
kernel then reads the path a second time, and whoever shares the memory may have rewritten it.

    python tests/naive.py [--real] [--deny GLOB]... -- COMMAND...

With --real it matches the name that symbolic links lead to. Nothing here is careful beyond that: a
path that cannot be read is let through, relative paths are matched as they stand, and other system
call tables are killed.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import fnmatch
import os
import re
import select
import signal
import socket
import sys
from array import array
from typing import Final

from pinfold.linux import libc
from pinfold.syscalls.numbers import X86_64
from pinfold.uapi import bpf, prctl, seccomp
from pinfold.uapi.fs import PATH_MAX
from pinfold.uapi.mman import PAGE_SIZE

PATH_ARGUMENT: Final = {
    X86_64[name]: index
    for name, index in {
        "open": 0,
        "creat": 0,
        "openat": 1,
        "openat2": 1,
        "stat": 0,
        "lstat": 0,
        "newfstatat": 1,
        "statx": 1,
        "readlink": 0,
        "readlinkat": 1,
        "chdir": 0,
        "link": 0,
        "linkat": 1,
        "execve": 0,
    }.items()
}
"""Which argument of a trapped call is its path."""


def filter_program() -> bytes:
    """Returns the filter: notify for the calls in ``PATH_ARGUMENT``, allow the rest."""
    load = bpf.BPF_LD | bpf.BPF_W | bpf.BPF_ABS
    equal = bpf.BPF_JMP | bpf.BPF_JEQ | bpf.BPF_K
    give = bpf.BPF_RET | bpf.BPF_K
    program = [
        (load, 0, 0, 4),
        (equal, 1, 0, seccomp.AUDIT_ARCH_X86_64),
        (give, 0, 0, seccomp.SECCOMP_RET_KILL_PROCESS),
        (load, 0, 0, 0),
    ]
    for number in PATH_ARGUMENT:
        program += [(equal, 0, 1, number), (give, 0, 0, seccomp.SECCOMP_RET_USER_NOTIF)]
    program.append((give, 0, 0, seccomp.SECCOMP_RET_ALLOW))
    return b"".join(bpf.SOCK_FILTER.pack(*instruction) for instruction in program)


def become(command: list[str], handover: socket.socket, parent: int) -> None:
    """Puts this process under the filter, hands its listener over and executes ``command``."""
    program = array("B", filter_program())
    address, length = program.buffer_info()
    head = array("B", bpf.SOCK_FPROG.pack(length // bpf.SOCK_FILTER.size, address))
    libc.prctl(prctl.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    libc.prctl(prctl.PR_SET_NO_NEW_PRIVS, 1)
    listener = libc.syscall(
        "seccomp",
        X86_64["seccomp"],
        seccomp.SECCOMP_SET_MODE_FILTER,
        seccomp.SECCOMP_FILTER_FLAG_NEW_LISTENER,
        head.buffer_info()[0],
    )
    # From here on no path call may be made, not even by an import, before the listener is away.
    handover.sendmsg([b"L"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [listener]))])
    handover.close()
    os.close(listener)
    os.execvp(command[0], command)


class Reader:
    """Reads NUL-terminated paths out of another process."""

    def __init__(self) -> None:
        self._bytes = array("B", bytes(PATH_MAX))
        self._here = array("Q", [self._bytes.buffer_info()[0], 0])
        self._there = array("Q", [0, 0])

    def path(self, tid: int, address: int) -> bytes:
        """Returns the path at ``address``, cut short where memory ends."""
        found = b""
        while len(found) < PATH_MAX and b"\0" not in found:
            start = address + len(found)
            size = min(PAGE_SIZE - start % PAGE_SIZE, PATH_MAX - len(found))
            self._here[1] = self._there[1] = size
            self._there[0] = start
            try:
                count = libc.syscall(
                    "process_vm_readv",
                    X86_64["process_vm_readv"],
                    tid,
                    self._here.buffer_info()[0],
                    1,
                    self._there.buffer_info()[0],
                    1,
                )
            except OSError:
                break
            found += self._bytes[:count].tobytes()
        return found.partition(b"\0")[0]


class Supervisor:
    """Answers one listener's notifications."""

    def __init__(self, listener: int, globs: list[str], *, real: bool = False) -> None:
        self.listener = listener
        self._real = real
        self._denied = re.compile("|".join(fnmatch.translate(glob) for glob in globs) or r"(?!)")
        self._reader = Reader()
        self._request = bytearray(seccomp.SECCOMP_NOTIF.size)

    def answer(self) -> None:
        """Receives one notification and answers it."""
        request = self._request
        request[:] = bytes(len(request))
        try:
            fcntl.ioctl(self.listener, seccomp.SECCOMP_IOCTL_NOTIF_RECV, request)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # the caller died or took a signal
                return
            raise
        ident, tid, _, number, _, _, *arguments = seccomp.SECCOMP_NOTIF.unpack(request)
        path = self._reader.path(tid, arguments[PATH_ARGUMENT[number]])
        if self._real:
            path = os.path.realpath(os.path.join(b"/proc/%d/cwd" % tid, path))
        failure, flags = 0, seccomp.SECCOMP_USER_NOTIF_FLAG_CONTINUE
        if self._denied.match(os.fsdecode(path)):
            failure, flags = -errno.EACCES, 0
        reply = bytearray(seccomp.SECCOMP_NOTIF_RESP.pack(ident, 0, failure, flags))
        try:
            fcntl.ioctl(self.listener, seccomp.SECCOMP_IOCTL_NOTIF_SEND, reply)
        except OSError as error:
            if error.errno != errno.ENOENT:  # the caller died or took a signal
                raise


def start(command: list[str]) -> tuple[int, int]:
    """Returns the child's process id and its listener."""
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            ours.close()
            become(command, theirs, parent)
        except OSError as error:
            print(f"naive: {command[0]}: {error}", file=sys.stderr)
        finally:
            os._exit(127)
    theirs.close()
    with ours:
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        os.waitpid(child, 0)
        sys.exit("naive: no listener arrived")
    os.set_inheritable(descriptors[0], False)
    return child, descriptors[0]


def supervise(command: list[str], globs: list[str], *, real: bool = False) -> int:
    """Runs ``command`` and returns its exit status, 128 + N where signal N ended it.

    The end of the first process ends the supervision; what it left running gets ENOSYS after that.
    """
    child, listener = start(command)
    supervisor = Supervisor(listener, globs, real=real)
    fcntl.ioctl(
        listener, seccomp.SECCOMP_IOCTL_NOTIF_SET_FLAGS, seccomp.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
    )
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(ended, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if ready.get(listener, 0) & select.POLLIN:
            supervisor.answer()
        elif ended in ready:
            break
        elif listener in ready:  # hung up: the last task under the filter is gone
            poll.unregister(listener)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status


def main() -> int:
    """Reads the command line and supervises."""
    parser = argparse.ArgumentParser(description="a supervisor that loses every race on purpose")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--deny", action="append", default=[], metavar="GLOB")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("no command")
    return supervise(command, options.deny, real=options.real)


if __name__ == "__main__":
    sys.exit(main())
