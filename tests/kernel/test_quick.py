"""The short way to a verdict and the long one come to the same, call for call."""

from __future__ import annotations

import errno
import json
import os
import shutil
from typing import TYPE_CHECKING, Any, Final

import pytest

from pinfold.sandbox import PIPE, Sandbox
from pinfold.supervisor.quick import Quick
from tests.kernel.support import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from pinfold.supervisor.quick import Known

PROGRAM: Final = r"""
import ctypes, errno, os, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
base = sys.argv[1]
os.chdir(base)
here = os.open(base, os.O_RDONLY)
below = os.open("below", os.O_RDONLY)
OPENAT, NEWFSTATAT, ACCESS, READLINKAT, UNLINKAT, FCHOWNAT = 257, 262, 21, 267, 263, 260
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
buffer = ctypes.create_string_buffer(4096)
NAMES = [
    b"", b".", b"..", b"/", b"//", b"file", b"./file", b"file/", b"below/../file", b"below/./x",
    b"link/x", b"link/../file", b"/proc/self/cwd/file", b"/etc/hostname", b"/etc//hostname",
    b"denied", b"./denied", b"below/denied", b"mapped", b"mapped/x", b"mapped/", b"written",
    os.fsencode(base) + b"/denied", os.fsencode(base) + b"/mapped", os.fsencode(base) + b"/file",
    b"x" * 255, b"x" * 256, b"below/" * 60 + b"x", b"x" * 4095, b"x" * 4096, b"/" * 300 + b"etc",
    b"\xff\xfe", b"new\nline",
]
def call(*args):
    result = libc.syscall(*[ctypes.c_long(one) if isinstance(one, int) else one for one in args])
    if result < 0:
        return errno.errorcode.get(ctypes.get_errno())
    return "ok"
def all_of_them(say):
    for name in NAMES:
        for directory in (AT_FDCWD, here, below, 999, -5):
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_PATH):
                fd = libc.syscall(OPENAT, directory, name, flags, 0)
                say(fd if fd < 0 else "ok")
                if fd >= 0:
                    os.close(fd)
            for flags in (0, AT_EMPTY_PATH):
                say(call(NEWFSTATAT, directory, name, buffer, flags))
            say(call(READLINKAT, directory, name, buffer, 4096))
            say(call(UNLINKAT, directory, b"no" + name[:100], 0))
            say(call(FCHOWNAT, directory, name, -1, -1, AT_EMPTY_PATH))
        say(call(ACCESS, name, os.R_OK))
    for address in (0, 1, 4096, 2**63, 2**64 - 4096, 2**47 - 3):
        say(call(OPENAT, AT_FDCWD, ctypes.c_void_p(address), 0, 0))
    os.chdir("below")
    say(call(ACCESS, b"x", 0))
    os.chdir("..")
    os.mkdir("made")
    inside = os.open("made", os.O_RDONLY)
    for name in ("other", "denied-not", "made"):
        say(call(NEWFSTATAT, inside, b"denied", buffer, 0))
        say(call(NEWFSTATAT, inside, b"x", buffer, 0))
        os.rename("made" if name == "other" else before, name)
        before = name
    os.rmdir("made")
    say(call(NEWFSTATAT, inside, b"x", buffer, 0))
    os.close(inside)
said = []
for _ in range(2):
    all_of_them(said.append)
if sys.argv[2] == "threads":
    other = threading.Thread(target=all_of_them, args=(said.append,))
    other.start(); other.join()
print(*said)
"""

POLICY: Final = """
version = 1

[[rule]]
name = "read only"
path = "{base}/written"
access = ["write"]
action = "deny"
errno = "EROFS"

[[rule]]
name = "other program"
path = "{base}/file"
program = "/nonexistent/program"
action = "deny"

[[rule]]
name = "denied"
path = "**/denied"
action = "deny"

[[rule]]
name = "mapped"
path = "{base}/mapped"
action = "redirect"
to = {{ path = "{base}/elsewhere" }}
"""
_KEYS: Final = ("syscall", "args", "verdict", "rule", "errno", "names", "pinned")


