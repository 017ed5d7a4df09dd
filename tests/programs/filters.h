/* Seccomp filters that a program puts on itself, beside the one it already lives under. */
#ifndef FILTERS_H
#define FILTERS_H

#include "probe.h"

#include <linux/filter.h>
#include <linux/seccomp.h>

#ifndef SECCOMP_FILTER_FLAG_REDIRECT
#define SECCOMP_FILTER_FLAG_REDIRECT (1 << 6)
#endif

/*
 * Installs a filter; returns the call's answer or -errno. One with a listener gets the proposed REDIRECT
 * flag, since the later revision of the native interface asks for it, unless PINFOLD_FIRST_REVISION is in
 * the environment, or the kernel does not know it: that says EINVAL.
 */
static inline long set_filter(const struct sock_fprog *program, unsigned flags)
{
    long result = -EINVAL;

    if ((flags & SECCOMP_FILTER_FLAG_NEW_LISTENER) && getenv("PINFOLD_FIRST_REVISION") == NULL)
        result = answer(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                                flags | SECCOMP_FILTER_FLAG_REDIRECT, program));
    if (result == -EINVAL)
        result = answer(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, program));
    return result;
}

/* Installs: `number` gives `action`, all else is allowed. Returns the call's answer or -errno. */
static inline long add_filter(long number, unsigned action, unsigned flags)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return set_filter(&program, flags);
}

#endif
