"""The process that supervises is not dumpable: nobody of its user may look into it.

Kernel: ``PR_SET_DUMPABLE`` in ``prctl(2)``; __ptrace_may_access in kernel/ptrace.c.
"""

from __future__ import annotations

import threading

from pinfold.linux import process


class Hidden:
    """While a target runs, no process with our user id may trace us or read our memory.

    A context manager; several sandboxes of a process may be in it at one time.
    """

    _lock = threading.Lock()
    _count = 0
    _before = True

    def __enter__(self) -> None:
        cls = type(self)
        with cls._lock:
            if cls._count == 0:
                cls._before = process.is_dumpable()
                process.set_dumpable(False)
            cls._count += 1

    def __exit__(self, *_: object) -> None:
        cls = type(self)
        with cls._lock:
            cls._count -= 1
            if cls._count == 0 and cls._before:
                process.set_dumpable(True)
