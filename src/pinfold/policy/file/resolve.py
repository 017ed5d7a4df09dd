"""One policy file becomes rules, defaults and limits (pure, but for files that it serves).

The schema has seen to the shape. Here variables are put in, words get their meaning, and what can
never work is refused: a rule that does nothing is worse than an error, since somebody relies on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pinfold.errors import PolicyError
from pinfold.paths import normalise
from pinfold.policy import globs
from pinfold.policy.calls import ASK, KILL, RETURN, SERVE
from pinfold.policy.file import fit, values
from pinfold.policy.file.variables import Form, SubstitutionError, substitute
from pinfold.policy.model import REST, Action, Limits, Match, Rule
from pinfold.policy.rules import ALLOW, DENY, REDIRECT
from pinfold.policy.unjudged import UNJUDGED
from pinfold.syscalls import groups
from pinfold.syscalls.numbers import X86_64
from pinfold.syscalls.refused import REFUSED
from pinfold.syscalls.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pinfold.policy.file.positions import Path
    from pinfold.policy.file.schema import LimitsTable, PolicyFile, Redirection, RuleEntry
    from pinfold.policy.file.source import Source
    from pinfold.policy.file.variables import Lookup

T = TypeVar("T")

_REFUSED: Final = {row.name: row for row in REFUSED if row.argument < 0}
_PATH_MAX: Final = 4096
_KEYS_OF: Final = {
    "errno": (DENY, "fails a call"),
    "to": (REDIRECT, "has somewhere to lead"),
    "value": (RETURN, "has a result"),
    "content": (SERVE, "has a content"),
    "content_file": (SERVE, "has a content"),
}
"""Keys that belong to one action."""
_NOT_LOOKED_AT: Final = "relative to what? Begin with `/`, or `${CWD}/`"


@dataclass(slots=True)
class Part:
    """What one file says; None where it says nothing."""

    rules: list[Rule] = field(default_factory=list)
    defaults: dict[str, Action] = field(default_factory=dict)
    ro: list[bytes] = field(default_factory=list)
    rw: list[bytes] = field(default_factory=list)
    limits: dict[str, Any] = field(default_factory=dict)
    real: bool | None = None
    on_loss: Any = None
    handler_seconds: float | None = None
    description: str | None = None


class Resolver:
    """Makes a ``Part`` of a file.

    Args:
        source: The file.
        lookup: Gives the values of variables.
        read: Reads the file that a ``content_file`` names; raises ``OSError``.
    """

    def __init__(self, source: Source, lookup: Lookup, read: Callable[[bytes], bytes]) -> None:
        self._source = source
        self._lookup = lookup
        self._read = read

    def part(self, file: PolicyFile) -> Part:
        """Returns what the file says.

        Raises:
            PolicyError: Something in it cannot be meant.
        """
        part = Part(
            real=file.real,
            handler_seconds=file.handler_seconds,
            description=file.description,
            on_loss=file.audit.on_loss if file.audit is not None else None,
        )
        for group, word in (file.defaults or {}).items():
            part.defaults[group] = self._default(("defaults", group), group, word)
        for index, entry in enumerate(file.rule or []):
            part.rules.append(self._rule(("rule", index), entry))
        if file.limits is not None:
            part.limits = self._limits(file.limits)
        if file.landlock is not None:
            part.ro = list(self._each(("landlock", "ro"), file.landlock.ro, self._name))
            part.rw = list(self._each(("landlock", "rw"), file.landlock.rw, self._name))
        return part

    # Texts: what is wrong with one is shown where it is.

    def text(self, path: Path, text: str, form: Form = Form.TEXT) -> bytes:
        """Returns a text with its variables put in."""
        try:
            return substitute(text, self._lookup, form)
        except SubstitutionError as error:
            raise self._wrong(path, text, str(error), error.at) from error

    def _wrong(self, path: Path, text: str, problem: str, at: int = 0) -> PolicyError:
        into = at + 1 if self._source.positions.spelt(path, text) else 0
        return self._source.error(path, problem, into=into)

    def _checked(self, path: Path, check: Callable[[Any], T], value: Any) -> T:
        try:
            return check(value)
        except ValueError as error:
            raise self._source.error(path, str(error)) from error

    def _glob(self, path: Path, text: str) -> bytes:
        glob = self.text(path, text, Form.GLOB)
        if not glob.startswith((b"/", b"**")):
            problem = "a pattern over names begins with `/`, `**/` or `${CWD}/`"
            raise self._wrong(path, text, problem)
        self._parsed(path, text, glob, lambda: globs.parse(glob))
        return glob

    def _pattern(self, path: Path, text: str) -> bytes:
        pattern = self._checked(path, values.plain, self.text(path, text, Form.PATTERN))
        self._parsed(path, text, pattern, lambda: globs.Pattern(pattern))
        return pattern

    def _parsed(self, path: Path, text: str, pattern: bytes, parse: Callable[[], object]) -> None:
        try:
            parse()
        except PolicyError as error:
            # "byte 4: problem", the pattern, a caret: the place becomes one in the file.
            head = str(error).partition("\n")[0]
            byte, _, problem = head.removeprefix("byte ").partition(": ")
            if pattern == text.encode():
                at = len(pattern[: int(byte) - 1].decode(errors="replace"))
                raise self._wrong(path, text, problem, at) from error
            shown = values.shown(pattern)
            raise self._wrong(path, text, f"{problem} (at byte {byte} of {shown})") from error

    def _name(self, path: Path, text: str) -> bytes:
        # An absolute name without wildcards.
        name = self.text(path, text, Form.PATH)
        if not name.startswith(b"/"):
            raise self._wrong(path, text, _NOT_LOOKED_AT)
        self._checked(path, values.plain, name)
        if len(name) >= _PATH_MAX:
            raise self._wrong(path, text, f"no path has more than {_PATH_MAX - 1} bytes")
        if (normal := normalise(name)) != name:
            raise self._wrong(path, text, f"write it without detours: {values.shown(normal)}")
        return name

    def _each(self, path: Path, given: Any, read: Callable[[Path, Any], T]) -> Iterator[T]:
        # What a key holds that takes one value or a list of them.
        if given is None:
            return
        if not isinstance(given, list):
            yield read(path, given)
            return
        for index, one in enumerate(given):
            yield read((*path, index), one)

    # Words.

    def _default(self, path: Path, group: str, word: str) -> Action:
        if group != "*" and group not in groups.GROUPS:
            problem = f"there is no group {values.shown(group.encode())}"
            if group in X86_64:
                row = TABLE.get(group)
                problem = f"{group} is a call, and defaults are for groups"
                problem += f": write {row.group}" if row is not None else "; make it a rule"
            else:
                problem += groups.near(group, groups.GROUPS) or '; see docs/syscalls.md, or "*"'
            raise self._source.error(path, problem, key=True)
        if word in {ALLOW, DENY, KILL, ASK}:
            action = Action(word)
        elif word in values.ERRNOS:
            action = Action(DENY, values.error_number(word))
        else:
            close = groups.near(word, ["allow", "deny", "ask", "kill", *values.ERRNOS])
            close = close or "; write allow, deny, ask, kill, or an errno such as EPERM"
            raise self._source.error(
                path, f"a default cannot be {values.shown(word.encode())}{close}"
            )
        if action.verb != DENY and group != "*":
            self._check_refused(path, group, groups.GROUPS[group])
        return action

    def _calls(self, path: Path, word: str, verb: str) -> tuple[str, ...]:
        word = self.text(path, word).decode(errors="backslashreplace")
        try:
            found = groups.names(word)
        except PolicyError as error:
            raise self._source.error(path, str(error)) from error
        for call in found:
            if call in UNJUDGED:
                raise self._source.error(path, f"{call} cannot be judged: {UNJUDGED[call]}")
        if verb != DENY:
            self._check_refused(path, word, found)
        return found

    def _check_refused(self, path: Path, word: str, calls: tuple[str, ...]) -> None:
        # A group of which something is left (exec has uselib in it) is fine.
        refused = [call for call in calls if call in _REFUSED]
        if word in refused or len(refused) == len(calls):
            reason = _REFUSED[word if word in refused else calls[0]].reason
            problem = f"{word} is refused in every sandbox, whatever a rule says: {reason}"
            raise self._source.error(path, problem)

    # Rules.

    def _rule(self, path: Path, entry: RuleEntry) -> Rule:
        source = f"{self._source.name}:{self._source.line_of(path)}"
        match = self._match(path, entry)
        self._check_match(path, entry, match)
        action = self._action(path, entry, match)
        name = source if entry.name is None else entry.name
        if not name.strip():
            raise self._source.error((*path, "name"), "this name is empty; leave the key out")
        return Rule(match, action, name, source)

    def _match(self, path: Path, entry: RuleEntry) -> Match:
        def each(key: str, read: Callable[[Path, Any], T]) -> tuple[T, ...]:
            return tuple(self._each((*path, key), getattr(entry, key), read))

        def names(key: str, read: Callable[[Path, Any], bytes]) -> tuple[bytes, ...]:
            # Two variables may stand for one name.
            return tuple(dict.fromkeys(each(key, read)))

        def calls(at: Path, word: str) -> tuple[str, ...]:
            return self._calls(at, word, entry.action)

        def word(check: Callable[[Any], T]) -> Callable[[Path, Any], T]:
            return lambda at, value: self._checked(at, check, self._plain(at, value))

        on = dict.fromkeys(call for some in each("on", calls) for call in some)
        return Match(
            on=tuple(on),
            path=names("path", self._glob),
            exact=names("exact", self._name),
            real=names("real", self._glob),
            access=frozenset(each("access", lambda _, value: str(value))),
            argv=self._argv((*path, "argv"), entry.argv),
            env=self._env((*path, "env"), entry.env),
            family=frozenset(each("family", word(values.family))),
            networks=each("address", word(values.network)),
            ports=each("port", word(values.ports)),
            unix=names("unix", self._glob),
            abstract=names("abstract", self._pattern),
            program=names("program", self._glob),
            loader=entry.loader,
        )

    def _plain(self, path: Path, value: str | int) -> str | int:
        if isinstance(value, int):
            return value
        return self.text(path, value).decode(errors="backslashreplace")

    def _argv(
        self, path: Path, given: list[str | list[str]] | None
    ) -> tuple[tuple[bytes, ...], ...]:
        if given is None:
            return ()
        lists = [one for one in given if isinstance(one, list)]
        if not lists:
            return (self._arguments(path, given),)
        for index, one in enumerate(given):
            if not isinstance(one, list):
                problem = "a text among lists: either all are patterns, or all are lists of them"
                raise self._source.error((*path, index), problem)
            if not one:
                raise self._source.error((*path, index), "an empty pattern; write arguments")
        return tuple(self._arguments((*path, index), one) for index, one in enumerate(lists))

    def _arguments(self, path: Path, given: list[Any]) -> tuple[bytes, ...]:
        return tuple(self._argument((*path, index), one) for index, one in enumerate(given))

    def _argument(self, path: Path, text: str) -> bytes:
        if text.encode() == REST:
            return REST
        pattern = self._pattern(path, text)
        return rb"\..." if pattern == REST else pattern  # a variable's value stands for itself

    def _env(
        self, path: Path, given: dict[str, bool | str] | None
    ) -> tuple[tuple[bytes, bytes | bool], ...]:
        found = []
        for name, value in (given or {}).items():
            variable = self._checked((*path, name), values.variable_name, name)
            wanted = self._pattern((*path, name), value) if isinstance(value, str) else value
            found.append((variable, wanted))
        return tuple(found)

    def _check_match(self, path: Path, entry: RuleEntry, match: Match) -> None:
        if match == Match():
            problem = 'this rule is about nothing; say `on`, a condition, or `"*"` in [defaults]'
            raise self._source.error(path, problem, key=True)
        contradiction = fit.contradiction(match)
        if contradiction is None:
            return
        problem = contradiction
        key = problem.partition(":")[0].partition(" ")[0]
        if key in entry.__struct_fields__ and getattr(entry, key) is not None:
            raise self._source.error((*path, key), problem.removeprefix(f"{key}: "), key=True)
        raise self._source.error(path, problem, key=True)

    # Actions.

    def _action(self, path: Path, entry: RuleEntry, match: Match) -> Action:
        verb: str = entry.action
        for key, (owner, meaning) in _KEYS_OF.items():
            if getattr(entry, key) is not None and verb != owner:
                problem = f"only `{owner}` {meaning}; this rule's action is `{verb}`"
                raise self._source.error((*path, key), problem, key=True)
        calls = [call for call in fit.calls_for(match) if call not in _REFUSED]
        if verb == DENY and entry.errno is not None:
            at = (*path, "errno")
            return Action(
                verb, self._checked(at, values.error_number, self._plain(at, entry.errno))
            )
        if verb == REDIRECT:
            return self._redirect(path, entry.to, calls)
        if verb == RETURN:
            self._check_return(path, calls)
            return Action(verb, value=entry.value or 0)
        if verb == SERVE:
            return self._serve(path, entry, match, calls)
        return Action(verb)

    def _check_return(self, path: Path, calls: list[str]) -> None:
        programs = [call for call in calls if call in groups.GROUPS["exec"]]
        if programs:
            problem = (
                f"{programs[0]} never returns a result, so none can be made up; use `deny`, or"
                " leave it out of `on`"
            )
            raise self._source.error((*path, "action"), problem)

    def _serve(self, path: Path, entry: RuleEntry, match: Match, calls: list[str]) -> Action:
        others = [call for call in calls if call not in groups.GROUPS["open"]]
        if others or not match.on:
            which = f"{others[0]} opens no file" if match.on else "not every call opens a file"
            at = (*path, "on") if match.on else (*path, "action")
            raise self._source.error(at, f'{which}, so there is no content; write on = "open"')
        if (entry.content is None) == (entry.content_file is None):
            problem = "`serve` needs one of `content` and `content_file`"
            raise self._source.error((*path, "action"), problem)
        if entry.content is not None:
            return Action(SERVE, data=self.text((*path, "content"), entry.content))
        assert entry.content_file is not None
        at = (*path, "content_file")
        name = self._checked(at, values.plain, self.text(at, entry.content_file, Form.PATH))
        try:
            return Action(SERVE, data=self._read(name))
        except OSError as error:
            raise self._source.error(at, f"cannot be read: {error.strerror or error}") from error

    def _redirect(self, path: Path, to: Redirection | None, calls: list[str]) -> Action:
        if to is None:
            problem = 'where to? Write to = { path = "/x" }, or argv, set_env, unset_env, address'
            raise self._source.error((*path, "action"), problem)
        at: Path = (*path, "to")
        given = [key for key in to.__struct_fields__ if getattr(to, key) is not None]
        if not given:
            problem = "nothing is replaced; give path, argv, set_env, unset_env or address"
            raise self._source.error(at, problem)
        misfit = fit.misfit(calls, given)
        if misfit is not None:
            raise self._source.error(at, misfit, key=True)
        new: dict[str, Any] = {}
        if to.path is not None:
            new["path"] = self._name((*at, "path"), to.path)
        if to.argv is not None:
            new["argv"] = self._new_argv((*at, "argv"), to.argv)
        if to.set_env is not None:
            new["set_env"] = tuple(
                (
                    self._checked((*at, "set_env", name), values.variable_name, name),
                    self._string((*at, "set_env", name), value),
                )
                for name, value in to.set_env.items()
            )
        if to.unset_env is not None:
            new["unset_env"] = tuple(
                self._checked((*at, "unset_env", index), values.variable_name, name)
                for index, name in enumerate(to.unset_env)
            )
        if to.address is not None:
            text = self.text((*at, "address"), to.address, Form.ADDRESS)
            new["address"] = self._checked((*at, "address"), values.address, text)
        return Action(REDIRECT, **new)

    def _new_argv(self, path: Path, given: list[str]) -> tuple[bytes, ...]:
        if not given:
            raise self._source.error(path, "a program is given a name at least; write arguments")
        if [text.encode() for text in given].count(REST) > 1:
            raise self._source.error(path, '"..." can stand here once')
        found = []
        for index, text in enumerate(given):
            argument = self._string((*path, index), text)
            if argument == REST and text.encode() != REST:
                problem = 'a variable whose value is "..." cannot be an argument here'
                raise self._source.error((*path, index), problem)
            found.append(argument)
        return tuple(found)

    def _string(self, path: Path, text: str) -> bytes:
        return self._checked(path, values.plain, self.text(path, text))

    def _limits(self, table: LimitsTable) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in Limits.__dataclass_fields__:
            value = getattr(table, key)
            if value is None:
                continue
            if key in {"memory", "file_size", "core"}:
                value = self._checked(("limits", key), values.size, value)
            if key == "memory" and value == 0:
                raise self._source.error(("limits", key), "no program can start with no memory")
            found[key] = value
        return found
