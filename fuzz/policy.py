"""Policy files: any text is a policy, or a ``PolicyError`` that says where it is wrong.

An input is the text of a file, or choices from which one is written. What it may include lies in
one directory, where some files include themselves; the harness lets nothing else be opened. Where
there is a policy, it is judged by: its judge and the slow one of ``tests/unit/policy/oracle.py``
have to agree about calls, it can be said in words, and whatever is said can be printed.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fuzz.harness import Given, instrumented, main

with instrumented(__name__):
    from pinfold.cli import check as checking
    from pinfold.errors import PolicyError
    from pinfold.policy.file import load as loading
    from pinfold.policy.file.explain import explain
    from pinfold.policy.file.load import load, merge, parse
    from pinfold.policy.judging.judge import RuleJudge

from tests.unit.policy.random_models import drawn_call
from tests.unit.policy.test_judge import compare

if TYPE_CHECKING:
    from pinfold.policy.model import PolicyModel

ENVIRON: Final = {"HOME": "/home/u", "USER": "u", "EMPTY": "", "WORDS": "[a]*?\\"}
FILES: Final = {
    "base": 'version = 1\n[variables]\nA = "/a"\n[[rule]]\naction = "deny"\npath = "${A}"\n',
    "self": 'version = 1\ninclude = "self"\n',
    "two": 'version = 1\ninclude = ["three", "base"]\n',
    "three": 'version = 1\ninclude = "./two"\n',
    "content": "not a policy",
}
HEADERS: Final = (
    *("[[rule]]", "[[rule]]", "[[rule]]", "[[rule]]", "[rule.to]", "[defaults]", "[variables]"),
    *("[limits]", "[landlock]", "[audit]", "[rule]", "[unknown]", "[[rule.to]]", "[to]"),
)
KEYS: Final = (
    *("action", "action", "action", "name", "on", "on", "path", "path", "exact", "real", "access"),
    *("argv", "env", "family", "address", "port", "unix", "abstract", "program", "loader", "errno"),
    *("to", "value", "content", "content_file", "set_env", "unset_env", "ro", "rw", "tasks"),
    *("seconds", "cpu", "memory", "files", "file_size", "core", "on_loss", "include", "real"),
    *("description", "handler_seconds", "version", '"*"', "exec", "open", "A", "B", "HOME", "x y"),
    *('"a.b"', "rule", "defaults.exec", "to.path", '"\\u0000"', "'\u202e'"),
)
TEXTS: Final = (
    *("allow", "deny", "redirect", "return", "serve", "kill", "ask", "open", "exec", "openat(2)"),
    *("connect", "send", "rename", "read", "write", "create", "EACCES", "EPERM", "unix", "inet"),
    *("/", "/a", "/a/b", "/a/*", "/a/**", "**", "**/b", "/[ab]", "/a/../b", "//", "", "...", "git"),
    *(
        "127.0.0.1",
        "10.0.0.0/8",
        "::1",
        "::/0",
        "10.0.0.1/8",
        "127.0.0.1:80",
        "[::1]:80",
        "unix:/a",
    ),
    *("unix:@x", "8000-8080", "80", "9-8", "512M", "99999999999999999G", "stop", "continue"),
    *("${A}", "${B}", "${HOME}/x", "${env:HOME}", "${env:EMPTY}", "${env:NO:-x}", "$$", "$", "${"),
    *("${CWD}/a", "${POLICY_DIR}", "${env:WORDS}", "builtin:", "builtin:base", "base", "self"),
    *("two", "content", "/a\u202e", "\u00e9", "a\\\\b", "[a", "/\\\\*", "*", "?", "\\u0000", "/a"),
)
VALUES: Final = (
    *("1", "0", "-1", "true", "false", "1.5", "inf", "nan", "9223372036854775807", "0x7f", "1e400"),
    *("9223372036854775808", "[]", "{}", "2020-01-01", '[["git", "push"]]', '[["git"], "x"]'),
    *("{ A = true }", '{ path = "/b" }', '{ argv = ["a", "..."] }', '{ set_env = { A = "1" } }'),
    *(
        '{ address = "127.0.0.1:1" }',
        '{ path = "/b", x = 1 }',
        "{ A = { B = { C = 1 } } }",
        "[1, 2]",
    ),
)
_PLACED: Final = re.compile(r"(?:policy|[^\n:]*/\w+|builtin:\w+):\d+:\d+: ")


def _directory() -> str:
    made = os.path.realpath(tempfile.mkdtemp(prefix="pinfold-fuzz-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    for name, text in FILES.items():
        with open(f"{made}/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    return made


DIRECTORY: Final = _directory()


_PYTHON: Final = (os.path.dirname(loading.__file__), sys.prefix, sys.base_prefix)
"""Where ready policies are, and modules that are imported when they are needed."""


class _Confined:
    # While it is entered, nothing else is opened than what lies in the directory, or is of Python.
    on = False

    def __enter__(self) -> None:
        _Confined.on = True

    def __exit__(self, *_: object) -> None:
        _Confined.on = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _Confined.on or event != "open" or not isinstance(arguments[0], str | bytes):
        return
    name = os.path.realpath(os.fsdecode(arguments[0]))
    if not name.startswith((f"{DIRECTORY}/", *_PYTHON)):
        raise PermissionError(13, "not for a fuzzer")


sys.addaudithook(_audit)


def one(data: bytes) -> None:
    """Takes one input."""
    given = Given(data)
    how = given.number(1)
    seed = given.number(2)
    if how & 1:
        text = _written(given)
    else:
        text = given.rest().decode("utf-8", "surrogateescape" if how & 2 else "replace")
    model = _model(text, in_file=bool(how & 4))
    if model is not None:
        _used(model, Random(seed))


def _written(given: Given) -> str:
    lines = ["version = 1"]
    if given.number(1) & 1:
        lines.append("[variables]\nA = '/a'\nB = '${A}/b'")
    while given and len(lines) < 60:
        how = given.number(1)
        if how < 0x40:
            lines.append(given.pick(HEADERS))
            if lines[-1] == "[[rule]]":
                lines.append(f'action = "{given.pick(TEXTS[:7])}"')
        else:
            lines.append(f"{given.pick(KEYS)} = {_value(given)}")
    return "\n".join(lines)


def _value(given: Given) -> str:
    how = given.number(1)
    if how < 0x90:
        return f'"{given.pick(TEXTS)}"'
    if how < 0xC0:
        return "[" + ", ".join(f'"{given.pick(TEXTS)}"' for _ in range(how & 3)) + "]"
    if how < 0xE0:
        return given.pick(VALUES)
    text = given.text(12).decode("utf-8", "replace")
    return json.dumps(text, ensure_ascii=bool(how & 1))


def _model(text: str, *, in_file: bool) -> PolicyModel | None:
    try:
        if in_file:
            name = f"{DIRECTORY}/tried"
            with open(name, "wb") as file:
                file.write(text.encode("utf-8", "surrogateescape"))
            with _Confined():
                return load([name], environ=ENVIRON, cwd=b"/work")
        directory = os.fsencode(DIRECTORY)
        with _Confined():
            return parse(text, directory=directory, environ=ENVIRON, cwd=b"/work")
    except PolicyError as error:
        said = str(error)
        # A terminal gets it.
        assert all(line.isprintable() for line in said.split("\n")), repr(said)
        assert _PLACED.match(said), said
        return None


def _used(model: PolicyModel, chosen: Random) -> None:
    judge = RuleJudge(model, None)
    explanation = explain(model, judge.calls)
    for section in explanation.sections:
        assert section.title.isprintable()
        assert all(line.isprintable() for line in section.lines), section
    assert all(warning.isprintable() for warning in explanation.warnings), explanation.warnings
    json.dumps(checking._document(model, judge.calls))
    for line in checking._lines(model, explanation, ["policy"]):
        assert line.isprintable(), line
    assert merge([model]) == model
    # The oracle tells rules apart by their names.
    rules = tuple(replace(rule, name=f"rule {at}") for at, rule in enumerate(model.rules))
    compare(replace(model, rules=rules), [drawn_call(chosen) for _ in range(4)])


if __name__ == "__main__":
    main("policy", one)
