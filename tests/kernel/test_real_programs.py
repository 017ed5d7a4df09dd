"""Programs that people run, under pinfold and bare: the same output, status and files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.kernel.support import TRAP_ALL

if TYPE_CHECKING:
    from tests.kernel.support import Done, User

ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
}
SECONDS: Final = 100


def both(user: User, script: str) -> tuple[Done, Done]:
    """Runs a shell script bare and under pinfold, each in a fresh directory called ``here``."""
    done = []
    for prefix in ((), ("pinfold",)):
        parent = user.directory / ("pinned" if prefix else "bare")
        parent.mkdir(exist_ok=True)
        user.own(parent)
        command = ("sh", "-c", f"mkdir here && cd here || exit 99\n{script}")
        run = user.pinfold if prefix else user.bare
        arguments = (*TRAP_ALL, "--", *command) if prefix else command
        done.append(run(*arguments, cwd=parent, env=ENVIRONMENT, timeout=SECONDS))
    return done[0], done[1]


def same(bare: Done, pinned: Done) -> None:
    """Asserts that two runs do not differ."""
    assert bare.returncode == pinned.returncode, (bare, pinned)
    assert bare.stdout == pinned.stdout
    assert bare.stderr == pinned.stderr


def test_git(someone: User) -> None:
    bare, pinned = both(
        someone,
        """
        set -e
        git init -q -b main first
        cd first
        for n in 1 2 3 4 5 6 7 8; do mkdir d$n; echo text $n > d$n/file; done
        git add .
        git commit -q -m one
        cd ..
        git clone -q first second
        cd second
        git status
        echo more >> d3/file
        git status --short
        git commit -q -a -m two
        git log --format='%H %s' --stat
        git rev-parse HEAD
        git fsck
        """,
    )
    assert bare.returncode == 0, bare
    assert "d3/file" in bare.stdout
    same(bare, pinned)


def test_a_virtual_environment(someone: User) -> None:
    # A system-wide interpreter: the suite's own may be out of this user's reach.
    if not Path("/usr/bin/python3").exists():
        pytest.skip("no system-wide Python")
    bare, pinned = both(
        someone,
        """
        /usr/bin/python3 -m venv --without-pip env || exit
        env/bin/python -c 'import sys; print(sys.prefix == sys.base_prefix)'
        find env -type f -o -type l | sort
        """,
    )
    if bare.returncode == 0:
        assert "False" in bare.stdout
    same(bare, pinned)


def test_a_virtual_environment_of_the_suites_interpreter(tmp_path: Path) -> None:
    from tests.kernel.support import execute, pinfold

    trees = []
    for name, run in (("bare", execute), ("pinned", lambda c: pinfold(*TRAP_ALL, "--", *c))):
        target = tmp_path / name / "env"
        done = run([sys.executable, "-m", "venv", "--without-pip", target])
        assert done.returncode == 0, done
        done = run([target / "bin" / "python", "-c", "import sys; print(sys.prefix)"])
        assert done.stdout == f"{target}\n"
        trees.append(sorted(str(path.relative_to(target)) for path in target.rglob("*")))
    assert trees[0] == trees[1]
    assert len(trees[0]) > 8


def test_make_with_four_jobs(someone: User) -> None:
    bare, pinned = both(
        someone,
        """
        set -e
        objects=
        for n in 1 2 3 4 5 6 7 8 9 10 11 12; do
            echo "int f$n(void); int f$n(void) { return $n; }" > f$n.c
            objects="$objects f$n.o"
        done
        {
            echo '#include <stdio.h>'
            for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo "int f$n(void);"; done
            echo 'int main(void) { printf("%d.", 0'
            for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo "+ f$n()"; done
            echo '); return 0; }'
        } > main.c
        printf 'program: main.o%s\\n\\tcc -o $@ $^\\n' "$objects" > Makefile
        printf '%%.o: %%.c\\n\\tcc -c -o $@ $<\\n' >> Makefile
        make -s -j4
        ./program
        make -s -j4 program
        ! make -s -j4 missing
        """,
    )
    assert bare.returncode == 0, bare
    assert bare.stdout == "78."
    same(bare, pinned)


def test_find_and_grep(someone: User) -> None:
    bare, pinned = both(
        someone,
        """
        for a in 1 2 3 4 5; do
            for b in 1 2 3 4 5; do
                mkdir -p "$a/x $b"
                echo "needle $a" > "$a/x $b/one"
                echo hay > "$a/x $b/two"
                ln -s one "$a/x $b/link"
            done
        done
        find . -print0 | sort -z | xargs -0 ls -ld --time-style=+ | awk '{print $1, $NF}'
        find . -type f -print0 | sort -z | xargs -0 -n 4 grep -l needle
        find . -name two -delete
        find . -follow -type f | sort
        grep -rc needle . | sort
        """,
    )
    assert "needle" not in bare.stderr
    assert bare.stdout.count("/one") > 50
    same(bare, pinned)


@pytest.mark.parametrize(
    "script",
    [
        "seq 1000 | grep 7 | sort -r | head -3; exit 4",
        "false | true; echo $?; true | false",
        "yes | head -100000 | wc -l",
        "echo a > f; cat < f | tee g | tr a b; cat f g; cmp f g; cat missing",
        'for n in 1 2 3 4 5 6 7 8; do sh -c "exit $n"; echo $?; done',
        "kill -9 $$",
        "(exit 3) & wait $!; echo $?",
        "cd /; pwd; cd -; cd missing; echo $?; test -e /etc/passwd && echo there",
        "trap 'echo bye' EXIT; cat <<X | sed s/a/b/\na\nX\nexit 9",
        "ulimit -n; umask 027; : > f; ls -l f | cut -c1-10",
    ],
)
def test_shell(someone: User, script: str) -> None:
    bare, pinned = both(someone, script)
    if script.startswith("kill"):
        assert bare.returncode == -9
        assert pinned.returncode == 137
        return
    assert bare.returncode == pinned.returncode
    assert bare.stdout.replace("/bare/", "/pinned/") == pinned.stdout
    assert bare.stderr == pinned.stderr
