"""The workloads of ``pinfold bench``: each does its work, in every way, and would be found out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pinfold.bench import workloads, workloads_others
from pinfold.bench import workloads_trees as trees
from pinfold.bench.measure import Settings, WrongError
from pinfold.bench.workloads_programs import FAMILIES, Family, Program
from pinfold.policy.handlers.policy import Policy
from pinfold.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

QUICK = Settings(1, quick=True)
NAMES = [name for family in FAMILIES for name in family.names]


def prepared(names: list[str]) -> Iterator[Program]:
    for program, missing in workloads.prepared(QUICK, names):
        assert program is not None, f"this machine must have what the workloads need: {missing}"
        yield program


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_does_the_same_under_rules(name: str) -> None:
    for program in prepared([name]):
        expected = workloads.proved_bare(program)
        variables = {"PLACE": program.env["HOME"]}
        policy = Policy.load(str(workloads.POLICY), variables=variables)
        sandbox = Sandbox(policy=policy, deny=["/etc/shadow"])
        runner = workloads.Runner(program, workloads.in_sandbox(sandbox), expected)
        assert runner.run() > 0
        assert runner.judged > 0
        assert not Path(program.env["HOME"], "audit.jsonl").exists()


@pytest.mark.parametrize("name", NAMES)
def test_work_that_was_not_done_is_found_out(name: str) -> None:
    for program in prepared([name]):
        idle = program._replace(argv=("true",))
        with pytest.raises(WrongError):
            workloads.proved_bare(idle)
        failing = program._replace(argv=("false",))
        for start in (workloads.bare, workloads.in_sandbox(Sandbox())):
            with pytest.raises(WrongError, match="ended with 1"):
                workloads.Runner(failing, start, "").run()


def test_what_differs_from_the_bare_program_is_found_out() -> None:
    for program in prepared(["shell"]):
        runner = workloads.Runner(program, workloads.bare, "something else")
        with pytest.raises(WrongError, match="by itself something else"):
            runner.run()


def test_a_table_says_how_many_calls_were_judged() -> None:
    for program in prepared(["shell"]):
        made = workloads.measured(program, QUICK)
        assert [row.name for row in made.rows] == ["bare", "confined", "deny", "policy", "log"]
        assert "execve" in made.what
        said = {row.name: row.what for row in made.rows}
        assert "judged" not in said["bare"]
        assert "judged" not in said["confined"]
        for name in ("deny", "policy", "log"):
            assert "calls judged" in said[name]


def test_calls_are_counted_by_name() -> None:
    for program in prepared(["shell"]):
        counted = workloads.count(program)
        # Each of the 20 rounds starts one program, in a process of its own; and the shell itself.
        assert counted.tasks == 21
        assert counted.calls["execve"] >= 21


def test_the_directory_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for program in prepared(["loopback"]):
        assert list(tmp_path.iterdir()) == [Path(program.env["HOME"])]
    assert not list(tmp_path.iterdir())


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = Family(("one", "two"), ("no-such-program-as-this",), FAMILIES[0].prepare)
    monkeypatch.setattr(workloads, "FAMILIES", (lacking,))
    made = list(workloads.tables(QUICK))
    assert [(table.name, table.rows) for table in made] == [("one", ()), ("two", ())]
    assert all(table.missing == ("not installed: no-such-program-as-this",) for table in made)


def test_other_sandboxes_are_measured_or_named() -> None:
    names = {one.name for one in workloads_others.OTHERS}
    for program in prepared(["shell"]):
        made = workloads_others.measured(program, QUICK)
        rows = {row.name for row in made.rows}
        assert {"bare", "pinfold"} <= rows
        missing = {line.partition(":")[0] for line in made.missing}
        assert rows - {"bare", "pinfold"} == names - missing
        assert ("strace" in rows) == (shutil.which("strace") is not None)


def test_trees_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert trees.source_tree(tmp_path / name, 120) == 12
    assert trees.digest(tmp_path / "one", "*") == trees.digest(tmp_path / "two", "*")
    assert len(list((tmp_path / "one").rglob("*.c"))) == 120


def test_an_output_that_is_not_what_was_to_come_is_refused() -> None:
    for program in prepared(["git-status"]):
        with pytest.raises(WrongError, match="to come out"):
            program.proof(b"one line\n")
