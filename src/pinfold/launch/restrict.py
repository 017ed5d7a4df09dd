"""What the supervisor of the command line gives up for good once COMMAND's process is there.

From then on `pinfold run` waits, reads, judges and writes its log. It starts no program, speaks to
nobody over a network, traces nobody else, changes no identity, mount, clock or kernel. A filter of
its own says so: whoever finds a way to make this process run code of theirs is left with little,
and whoever tries more ends it. The end of the supervisor is the end of the sandbox.

The filter is a list of what is refused, not of what is used: the interpreter and the C library
choose their calls themselves, and other versions of them choose other ones. Refused is what can
have no place here. Three are answered and do not kill, since libraries try them: `socket` (the
name service asks for a cache daemon), `seccomp` and `clone3` (the C library goes back to `clone`,
whose flags a filter can see).

What stays possible has a use: opens for writing (a learned policy, cached byte code), signals to
any process of the same user (COMMAND's), `process_vm_writev` (how many bytes a message of a batch
had), `fork` (the bell), memory that is executable (extension modules).

A process that uses pinfold as a library belongs to somebody else, and is never restricted.
"""

from __future__ import annotations

import errno
from typing import Final

from pinfold import bpf
from pinfold.errors import LaunchError
from pinfold.launch.filters import assembled
from pinfold.linux import libc, seccomp
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import prctl as prctl_abi
from pinfold.uapi import ptrace as ptrace_abi
from pinfold.uapi import seccomp as abi

KILLED: Final = (
    # Starting programs, and reaching into processes that are none of ours.
    *("execve", "execveat", "process_madvise", "pidfd_getfd", "kcmp"),
    # Sockets; `socketpair` reaches nobody, and event loops want one.
    *("connect", "bind", "listen", "accept", "accept4"),
    # Other identities.
    *("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid"),
    *("setgroups", "capset", "personality"),
    # Namespaces, mounts and roots.
    *("unshare", "setns", "chroot", "pivot_root", "mount", "umount2", "open_tree", "move_mount"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "swapon", "swapoff"),
    *("quotactl", "quotactl_fd", "uselib"),
    # Files by handle, devices, owners and further names.
    *("open_by_handle_at", "name_to_handle_at", "fanotify_init", "mknod", "mknodat"),
    *("chown", "fchown", "lchown", "fchownat", "link", "linkat", "symlink", "symlinkat"),
    # Ways into the kernel.
    *("bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter"),
    *("io_uring_register", "add_key", "request_key", "keyctl", "init_module", "finit_module"),
    *("delete_module", "kexec_load", "kexec_file_load", "iopl", "ioperm", "modify_ldt"),
    # The machine.
    *("reboot", "acct", "syslog", "sethostname", "setdomainname", "vhangup"),
    *("settimeofday", "clock_settime", "adjtimex", "clock_adjtime"),
)
"""Calls that end the supervisor."""

ANSWERED: Final = {"socket": errno.EPERM, "seccomp": errno.EPERM, "clone3": errno.ENOSYS}
"""Calls that fail."""

REQUESTS: Final = (
    # The most frequent ones first: the filter compares in this order.
    *(ptrace_abi.PTRACE_CONT, ptrace_abi.PTRACE_SYSCALL, ptrace_abi.PTRACE_GETREGS),
    ptrace_abi.PTRACE_SETREGSET,
    *(ptrace_abi.PTRACE_POKEUSER, ptrace_abi.PTRACE_SETREGS, ptrace_abi.PTRACE_GETEVENTMSG),
    *(ptrace_abi.PTRACE_SINGLESTEP, ptrace_abi.PTRACE_GETSIGINFO, ptrace_abi.PTRACE_SETSIGINFO),
    *(ptrace_abi.PTRACE_GETSIGMASK, ptrace_abi.PTRACE_SETSIGMASK, ptrace_abi.PTRACE_LISTEN),
)
"""What may be asked of a tracee. Tasks of the sandbox are attached by the kernel, nobody by us."""

_NAMESPACES: Final = (
    prctl_abi.CLONE_NEWNS
    | prctl_abi.CLONE_NEWCGROUP
    | prctl_abi.CLONE_NEWUTS
    | prctl_abi.CLONE_NEWIPC
    | prctl_abi.CLONE_NEWUSER
    | prctl_abi.CLONE_NEWPID
    | prctl_abi.CLONE_NEWNET
)
_OPTIONS: Final = (prctl_abi.PR_SET_MM, prctl_abi.PR_SET_PTRACER)
_LOW: Final = 0xFFFFFFFF
_KILL: Final = bpf.Case((), abi.SECCOMP_RET_KILL_PROCESS)


def prepare(*, traces: bool = True) -> seccomp.FilterProgram:
    """Returns the filter, to be made before there is a COMMAND to keep waiting.

    Args:
        traces: Whether this process traces. Else it may not.
    """
    return seccomp.FilterProgram(code(traces=traces))


def code(*, traces: bool = True) -> bytes:
    """Returns the filter as ``struct sock_filter`` bytes.

    Args:
        traces: As for :func:`prepare`.
    """
    cases: dict[int, list[bpf.Case]] = {NR[name]: [_KILL] for name in KILLED}
    for name, number in ANSWERED.items():
        cases[NR[name]] = [bpf.Case((), abi.SECCOMP_RET_ERRNO | number)]
    # The upper halves can be left out: with a bit there, a request is none that the kernel knows.
    cases[NR["ptrace"]] = [
        *(_when(0, _LOW, one, abi.SECCOMP_RET_ALLOW) for one in (REQUESTS if traces else ())),
        _KILL,
    ]
    cases[NR["clone"]] = [_when(0, _NAMESPACES, 0, abi.SECCOMP_RET_ALLOW), _KILL]
    cases[NR["prctl"]] = [
        _when(0, _LOW, option, abi.SECCOMP_RET_KILL_PROCESS) for option in _OPTIONS
    ]
    return assembled(cases)


def _when(argument: int, mask: int, value: int, action: int) -> bpf.Case:
    return bpf.Case((bpf.Arg(argument, mask, value),), action)


def restrict(program: seccomp.FilterProgram) -> None:
    """Puts all threads of this process under a filter of :func:`prepare`, for good.

    Raises:
        LaunchError: The kernel refuses; then nothing may be run.
    """
    # The kernel's mitigations of speculation are for programs that are not trusted.
    flags = (
        abi.SECCOMP_FILTER_FLAG_TSYNC
        | abi.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
        | abi.SECCOMP_FILTER_FLAG_SPEC_ALLOW
    )
    try:
        libc.prctl(prctl_abi.PR_SET_NO_NEW_PRIVS, 1)
        program.install(flags)
    except OSError as error:
        raise LaunchError(f"cannot restrict pinfold itself: {error}", 125) from error
