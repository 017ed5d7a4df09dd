"""Who exists in a sandbox: tasks, their processes, and who shares what (pure bookkeeping).

What is kept here about memory is a hint: every use of a pin is checked against the kernel. What is
kept about shared directories and descriptor tables errs on the side of "shared".

New tasks announce themselves twice, in either order: their own first stop, and their parent's
fork, vfork or clone event. A parent can be killed before its event, so a task is adopted at
whichever comes first, and what the event tells is added later. Until then it is assumed to share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pinfold.tracee.task import AddressSpace, Task
from pinfold.uapi.prctl import CLONE_FILES, CLONE_FS, CLONE_THREAD, CLONE_VM

if TYPE_CHECKING:
    from collections.abc import Iterator


class Family:
    """The tasks of one sandbox, by id."""

    __slots__ = ("_peers", "_tasks", "most")

    def __init__(self) -> None:
        self._tasks: dict[int, Task] = {}
        # Processes that share a directory or a descriptor table with *another process*: an exec
        # ends sharing with one's own threads, not with them.
        self._peers: set[int] = set()
        self.most = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def get(self, tid: int) -> Task | None:
        """Returns the task with this id, None if it is not known."""
        return self._tasks.get(tid)

    def adopt(self, tid: int, tgid: int) -> Task:
        """Returns a new task about which nothing but its ids is known yet."""
        task = Task(tid, tgid, AddressSpace(), shares=True)
        self._tasks[tid] = task
        self.most = max(self.most, len(self._tasks))
        return task

    def related(self, parent: Task, child: Task, flags: int) -> None:
        """Notes what the parent's event tells about a child: how it was cloned.

        Args:
            parent: The task that made the child.
            child: The new task.
            flags: ``CLONE_*`` flags.
        """
        child.program = child.program or parent.program
        if child.executed:
            return
        thread = flags & CLONE_THREAD
        child.tgid = parent.tgid if thread else child.tid
        if flags & CLONE_VM:
            # Pins that the child got before its parent's event came are in the same memory.
            parent.space.pins.update(child.space.pins)
            child.space = parent.space
        else:
            child.space.pins = {**parent.space.pins, **child.space.pins}
        shares = bool(flags & (CLONE_FS | CLONE_FILES))
        child.shares = shares
        if shares:
            parent.shares = True
            if not thread:
                self._peers.update((parent.tgid, child.tgid))

    def executed(self, task: Task, former: int, program: bytes) -> Task | None:
        """Notes that a task's process executed a program; returns the record that ended, if any.

        Args:
            task: The task as it is known now: an exec takes the id of its process.
            former: The id that the executing thread had before.
            program: What it runs now.
        """
        task.space = AddressSpace()
        task.shares = task.tgid in self._peers
        task.executed = True
        task.program = program
        return self._tasks.pop(former, None) if former != task.tid else None

    def remove(self, tid: int) -> Task | None:
        """Forgets a task that ended; returns it if it was known."""
        task = self._tasks.pop(tid, None)
        if task is not None and tid == task.tgid:
            self._peers.discard(tid)
        return task
