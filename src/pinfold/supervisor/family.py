"""Who exists in a sandbox: tasks, their processes, and who shares what (pure bookkeeping).

What is kept here about memory is a hint: every use of a pin is checked against the kernel. What is
kept about shared directories and descriptor tables errs on the side of "shared".

New tasks announce themselves twice, in either order: their own first stop, and their parent's
fork, vfork or clone event. A parent can be killed before its event, so a task is adopted at
whichever comes first, and what the event tells is added later. Until then it is assumed to share,
and to have a filter of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pinfold.tracee.task import ASSUMED, AddressSpace, Task
from pinfold.uapi.prctl import CLONE_FILES, CLONE_FS, CLONE_THREAD, CLONE_VM

if TYPE_CHECKING:
    from collections.abc import Iterator


class Family:
    """The tasks of one sandbox, by id.

    Attributes:
        get: Returns the task with an id, None if it is not known.
        most: How many there were at one time, at most.
    """

    __slots__ = ("_peers", "_tasks", "_untold", "get", "most")

    def __init__(self) -> None:
        self._tasks: dict[int, Task] = {}
        # The dictionary's own: it is asked at every stop.
        self.get = self._tasks.get
        # Processes that share a directory or a descriptor table with *another process*: an exec
        # ends sharing with one's own threads, not with them.
        self._peers: set[int] = set()
        # Tasks whose parents' events have not come, and that share nothing with tasks of their own.
        self._untold: set[int] = set()
        self.most = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def adopt(self, tid: int, tgid: int) -> Task:
        """Returns a new task about which nothing but its ids is known yet."""
        task = Task(tid, tgid, AddressSpace(), shares=True)
        task.filtered = ASSUMED
        task.space.shared = True
        self._tasks[tid] = task
        self._untold.add(tid)
        self.most = max(self.most, len(self._tasks))
        return task

    def joined(self, task: Task) -> None:
        """Notes of which process a new task is whose parent has not told.

        Threads of a process have one memory; another pin in it would be one too many.
        """
        leader = self._tasks.get(task.tgid)
        if leader is not None and leader is not task:
            task.space = leader.space
            leader.space.shared = leader.shares = True
            self._untold.discard(leader.tid)

    def related(self, parent: Task, child: Task, flags: int) -> None:
        """Notes what the parent's event tells about a child: how it was cloned.

        Args:
            parent: The task that made the child.
            child: The new task.
            flags: ``CLONE_*`` flags.
        """
        child.program = child.program or parent.program
        if child.filtered == ASSUMED:
            child.filtered = parent.filtered
        # What it has shared in the meantime with tasks that it made itself, it shares.
        untold = child.tid in self._untold
        self._untold.discard(child.tid)
        thread = flags & CLONE_THREAD
        # An exec gives it descriptors of its own, and no directory.
        shares = bool(flags & (CLONE_FS if child.executed else CLONE_FS | CLONE_FILES))
        if shares:
            child.shares = parent.shares = True
            if not thread:
                self._peers.update((parent.tgid, child.tid))
        elif untold:
            child.shares = False
        if flags & CLONE_VM:
            parent.space.shared = True
        if shares or flags & CLONE_VM:
            self._untold.discard(parent.tid)
        if child.executed:
            return
        child.tgid = parent.tgid if thread else child.tid
        if flags & CLONE_VM:
            # Pins that the child got before its parent's event came are in the same memory.
            parent.space.pins.update(child.space.pins)
            parent.space.code.update(child.space.code)
            child.space = parent.space
        else:
            if untold:
                child.space.shared = False
            child.space.pins = {**parent.space.pins, **child.space.pins}
            child.space.code = {**parent.space.code, **child.space.code}

    def executed(self, task: Task, former: int, program: bytes) -> Task | None:
        """Notes that a task's process executed a program; returns the record that ended, if any.

        Args:
            task: The task as it is known now: an exec takes the id of its process.
            former: The id that the executing thread had before.
            program: What it runs now.
        """
        task.space = AddressSpace()
        # As long as nobody has told, its parent may share the directory.
        task.shares = task.tgid in self._peers or (task.shares and task.tid in self._untold)
        task.executed = True
        task.program = program
        if former == task.tid:
            return None
        self._untold.discard(former)
        return self._tasks.pop(former, None)

    def remove(self, tid: int) -> Task | None:
        """Forgets a task that ended; returns it if it was known."""
        task = self._tasks.pop(tid, None)
        self._untold.discard(tid)
        if task is not None and tid == task.tgid:
            self._peers.discard(tid)
        return task
