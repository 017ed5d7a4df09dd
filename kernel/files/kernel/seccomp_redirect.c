// SPDX-License-Identifier: GPL-2.0-only
/*
 * The registers of a redirected call: replaced before it is made, given back when it is over.
 *
 * What the listener said replaces the registers themselves. So everything that looks at a call from
 * there on sees what the kernel acts on: other filters, tracepoints, the audit log.
 *
 * The program's own values come back as the first thing that happens after the call, by a bit of
 * syscall work that is only set meanwhile. That is before a tracer's exit stop, a signal frame, and a
 * restart of the call (which is then the original call, and is judged again). The bit and the saved
 * values are part of what a fork copies. So a child that a redirected clone has made comes out of it
 * with its own registers, too.
 *
 * After an exec there is nothing to give back: the registers are the new program's.
 *
 * Some calls that were interrupted go on later with what they remember. Where that is a pointer into
 * a pin, it would be used after the one call that it was for. Such a call begins anew instead, with
 * the program's arguments, and is judged anew.
 */

#include <linux/errno.h>
#include <linux/restart_block.h>
#include <linux/sched.h>
#include <linux/sched/task_stack.h>
#include <linux/seccomp.h>
#include <linux/seccomp_redirect.h>
#include <linux/thread_info.h>

#include <asm/seccomp_redirect.h>
#include <asm/syscall.h>

/**
 * seccomp_redirect_begin - replaces arguments of the call that current is about to make
 * @request: which, and with what; it was checked when the listener made it
 *
 * It may come twice for one call, when a tracer has had a look at the call after the first time and
 * all filters judge it once more. What the program gets back is what it had before the first.
 */
void seccomp_redirect_begin(const struct seccomp_redirect_request *request)
{
	struct seccomp_redirect *redirect = &current->seccomp.redirect;
	struct pt_regs *regs = current_pt_regs();
	unsigned int i;

	if (!redirect->mask)
		redirect->exec_id = current->self_exec_id;
	for (i = 0; i < SECCOMP_REDIRECT_ARGS; i++) {
		unsigned long *reg = seccomp_redirect_register(regs, i);

		if (!(request->mask & BIT(i)))
			continue;
		if (!(redirect->mask & BIT(i)))
			redirect->saved[i] = *reg;
		*reg = request->args[i];
	}
	redirect->pointers = (redirect->pointers & ~request->mask) | request->pointers;
	redirect->mask |= request->mask;
	redirect->unjudged = true;
	set_syscall_work(SECCOMP_REDIRECT);
}

/**
 * seccomp_redirect_end - gives the program its registers back
 * @regs: current's registers at the end of a call
 */
void seccomp_redirect_end(struct pt_regs *regs)
{
	struct seccomp_redirect *redirect = &current->seccomp.redirect;
	unsigned int i;

	clear_syscall_work(SECCOMP_REDIRECT);
	if (syscall_get_error(current, regs) == -ERESTART_RESTARTBLOCK &&
	    (redirect->pointers & seccomp_redirect_remembered(syscall_get_nr(current, regs)))) {
		/* Nor may the program itself ask for it to go on. */
		current->restart_block.fn = do_no_restart_syscall;
		syscall_set_return_value(current, regs, -ERESTARTNOHAND, 0);
	}
	if (redirect->exec_id == current->self_exec_id) {
		for (i = 0; i < SECCOMP_REDIRECT_ARGS; i++)
			if (redirect->mask & BIT(i))
				*seccomp_redirect_register(regs, i) = redirect->saved[i];
	}
	redirect->mask = 0;
	redirect->pointers = 0;
	redirect->unjudged = false;
}
