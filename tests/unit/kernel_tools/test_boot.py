"""The command line of the machine: what it may touch, and what it may not."""

from pathlib import Path

from kernel import boot


def test_the_root_is_shared_read_only() -> None:
    words = boot.command(Path("/k"), Path("/out,put"), 2, "stdio")
    shares = [words[at + 1] for at, word in enumerate(words) if word == "-fsdev"]
    root, out = shares
    assert "id=root" in root
    assert "path=/," in root
    assert "readonly=on" in root
    assert "path=/out,,put," in out
    assert sum(word == "-device" for word in words) == len(shares)


def test_there_is_no_network_and_no_disk() -> None:
    words = boot.command(Path("/k"), Path("/out"), 2, "stdio")
    assert "-nodefaults" in words
    for option in ("-netdev", "-nic", "-net", "-drive", "-hda", "-blockdev"):
        assert option not in words


def test_processors() -> None:
    words = boot.command(Path("/k"), Path("/out"), 3, "stdio")
    assert words[words.index("-smp") + 1] == "3"
    assert "tcg,thread=multi" in words
