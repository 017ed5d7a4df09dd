"""Policy files are read here: TOML, variables, includes; the result is a ``PolicyModel``.

A file's own rules come before those of what it includes, and of several files the first comes
first. For what a policy has only one of (a default, a limit), the first file that says something
wins, so that a file can say otherwise than what it includes. In the same way its variables hold in
what it includes, and win over variables of the same name there.

Every error is a ``PolicyError`` that begins with ``FILE:LINE:COLUMN:`` and shows the line.
"""

from __future__ import annotations

import errno
import os
from dataclasses import fields
from hashlib import sha256
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from pinfold.errors import PolicyError
from pinfold.paths import join, normalise, printable
from pinfold.policy.file.resolve import Part, Resolver
from pinfold.policy.file.source import Source
from pinfold.policy.file.variables import NAME, Form
from pinfold.policy.model import Limits, PolicyModel
from pinfold.syscalls.groups import near

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import BinaryIO

    from pinfold.policy.file.positions import Path
    from pinfold.policy.file.schema import PolicyFile

T = TypeVar("T")

BUILTIN: Final = "builtin:"
"""What the name of a ready policy begins with."""
BUILT_IN: Final = ("HOME", "CWD", "USER", "UID", "TMPDIR", "POLICY_DIR")
"""Variables that every file has."""

_READY: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ready")
_SUFFIX: Final = ".toml"
_FILE_MAX: Final = 4 << 20
"""Most bytes of a policy file."""
_CONTENT_MAX: Final = 64 << 20
"""Most bytes of a file that is served."""


def ready() -> tuple[str, ...]:
    """Returns the names of the ready policies of the package, for ``builtin:NAME``."""
    return tuple(
        sorted(name.removesuffix(_SUFFIX) for name in os.listdir(_READY) if name.endswith(_SUFFIX))
    )


def load(
    paths: Sequence[str],
    *,
    variables: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: bytes | None = None,
) -> PolicyModel:
    """Returns the policy that files make together.

    Args:
        paths: The files, in order; ``builtin:NAME`` is a ready policy of the package.
        variables: Values of variables, which win over those that a file sets.
        environ: The environment for ``${HOME}`` and ``${env:NAME}``; left out, this process's.
        cwd: What ``${CWD}`` is and relative ``paths`` start from; left out, this process's.

    Raises:
        PolicyError: A file cannot be read, or something in it cannot be meant.
    """
    reader = _Reader(variables or {}, environ, cwd)
    for path in paths:
        reader.read(os.fsencode(path), reader.outer, (), None)
    return reader.model()


def parse(
    text: str,
    name: str = "policy",
    *,
    directory: bytes | None = None,
    variables: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: bytes | None = None,
) -> PolicyModel:
    """Returns the policy that a text makes.

    Args:
        text: What a policy file would hold.
        name: What errors, and rules without a name, call it.
        directory: Where relative includes start from, and what ``${POLICY_DIR}`` is.
        variables: As for :func:`load`.
        environ: As for :func:`load`.
        cwd: As for :func:`load`.

    Raises:
        PolicyError: As for :func:`load`.
    """
    reader = _Reader(variables or {}, environ, cwd)
    # A lone surrogate is refused as a byte of a file is that is no UTF-8.
    content = text.encode("utf-8", "surrogatepass")
    reader.add(_File(Source(name, _text(name, content)), directory, ()), reader.outer)
    return reader.model()


def merge(models: Iterable[PolicyModel]) -> PolicyModel:
    """Returns one policy made of several, whose rules are asked in this order.

    Of what a policy has only one of, the first holds that is not what a policy has anyway.
    """
    models = tuple(models)
    return _merged(
        [
            Part(
                rules=list(model.rules),
                defaults=dict(model.defaults),
                ro=list(model.ro),
                rw=list(model.rw),
                limits={
                    one.name: value
                    for one in fields(model.limits)
                    if (value := getattr(model.limits, one.name)) is not None
                },
                real=_said(model.real, _PLAIN.real),
                on_loss=_said(model.on_audit_loss, _PLAIN.on_audit_loss),
                handler_seconds=_said(model.handler_seconds, _PLAIN.handler_seconds),
                description=_said(model.description, _PLAIN.description),
            )
            for model in models
        ],
        [
            pair
            for model in models
            for pair in zip_longest(model.files, model.digests, fillvalue="")
        ],
    )


