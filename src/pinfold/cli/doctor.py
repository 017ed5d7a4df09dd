"""``pinfold doctor``."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import click

from pinfold import doctor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pinfold.doctor import Probe, Report

_COLOURS: Final = {doctor.OK: "green", doctor.DEGRADED: "yellow", doctor.MISSING: "yellow"}


@click.command("doctor", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(as_json: bool) -> int:
    """Tell what this machine can do, and what is lost where it cannot.

    Everything is found out by doing it, in short-lived child processes. The exit status is 0 when
    `pinfold run` will work here, 1 when it will not.
    """
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        # With SIGCHLD ignored the kernel reaps children by itself, and tells nobody.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    report = doctor.examine()
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        for line in _lines(report, colour):
            click.echo(line, color=colour)
    return 0 if report.ok else 1


def _lines(report: Report, colour: bool) -> Iterator[str]:
    names = max(len(probe.name) for probe in report.probes)
    for probe in report.probes:
        yield f"{probe.name:{names}}  {_status(probe, colour, 8)}  {probe.detail}"
    for probe in report.probes:
        if probe.status != doctor.OK:
            yield ""
            need = "required" if probe.required else "not required"
            yield f"{probe.name}: {_status(probe, colour)} ({need})"
            yield f"  tried:  {probe.how}"
            yield f"  costs:  {probe.cost}"
            yield f"  remedy: {probe.remedy}"
    yield ""
    if report.ok:
        yield f"`pinfold run` works here, on the {report.backend} back end."
    else:
        yield f"`pinfold run` does not work here: {', '.join(report.lacking)}."


def _status(probe: Probe, colour: bool, width: int = 0) -> str:
    text = f"{probe.status:{width}}"
    alarming = probe.required and probe.status != doctor.OK
    return click.style(text, fg="red" if alarming else _COLOURS[probe.status]) if colour else text
