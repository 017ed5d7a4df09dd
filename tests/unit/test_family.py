"""Who shares what: bookkeeping that may err, but only towards "shared"."""

from pinfold.supervisor.family import Family
from pinfold.tracee.task import Task
from pinfold.uapi.prctl import CLONE_FILES, CLONE_FS, CLONE_THREAD, CLONE_VFORK, CLONE_VM

THREAD = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_THREAD


def is_shared(task: Task) -> bool:
    return task.space.shared


def test_a_task_that_nobody_told_of_is_assumed_to_share() -> None:
    assert Family().adopt(5, 5).shares


def test_a_fork_shares_nothing_and_copies_pins() -> None:
    family = Family()
    parent = family.adopt(10, 10)
    parent.shares = False
    parent.space.shared = False
    parent.space.pins[0] = 0x1000
    parent.space.code[0] = 0x9000
    child = family.adopt(11, 11)
    assert is_shared(child)
    family.related(parent, child, 0)
    assert child.space is not parent.space
    assert child.space.pins == {0: 0x1000}
    assert child.space.code == {0: 0x9000}
    assert not is_shared(child)
    assert not is_shared(parent)
    assert not child.shares
    assert not parent.shares


def test_a_thread_shares_everything() -> None:
    family = Family()
    parent = family.adopt(10, 10)
    thread = family.adopt(11, 11)
    parent.space.shared = False
    thread.space.pins[1] = 0x2000
    thread.space.code[1] = 0x8000
    family.related(parent, thread, THREAD)
    assert is_shared(parent)
    assert parent.space.code == {1: 0x8000}
    assert thread.tgid == 10
    assert thread.space is parent.space
    assert parent.space.pins == {1: 0x2000}
    assert thread.shares
    assert parent.shares


def test_a_vfork_child_shares_memory_only() -> None:
    family = Family()
    parent = family.adopt(10, 10)
    parent.shares = False
    child = family.adopt(11, 11)
    family.related(parent, child, CLONE_VM | CLONE_VFORK)
    assert child.space is parent.space
    assert not child.shares
    assert is_shared(child)
    family.executed(child, 11, b"/bin/x")
    assert child.space is not parent.space
    assert child.space.pins == child.space.code == {}
    assert not is_shared(child)


def test_exec_ends_sharing_with_threads_but_not_with_processes() -> None:
    family = Family()
    parent = family.adopt(10, 10)
    family.related(parent, family.adopt(11, 11), THREAD)
    family.executed(parent, 10, b"/bin/x")
    peer = family.adopt(12, 12)
    family.related(parent, peer, CLONE_FS)
    family.executed(parent, 10, b"/bin/x")
    family.executed(peer, 12, b"/bin/x")
    assert parent.shares
    assert peer.shares


def test_a_child_that_executed_before_its_parents_event_keeps_its_new_memory() -> None:
    family = Family()
    parent = family.adopt(10, 10)
    child = family.adopt(11, 11)
    family.executed(child, 11, b"/bin/x")
    child.space.pins[0] = 0x3000
    family.related(parent, child, CLONE_VM | CLONE_VFORK)
    assert child.space is not parent.space
    assert parent.space.pins == {}


def test_a_thread_that_executes_takes_the_process_id() -> None:
    family = Family()
    leader = family.adopt(10, 10)
    thread = family.adopt(11, 11)
    family.related(leader, thread, THREAD)
    assert family.executed(leader, 11, b"/bin/x") is thread
    assert family.get(11) is None
    assert len(family) == 1
    assert family.remove(10) is leader
    assert family.remove(10) is None


def test_what_a_child_shares_before_its_parents_event_it_goes_on_to_share() -> None:
    family = Family()
    parent = family.adopt(10, 10)
    parent.shares = parent.space.shared = False
    child = family.adopt(11, 11)
    grandchild = family.adopt(12, 12)
    family.related(child, grandchild, CLONE_VM | CLONE_FS)
    family.related(parent, child, 0)
    assert child.shares
    assert grandchild.shares
    assert is_shared(child)
    assert not parent.shares
    family.executed(child, 11, b"/bin/x")
    assert child.shares


def test_who_executes_before_its_parents_event_shares_until_that_tells() -> None:
    family = Family()
    parent = family.adopt(10, 10)
    parent.shares = False
    for tid, flags in ((11, CLONE_FS), (12, CLONE_FILES), (13, 0)):
        parent.shares = False
        child = family.adopt(tid, tid)
        family.executed(child, tid, b"/bin/x")
        assert child.shares
        family.related(parent, child, flags)
        assert child.shares == parent.shares == (flags == CLONE_FS)
