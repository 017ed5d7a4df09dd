"""The interrupt back end: pins and redirects for any listener, on any kernel since 6.12.

The kernel of today can answer a notification, but not change the call. A tracer can change it, but
only while the task is stopped. So a call that is to be redirected is taken out of its notification
for a moment:

* the task is seized and interrupted: it leaves the notification as if a signal had come
  (-ERESTARTSYS) and stops;
* calls that install a pin are injected, and pins are checked;
* the argument registers are set, and the task makes one step: its call. It traps *again*, with the
  new arguments, through all its filters; the second notification is compared with what was set, and
  answered with CONTINUE;
* the step ends after the call. The registers are put back, and the task is let go, untraced.

The caller sees one notification id throughout. A task is traced only in between.

Two processes share the work. ``backend`` is the supervisor's side: it receives, keeps the ids, and
compares. ``tracer`` is a process of its own, because ptrace stops are wait results: in the process
that called us, any ``waitpid`` of another thread (a ``subprocess.wait``, an event loop's watcher)
would take them, and see its child "stopped". It is a process and not an ancestor of the task, which
Yama's scope 1 (``ptrace_scope``) does not allow without CAP_SYS_PTRACE.
"""

from pinfold.backends.interrupt.backend import InterruptBackend

__all__ = ["InterruptBackend"]
