/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LINUX_SECCOMP_REDIRECT_H
#define _LINUX_SECCOMP_REDIRECT_H

#include <linux/seccomp_redirect_types.h>
#include <uapi/linux/seccomp_redirect.h>

struct file;
struct mm_struct;
struct pt_regs;
struct task_struct;

/* sizeof() the published versions of the structures */
#define SECCOMP_NOTIFY_PIN_INSTALL_SIZE_VER0	32
#define SECCOMP_NOTIFY_PIN_INSTALL_SIZE_VER1	40
#define SECCOMP_NOTIFY_SEND_REDIRECT_SIZE_VER0	120

#ifdef CONFIG_SECCOMP_REDIRECT

/* What SECCOMP_FILTER_FLAG_MASK has more. */
#define SECCOMP_REDIRECT_FILTER_FLAGS		SECCOMP_FILTER_FLAG_REDIRECT

/* kernel/seccomp_redirect.c */
void seccomp_redirect_begin(const struct seccomp_redirect_request *request);
void seccomp_redirect_end(struct pt_regs *regs);

/* mm/seccomp_pin.c */
bool seccomp_pin_sealed(struct file *memfd);
long seccomp_pin_map(struct task_struct *task, struct mm_struct *mm, struct file *memfd,
		     unsigned long addr, unsigned long size, unsigned long offset,
		     unsigned long mark);
int seccomp_pin_covers(struct mm_struct *mm, unsigned long addr, unsigned long size,
		       struct file *memfd, unsigned long mark);

#else

#define SECCOMP_REDIRECT_FILTER_FLAGS		0

static inline void seccomp_redirect_end(struct pt_regs *regs)
{
}

#endif /* CONFIG_SECCOMP_REDIRECT */

#endif /* _LINUX_SECCOMP_REDIRECT_H */