_PLAIN: Final = PolicyModel()


def _said(value: T, plain: T) -> T | None:
    return None if value == plain else value


def _merged(parts: Sequence[Part], files: Iterable[tuple[str, str]]) -> PolicyModel:
    def first(key: str) -> Any:
        given = (getattr(part, key) for part in parts)
        return next((value for value in given if value is not None), None)

    def every(key: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(value for part in parts for value in getattr(part, key)))

    def earliest(key: str) -> dict[str, Any]:
        return {name: one for part in reversed(parts) for name, one in getattr(part, key).items()}

    once = dict.fromkeys(files)
    single = {
        "real": first("real"),
        "on_audit_loss": first("on_loss"),
        "handler_seconds": first("handler_seconds"),
        "description": first("description"),
    }
    return PolicyModel(
        rules=tuple(rule for part in parts for rule in part.rules),
        defaults=earliest("defaults"),
        ro=every("ro"),
        rw=every("rw"),
        limits=Limits(**earliest("limits")),
        files=tuple(name for name, _ in once),
        digests=tuple(digest for _, digest in once),
        **{key: value for key, value in single.items() if value is not None},
    )


class _File(NamedTuple):
    source: Source
    directory: bytes | None
    """Absolute; None for a text that is no file."""
    within: tuple[tuple[bytes, str], ...]
    """The files that include it, the outermost first, and itself: identity and name."""


