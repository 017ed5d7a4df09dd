"""The page about conformance: which results count, and what is shown of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """Returns the tool as a module."""
    spec = importlib.util.spec_from_file_location(
        "conformance_table", ROOT / "tools/conformance_table.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def written(path: Path, *tests: tuple[str, str, str]) -> Path:
    """Writes results: file, name of the test, and what stands inside of its element."""
    cases = "".join(
        f'<testcase classname="tests.conformance.{file}" name="{name}" time="0.5">{inside}'
        "</testcase>"
        for file, name, inside in tests
    )
    path.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    return path


SKIPPED = '<skipped message="{}"/>'
FAILED = '<failure message="it did not&#10;more"/>'
KNOWN = '<skipped type="pytest.xfail" message="as ever"/>'
LACK = SKIPPED.format("back end native: none here")


def row(page: str, name: str) -> list[str]:
    """Returns the cells of the row whose first one begins so."""
    (found,) = [line for line in page.splitlines() if line.startswith(f"| {name}")]
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


def test_results_of_two_kernels(tool: ModuleType, tmp_path: Path) -> None:
    stock = written(
        tmp_path / "stock.xml",
        ("test_errnos", "test_install[interrupt-EINVAL-flags]", ""),
        ("test_errnos", "test_install[native-EINVAL-flags]", LACK),
        ("test_errnos", "test_install[native-first-EINVAL-flags]", LACK),
        ("test_pins", "test_large[4-interrupt]", ""),
        ("test_pins", "test_large[8-interrupt]", KNOWN),
    )
    native = written(
        tmp_path / "native.xml",
        ("test_errnos", "test_install[native-EINVAL-flags]", ""),
        ("test_errnos", "test_install[native-first-EINVAL-flags]", FAILED),
        ("test_pins", "test_large[4-native]", SKIPPED.format("no room")),
        ("test_kernel_pins", "test_own[native]", ""),
    )
    page = tmp_path / "page.md"
    status = tool.main([str(stock), str(native), "--stock", "a kernel", "--to", str(page)])
    text = page.read_text()
    assert status == 1
    assert row(text, "install: `EINVAL-flags`") == ["pass", "**FAIL**", "pass"]
    assert row(text, "large (2 cases)") == ["skipped", "-", "1 pass, 1 known failure"]
    assert row(text, "own") == ["pass", "-", "-"]
    assert row(text, "all") == ["2 pass, 1 skipped", "**FAIL**", "2 pass, 1 known failure"]
    assert "- native-first, `test_errnos.py`, install: it did not\n" in text
    assert "- native, `test_pins.py`, large: no room\n" in text
    assert "none here" not in text
    assert "a kernel" in text


def test_the_last_run_counts(tool: ModuleType, tmp_path: Path) -> None:
    test = ("test_pins", "test_one[native]")
    runs = [
        written(tmp_path / f"{number}.xml", (*test, inside))
        for number, inside in enumerate((FAILED, "", LACK))
    ]
    (case,) = tool.merged(case for run in runs for case in tool.read(run))
    assert case.outcome == "passed"


@pytest.mark.parametrize("content", [None, "<testsuites>"])
def test_results_that_cannot_be_read(
    tool: ModuleType, tmp_path: Path, content: str | None, capsys: Any
) -> None:
    path = tmp_path / "results.xml"
    if content is not None:
        path.write_text(content)
    page = tmp_path / "page.md"
    with pytest.raises(SystemExit) as caught:
        tool.main([str(path), "--stock", "a kernel", "--to", str(page)])
    assert caught.value.code == 2
    assert "results.xml" in capsys.readouterr().err or content is not None
    assert not page.exists()
