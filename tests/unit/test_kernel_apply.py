"""The insertions into the kernel: all or nothing, each at its anchor, again without harm."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kernel import apply
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

KERNEL = ROOT / "kernel"
SCRIPT = KERNEL / "apply.py"
EDGE = "/* not ours */\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    # Nothing of the kernel but the anchors.
    for insertion in apply.INSERTIONS:
        file = tmp_path / insertion.path
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text() if file.exists() else EDGE
        file.write_text(before + insertion.anchor + EDGE)
    for ours in apply.FILES.rglob("*"):
        if ours.is_dir():
            (tmp_path / ours.relative_to(apply.FILES)).mkdir(parents=True, exist_ok=True)
    return tmp_path


@pytest.fixture
def mine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    # The only file of ours.
    file = tmp_path_factory.mktemp("ours") / "kernel" / "mine.c"
    file.parent.mkdir()
    file.write_text("one\n")
    monkeypatch.setattr(apply, "FILES", file.parents[1])
    return file


def _files(tree: Path) -> dict[str, tuple[str, int]]:
    return {
        str(file.relative_to(tree)): (file.read_text(), file.stat().st_mtime_ns)
        for file in tree.rglob("*")
        if file.is_file()
    }


def test_every_insertion_is_beside_its_anchor(tree: Path) -> None:
    apply.apply(tree)
    for insertion in apply.INSERTIONS:
        text = (tree / insertion.path).read_text()
        pair = (insertion.anchor, insertion.text)
        assert "".join(reversed(pair) if insertion.before else pair) in text
    for file in apply.FILES.rglob("*"):
        if file.is_file():
            assert (tree / file.relative_to(apply.FILES)).read_text() == file.read_text()


def test_what_is_inserted_is_all_that_changes(tree: Path) -> None:
    before = {path: text for path, (text, _) in _files(tree).items()}
    apply.apply(tree)
    for path, text in before.items():
        after = (tree / path).read_text()
        for insertion in apply.INSERTIONS:
            if insertion.path == path:
                after = after.replace(insertion.text, "", 1)
        assert after == text


def test_again_writes_nothing(tree: Path) -> None:
    assert apply.apply(tree)
    before = _files(tree)
    assert apply.apply(tree) == []
    assert _files(tree) == before


def test_a_changed_file_of_ours_is_written_alone(tree: Path, mine: Path) -> None:
    apply.apply(tree)
    mine.write_text("two\n")
    assert apply.apply(tree) == ["kernel/mine.c"]
    assert (tree / "kernel" / "mine.c").read_text() == "two\n"


def test_a_file_that_we_have_no_more_is_gone(tree: Path, mine: Path) -> None:
    apply.apply(tree)
    mine.unlink()
    assert apply.apply(tree) == []
    assert not (tree / "kernel" / "mine.c").exists()


def test_a_file_that_somebody_has_changed(tree: Path) -> None:
    apply.apply(tree)
    file = tree / "kernel" / "seccomp.c"
    file.write_text(file.read_text() + "more\n")
    before = _files(tree)
    with pytest.raises(apply.ApplyError, match=r"kernel/seccomp\.c: was changed since"):
        apply.apply(tree)
    assert _files(tree) == before


@pytest.mark.parametrize("first", [True, False])
def test_interrupted_at_any_write(
    tree: Path,
    mine: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    first: bool,
) -> None:
    few = tuple({one.path: one for one in apply.INSERTIONS}.values())[:3]
    monkeypatch.setattr(apply, "INSERTIONS", few)
    if not first:
        apply.apply(tree)
        mine.write_text("two\n")
        monkeypatch.setattr(apply, "INSERTIONS", (few[0]._replace(text="# other\n"), *few[1:]))

    def copied() -> Path:
        return Path(shutil.copytree(tree, tmp_path_factory.mktemp("copy") / "tree"))

    def texts(tree: Path) -> dict[str, str]:
        return {path: text for path, (text, _) in _files(tree).items()}

    whole = copied()
    apply.apply(whole)
    write = apply._write
    for count in itertools.count():
        left = iter(range(count))

        def stopping(path: Path, text: str, left: Iterator[int] = left) -> bool:
            if next(left, None) is not None:
                return write(path, text)
            if not path.exists() or path.read_text() != text:
                # In the middle of it.
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name(f"{path.name}.pinfold").write_text(text[:5])
            raise KeyboardInterrupt

        place = copied()
        with monkeypatch.context() as patched:
            patched.setattr(apply, "_write", stopping)
            try:
                apply.apply(place)
            except KeyboardInterrupt:
                interrupted = True
            else:
                interrupted = False
        apply.apply(place)
        assert apply.apply(place) == []
        assert texts(place) == texts(whole)
        if not interrupted:
            break
    assert count > len(few)


def test_a_file_of_the_kernels_that_needs_nothing_any_more(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = apply.INSERTIONS[0].path
    before = (tree / path).read_text()
    apply.apply(tree)
    assert (tree / path).read_text() != before
    fewer = tuple(one for one in apply.INSERTIONS if one.path != path)
    monkeypatch.setattr(apply, "INSERTIONS", fewer)
    apply.apply(tree)
    assert (tree / path).read_text() == before
    for insertion in fewer:
        assert (tree / insertion.path).read_text().count(insertion.text) >= 1
    assert apply.apply(tree) == []


@pytest.mark.parametrize("removals", [0, 1])
def test_interrupted_while_a_file_of_the_kernels_is_given_back(
    tree: Path, monkeypatch: pytest.MonkeyPatch, removals: int
) -> None:
    path = apply.INSERTIONS[0].path
    before = (tree / path).read_text()
    apply.apply(tree)
    fewer = tuple(one for one in apply.INSERTIONS if one.path != path)
    monkeypatch.setattr(apply, "INSERTIONS", fewer)
    left = iter(range(removals))
    unlink = Path.unlink

    def stopping(path: Path, missing_ok: bool = False) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", stopping)
        with pytest.raises(KeyboardInterrupt):
            apply.apply(tree)
    apply.apply(tree)
    assert (tree / path).read_text() == before
    assert apply.apply(tree) == []


@pytest.mark.parametrize("insertion", apply.INSERTIONS, ids=lambda one: one.path)
@pytest.mark.parametrize("times", [0, 2])
def test_an_anchor_that_is_not_there_once(tree: Path, insertion: Any, times: int) -> None:
    file = tree / insertion.path
    file.write_text(file.read_text().replace(insertion.anchor, insertion.anchor * times))
    before = _files(tree)
    with pytest.raises(apply.ApplyError, match=f"{insertion.path}: the anchor is there"):
        apply.apply(tree)
    assert _files(tree) == before


def test_a_kernel_that_has_a_file_of_our_name(tree: Path) -> None:
    (tree / "mm" / "seccomp_pin.c").write_text("theirs\n")
    before = _files(tree)
    with pytest.raises(apply.ApplyError, match="the kernel has a file of this name"):
        apply.apply(tree)
    assert _files(tree) == before


def test_no_tree_at_all(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"apply.py: {tmp_path}: no kernel sources\n"


def test_every_part_of_the_kernel_side_says_its_licence() -> None:
    for file in KERNEL.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            lines = file.read_text().splitlines()
            head = lines if file.suffix == ".md" else lines[:3]
            assert any("GPL-2.0-only" in line for line in head), file
