"""The ready policies: they can be read anywhere, leave nothing to doubt, and are documented."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pinfold.policy.file.doubts import doubts
from pinfold.policy.file.load import load, parse, ready
from pinfold.policy.judging.judge import RuleJudge

ROOT = Path(__file__).parents[3]
READY = ROOT / "src/pinfold/policy/file/ready"
ENVIRON = {"HOME": "/home/u", "USER": "u"}
MAIN = {"agent", "build", "judge", "pip"}


def test_these_there_are() -> None:
    assert set(ready()) >= MAIN
    assert {f"{name}.toml" for name in ready()} == {path.name for path in READY.iterdir()}


@pytest.mark.parametrize("name", ready())
@pytest.mark.parametrize("cwd", [b"/srv/work", b"/", b"/odd [dir]*\xff", b"/home/u"])
def test_each_is_a_policy_in_any_directory(name: str, cwd: bytes) -> None:
    found = load([f"builtin:{name}"], environ=ENVIRON, cwd=cwd)
    assert found.files[0] == f"builtin:{name}"
    assert found.description
    assert RuleJudge(found, None).calls
    names = [rule.name for rule in found.rules]
    assert len(set(names)) == len(names)
    assert not any("builtin:" in one for one in names), "a rule without a name"
    # In the root everything is below the work directory, and so some rules come too late.
    if cwd != b"/":
        assert list(doubts(found)) == []


@pytest.mark.parametrize("name", ready())
def test_each_explains_itself(name: str) -> None:
    text = (READY / f"{name}.toml").read_text()
    assert text.count("\n#") >= 3
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "description" in tomllib.loads(text)


@pytest.mark.parametrize("name", sorted(MAIN))
def test_whoever_includes_one_can_say_otherwise(name: str) -> None:
    found = parse(
        f'version = 1\ninclude = "builtin:{name}"\n[defaults]\nopen = "kill"\n[limits]\ntasks = 3',
        environ=ENVIRON,
        cwd=b"/w",
    )
    assert found.defaults["open"].verb == "kill"
    assert found.limits.tasks == 3


def test_secrets_come_before_what_allows() -> None:
    for name in ("agent", "pip"):
        rules = load([f"builtin:{name}"], environ=ENVIRON, cwd=b"/home/u").rules
        order = [rule.name for rule in rules]
        assert order.index("secrets") < order.index("workspace")
        before = rules[: order.index("secrets")]
        # What is allowed before that is about sockets.
        allowed = [rule for rule in before if rule.action.verb == "allow"]
        assert all(one.match.unix or one.match.family or one.match.networks for one in allowed)


def test_where_pip_writes() -> None:
    def places(**environ: str) -> tuple[bytes, ...]:
        found = load(["builtin:pip"], environ=ENVIRON | environ, cwd=b"/w")
        (rule,) = (rule for rule in found.rules if rule.name == "workspace")
        return rule.match.path[:-2]

    assert places() == (b"/w", b"/home/u/.cache/pip")
    assert places(XDG_CACHE_HOME="/c") == (b"/w", b"/c/pip")
    assert places(VIRTUAL_ENV="/v", PIP_CACHE_DIR="/p") == (b"/w", b"/v", b"/p")


def test_the_work_directory_can_be_another_one() -> None:
    text = 'version = 1\ninclude = "builtin:workspace"\n[variables]\nWORK = "/srv/x"'
    rule = parse(text, environ=ENVIRON, cwd=b"/w").rules[0]
    assert rule.match.path[0] == b"/srv/x"


def test_the_documentation_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "tools/gen_policy_docs.py"), "--check"]
    subprocess.run(command, check=True, timeout=60)


def test_the_documentation_names_each() -> None:
    text = (ROOT / "docs/policy.md").read_text()
    assert all(f"| `{name}` |" in text for name in ready())


def test_the_example_in_the_documentation_is_a_policy() -> None:
    text = (ROOT / "docs/policy.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    found = parse(example, environ=ENVIRON, cwd=b"/w")
    assert found.rules[0].match.unix == (b"/run/u/app/*.sock",)
    assert list(doubts(found)) == []
