/*
 * What handlers of the suite look at in the signal frame they were given, and the call whose frame it
 * is: open(path, flags) with marks in the registers that it does not use, so that a frame taken in the
 * middle of it can be told from any other. The pin is where the supervisor said it would be.
 */
#ifndef SIG_FRAME_H
#define SIG_FRAME_H

#include "probe.h"

#include <ucontext.h>

enum { MARK_R10 = 76, MARK_R8 = 77, MARK_R9 = 78, MARK_RBX = 0x51, TRAP_FLAG = 0x100 };

static struct range pin;

struct seen {
    int pins;           /* registers that hold an address inside the pin */
    int in_call;        /* the frame is that of a marked call */
    int own;            /* its first argument is the program's own */
    int rewound;        /* it will be made again when the handler returns */
    int stepping;       /* the trap flag is set */
    unsigned long mask; /* what is blocked once the handler has returned */
};

/* Reads START-END, both hexadecimal. */
static inline int read_pin(const char *text)
{
    return sscanf(text, "%lx-%lx", &pin.start, &pin.end) == 2;
}

static inline long marked_call(long number, uint64_t first, uint64_t second, const char **changed)
{
    const uint64_t arguments[6] = {first, second, 0, MARK_R10, MARK_R8, MARK_R9};
    struct registers after;
    long result = raw_call(number, arguments, &after);

    *changed = changed_register(arguments, &after);
    return result;
}

static inline long marked_open(const char *path, int flags, const char **changed)
{
    return marked_call(SYS_open, (uintptr_t)path, (uint64_t)flags, changed);
}

static inline struct seen look_at(const void *context, const void *own)
{
    const greg_t *registers = ((const ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t at = (uintptr_t)registers[REG_RIP], call = (uintptr_t)raw_call_at;
    struct seen seen = {0};

    for (int i = 0; i < NGREG; i++)
        seen.pins += in_pins(&pin, 1, (uintptr_t)registers[i]);
    seen.in_call = (at == call || at == call + 2) && registers[REG_R8] == MARK_R8 &&
                   registers[REG_R9] == MARK_R9 && registers[REG_RBX] == MARK_RBX;
    seen.own = (uintptr_t)registers[REG_RDI] == (uintptr_t)own;
    seen.rewound = at == call;
    seen.stepping = (registers[REG_EFL] & TRAP_FLAG) != 0;
    memcpy(&seen.mask, &((const ucontext_t *)context)->uc_sigmask, sizeof seen.mask);
    return seen;
}

static inline void handle(int number, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};

    sigaction(number, &action, NULL);
}

/* Returns the signals that are blocked, by the kernel's own account. */
static inline unsigned long mask_now(void)
{
    unsigned long mask = 0;

    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, sizeof mask);
    return mask;
}

#endif