def _tree(base: Path) -> None:
    base.mkdir()
    for name in ("file", "denied", "written"):
        (base / name).write_text(name)
    (base / "below").mkdir()
    (base / "below" / "denied").write_text("below")
    (base / "elsewhere").mkdir()
    (base / "elsewhere" / "x").touch()
    (base / "link").symlink_to("elsewhere")
    (base.parent / "policy.toml").write_text(POLICY.format(base=base))


def _options(kind: str, base: Path) -> dict[str, Any]:
    if kind == "policy":
        return {"policy": base.parent / "policy.toml"}
    return {"deny": ["**/denied"], "map": {str(base / "mapped"): str(base / "elsewhere")}}


def _went(base: Path, kind: str, how: str, *, dry_run: bool) -> tuple[str, list[Any]]:
    _tree(base)
    log = base.parent / "log"
    done = Sandbox(**_options(kind, base), audit=log, dry_run=dry_run).run(
        ["/usr/bin/python3", "-I", "-S", "-c", PROGRAM, str(base), how],
        stdout=PIPE,
        text=True,
        timeout=PATIENCE,
    )
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    shutil.rmtree(base)
    log.unlink()
    assert done.returncode == 0
    made = [{key: line.get(key) for key in _KEYS} for line in lines if line["type"] == "call"]
    return str(done.stdout), made


@pytest.mark.parametrize("dry_run", [False, True], ids=["for-real", "dry"])
@pytest.mark.parametrize("how", ["alone", "threads"])
@pytest.mark.parametrize("kind", ["rules", "policy"])
def test_both_ways_say_the_same(
    kind: str,
    how: str,
    dry_run: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    del form
    base = tmp_path / "base"
    taken = 0
    find = Quick.find

    def counting(self: Quick, *args: Any) -> Known | None:
        nonlocal taken
        known = find(self, *args)
        taken += known is not None
        return known

    monkeypatch.setattr(Quick, "find", counting)
    quick = _went(base, kind, how, dry_run=dry_run)
    assert taken > len(quick[1]) // 3
    monkeypatch.setattr(Quick, "find", lambda *_: None)
    long = _went(base, kind, how, dry_run=dry_run)
    assert quick[0] == long[0]
    assert quick[1] == long[1]
    verdicts = {line["verdict"] for line in long[1]}
    assert verdicts >= {"allow", "deny", "redirect"}


CHANGING: Final = """
import os, sys
base, how = sys.argv[1:]
def opened(path):
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        return error.errno
    return 0
if how == "root":
    os.chdir(base + "/jail/below")
    path = "../../x"
else:
    os.chdir(base)
    path = "way/../x"
print([opened(path) for _ in range(4)])
if how == "root":
    os.chroot(base + "/jail")
else:
    os.rename("way", "was")
    os.symlink("jail/below", "way")
print([opened(path) for _ in range(4)])
"""


@pytest.mark.parametrize(
    "how",
    [
        "link",
        pytest.param(
            "root", marks=pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
        ),
    ],
)
@pytest.mark.parametrize("kind", ["rules", "policy"])
def test_a_path_that_comes_to_mean_something_else(kind: str, how: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "jail" / "below").mkdir(parents=True)
    (base / "way").mkdir()
    (base / "x").touch()
    secret = base / "jail" / "x"
    secret.touch()
    policy = tmp_path / "policy.toml"
    policy.write_text(f'version = 1\n[[rule]]\npath = "{secret}"\naction = "deny"\n')
    options: dict[str, Any] = {"policy": policy} if kind == "policy" else {"deny": [str(secret)]}
    done = Sandbox(**options).run(
        ["/usr/bin/python3", "-I", "-S", "-c", CHANGING, str(base), how],
        stdout=PIPE,
        text=True,
        timeout=PATIENCE,
    )
    assert str(done.stdout).splitlines() == [str([0] * 4), str([errno.EACCES] * 4)]
