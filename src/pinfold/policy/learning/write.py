r"""A policy as the text of a file (pure): what ``policy.file.load`` reads, in a stable order.

A model holds what a file's variables stood for. Given the variables, names that begin with one are
written with it again, so that a policy that was learned in one directory holds in another.

Names come from programs: whatever is not a printable character is a ``\u`` escape, so that no name
can end a string, begin a rule or write to a terminal.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from pinfold.codec.sockaddr import show as show_address
from pinfold.paths import printable
from pinfold.policy.calls import ASK, KILL, RETURN, SERVE
from pinfold.policy.globs import escape
from pinfold.policy.model import ACCESS, NO_LIMITS
from pinfold.policy.rules import ALLOW, DENY, REDIRECT
from pinfold.syscalls.groups import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pinfold.policy.model import Action, Limits, Match, PolicyModel, Rule

_WIDTH: Final = 100
_NAMED: Final = frozenset({ALLOW, KILL, ASK})


def write(
    model: PolicyModel,
    *,
    comments: Mapping[int, Sequence[str]] | None = None,
    variables: Mapping[str, bytes] | None = None,
    head: Sequence[str] = (),
) -> str:
    """Returns the text of a file that says what a model says.

    Args:
        model: The policy.
        comments: Lines that go before a rule, by its index.
        variables: Names of directories, by the variable that stands for each.
        head: Lines of comment at the beginning.

    Raises:
        ValueError: The model has something that no file can say, such as bytes that are no UTF-8.
    """
    lines = [*_comment(head), *([""] if head else []), "version = 1"]
    if model.description:
        lines.append(f"description = {_string(model.description)}")
    if model.real:
        lines.append("real = true")
    if model.handler_seconds != _HANDLER_SECONDS:
        lines.append(f"handler_seconds = {float(model.handler_seconds)!r}")
    if model.defaults:
        lines += ["", "[defaults]"]
        lines += [f"{_key(group)} = {_default(what)}" for group, what in model.defaults.items()]
    blocks = [*lines, *rules(model.rules, comments=comments, variables=variables)]
    limits = _limits(model.limits) if model.limits != NO_LIMITS else []
    if limits:
        blocks += ["", "[limits]", *limits]
    if model.ro or model.rw:
        blocks += ["", "[landlock]"]
        for key, paths in (("ro", model.ro), ("rw", model.rw)):
            if paths:
                texts = [_text(path, variables, glob=False) for path in paths]
                blocks.append(f"{key} = {_list(key, texts)}")
    if model.on_audit_loss != "stop":
        blocks += ["", "[audit]", f"on_loss = {_string(model.on_audit_loss)}"]
    return "\n".join(blocks) + "\n"


_HANDLER_SECONDS: Final = 60.0


def rules(
    found: Iterable[Rule],
    *,
    comments: Mapping[int, Sequence[str]] | None = None,
    variables: Mapping[str, bytes] | None = None,
) -> list[str]:
    """Returns the lines of ``[[rule]]`` tables, each after an empty line.

    Args:
        found: The rules.
        comments: Lines that go before a rule, by its index.
        variables: As for :func:`write`.

    Raises:
        ValueError: As for :func:`write`.
    """
    lines: list[str] = []
    for index, rule in enumerate(found):
        lines += ["", *_comment((comments or {}).get(index, ())), "[[rule]]"]
        if rule.name and rule.name != rule.source:
            lines.append(f"name = {_string(rule.name)}")
        lines += _match(rule.match, variables)
        lines += _action(rule.action, variables)
    return lines


def _match(match: Match, variables: Mapping[str, bytes] | None) -> list[str]:
    lines = []

    def add(key: str, texts: Sequence[str]) -> None:
        if texts:
            lines.append(f"{key} = {_list(key, texts)}")

    add("on", [_string(word) for word in words(match.on)])
    add("path", [_text(glob, variables) for glob in match.path])
    add("exact", [_text(name, variables, glob=False) for name in match.exact])
    add("real", [_text(glob, variables) for glob in match.real])
    add("access", [_string(word) for word in ACCESS if word in match.access])
    if match.argv:
        lists = [[_text(one, None) for one in argv] for argv in match.argv]
        lines.append(f"argv = {_lists(lists)}")
    if match.env:
        pairs = [f"{_key(_plain(name))} = {_value(value)}" for name, value in match.env]
        lines.append(f"env = {{ {', '.join(pairs)} }}")
    add("family", [_word(family) for family in sorted(match.family, key=str)])
    add("address", [_string(_network(str(network))) for network in match.networks])
    add("port", [_ports(span) for span in match.ports])
    add("unix", [_text(glob, variables) for glob in match.unix])
    add("abstract", [_text(pattern, None) for pattern in match.abstract])
    add("program", [_text(glob, variables) for glob in match.program])
    if match.loader is not None:
        lines.append(f"loader = {_value(match.loader)}")
    return lines


def words(calls: Sequence[str]) -> list[str]:
    """Returns the shortest list of groups and calls that stands for some calls, in their order.

    Raises:
        ValueError: A group's name is among them without its group.
    """
    found: list[str] = []
    at = 0
    while at < len(calls):
        for group, members in GROUPS.items():
            if tuple(calls[at : at + len(members)]) == members:
                found.append(group)
                at += len(members)
                break
        else:
            if calls[at] in GROUPS:
                raise ValueError(
                    f"{calls[at]}: no word of a file means this call and not its group"
                )
            found.append(calls[at])
            at += 1
    return found


def _action(action: Action, variables: Mapping[str, bytes] | None) -> list[str]:
    lines = [f"action = {_string(action.verb)}"]
    if action.verb == DENY:
        if action.errno != errno.EACCES:
            lines.append(f"errno = {_string(_errno(action.errno))}")
    elif action.verb == REDIRECT:
        to = []
        if action.path is not None:
            to.append(f"path = {_text(action.path, variables, glob=False)}")
        if action.argv is not None:
            to.append(f"argv = [{', '.join(_text(one, None) for one in action.argv)}]")
        if action.set_env:
            pairs = [
                f"{_key(_plain(name))} = {_text(value, None)}" for name, value in action.set_env
            ]
            to.append(f"set_env = {{ {', '.join(pairs)} }}")
        if action.unset_env:
            to.append(f"unset_env = [{', '.join(_text(one, None) for one in action.unset_env)}]")
        if action.address is not None:
            to.append(f"address = {_string(_dollars(show_address(action.address)))}")
        lines.append(f"to = {{ {', '.join(to)} }}")
    elif action.verb == RETURN:
        lines.append(f"value = {action.value}")
    elif action.verb == SERVE:
        lines.append(f"content = {_text(action.data, None)}")
    elif action.verb not in _NAMED:
        raise ValueError(f"no rule can say {action.verb!r}")
    return lines


def _default(action: Action) -> str:
    if action.verb == DENY and action.errno != errno.EACCES:
        return _string(_errno(action.errno))
    return _string(action.verb)


def _limits(limits: Limits) -> list[str]:
    return [
        f"{key} = {value!r}"
        for key in ("tasks", "seconds", "cpu", "memory", "files", "file_size", "core")
        if (value := getattr(limits, key)) is not None
    ]


def _errno(number: int) -> str:
    if number not in errno.errorcode:
        raise ValueError(f"errno {number} has no name")
    return errno.errorcode[number]


def _network(text: str) -> str:
    return text.removesuffix("/128" if ":" in text else "/32")


def _ports(span: tuple[int, int]) -> str:
    first, last = span
    return str(first) if first == last else f'"{first}-{last}"'


def _word(value: str | int) -> str:
    return str(value) if isinstance(value, int) else _string(value)


def _value(value: bytes | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else _text(value, None)


# Texts.


def _text(data: bytes, variables: Mapping[str, bytes] | None, *, glob: bool = True) -> str:
    # The innermost directory that has a name of its own goes first.
    best, at = "", 0
    for name, value in (variables or {}).items():
        spelt = escape(value) if glob else value
        if len(spelt) > max(at, 1) and (data == spelt or data.startswith(spelt + b"/")):
            best, at = f"${{{name}}}", len(spelt)
    return _string(best + _dollars(_plain(data[at:])))


def _plain(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8, so no policy file can hold it: {printable(data)}") from error


def _dollars(text: str) -> str:
    return text.replace("$", "$$")


def _string(text: str) -> str:
    if text.isprintable() and '"' not in text:
        if "\\" not in text:
            return f'"{text}"'
        if "'" not in text:
            return f"'{text}'"
    return '"' + "".join(map(_character, text)) + '"'


def _character(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    return _SHORT.get(char) or (
        f"\\u{ord(char):04X}" if ord(char) < 1 << 16 else f"\\U{ord(char):08X}"
    )


_SHORT: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _key(text: str) -> str:
    bare = text.isascii() and text.replace("_", "a").replace("-", "a").isalnum()
    return text if bare else _string(text)


def _list(key: str, texts: Sequence[str], *, always: bool = False) -> str:
    if len(texts) == 1 and not always:
        return texts[0]
    line = f"[{', '.join(texts)}]"
    if len(key) + 3 + len(line) <= _WIDTH:
        return line
    return "[\n" + "".join(f"    {text},\n" for text in texts) + "]"


def _lists(lists: Sequence[Sequence[str]]) -> str:
    shown = [f"[{', '.join(texts)}]" for texts in lists]
    if len(shown) > 1:
        return "[\n" + "".join(f"    {text},\n" for text in shown) + "]"
    return shown[0] if len(shown[0]) <= _WIDTH else _filled(lists[0])


def _filled(texts: Sequence[str]) -> str:
    # As many on a line as fit.
    lines = [""]
    for text in texts:
        if lines[-1] and len(lines[-1]) + len(text) > _WIDTH - len("     ,"):
            lines.append("")
        lines[-1] += f" {text}," if lines[-1] else f"    {text},"
    return "[\n" + "\n".join(lines) + "\n]"


def _comment(lines: Iterable[str]) -> list[str]:
    # A line break would end the comment, and whatever follows would be policy.
    return [f"# {printable(line.encode(errors='surrogateescape'))}".rstrip() for line in lines]
