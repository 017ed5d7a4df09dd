/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LINUX_SECCOMP_REDIRECT_TYPES_H
#define _LINUX_SECCOMP_REDIRECT_TYPES_H

#include <linux/types.h>

#define SECCOMP_REDIRECT_ARGS	6

#ifdef CONFIG_SECCOMP_REDIRECT

/**
 * struct seccomp_redirect - a task's own arguments, while it makes a redirected call
 * @saved: what the program had in the argument registers that were replaced
 * @exec_id: the task's exec count at that time; another one now means that the program is gone
 * @mask: which of @saved are in use
 * @pointers: which of the new arguments point into a pin
 * @unjudged: the other filters have not seen the new arguments yet
 *
 * Nobody but the task itself looks at it. It lies in the task because a redirect must not fail for
 * want of memory once the listener was told that it succeeded, and so that nothing is ever freed,
 * however the task ends.
 */
struct seccomp_redirect {
	unsigned long saved[SECCOMP_REDIRECT_ARGS];
	u64 exec_id;
	u8 mask;
	u8 pointers;
	bool unjudged;
};

/**
 * struct seccomp_redirect_request - a redirect on its way from the listener to the task
 * @args: new values
 * @mask: for which arguments; 0 if the answer was no redirect
 * @pointers: which of them are pointers
 */
struct seccomp_redirect_request {
	unsigned long args[SECCOMP_REDIRECT_ARGS];
	u8 mask;
	u8 pointers;
};

#else

struct seccomp_redirect { };
struct seccomp_redirect_request { };

#endif /* CONFIG_SECCOMP_REDIRECT */

#endif /* _LINUX_SECCOMP_REDIRECT_TYPES_H */
