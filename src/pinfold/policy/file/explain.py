"""A policy in words (pure): what happens to which calls, what confines the program, what is odd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pinfold.codec.sockaddr import show as show_address
from pinfold.errors import InternalError
from pinfold.paths import printable
from pinfold.policy import globs
from pinfold.policy.calls import ASK, KILL, RETURN, SERVE
from pinfold.policy.file.doubts import doubts
from pinfold.policy.file.fit import calls_for
from pinfold.policy.file.values import error_name
from pinfold.policy.model import ACCESS, REST, Action, Limits
from pinfold.policy.rules import ALLOW, DENY, REDIRECT
from pinfold.syscalls.groups import GROUPS
from pinfold.syscalls.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pinfold.policy.model import Match, PolicyModel, Rule


class Section(NamedTuple):
    """A part of an explanation."""

    title: str
    lines: tuple[str, ...]


class Explanation(NamedTuple):
    """What a policy does."""

    sections: tuple[Section, ...]
    warnings: tuple[str, ...]
    """What its author has perhaps not meant, a sentence each."""


_DOES: Final = {"read": "reads", "write": "writes", "create": "creates", "exec": "executes"}
_SIZES: Final = ((30, "GiB"), (20, "MiB"), (10, "KiB"))
_ALLOWED: Final = Action(ALLOW)


def explain(model: PolicyModel, calls: Iterable[str]) -> Explanation:
    """Returns a policy in words.

    Args:
        model: The policy.
        calls: The calls that are trapped for it, by name.
    """
    return Explanation(
        (
            *_groups(model),
            _reach(model),
            _limits(model.limits),
            _rest(model),
            _trapped(calls),
        ),
        tuple(doubts(model)),
    )


def sentence(rule: Rule) -> str:
    """Returns what a rule does as one sentence."""
    who = _who(rule.match)
    conditions = list(_conditions(rule.match, rule.action.verb == ALLOW))
    if conditions:
        who += f" that {_and(conditions)}"
    return f"{who} {outcome(rule.action)}."


def outcome(action: Action) -> str:
    """Returns what happens to a call, after words for the call: ``is allowed``."""
    match action.verb:
        case verb if verb == ALLOW:
            return "is allowed"
        case verb if verb == DENY:
            return f"fails with {error_name(action.errno)}"
        case verb if verb == KILL:
            return "ends the sandbox"
        case verb if verb == ASK:
            return "is put to whoever sits at the terminal"
        case verb if verb == RETURN:
            return f"is not made and returns {action.value}"
        case verb if verb == SERVE:
            return f"opens a file of {_count(len(action.data), 'byte')} that the policy has instead"
        case verb if verb == REDIRECT:
            return f"is made with {_and(list(_changes(action)))} instead"
    raise InternalError(f"an action that nothing is known of: {action.verb}")


def _changes(action: Action) -> Iterator[str]:
    if action.path is not None:
        yield f"the path {printable(action.path)}"
    if action.argv is not None:
        yield f"the arguments {_arguments(action.argv)}"
    for name, value in action.set_env:
        yield f"{printable(name)} set to {printable(value)}"
    for name in action.unset_env:
        yield f"{printable(name)} not set"
    if action.address is not None:
        yield f"the address {show_address(action.address)}"


def _who(match: Match) -> str:
    words = calls_in_words(match.on) if match.on else ["call"]
    article = "An" if words[0][0] in "aeiou" else "A"
    return f"{article} {_or(words)}" if match.on else "Any call"


def calls_in_words(calls: Iterable[str]) -> list[str]:
    """Returns calls by name, whole groups by the group's; ``open(2)`` is the call alone."""
    left = dict.fromkeys(calls)
    words = []
    for call in tuple(left):
        if call not in left:
            continue
        row = TABLE.get(call)
        members = GROUPS[row.group] if row is not None else (call,)
        if row is not None and all(member in left for member in members):
            words.append(row.group)
        else:
            members = (call,)
            words.append(f"{call}(2)" if call in GROUPS else call)
        for member in members:
            del left[member]
    return words


def _conditions(match: Match, allows: bool) -> Iterator[str]:
    # Clauses after "that".
    if match.path:
        yield f"names {_globs(match.path)}"
    if match.exact:
        yield f"names {_or(f'{printable(one)} itself' for one in match.exact)}"
    if match.real:
        yield f"leads to {_globs(match.real)}"
    if match.access:
        what = "it" if match.path or match.exact or match.real else "a file"
        words = [word for word in ACCESS if word in match.access]
        # A rule that allows has to name all that is done.
        does = f"does nothing but {_and(words)}" if allows else _or(_DOES[word] for word in words)
        yield f"{does} {what}"
    if match.argv:
        yield f"has the arguments {_or(_arguments(one) for one in match.argv)}"
    for name, value in match.env:
        yield _variable(printable(name), value)
    if match.family:
        yield f"is of the family {_or(sorted(map(str, match.family)))}"
    yield from _addresses(match)
    if match.program:
        yield f"comes from {_globs(match.program)}"
    if match.loader is not None:
        yield ("comes" if match.loader else "does not come") + " from the dynamic loader"


def _variable(name: str, value: bytes | bool) -> str:
    if isinstance(value, bytes):
        return f"sets {name} to {printable(value)}"
    return f"sets {name}" if value else f"does not set {name}"


def _addresses(match: Match) -> Iterator[str]:
    if match.networks:
        singles = (one.network_address if one.num_addresses == 1 else one for one in match.networks)
        yield f"has the address {_or(map(str, singles))}"
    if match.ports:
        ranges = (str(low) if low == high else f"{low}-{high}" for low, high in match.ports)
        yield f"has the port {_or(ranges)}"
    if match.unix:
        yield f"names the Unix socket {_globs(match.unix)}"
    if match.abstract:
        yield f"names the abstract Unix socket {_or(map(printable, match.abstract))}"


