"""What a kernel is filed under, and what is asked of its configuration."""

from pathlib import Path

import pytest

from kernel import build
from kernel.build import VARIANTS, options, unmet, wanted
from kernel.source import KernelError, digest, digest_of_ours


def test_a_piece_of_configuration() -> None:
    text = '# Words\nCONFIG_A=y\n\n# CONFIG_B is not set\nCONFIG_C="x y"\nCONFIG_D=12\n'
    assert options(text) == {
        "CONFIG_A": "y",
        "CONFIG_B": "n",
        "CONFIG_C": '"x y"',
        "CONFIG_D": "12",
    }


@pytest.mark.parametrize("line", ["CONFIG_A", "A=y", " CONFIG_A=y"])
def test_not_a_line(line: str) -> None:
    with pytest.raises(KernelError, match="not a line"):
        options(line + "\n")


def test_what_did_not_come_true() -> None:
    made = {"CONFIG_A": "y", "CONFIG_C": "m"}
    assert unmet({"CONFIG_A": "y", "CONFIG_B": "n"}, made) == []
    assert unmet({"CONFIG_A": "n", "CONFIG_B": "y", "CONFIG_C": "y"}, made) == [
        "CONFIG_A is y, not n",
        "CONFIG_B is n, not y",
        "CONFIG_C is m, not y",
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(variant: str) -> None:
    assert wanted("base", plain=True).items() <= wanted(variant, plain=True).items()
    assert wanted(variant, plain=False)["CONFIG_SECCOMP_REDIRECT"] == "y"
    assert "CONFIG_SECCOMP_REDIRECT" not in wanted(variant, plain=True)


def test_parts_of_a_hash_do_not_run_together() -> None:
    assert digest([b"ab", b"c"]) != digest([b"a", b"bc"])
    assert digest([b"", b"a"]) != digest([b"a", b""])


def test_a_key_is_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "files" / "kernel").mkdir(parents=True)
    for name in ("base", "lockdep", "kasan"):
        (tmp_path / "config" / f"{name}.config").write_text(f"CONFIG_{name.upper()}=y\n")
    (tmp_path / "apply.py").write_text("one")
    (tmp_path / "files" / "kernel" / "a.c").write_text("a")
    monkeypatch.setattr(build, "HERE", tmp_path)
    seen = {build.key("base", plain=False, tarball="t")}
    assert build.key("base", plain=False, tarball="t") in seen

    def another(*, plain: bool = False, variant: str = "base", tarball: str = "t") -> None:
        key = build.key(variant, plain, tarball)
        assert key not in seen
        seen.add(key)

    another(tarball="u")
    another(plain=True)
    another(variant="lockdep")
    (tmp_path / "apply.py").write_text("two")
    another()
    (tmp_path / "files" / "kernel" / "a.c").write_text("b")
    another()
    (tmp_path / "files" / "kernel" / "a.c").rename(tmp_path / "files" / "kernel" / "b.c")
    another()
    (tmp_path / "config" / "base.config").write_text("CONFIG_BASE=n\n")
    another()


def test_what_somebody_changed_in_a_tree(tmp_path: Path) -> None:
    (tmp_path / ".pinfold" / "made" / "mm").mkdir(parents=True)
    (tmp_path / ".pinfold" / "made" / "mm" / "a.c").write_text("a")
    (tmp_path / "mm").mkdir()
    (tmp_path / "mm" / "a.c").write_text("a")
    before = digest_of_ours(tmp_path)
    assert digest_of_ours(tmp_path) == before
    (tmp_path / "mm" / "a.c").write_text("b")
    assert digest_of_ours(tmp_path) != before
