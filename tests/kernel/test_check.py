"""``pinfold check`` as users type it."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from pinfold.policy.file.load import ready
from tests.kernel.support import Terminal, execute

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.support import Done

CHECK: Final = (sys.executable, "-m", "pinfold", "check")

POLICY: Final = """\
version = 1
description = "one socket"

[[rule]]
name = "the one socket"
on = ["connect", "send"]
unix = "/run/${USER}/*.sock"
action = "allow"

[[rule]]
on = "socket"
family = "packet"
action = "deny"

[defaults]
connect = "EPERM"
"""


def check(*args: str | bytes | Path, **options: Any) -> Done:
    """Runs ``pinfold check ARGS``."""
    options.setdefault("env", os.environ | {"USER": "u", "HOME": "/home/u"})
    return execute([*CHECK, *args], **options)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "p.toml"
    path.write_text(POLICY)
    return path


def test_a_policy_in_words(policy: Path) -> None:
    done = check(policy)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{policy}: one socket\n\n")
    assert (
        "\nconnect\n  1. the one socket: A connect or send that names the Unix socket"
        " /run/u/*.sock is allowed.\n  Anything else fails with EPERM.\n"
    ) in done.stdout
    assert "\nTrapped calls\n  connect: connect\n  send: sendto sendmsg sendmmsg\n" in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
    assert "\x1b" not in done.stdout


def test_an_error_is_where_it_is(policy: Path) -> None:
    policy.write_text(POLICY.replace('connect",', 'conect",'))
    done = check(policy)
    assert (done.returncode, done.stdout) == (125, "")
    head, line, caret = done.stderr.splitlines()
    assert head.startswith(f"pinfold: {policy}:6:7: rule[0].on[0]: ")
    assert "'conect'; did you mean connect" in head
    assert line == '  on = ["conect", "send"]'
    assert caret == "  " + " " * 6 + "^"


def test_warnings_are_on_standard_error(policy: Path) -> None:
    rule = '[[rule]]\nname = "l"\nloader = true\non = "open"\naction = "allow"\n'
    policy.write_text(POLICY + rule)
    done = check(policy)
    assert done.returncode == 0
    assert done.stderr.startswith(f"pinfold: warning: rule l ({policy}:17): ")
    assert "a program can pass for the loader" not in done.stdout


def test_names_that_are_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    policy = tmp_path / "p.toml"
    text = 'version = 1\n{}[[rule]]\nname = "x"\n{} = "{}"\naction = "deny"\n'
    for key, name in (("path", "link"), ("path", "link/*.pem"), ("exact", "link/a/b")):
        policy.write_text(text.format("", key, tmp_path / name))
        done = check(policy)
        assert done.returncode == 0
        (line,) = done.stderr.splitlines()
        assert f"rule x ({policy}:2): {tmp_path}/link" in line
        assert f"leads over a symbolic link to {tmp_path}/real" in line
    for top, name in (("real = true\n", "link"), ("", "real"), ("", "real/*.pem"), ("", "none")):
        policy.write_text(text.format(top, "path", tmp_path / name))
        assert check(policy).stderr == ""


def test_several_files_make_one_policy(policy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('version = 1\n[defaults]\nconnect = "allow"\nsend = "kill"\n')
    found = json.loads(check("--json", policy, other).stdout)
    assert found["files"] == [str(policy), str(other)]
    assert found["defaults"]["connect"]["errno"] == 1
    assert found["defaults"]["send"]["verb"] == "kill"


def test_json(policy: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff[a]\n"
    os.mkdir(odd)
    policy.write_text(
        POLICY
        + '[[rule]]\npath = "${CWD}"\nenv = { A = true }\non = "exec"\naction = "deny"\n'
        + '[[rule]]\non = "connect"\naddress = "10.0.0.0/8"\nfamily = ["inet", 44]\nport = 1\n'
        + 'action = "redirect"\nto.address = "127.0.0.1:80"\n'
    )
    done = check("--json", policy, cwd=odd)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    first, _, second, third = found["rules"]
    assert (first["name"], first["source"]) == ("the one socket", f"{policy}:4")
    assert first["match"]["unix"] == ["/run/u/*.sock"]
    assert os.fsencode(second["match"]["path"][0]) == odd.replace(b"[", rb"\[")
    assert second["match"]["env"] == [["A", True]]
    assert third["match"]["networks"] == ["10.0.0.0/8"]
    assert third["match"]["ports"] == [[1, 1]]
    assert third["match"]["family"] == [44, "inet"]
    assert third["action"]["address"] == "inet:127.0.0.1:80"
    assert found["trapped"]["execve"] == ["strings"]
    assert "sockaddr" in found["trapped"]["connect"]


def test_odd_names_do_not_reach_the_terminal(policy: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff\x1b[31m"
    os.mkdir(odd)
    policy.write_text('version = 1\n[[rule]]\npath = "${CWD}"\naction = "deny"\n')
    done = check(policy, cwd=odd)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert r"\xff\x1b[31m" in done.stdout.replace("\n      ", "")
    missing = check("no\x1b[31m.toml")
    assert missing.returncode == 125
    assert (
        missing.stderr == "pinfold: no\\x1b[31m.toml: cannot be read: No such file or directory\n"
    )


def test_variables_can_be_set(policy: Path) -> None:
    policy.write_text('version = 1\n[[rule]]\npath = "/x/${NAME}"\naction = "deny"\n')
    assert check(policy).returncode == 125
    done = check("--json", "--set", "NAME=a=b", policy)
    assert json.loads(done.stdout)["rules"][0]["match"]["path"] == ["/x/a=b"]
    for wrong in ("NAME", "HOME=/x", "1A=x"):
        done = check("--set", wrong, policy)
        assert done.returncode == 125
        assert len(done.stderr.splitlines()) == 1


def test_wrong_usage() -> None:
    done = check()
    assert done.returncode == 125
    assert done.stderr.startswith("pinfold: no FILE given")


@pytest.mark.parametrize("name", ready())
def test_the_ready_policies_leave_nothing_to_say(name: str, tmp_path: Path) -> None:
    done = check(f"builtin:{name}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"builtin:{name}: ")


@pytest.mark.parametrize("colour", [True, False])
def test_titles_stand_out_on_a_terminal(policy: Path, colour: bool) -> None:
    environment = os.environ | {"USER": "u"}
    environment.pop("NO_COLOR", None)
    if not colour:
        environment["NO_COLOR"] = "1"
    with Terminal([*CHECK, policy], env=environment) as terminal:
        assert terminal.status() == 0
        assert "Trapped calls" in terminal.seen
        assert ("\x1b[1m" in terminal.seen) is colour