def _globs(patterns: tuple[bytes, ...]) -> str:
    # Names without wildcards cover what lies below them.
    plain, wild = [], []
    for pattern in patterns:
        name, _ = globs.parse(pattern)
        if name is None:
            wild.append(printable(pattern))
        else:
            plain.append(printable(name))
    if "/" in plain:
        return "anything"
    below = f"{_or(plain)} (or what is below)" if plain else ""
    return _or(filter(None, [below, _or(wild)]))


def _arguments(arguments: tuple[bytes, ...]) -> str:
    return (
        "`" + " ".join("..." if one == REST else printable(one) or '""' for one in arguments) + "`"
    )


def _groups(model: PolicyModel) -> Iterator[Section]:
    # Groups to which the same happens are told of together.
    rules = _rules_by_group(model)
    alike: dict[tuple[Action, tuple[int, ...]], list[str]] = {}
    other = model.defaults.get("*", _ALLOWED)
    for group in (*GROUPS, *(word for word in rules if word not in GROUPS)):
        default = model.defaults.get(group, other if group in GROUPS else _ALLOWED)
        alike.setdefault((default, tuple(rules.get(group, ()))), []).append(group)
    free = alike.pop((_ALLOWED, ()), [])
    told: set[int] = set()
    for (default, numbers), groups in alike.items():
        lines = [_numbered(at, model.rules[at], told=at in told) for at in numbers]
        told.update(numbers)
        otherwise = "Anything else" if numbers else "Every call"
        yield Section(", ".join(groups), (*lines, f"{otherwise} {outcome(default)}."))
    if free:
        title = ", ".join(free) if alike else "Every group of calls"
        yield Section(title, ("Every call is allowed that is not refused in every sandbox.",))


def _rules_by_group(model: PolicyModel) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, rule in enumerate(model.rules):
        calls = calls_for(rule.match)
        groups = dict.fromkeys(TABLE[one].group if one in TABLE else one for one in calls)
        for group in groups:
            found.setdefault(group, []).append(number)
    return found


def _numbered(number: int, rule: Rule, *, told: bool) -> str:
    # In full once; further down it is enough to be reminded of.
    said = "as above." if told else sentence(rule)
    if rule.name == rule.source:
        return f"{number + 1}. {said} ({_shown(rule.source)})"
    return f"{number + 1}. {_shown(rule.name)}: {said}"


def _shown(text: str) -> str:
    return printable(text.encode(errors="surrogateescape"))


def _reach(model: PolicyModel) -> Section:
    title = "What can be reached (Landlock)"
    if not model.ro and not model.rw:
        return Section(title, ("Landlock puts no path out of reach.",))
    lines = [f"Read and execute: {', '.join(map(printable, model.ro))}"] if model.ro else []
    if model.rw:
        lines.append(f"Anything: {', '.join(map(printable, model.rw))}")
    if b"/" in model.rw:
        return Section(title, tuple(lines))
    rest = "Nothing else can be changed" if b"/" in model.ro else "Every other path is out of reach"
    return Section(title, (*lines, f"{rest}, whatever a rule allows."))


def _limits(limits: Limits) -> Section:
    lines = []
    if limits.tasks is not None:
        lines.append(f"At most {_count(limits.tasks, 'task')} at one time.")
    if limits.seconds is not None:
        lines.append(f"Killed after {limits.seconds:g} seconds.")
    each: dict[str, Callable[[int], str]] = {
        "cpu": lambda value: f"{_count(value, 'second')} of processor time",
        "memory": lambda value: f"{_bytes(value)} of address space",
        "files": lambda value: f"{_count(value, 'descriptor')}",
        "file_size": lambda value: f"files of {_bytes(value)}",
        "core": lambda value: f"core dumps of {_bytes(value)}",
    }
    words = [say(value) for key, say in each.items() if (value := getattr(limits, key)) is not None]
    if limits.core == 0:
        words.pop()
        lines.append("No core dumps.")
    if words:
        lines.append(f"Each process: at most {_and(words)}.")
    return Section("Limits", tuple(lines) or ("None but those it inherits.",))


def _rest(model: PolicyModel) -> Section:
    lines = [
        "Names that symbolic links lead to are judged as well."
        if model.real or any(rule.match.real for rule in model.rules)
        else "Names are judged as they are spelt; where symbolic links lead is not looked at."
    ]
    actions = [*(rule.action for rule in model.rules), *model.defaults.values()]
    if any(action.verb == ASK for action in actions):
        lines.append(
            f"Who is asked has {model.handler_seconds:g} seconds, and nobody to ask is a denial."
        )
    if model.on_audit_loss == "continue":
        lines.append("The sandbox goes on when its log cannot be written.")
    return Section("Besides", tuple(lines))


def _trapped(calls: Iterable[str]) -> Section:
    found: dict[str, list[str]] = {}
    for call in calls:
        row = TABLE.get(call)
        found.setdefault(row.group if row is not None else "in no group", []).append(call)
    lines = tuple(f"{group}: {' '.join(names)}" for group, names in found.items())
    return Section("Trapped calls", lines or ("None.",))


def _bytes(number: int) -> str:
    for shift, unit in _SIZES:
        if number >= 1 << shift and not number & ((1 << shift) - 1):
            return f"{number >> shift} {unit}"
    return _count(number, "byte")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _or(words: Iterable[str]) -> str:
    return _joined(list(words), " or ")


def _and(words: Iterable[str]) -> str:
    return _joined(list(words), " and ")


def _joined(words: list[str], last: str) -> str:
    return last.join(filter(None, (", ".join(words[:-1]), *words[-1:])))