class _Reader:
    # One call of ``load``: what was read so far.

    def __init__(
        self, variables: Mapping[str, str], environ: Mapping[str, str] | None, cwd: bytes | None
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._cwd = cwd
        self._seen: set[bytes] = set()
        self._parts: list[Part] = []
        self._files: list[tuple[str, str]] = []
        self.outer = {name: os.fsencode(value) for name, value in variables.items()}
        for name in variables:
            if (problem := _name_problem(name)) is not None:
                raise PolicyError(f"variable {printable(os.fsencode(name))}: {problem}")

    def model(self) -> PolicyModel:
        """Returns what was read."""
        return _merged(self._parts, self._files)

    def read(
        self,
        path: bytes,
        outer: Mapping[str, bytes],
        within: tuple[tuple[bytes, str], ...],
        wrong: Callable[[str], PolicyError] | None,
    ) -> None:
        """Reads a file and what it includes, unless that was done.

        Args:
            path: The file, or ``builtin:NAME``.
            outer: Variables of those that include it.
            within: The files that include it.
            wrong: Makes the error of the place where it is included.
        """
        name = printable(path)
        wrong = wrong or (lambda problem: PolicyError(f"{name}: {problem}"))
        if path.startswith(BUILTIN.encode()):
            path = _ready_path(os.fsdecode(path), wrong)
        try:
            identity = os.path.realpath(path)
            if any(identity == one for one, _ in within):
                chain = " -> ".join(shown for _, shown in (*within, (identity, name)))
                raise wrong(f"this file includes itself: {chain}")
            if identity in self._seen:
                return
            self._seen.add(identity)
            with open(path, "rb") as file:
                content = _whole(file, _FILE_MAX)
            # From the root, so that a rule about ${POLICY_DIR} is about this one.
            directory = os.path.dirname(join(b"" if path.startswith(b"/") else self._here(), path))
        except OSError as error:
            raise wrong(f"cannot be read: {error.strerror or error}") from error
        source = Source(name, _text(name, content))
        self.add(_File(source, directory, (*within, (identity, name))), outer)

    def add(self, file: _File, outer: Mapping[str, bytes]) -> None:
        """Adds a file and what it includes."""
        parsed = file.source.parsed()
        scope = _Scope(file, self._environ, self._here, dict(outer), parsed)
        resolver = Resolver(file.source, scope.value, lambda name: _content(file, name))
        scope.fill(resolver)
        self._files.append((file.source.name, sha256(file.source.text.encode()).hexdigest()))
        self._parts.append(resolver.part(parsed))
        given = parsed.include
        for index, text in enumerate([given] if isinstance(given, str) else given or []):
            at: Path = ("include",) if isinstance(given, str) else ("include", index)
            path = resolver.text(at, text, Form.PATH)

            def wrong(problem: str, at: Path = at) -> PolicyError:
                return file.source.error(at, problem)

            if b"\0" in path or not path:
                raise wrong("no file has such a name")
            if not path.startswith((b"/", BUILTIN.encode())):
                if file.directory is None:
                    raise wrong("relative to what? Write the name from `/`, or `builtin:NAME`")
                path = file.directory.rstrip(b"/") + b"/" + path
            self.read(path, scope.values, file.within, wrong)

    def _here(self) -> bytes:
        return self._cwd if self._cwd is not None else os.getcwdb()


class _Scope:
    # The variables of one file.

    def __init__(
        self,
        file: _File,
        environ: Mapping[str, str],
        here: Callable[[], bytes],
        outer: dict[str, bytes],
        parsed: PolicyFile,
    ) -> None:
        self.values = outer
        self._file = file
        self._environ = environ
        self._here = here
        self._own = parsed.variables or {}

    def fill(self, resolver: Resolver) -> None:
        """Works out the file's own variables."""
        for name, text in self._own.items():
            problem = _name_problem(name)
            if problem is not None:
                raise self._file.source.error(("variables", name), problem, key=True)
            if name not in self.values:
                self.values[name] = resolver.text(("variables", name), text)

    def value(self, name: str) -> bytes:
        """Returns what a variable stands for; raises ``KeyError`` with a reason."""
        if name.startswith("env:"):
            return self._environment(name.removeprefix("env:"))
        if name in BUILT_IN:
            return self._built_in(name)
        if name in self.values:
            return self.values[name]
        if name in self._own:
            raise KeyError(f"${{{name}}} gets its value further down; move it up")
        close = near(name, [*BUILT_IN, *self.values, *self._own])
        close = close or f"; set it in [variables], or write ${{env:{name}}} for the environment's"
        raise KeyError(f"there is no variable {name}{close}")

    def _environment(self, name: str) -> bytes:
        # An empty one is as good as none: in a path it would mean the root.
        value = self._environ.get(name)
        if not value:
            state = "not set" if value is None else "empty"
            raise KeyError(
                f"{name} is {state} in the environment; set it, or write ${{env:{name}:-TEXT}}"
            )
        return os.fsencode(value)

    def _built_in(self, name: str) -> bytes:
        if name == "UID":
            return str(os.getuid()).encode()
        if name == "USER":
            return self._environment("USER" if self._environ.get("USER") else "LOGNAME")
        if name == "POLICY_DIR":
            if self._file.directory is None:
                raise KeyError("this policy is not in a file, so there is no POLICY_DIR")
            return self._file.directory
        if name == "CWD":
            try:
                value = self._here()
            except OSError as error:
                raise KeyError("the working directory is gone") from error
        elif name == "TMPDIR":
            value = os.fsencode(self._environ.get("TMPDIR") or "/tmp")  # noqa: S108 (what it means)
        else:
            value = self._environment(name)
        if not value.startswith(b"/"):
            raise KeyError(f"{name} is {printable(value)!r}, which does not begin with `/`")
        return normalise(value)


def _name_problem(name: str) -> str | None:
    if not NAME.fullmatch(name):
        return "the name of a variable has letters, digits and `_`, and begins with no digit"
    if name in BUILT_IN:
        return "this variable is built in and cannot be set; choose another name"
    return None


def _ready_path(name: str, wrong: Callable[[str], PolicyError]) -> bytes:
    wanted = name.removeprefix(BUILTIN)
    known = ready()
    if wanted not in known:
        close = near(wanted, known) or f"; there are {', '.join(known)}"
        raise wrong(f"there is no ready policy {printable(os.fsencode(wanted))!r}{close}")
    return os.fsencode(os.path.join(_READY, wanted + _SUFFIX))


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rpartition(b"\n")[2].decode()) + 1
        raise PolicyError(f"{name}:{line}:{column}: not UTF-8, which TOML is written in") from error


def _content(file: _File, name: bytes) -> bytes:
    if not name.startswith(b"/"):
        if file.directory is None:
            raise OSError("relative to what? Write the name from `/`")
        name = file.directory.rstrip(b"/") + b"/" + name
    with open(name, "rb") as content:
        return _whole(content, _CONTENT_MAX)


def _whole(file: BinaryIO, most: int) -> bytes:
    # Not by its size: a pipe has none, and a device may have no end.
    content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes")
    return content
