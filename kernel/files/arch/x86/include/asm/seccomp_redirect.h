/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _ASM_X86_SECCOMP_REDIRECT_H
#define _ASM_X86_SECCOMP_REDIRECT_H

#include <linux/ptrace.h>
#include <linux/seccomp.h>

#include <uapi/linux/audit.h>

#include <asm/processor.h>
#include <asm/unistd.h>

/*
 * Returns the register that holds an argument of a 64-bit call, in the order of the calling
 * convention; the fourth is not in CX, which the syscall instruction overwrites.
 */
static inline unsigned long *seccomp_redirect_register(struct pt_regs *regs, unsigned int argument)
{
	switch (argument) {
	case 0:
		return &regs->di;
	case 1:
		return &regs->si;
	case 2:
		return &regs->dx;
	case 3:
		return &regs->r10;
	case 4:
		return &regs->r8;
	default:
		return &regs->r9;
	}
}

/*
 * Whether a call ends where its registers can be given back. Calls of 32 bits have other registers,
 * those of x32 other numbers; a call through the vsyscall page is emulated in a fault, and ends with
 * it; and the return from a signal handler replaces all registers.
 */
static inline bool seccomp_redirect_possible(const struct seccomp_data *call)
{
	return call->arch == SECCOMP_ARCH_NATIVE &&
	       !(call->nr & __X32_SYSCALL_BIT) &&
	       call->nr != __NR_seccomp_sigreturn &&
	       call->instruction_pointer < TASK_SIZE_MAX;
}

/*
 * Returns a bit for each argument that a call remembers as a pointer, when it is interrupted and goes
 * on by restart_syscall. Those that only sleep remember a time, and where to write.
 */
static inline unsigned int seccomp_redirect_remembered(long nr)
{
	return nr == __NR_poll || nr == __NR_futex ? BIT(0) : 0;
}

#endif /* _ASM_X86_SECCOMP_REDIRECT_H */
