"""What this machine can do for pinfold, found out by doing it.

Distributions backport, containers filter, security modules refuse: neither the kernel's release nor
its configuration tells whether a call will work here. So each probe does what ``pinfold run`` does,
in a child of its own, since a filter or a seal cannot be taken back. The last one runs a program
through the whole of it.

A probe's child reports over a pipe and is then of no more use: it is killed and reaped by its
process id whether it reported, died or hung, and its own children die with it.

The file is long because a third of it is the table of probes, which says what each lack costs.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import mmap
import os
import select
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from pinfold import bpf
from pinfold.errors import PinfoldError
from pinfold.launch import choice, filters
from pinfold.launch.spawn import Command
from pinfold.linux import landlock, libc, memfd, process, ptrace, redirect, seccomp
from pinfold.linux.maps import MapsQuery, open_maps
from pinfold.listener import Listener
from pinfold.pins.pin import Pin
from pinfold.policy.rules import PathRules
from pinfold.session import Limits, Session
from pinfold.supervisor.loop import OPTIONS
from pinfold.syscalls.numbers import X86_64 as NR
from pinfold.uapi import mman
from pinfold.uapi import seccomp as abi
from pinfold.uapi.prctl import PR_SET_NO_NEW_PRIVS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OK: Final = "ok"
DEGRADED: Final = "degraded"
MISSING: Final = "missing"

_SECONDS: Final = 10
_TRIAL_SECONDS: Final = 30
_NEVER: Final = b"/pinfold-doctor/no/such/name"
_TRAPPED: Final = NR["getppid"]
"""The call that probes bring to a listener; nothing makes it unasked."""
_NATIVE: Final = "native-run"
_ONLY_TO_TRACE: Final = frozenset({"mseal", "procmap-query", "ptrace"})
"""Probes of what the native back end does not need."""
_LANDLOCK_REFER: Final = 2
_LANDLOCK_SCOPE: Final = 6


class Probe(NamedTuple):
    """What one probe found."""

    name: str
    how: str
    """How it was tried."""
    status: str
    """``OK``, ``DEGRADED`` or ``MISSING``."""
    detail: str
    cost: str
    """What the lack costs; empty where nothing lacks."""
    remedy: str
    """What to do about it; empty where nothing lacks."""
    required: bool
    """Whether ``pinfold run`` cannot do without it."""


class Report(NamedTuple):
    """All that was found."""

    kernel: str
    machine: str
    probes: tuple[Probe, ...]

    @property
    def lacking(self) -> list[str]:
        """What ``pinfold run`` cannot do without, and has not, by the probes' names."""
        native = self._has(_NATIVE)
        return [
            probe.name
            for probe in self.probes
            if probe.required
            and probe.status != OK
            and not (native and probe.name in _ONLY_TO_TRACE)
        ]

    def _has(self, name: str) -> bool:
        return any(probe.name == name and probe.status == OK for probe in self.probes)

    @property
    def ok(self) -> bool:
        """Whether ``pinfold run`` will work."""
        return not self.lacking

    @property
    def backend(self) -> str | None:
        """The back end that ``pinfold run`` takes where it can, None where it will not work."""
        if not self.ok:
            return None
        return choice.NATIVE if self._has(_NATIVE) else choice.TRACE

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as what ``pinfold doctor --json`` prints."""
        return {
            "ok": self.ok,
            "backend": self.backend,
            "kernel": self.kernel,
            "machine": self.machine,
            "probes": [
                {
                    "name": probe.name,
                    "status": probe.status,
                    "detail": probe.detail,
                    "cost": probe.cost,
                    "remedy": probe.remedy,
                    "required": probe.required,
                }
                for probe in self.probes
            ],
        }


class Trial(NamedTuple):
    """How one thing is probed."""

    name: str
    how: str
    body: Callable[[], str]
    """Runs in a child; returns the detail, or raises :class:`Lack`."""
    cost: str
    remedy: str
    required: bool = False
    seconds: float = _SECONDS
    """How long it may take."""


class Lack(Exception):  # noqa: N818 (a finding, not an error)
    """What a trial's body raises when the thing is not there, or not whole.

    Args:
        detail: What happened.
        remedy: Replaces the trial's remedy, where what happened tells more.
        status: ``MISSING`` or ``DEGRADED``.
    """

    def __init__(self, detail: str, remedy: str = "", status: str = MISSING) -> None:
        super().__init__(detail)
        self.remedy = remedy
        self.status = status


def examine() -> Report:
    """Returns what this machine can do.

    Preconditions: SIGCHLD is not ignored, or children could not be waited for.

    Raises:
        OSError: fork or pipe failed.
    """
    host = os.uname()
    # Call numbers and register layouts are those of one machine: elsewhere nothing more is tried.
    trials = TRIALS if host.machine == "x86_64" else TRIALS[:2]
    return Report(host.release, host.machine, tuple(probe(trial) for trial in trials))


def probe(trial: Trial) -> Probe:
    """Returns what one trial finds, in a child that is gone afterwards.

    Raises:
        OSError: fork or pipe failed.
    """
    status, detail, remedy = _in_child(trial.body, trial.seconds)
    if status == OK:
        return Probe(trial.name, trial.how, OK, detail, "", "", trial.required)
    return Probe(
        trial.name, trial.how, status, detail, trial.cost, remedy or trial.remedy, trial.required
    )


def _in_child(body: Callable[[], str], seconds: float) -> tuple[str, str, str]:
    # Returns status, detail and a remedy of its own, if any.
    reader, writer = os.pipe()
    try:
        pid = os.fork()
        if pid == 0:
            _tell(body, writer)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    told: bytes | None = None
    try:
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        if poll.poll(seconds * 1000):
            told = os.read(reader, select.PIPE_BUF)
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        _, ended = os.waitpid(pid, 0)
    if told is None:
        return MISSING, f"no answer within {seconds:g} seconds", ""
    if not told:
        what = signal.strsignal(os.WTERMSIG(ended)) if os.WIFSIGNALED(ended) else "no reason"
        return MISSING, f"its process was ended ({what}) when it tried", ""
    status, detail, remedy = json.loads(told)
    return status, detail, remedy


def _tell(body: Callable[[], str], writer: int) -> NoReturn:
    # In the child. It must not return into the caller's frames or run the caller's cleanup.
    try:
        for number in (signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        process.die_with_parent(signal.SIGKILL)
        try:
            libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
            found = (OK, body(), "")
        except Lack as lack:
            found = (lack.status, str(lack), lack.remedy)
        except OSError as error:
            found = (MISSING, error.strerror or str(error), "")
        except Exception as error:  # noqa: BLE001 (a bug in a probe is a finding too)
            found = (MISSING, f"{type(error).__name__}: {error}", "")
        status, detail, remedy = found
        # One write of less than PIPE_BUF bytes is whole, and cannot block on an empty pipe.
        os.write(writer, json.dumps((status, detail[:500], remedy)).encode())
    finally:
        os._exit(0)


@contextlib.contextmanager
def _partner(work: Callable[[], bool]) -> Iterator[int]:
    # A child of a probe's child; dead and reaped on leaving, whatever happened.
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            process.die_with_parent(signal.SIGKILL)
            # As a supervised program is; a change of user ids takes it away.
            process.set_dumpable(True)
            code = 0 if work() else 1
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _succeeded(partner: int) -> bool:
    # WNOWAIT: it is reaped where it was made.
    end = os.waitid(os.P_PID, partner, os.WEXITED | os.WNOWAIT)
    return end is not None and end.si_code == os.CLD_EXITED and end.si_status == 0


@functools.cache
def _program() -> seccomp.FilterProgram:
    code = filters.assembled({_TRAPPED: [bpf.Case((), abi.SECCOMP_RET_USER_NOTIF)]})
    return seccomp.FilterProgram(code)


def _listener(flags: int = 0) -> int:
    try:
        return _program().install(abi.SECCOMP_FILTER_FLAG_NEW_LISTENER | flags)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise Lack(
            "EBUSY: inside a sandbox that holds a listener, and the kernel allows one in a chain",
            "run pinfold outside that sandbox, or switch off what makes it hold a listener",
        ) from error


def _kernel() -> str:
    return os.uname().release


def _machine() -> str:
    machine = os.uname().machine
    if machine != "x86_64":
        raise Lack(f"{machine}; nothing else was tried")
    return machine


def _user_notification() -> str:
    _listener()
    return "a filter with a listener was installed"


def _continue() -> str:
    listener = _listener()
    us = os.getpid()
    with _partner(lambda: libc.syscall("getppid", _TRAPPED) == us) as partner:
        cookie = seccomp.receive(listener).id
        seccomp.send(listener, cookie, flags=abi.SECCOMP_USER_NOTIF_FLAG_CONTINUE)
        if not _succeeded(partner):
            raise Lack("the continued call did not run")
    return "a call was received and continued"


def _addfd() -> str:
    listener = _listener()
    ours = memfd.create("pinfold-doctor", mman.PAGE_SIZE)

    def take() -> bool:
        theirs = libc.syscall("getppid", _TRAPPED)
        return theirs != ours and os.path.sameopenfile(theirs, ours)

    with _partner(take) as partner:
        cookie = seccomp.receive(listener).id
        flags = abi.SECCOMP_ADDFD_FLAG_SEND
        seccomp.add_descriptor(listener, cookie, ours, newfd_flags=os.O_CLOEXEC, flags=flags)
        if not _succeeded(partner):
            raise Lack("the descriptor did not arrive")
    return "a memfd was handed over in the reply to a call"


def _sync_wake_up() -> str:
    try:
        seccomp.set_flags(_listener(), abi.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
    except OSError as error:
        raise Lack(f"SET_FLAGS: {error.strerror}") from error
    return "the listener took the flag"


def _wait_killable() -> str:
    _listener(abi.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
    return "the filter took the flag"


def _redirecting() -> int:
    # A later revision of the interface wants a filter flag that other kernels refuse.
    try:
        return _listener(abi.SECCOMP_FILTER_FLAG_REDIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return _listener()


def _native_ioctls() -> str:
    listener = _redirecting()
    found = redirect.known_requests(listener)
    if not found:
        unknown = redirect.unknown_answer(listener)
        raise Lack(f"{errno.errorcode.get(unknown, unknown)}, as for a request that does not exist")
    if redirect.revision_of(found) is None:
        raise Lack(f"only {', '.join(found)}", status=DEGRADED)
    return ", ".join(found)


def _native_run() -> str:
    lack = choice.lack()
    if lack is not None:
        raise Lack(lack)
    return "runs that ask for nothing that takes a tracer need none"


def has_native() -> bool:
    """Returns whether this kernel has the two ioctls, so that the native back end works here."""
    return _in_child(_native_ioctls, _SECONDS)[0] == OK


def _page() -> int:
    flags = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS
    return libc.syscall("mmap", NR["mmap"], 0, mman.PAGE_SIZE, mman.PROT_READ, flags, -1, 0)


def _mseal() -> str:
    page = _page()
    libc.syscall("mseal", NR["mseal"], page, mman.PAGE_SIZE, 0)
    try:
        libc.syscall("munmap", NR["munmap"], page, mman.PAGE_SIZE)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        return "a sealed page could not be unmapped"
    raise Lack("a sealed page could be unmapped")


def _procmap_query() -> str:
    page = _page()
    try:
        maps = open_maps(os.getpid())
    except OSError as error:
        raise Lack(f"/proc/PID/maps: {error.strerror}", "mount /proc") from error
    try:
        found = MapsQuery().at(maps, page)
    except OSError as error:
        raise Lack(errno.errorcode.get(error.errno or 0, str(error))) from error
    if found is None or not found.start <= page < found.end:
        raise Lack("the answer does not fit a page that was just mapped")
    return "a page that was just mapped was found"


def _ptrace() -> str:
    reader, writer = os.pipe()

    def wait() -> bool:
        process.set_dumpable(True)
        os.write(writer, b"R")
        signal.pause()
        return True

    with _partner(wait) as partner:
        os.read(reader, 1)
        try:
            ptrace.seize(partner, OPTIONS)
        except OSError as error:
            raise _no_tracing(error, partner) from error
    return "a child was seized"


def _no_tracing(error: OSError, child: int) -> Lack:
    if error.errno != errno.EPERM:
        return Lack(error.strerror or str(error))
    tracer = _field(f"/proc/{child}/status", "TracerPid:")
    if tracer not in {"", "0"}:
        return Lack(
            f"EPERM: process {tracer} traces the child already",
            "run pinfold outside the debugger, or under a strace that does not follow children",
        )
    scope = _text("/proc/sys/kernel/yama/ptrace_scope")
    if scope in {"2", "3"}:
        remedy = "`sysctl kernel.yama.ptrace_scope=1`"
        if scope == "3":
            remedy += " (from 3 it takes a reboot to change)"
        return Lack(f"EPERM: kernel.yama.ptrace_scope is {scope}", remedy)
    known = f"kernel.yama.ptrace_scope is {scope}, which allows it" if scope else "no Yama here"
    return Lack(f"EPERM: a seccomp filter or security module refuses it ({known})")


def _text(path: str) -> str:
    # Empty where there is no such file, or it is not for us.
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace").strip()
    except (FileNotFoundError, PermissionError):
        return ""


def _field(path: str, key: str) -> str:
    lines = _text(path).splitlines()
    return next((line[len(key) :].strip() for line in lines if line.startswith(key)), "")


def _landlock() -> str:
    version = landlock.abi()
    if version < _LANDLOCK_REFER:
        raise Lack(f"ABI {version}" if version else "no Landlock")
    if version < _LANDLOCK_SCOPE:
        raise Lack(
            f"ABI {version}, signals are covered from {_LANDLOCK_SCOPE} on",
            "a kernel with Landlock ABI 6 (Linux 6.12)",
            DEGRADED,
        )
    return f"ABI {version}"


def _listener_redirect() -> str:
    us = os.getpid()
    with (
        Pin(mman.PAGE_SIZE) as pin,
        Listener(_redirecting()) as listener,
        _partner(lambda: libc.syscall("getppid", _TRAPPED) == us) as partner,
    ):
        call = listener.receive(_SECONDS / 2)
        try:
            base = listener.pin_install(call.id, pin.fd, 0, pin.size)
            listener.send_redirect(call.id, {0: base}, {0: 1})
        except OSError as error:
            raise Lack(error.strerror or str(error)) from error
        if not _succeeded(partner):
            raise Lack("the redirected call did not run")
    return f"a call was pinned and redirected, back end {listener.backend}"


def _memfd_seals() -> str:
    fd = memfd.create("pinfold-doctor", mman.PAGE_SIZE)
    ours = mmap.mmap(fd, mman.PAGE_SIZE)
    memfd.seal(fd, memfd.PIN_SEALS)
    ours[0] = 1
    if os.pread(fd, 1, 0) != b"\1":
        raise Lack("what the first mapping wrote did not show")
    for attempt in (lambda: mmap.mmap(fd, mman.PAGE_SIZE), lambda: os.pwrite(fd, b"\2", 0)):
        try:
            attempt()
        except PermissionError:
            continue
        raise Lack("a sealed memfd could be written")
    return "F_SEAL_FUTURE_WRITE leaves our mapping, and no other, writable"


def _memfd_exec() -> str:
    level = _text("/proc/sys/vm/memfd_noexec")
    setting = f"vm.memfd_noexec is {level}" if level else "no vm.memfd_noexec"
    flags = mman.MFD_CLOEXEC | mman.MFD_ALLOW_SEALING
    try:
        try:
            fd = os.memfd_create("pinfold-doctor", flags | mman.MFD_EXEC)
        except OSError as error:
            if error.errno != errno.EINVAL:  # before 6.3 every memfd was executable
                raise
            fd = os.memfd_create("pinfold-doctor", flags)
        os.ftruncate(fd, mman.PAGE_SIZE)
        mmap.mmap(fd, mman.PAGE_SIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_EXEC).close()
    except OSError as error:
        raise Lack(f"{setting}: {error.strerror}") from error
    return setting


def _trial_run() -> str:
    true = shutil.which("true")
    argv = (true,) if true is not None else (sys.executable, "-I", "-S", "-c", "")
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    session = Session(
        Command(
            tuple(os.fsencode(word) for word in argv),
            dict(os.environb),
            streams=(null, null, null),
        ),
        PathRules([], [_NEVER]),
        Limits(),
        backend=choice.AUTO,
    )
    session.start()
    try:
        outcome = session.result()
    except PinfoldError as error:
        raise Lack(str(error)) from error
    if outcome.status or outcome.denied or not outcome.trapped:
        raise Lack(
            f"{argv[0]}: wait status {outcome.status:#x}, {outcome.trapped} calls judged,"
            f" {outcome.denied} denied"
        )
    return f"{argv[0]}: {outcome.trapped} path calls judged and pinned, back end {session.backend}"


_NEW_KERNEL: Final = "a kernel of Linux 6.12 or newer"
_NOTIFY_REMEDY: Final = (
    "a kernel with CONFIG_SECCOMP_FILTER; in a container, a seccomp profile that lets `seccomp`"
    " through"
)

TRIALS: Final = (
    Trial("kernel", "uname", _kernel, "", ""),
    Trial(
        "machine",
        "uname",
        _machine,
        "pinfold does not run: it knows registers and call numbers of x86_64 only",
        "an x86_64 machine",
        True,
    ),
    Trial(
        "user-notification",
        "installed a filter with SECCOMP_FILTER_FLAG_NEW_LISTENER",
        _user_notification,
        "pinfold does not run: no memfd gets into a program, and a filter of the program's own"
        " could answer in our place",
        _NOTIFY_REMEDY,
        True,
    ),
    Trial(
        "notify-addfd",
        "answered a call with SECCOMP_IOCTL_NOTIF_ADDFD and FLAG_SEND",
        _addfd,
        "pinfold does not run: no memfd gets into a program",
        _NEW_KERNEL,
        True,
    ),
    Trial(
        "notify-continue",
        "answered a call with SECCOMP_USER_NOTIF_FLAG_CONTINUE",
        _continue,
        "nothing for `pinfold run`; no redirect over a listener",
        _NEW_KERNEL,
    ),
    Trial(
        "sync-wake-up",
        "set SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP with SET_FLAGS",
        _sync_wake_up,
        "a notification may wake the supervisor on another CPU, which takes some tens of"
        " microseconds more",
        _NEW_KERNEL,
    ),
    Trial(
        "wait-killable",
        "installed a filter with SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        _wait_killable,
        "nothing for `pinfold run` where it traces",
        _NEW_KERNEL,
    ),
    Trial(
        "native-ioctls",
        "sent PIN_INSTALL and SEND_REDIRECT for a notification that does not exist",
        _native_ioctls,
        "little: pinfold uses ptrace instead, which is slower",
        "none needed: no released kernel has them",
    ),
    Trial(
        _NATIVE,
        "asked for the filter's flag, Landlock's scope of signals, Yama, and our rights",
        _native_run,
        "little: `pinfold run` traces instead, which is slower, and no program in it can be traced",
        "none needed: no released kernel has the two requests",
    ),
    Trial(
        "mseal",
        "sealed a page and tried to unmap it",
        _mseal,
        "pinfold does not run: a program could replace what its arguments were pinned in",
        "a kernel with mseal (Linux 6.10); in a container, a seccomp profile that knows the call",
        True,
    ),
    Trial(
        "procmap-query",
        "asked an open /proc/PID/maps about a page",
        _procmap_query,
        "pinfold does not run: it could not verify a pin before each use",
        "a kernel with PROCMAP_QUERY (Linux 6.11)",
        True,
    ),
    Trial(
        "ptrace",
        "seized a child with PTRACE_SEIZE",
        _ptrace,
        "pinfold does not run: it cannot point a program's call at a pin",
        "in a container, start it with `--cap-add=SYS_PTRACE`; elsewhere, let the service's or"
        " sandbox's profile permit ptrace",
        True,
    ),
    Trial(
        "listener-redirect",
        "pinned and redirected a call of another process with pinfold.Listener",
        _listener_redirect,
        "nothing for `pinfold run`; pinfold.Listener can receive and answer, but not redirect",
        "see to mseal, procmap-query and ptrace first; under Yama (kernel.yama.ptrace_scope of 1 or"
        " more) it takes CAP_SYS_PTRACE",
    ),
    Trial(
        "landlock",
        "asked for the ABI version",
        _landlock,
        "COMMAND can signal the supervisor, and so stop or kill it; without Landlock --ro and --rw"
        " are refused, too",
        "a kernel with CONFIG_SECURITY_LANDLOCK, booted with `landlock` in `lsm=`; in a container,"
        " a seccomp profile that lets its calls through",
    ),
    Trial(
        "memfd-seals",
        "sealed a memfd and tried to write it",
        _memfd_seals,
        "pinfold does not run: a program could rewrite its pinned arguments",
        _NEW_KERNEL,
        True,
    ),
    Trial(
        "memfd-exec",
        "made an executable memfd and mapped it",
        _memfd_exec,
        "a redirected call cannot return through code in the pin, and so takes two stops, not one",
        "`sysctl vm.memfd_noexec=1` (2 forbids executable memfds)",
    ),
    Trial(
        "trial-run",
        "ran a program under a rule that never matches, as `pinfold run` would",
        _trial_run,
        "pinfold does not run",
        "see to the other required probes first; if they are all ok, report this as a bug",
        True,
        _TRIAL_SECONDS,
    ),
)
"""Every probe, cheap ones and preconditions first; the first two say what machine this is."""
