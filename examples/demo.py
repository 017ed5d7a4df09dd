"""Shows in a few seconds what pinfold does, with real programs, and checks each claim it prints.

    python examples/demo.py

The exit status is 0 only when everything went as claimed. A part whose tools (gcc, git, make) are
missing on this machine is left out, and the output says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pinfold.attack import programs, stage
from pinfold.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

PINFOLD: Final = (sys.executable, "-m", "pinfold", "run")
NAIVE: Final = (sys.executable, "-m", "pinfold.attack.supervisors", "naive")
ATTEMPTS: Final = 5_000
SOURCES: Final = 8


class Demo:
    """Runs commands, prints what they said, and remembers what was not as claimed."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def run(
        self, command: Sequence[str], cwd: Path | None = None, say: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Returns what ``command`` did; ``say`` is how it is shown, nothing is shown without it."""
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=120, cwd=cwd
        )
        if say is not None:
            print(f"  $ {say}")
            for line in (done.stdout + done.stderr).splitlines():
                print(f"  {line}")
        return done

    def claim(self, text: str, *, holds: bool) -> None:
        """Prints a claim and whether it holds."""
        print(f"  {'ok' if holds else 'NOT SO'}: {text}")
        if not holds:
            self.failures.append(text)


def show_map(demo: Demo) -> None:
    """One file is given in place of another."""
    print("\n1. A file in place of another: the program asks for one name and is given the other")
    wanted = "/etc/debian_version" if Path("/etc/debian_version").exists() else "/etc/os-release"
    done = demo.run(
        [*PINFOLD, "--map", f"/etc/hostname={wanted}", "--", "cat", "/etc/hostname"],
        say=f"pinfold run --map /etc/hostname={wanted} -- cat /etc/hostname",
    )
    same = done.returncode == 0 and done.stdout == Path(wanted).read_text()
    demo.claim(f"cat printed {wanted}", holds=same)


def show_deny(demo: Demo, scratch: Path) -> None:
    """One file is refused, whatever the program calls it."""
    print("\n2. A file that is refused, under whatever name")
    secret = Path("/etc/shadow")
    if not os.access(secret, os.R_OK):
        secret = scratch / "shadow"
        secret.write_text("root:secret\n")
    folder, name = secret.parent, secret.name
    script = f"cd {folder}; cat ./../{folder.name}/{name}"
    bare = demo.run(["sh", "-c", script])
    demo.claim("without a sandbox, sh can read it", holds=bare.returncode == 0)
    done = demo.run(
        [*PINFOLD, "--deny", str(secret), "--", "sh", "-c", script],
        say=f"pinfold run --deny '{secret}' -- sh -c '{script}'",
    )
    refused = done.returncode != 0 and done.stdout == "" and "Permission denied" in done.stderr
    demo.claim("under pinfold it was refused and nothing was printed", holds=refused)


def show_work(demo: Demo, scratch: Path) -> None:
    """Ordinary work goes on as without a sandbox."""
    print("\n3. Ordinary work, under a rule that it never meets")
    missing = [tool for tool in ("git", "make", "gcc") if shutil.which(tool) is None]
    if missing:
        print(f"  left out: no {', '.join(missing)} on this machine")
        return
    project = scratch / "project"
    project.mkdir()
    parts = [f"part{number}" for number in range(SOURCES)]
    for number, part in enumerate(parts):
        (project / f"{part}.c").write_text(f"int {part}(void) {{ return {number}; }}\n")
    (project / "main.c").write_text(
        "#include <stdio.h>\n"
        + "".join(f"int {part}(void);\n" for part in parts)
        + f'int main(void) {{ printf("%d\\n", {" + ".join(f"{part}()" for part in parts)}); }}\n'
    )
    objects = " ".join(f"{part}.o" for part in [*parts, "main"])
    (project / "Makefile").write_text(f"CC = gcc\nsum: {objects}\n\t$(CC) -o $@ $^\n")
    demo.run(["git", "init", "--quiet"], project)
    rule = ["--deny", "/etc/shadow"]
    expected = demo.run(["git", "status", "--short"], project)
    found = demo.run([*PINFOLD, *rule, "--", "git", "status", "--short"], project)
    lines = len(found.stdout.splitlines())
    print("  $ pinfold run --deny '/etc/shadow' -- git status --short")
    print(f"  ({lines} lines)")
    demo.claim(
        "git status said the same as without a sandbox",
        holds=expected.returncode == found.returncode == 0
        and expected.stdout == found.stdout
        and lines > SOURCES,
    )
    built = demo.run(
        [*PINFOLD, *rule, "--", "make", "-j2", "--silent", "sum"],
        project,
        say="pinfold run --deny '/etc/shadow' -- make -j2 --silent sum",
    )
    answer = demo.run([str(project / "sum")], project) if built.returncode == 0 else built
    demo.claim(
        f"make -j2 built a program out of {SOURCES + 1} files, and it works",
        holds=answer.stdout == f"{sum(range(SOURCES))}\n",
    )


def show_race(demo: Demo, place: Path) -> None:
    """The race that a supervisor loses when it checks and then continues."""
    print("\n4. The race: a thread rewrites the path while another opens it, all the time")
    try:
        built = programs.build("race_paths")
    except UnsupportedError as error:
        print(f"  left out: {error}")
        return
    program = [str(built), str(place), str(ATTEMPTS), "thread", "store", "open"]
    rows = {
        "no sandbox": program,
        "check, then continue": [*NAIVE, "--", *program],
        "pinfold": [*PINFOLD, "--deny", f"**/{stage.DENIED}", "--", *program],
    }
    print(f"  {'':22}{'attempts':>10}{'allowed':>10}{'refused':>10}{'escapes':>10}")
    counts: dict[str, dict[str, int]] = {}
    for label, command in rows.items():
        done = demo.run(command)
        if done.returncode != 0:
            print(f"  {label:22}failed: {done.stderr.strip()}")
            demo.claim(f"{label}: the race could be run", holds=False)
            continue
        told = (word.split("=") for word in done.stdout.split())
        found = counts[label] = {key: int(text) for key, text in told}
        shown = "".join(
            f"{found[key]:>10}" for key in ("attempts", "allowed", "refused", "escapes")
        )
        print(f"  {label:22}{shown}")
    if len(counts) < len(rows):
        return
    lost = counts["check, then continue"]["escapes"]
    if len(os.sched_getaffinity(0)) > 1:
        # About a quarter of the attempts where two CPUs are free; a busy machine shows a handful.
        demo.claim("a supervisor that only checks loses the race", holds=lost > 0)
    else:
        print("  This machine has one CPU: the race is rare here, so the numbers say little.")
    ours = counts["pinfold"]
    demo.claim(
        "under pinfold nothing escaped, and every attempt was honestly allowed or refused",
        holds=ours["escapes"] == ours["other"] == 0
        and ours["allowed"] + ours["refused"] == ours["attempts"] == ATTEMPTS
        and min(ours["allowed"], ours["refused"]) > 0,
    )


def main() -> int:
    """Runs every part and returns the exit status."""
    demo = Demo()
    with tempfile.TemporaryDirectory(prefix="pinfold-demo-") as name:
        scratch = Path(name)
        show_map(demo)
        show_deny(demo, scratch)
        show_work(demo, scratch)
    with stage.prepared() as place:
        show_race(demo, place)
    print()
    if demo.failures:
        print(f"{len(demo.failures)} of the claims above did not hold.")
        return 1
    print("Everything was as claimed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
