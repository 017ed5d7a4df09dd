"""What can be measured, by name. A group's module is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pinfold.bench.measure import Settings, Table


class Group(NamedTuple):
    """Tables that are measured together."""

    name: str
    what: str
    module: str
    """Of this package; its function ``tables`` measures."""


_ALL: Final = (
    Group("call", "what a trapped call costs, beside the least that one can cost", "call"),
    Group("stage", "what each stage of a trapped call costs", "stage"),
    Group("verdict", "what a verdict costs, over few rules and many", "verdict"),
    Group("scale", "what a call costs when many tasks make calls at the same time", "scale"),
    Group("start", "what it costs to start a program", "start"),
    Group("memory", "what a supervisor holds, by the number of processes", "memory"),
    Group("work", "what real programs take", "workloads"),
    Group("others", "what other sandboxes cost, where they are installed", "workloads_others"),
)
GROUPS: Final = {group.name: group for group in _ALL}
"""All of them, in the order in which they are measured."""


def measured(names: Iterable[str], settings: Settings) -> Iterator[Table]:
    """Measures groups, and yields each table when it is done.

    Args:
        names: Of groups.
        settings: How.

    Raises:
        UnsupportedError: This machine lacks something without which nothing can be measured.
        WrongError: The work was not done.
    """
    for name in names:
        yield from import_module(f"pinfold.bench.{GROUPS[name].module}").tables(settings)
