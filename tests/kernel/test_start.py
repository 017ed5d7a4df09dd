"""What a run imports: each module is time that whoever types a command waits for."""

from __future__ import annotations

import sys

import pytest

from tests.kernel.support import execute

HEAVY = {
    *("argparse", "ast", "asyncio", "click", "dataclasses", "datetime", "dis", "email", "gettext"),
    *("hashlib", "importlib.metadata", "inspect", "ipaddress", "json", "locale", "logging"),
    *("msgspec", "multiprocessing", "pathlib", "platform", "random", "rich", "selectors"),
    *("shutil", "socket", "subprocess", "tempfile", "tokenize", "traceback", "uuid"),
    *("pinfold.audit.record", "pinfold.audit.writer", "pinfold.bpf.dump", "pinfold.bpf.interp"),
    *("pinfold.cli.ask", "pinfold.cli.commands", "pinfold.cli.options", "pinfold.policy.model"),
}


def imported(*arguments: str) -> set[str]:
    done = execute([sys.executable, "-X", "importtime", "-m", "pinfold", *arguments])
    assert done.returncode == 0, done.stderr
    lines = (line.split("|") for line in done.stderr.splitlines() if line.startswith("import time"))
    return {columns[-1].strip() for columns in lines}


@pytest.mark.parametrize(
    "options", [[], ["--deny", "/nowhere"], ["--map", "/a=/b", "--keep-caps", "--cpu", "spread"]]
)
def test_a_run_imports_nothing_heavy(options: list[str]) -> None:
    found = imported("run", *options, "--", "true")
    assert "pinfold.session" in found
    assert not found & HEAVY


def test_a_log_costs_its_own_modules_only() -> None:
    found = imported("run", "--audit=-", "--deny", "/nowhere", "--", "true")
    assert "pinfold.audit.writer" in found
    assert not found & {"asyncio", "click", "dataclasses", "inspect", "rich", "pinfold.cli.ask"}
