/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Decisions of a seccomp listener that hold: the arguments that were judged are the arguments that
 * the kernel acts on.
 *
 * A pin is a mapping of the listener's own memory in the address space of a task that waits in a
 * notification: shared, read-only, sealed, of a memfd that nobody can write any more but through
 * mappings that were there before its seal. A redirect resumes the waiting call with some of its
 * arguments replaced. Those that are pointers must point into a pin.
 *
 * There are two revisions. Which one a listener speaks was settled when its filter was installed:
 * with SECCOMP_FILTER_FLAG_REDIRECT it is the later one, where a redirect names the memfd that its
 * pointers lie in. Without the flag it is the first one, where any pin will do that this listener
 * has installed.
 */
#ifndef _UAPI_LINUX_SECCOMP_REDIRECT_H
#define _UAPI_LINUX_SECCOMP_REDIRECT_H

#include <linux/types.h>

/* For SECCOMP_SET_MODE_FILTER, with SECCOMP_FILTER_FLAG_NEW_LISTENER: one such filter in a chain. */
#define SECCOMP_FILTER_FLAG_REDIRECT		(1UL << 6)

/**
 * struct seccomp_notif_pin_install - puts a pin into the task behind a notification
 * @id: the notification
 * @flags: none are defined
 * @memfd: a write-sealed memfd (F_SEAL_WRITE or F_SEAL_FUTURE_WRITE)
 * @target_addr: where, a multiple of the page size; nothing may be mapped there
 * @size: bytes, a multiple of the page size
 * @offset: where in the memfd the pin begins, a multiple of the page size
 *
 * The first revision ends before @offset. In the longer form a @target_addr of 0 lets the kernel
 * choose one, which is then written back.
 */
struct seccomp_notif_pin_install {
	__u64 id;
	__u32 flags;
	__u32 memfd;
	__u64 target_addr;
	__u64 size;
	__u64 offset;
};

/* The only flag of a redirect, and it must be there: the call is made. */
#define SECCOMP_REDIRECT_FLAG_CONTINUE		(1UL << 0)

/**
 * struct seccomp_notif_send_redirect - resumes a call with other arguments
 * @id: the notification
 * @flags: SECCOMP_REDIRECT_FLAG_CONTINUE
 * @args_mask: a bit for each argument that is replaced
 * @ptr_mask: a bit for each of these that is a pointer
 * @memfd: the memfd that all pointers lie in; first revision: 0
 * @args: what the arguments are replaced with
 * @ptr_len: how many bytes from a pointer on must lie in its pin; 0 where there is no pointer
 */
struct seccomp_notif_send_redirect {
	__u64 id;
	__u32 flags;
	__u32 args_mask;
	__u32 ptr_mask;
	__u32 memfd;
	__u64 args[6];
	__u64 ptr_len[6];
};

/* Both grow: a longer structure is taken when what is unknown of it is zero. */
#define SECCOMP_IOCTL_NOTIF_PIN_INSTALL		_IOWR('!', 5, struct seccomp_notif_pin_install)
#define SECCOMP_IOCTL_NOTIF_SEND_REDIRECT	_IOW('!', 6, struct seccomp_notif_send_redirect)

#endif /* _UAPI_LINUX_SECCOMP_REDIRECT_H */
