"""``pinfold trace``."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final

import click

from pinfold.audit import lines
from pinfold.cli import options
from pinfold.cli.runner import Runner
from pinfold.codec.sockaddr import Sockaddr, Unix
from pinfold.errors import AuditError, PolicyError
from pinfold.paths import normalise
from pinfold.policy.globs import GlobSet
from pinfold.policy.rules import PathRules
from pinfold.session import Limits, Session
from pinfold.syscalls.groups import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pinfold.audit.record import Entry
    from pinfold.launch.spawn import Command

_COLUMN: Final = 8


@click.command(
    "trace",
    **options.SETTINGS,
)
@click.option("-o", "output", metavar="FILE", help="Write to FILE and not to standard error.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object a line.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="GROUP",
    help="Show only the calls of a group (open, exec, connect, ...), or of a name.",
)
@click.option(
    "--path", "paths", multiple=True, metavar="GLOB", help="Show only calls about such names."
)
@click.option("--failed", is_flag=True, help="Show only calls that failed.")
@click.option(
    "-s",
    "limit",
    type=click.IntRange(min=0),
    default=lines.STRING_SHOWN,
    show_default=True,
    metavar="N",
    help="Show N bytes of a string; paths are always shown whole.",
)
@click.option(
    "-c", "--summary", is_flag=True, help="Show no calls, but how many of each there were."
)
@options.keep_caps
@options.cpu
@options.argv
def command(
    output: str | None,
    as_json: bool,
    groups: Sequence[str],
    paths: Sequence[str],
    failed: bool,
    limit: int,
    summary: bool,
    keep_caps: bool,
    cpu: str,
    argv: Sequence[str],
) -> int:
    """Run COMMAND and show its calls, with the arguments that the kernel used.

    Everything is allowed, and every argument that a policy could ask about is pinned: what is shown
    is not what the program's memory held at some moment, but what the kernel acted on. A call is
    shown when it is over; the options choose what is shown, not what is pinned.

    \b
    Examples:
      pinfold trace -- ls
      pinfold trace --group exec --group connect -- make
      pinfold trace --failed --path '/etc/**' -- git status

    The exit status is COMMAND's own, as for `pinfold run`.
    """  # noqa: D301 (click takes a backspace character for "keep these lines as they are")
    if not argv:
        raise click.UsageError("no COMMAND given")
    chosen = _Choice(groups, paths, failed=failed)
    stream = _Stream.open(output)
    try:
        style = lines.Style(limit, colour=stream.is_terminal and not os.environ.get("NO_COLOR"))
        trace = _Trace(chosen, stream, _record if as_json else _text(style), quiet=summary)

        def session(given: Command, **callbacks: Any) -> Session:
            return Session(
                given,
                PathRules([], []),
                Limits(keep_caps=keep_caps),
                inspect_all=True,
                cpu=cpu,
                sink=trace.begin,
                results=trace.end,
                **callbacks,
            )

        status = Runner(argv, session).run()
        trace.finish()
        if summary:
            stream.write(trace.table())
    finally:
        stream.close()
    return status


class _Choice:
    # Which calls are shown.

    def __init__(self, groups: Iterable[str], paths: Sequence[str], *, failed: bool) -> None:
        self._calls = {name for word in groups for name in names(word)}
        try:
            self._globs = GlobSet([os.fsencode(path) for path in paths]) if paths else None
        except PolicyError as error:
            raise PolicyError(f"--path: {error}") from error
        self._failed = failed

    def begins(self, entry: Entry) -> bool:
        if self._calls and entry.row.name not in self._calls:
            return False
        globs = self._globs
        return globs is None or any(globs.match(name) >= 0 for name in _names(entry))

    def ended(self, result: int | None) -> bool:
        return not self._failed or lines.error_of(result) != 0


def _names(entry: Entry) -> Iterator[bytes]:
    yield from (path.name for path in entry.paths if path.name)
    for value in entry.others.values():
        address = value.address if isinstance(value, Sockaddr) else getattr(value, "name", None)
        if isinstance(address, Unix) and address.path.startswith(b"/"):
            yield normalise(address.path)


class _Trace:
    # Calls that have begun and not ended, by task; and what was counted.

    def __init__(
        self,
        choice: _Choice,
        stream: _Stream,
        show: Callable[[Entry], Callable[[int | None], str]],
        *,
        quiet: bool,
    ) -> None:
        self._choice = choice
        self._stream = stream
        self._show = show
        self._quiet = quiet
        self._open: dict[int, tuple[Entry, Callable[[int | None], str]]] = {}
        self._counts: dict[str, list[int]] = {}

    def begin(self, entry: Entry) -> None:
        """Notes a call that is about to be made: what is pinned can be read now, and only now."""
        before = self._open.pop(entry.tid, None)
        if before is not None:
            self._ended(*before, None)
        if self._choice.begins(entry):
            self._open[entry.tid] = entry, _unseen if self._quiet else self._show(entry)

    def end(self, entry: Entry, result: int | None) -> None:
        """Shows a call that is over."""
        found = self._open.pop(entry.tid, None)
        if found is not None:
            self._ended(*found, result)

    def finish(self) -> None:
        """Shows the calls that never ended."""
        for found in self._open.values():
            self._ended(*found, None)
        self._open.clear()

    def _ended(self, entry: Entry, show: Callable[[int | None], str], result: int | None) -> None:
        if not self._choice.ended(result):
            return
        counts = self._counts.setdefault(entry.row.name, [0, 0])
        counts[0] += 1
        counts[1] += lines.error_of(result) != 0
        if not self._quiet:
            self._stream.write(show(result))

    def table(self) -> str:
        """Returns how many calls of each name there were, and how many of them failed."""
        rows = sorted(self._counts.items(), key=lambda item: (-item[1][0], item[0]))
        total = [sum(counts[at] for counts in self._counts.values()) for at in (0, 1)]
        shown = [
            f"{calls:>{_COLUMN}} {errors or '':>{_COLUMN}} {name}"
            for name, (calls, errors) in [*rows, ("total", total)]
        ]
        head = f"{'calls':>{_COLUMN}} {'errors':>{_COLUMN}} call"
        return "\n".join([head, *shown]) + "\n"


def _unseen(_result: int | None) -> str:
    return ""


def _text(style: lines.Style) -> Callable[[Entry], Callable[[int | None], str]]:
    def show(entry: Entry) -> Callable[[int | None], str]:
        begun = lines.call(entry, style)
        return lambda result: f"{begun}{lines.result(result, style)}\n"

    return show


def _record(entry: Entry) -> Callable[[int | None], str]:
    from json import dumps  # noqa: PLC0415 (for this form alone)

    from pinfold.audit.record import describe  # noqa: PLC0415 (likewise)

    record = describe(entry)

    def show(result: int | None) -> str:
        record["result"] = result
        failed = lines.error_of(result)
        if failed:
            record["errno"] = errno.errorcode.get(failed, str(failed))
        return dumps(record, separators=(",", ":")) + "\n"

    return show


class _Stream:
    # Where lines go, without a buffer: what is shown happened before what comes next.

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name

    @classmethod
    def open(cls, path: str | None) -> _Stream:
        if path is None:
            return cls(_STANDARD_ERROR, "standard error")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            return cls(os.open(path, flags, 0o666), path)
        except OSError as error:
            raise AuditError(f"cannot open {path}: {error.strerror}") from error

    @property
    def is_terminal(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                self._wait()
            except OSError as error:
                raise AuditError(
                    f"cannot write the trace to {self._name}: {error.strerror}; the program was"
                    " stopped"
                ) from error

    def _wait(self) -> None:
        # Somebody made it non-blocking: a program that shares it, for one.
        import select  # noqa: PLC0415 (seldom needed)

        select.select([], [self._descriptor], [])

    def close(self) -> None:
        if self._descriptor != _STANDARD_ERROR:
            os.close(self._descriptor)


_STANDARD_ERROR: Final = 2
