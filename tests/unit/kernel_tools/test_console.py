"""Complaints of a kernel are found where it begins a message with them, and only there."""

import pytest

from kernel.console import complaints, message

BAD = [
    "[   12.345678] WARNING: CPU: 0 PID: 77 at kernel/seccomp.c:123 seccomp_x+0x1/0x2",
    "[   12.345678][  T123] BUG: KASAN: slab-use-after-free in seccomp_x+0x1/0x2",
    "[    1.000000] BUG: kernel NULL pointer dereference, address: 0000000000000000",
    "[    1.000000] BUG: sleeping function called from invalid context at mm/x.c:1",
    "[    1.000000] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [python:12]",
    "[    1.000000] kernel BUG at mm/mmap.c:12!",
    "[    1.000000] Oops: general protection fault, probably for non-canonical address 0x1",
    "[    1.000000] Oops: 0002 [#1] PREEMPT SMP",
    "[    1.000000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
    "[    1.000000] UBSAN: shift-out-of-bounds in kernel/x.c:1:2",
    "[    1.000000] WARNING: possible circular locking dependency detected",
    "[    1.000000] WARNING: suspicious RCU usage",
    "[    1.000000] WARNING: bad unlock balance detected!",
    "[    1.000000] INFO: task python:12 blocked for more than 122 seconds.",
    "[    1.000000] INFO: trying to register non-static key.",
    "[    1.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
    "[    1.000000] rcu: INFO: rcu_preempt self-detected stall on CPU",
    "[    1.000000] unregister_netdevice: waiting for lo to become free. Usage count = 2",
    "[    1.000000] refcount_t: underflow; use-after-free.",
    "[    1.000000] list_add corruption. next->prev should be prev",
    "[    1.000000] kmemleak: 2 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    "[    1.000000] usercopy: Kernel memory exposure attempt detected from SLUB object",
    "[    1.000000] BUG kmalloc-64 (Not tainted): Poison overwritten",
    "[    1.000000] Call Trace:",
    "[    1.000000] turning off the locking correctness validator.",
    "<4>[    1.000000] WARNING: x",
    "WARNING: before there were times",
]
GOOD = [
    "[    1.000000] Linux version 6.12.117 (someone@somewhere) #1 SMP PREEMPT",
    "[    1.000000] traps: sig_trap[123] general protection fault ip:401000 sp:7ff error:0",
    "[    1.000000] fault_steps[99]: segfault at 0 ip 0000 sp 0000 error 4 likely on CPU 1",
    '[    1.000000] audit: type=1326 audit(1.2:3): pid=1 comm="BUG: WARNING:" sig=31',
    "[    1.000000] sysrq: Resetting",
    "[    1.000000] rcu: Preemptible hierarchical RCU implementation.",
    "[    1.000000] NMI watchdog",
    "[    1.000000] Warning: unable to open an initial console.",
    "",
]


@pytest.mark.parametrize("line", BAD)
def test_a_complaint(line: str) -> None:
    console = "\r\n".join([*GOOD, line, *GOOD])
    assert complaints(console) == [line]


def test_nothing_to_complain_of() -> None:
    assert complaints("\r\n".join(GOOD)) == []


def test_times_are_cut_off() -> None:
    assert message("[    0.000000] a [b] c") == "a [b] c"
    assert message("[12345.678901][  T12] a") == "a"
    assert message("[12345.678901][    C1] a") == "a"
    assert message("no time at all\r\n") == "no time at all"
