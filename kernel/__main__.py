# SPDX-License-Identifier: GPL-2.0-only
"""``python -m kernel``: build, test, count, shell, deps."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kernel import boot, build, count, source, test
from kernel.source import BUILD, KernelError, MissingError
from kernel.suites import SUITES

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(words: Sequence[str]) -> int:
    """Does what the words say; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kernel", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, about: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, description=about)
        one.add_argument("--variant", choices=tuple(build.VARIANTS), default="base")
        one.add_argument("--plain", action="store_true", help="leave pinfold's part out")
        one.add_argument("--jobs", type=int, help="compilers at once")
        one.add_argument("--cpus", type=int, default=2, help="processors of the guest")
        one.add_argument("--image", metavar="FILE", help="take this kernel, and build none")
        return one

    add("build", "Build a kernel, and print where it is.")
    one = add("shell", "Boot it with this terminal as its own: a shell, or a command.")
    one.add_argument("words", nargs="*", metavar="COMMAND", help="run this instead of a shell")
    one = add("test", "Boot it, run suites in it, and say what came of it.")
    one.add_argument(
        "--suite",
        action="append",
        choices=(*SUITES, "all"),
        help="which; may be repeated; all by default",
    )
    one.add_argument("--ci", action="store_true", help="leave out what takes too long for CI")
    one.add_argument("--limit", type=float, metavar="SECONDS", help="end the guest after that")
    one.add_argument("extra", nargs="*", metavar="ARGUMENT", help="further arguments for pytest")
    add("count", "Count the instructions that a redirect takes, native and emulated.")
    commands.add_parser("deps", help="Install what building and booting take, as root.")
    options = parser.parse_args(words)
    try:
        if options.command == "deps":
            return source.install()
        source.check(booting=options.command != "build")
        if options.image:
            image = build.given(options.variant, options.plain, Path(options.image))
        else:
            image = build.build(options.variant, options.plain, options.jobs)
        if options.command == "build":
            print(image.kernel)
            return 0
        if options.command == "count":
            print(count.table(count.measure(image)))
            return 0
        if options.command == "test":
            chosen = options.suite or ["all"]
            names = list(dict.fromkeys(chosen))
            if "all" in chosen:
                names = [suite.name for suite in SUITES.values() if not (options.ci and suite.long)]
            return test.run(
                *(image, names, options.extra),
                ci=options.ci,
                cpus=options.cpus,
                limit=options.limit,
            )
        return boot.shell(image.kernel, BUILD / "shell", options.words, options.cpus)
    except MissingError as error:
        print(f"kernel: {error}", file=sys.stderr)
        return 2
    except KernelError as error:
        print(f"kernel: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
