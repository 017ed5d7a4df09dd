/*
 * sig_trap CALLS default|ignore|block|handler: a supervisor that steps us one instruction at a time
 * makes SIGTRAPs, and none of them is ours to see. CALLS calls of open(), then what became of SIGTRAP:
 * how often it came, what is set for it, whether it is blocked or pending. Where it can be survived, a
 * real one (int3, and one sent by ourselves) shows that it still does what it should. What the call
 * instruction leaves in rcx and r11 is looked at too.
 */
#include "sig_frame.h"

static volatile int hits, from_breakpoint, from_ourselves;

static void handler(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    hits++;
    from_breakpoint += info->si_code == SI_KERNEL;
    from_ourselves += info->si_code == SI_TKILL && info->si_pid == getpid();
}

static unsigned long status_mask(const char *name)
{
    FILE *status = fopen("/proc/self/status", "re");
    char line[128];
    unsigned long mask = 0;

    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            sscanf(line + strlen(name), ": %lx", &mask);
    if (status != NULL)
        fclose(status);
    return mask;
}

/* After an ordinary system call rcx holds the address that it returned to, r11 the flags. */
static long open_and_look(uint64_t *rcx_is_next, uint64_t *r11)
{
    uint64_t next, rcx;
    register uint64_t eleventh asm("r11");
    long result;

    asm volatile("syscall\n1:\tlea 1b(%%rip), %2"
                 : "=a"(result), "=c"(rcx), "=&r"(next), "=r"(eleventh)
                 : "0"(SYS_open), "D"("/nonexistent/trap"), "S"(O_RDONLY | O_CLOEXEC), "d"(0)
                 : "memory");
    *r11 = eleventh;
    *rcx_is_next = rcx == next;
    return result;
}

static int has_trap(const char *name)
{
    return (status_mask(name) & 1UL << (SIGTRAP - 1)) != 0;
}

int main(int argc, char **argv)
{
    struct sigaction before, after;
    const char *changed, *what;
    long calls, failures = 0, bad_registers = 0;
    uint64_t next, flags;
    sigset_t one;

    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc != 3)
        return 2;
    calls = atol(argv[1]);
    what = argv[2];
    if (strcmp(what, "ignore") == 0)
        signal(SIGTRAP, SIG_IGN);
    else if (strcmp(what, "default") != 0)
        handle(SIGTRAP, handler, 0);
    sigemptyset(&one);
    sigaddset(&one, SIGTRAP);
    if (strcmp(what, "block") == 0)
        sigprocmask(SIG_BLOCK, &one, NULL);
    sigaction(SIGTRAP, NULL, &before);
    printf("ready=%d\n", getpid());
    for (long i = 0; i < calls; i++) {
        long fd = marked_open("/nonexistent/trap", O_RDONLY | O_CLOEXEC, &changed);
        failures += fd < 0;
        bad_registers += changed != NULL;
        if (fd >= 0)
            close((int)fd);
    }
    failures += open_and_look(&next, &flags) < 0;
    printf("scratch next=%lu stepping=%d\n", next, (flags & TRAP_FLAG) != 0);
    sigaction(SIGTRAP, NULL, &after);
    printf("calls failures=%ld bad_registers=%ld hits=%d same_action=%d\n", failures, bad_registers,
           hits, before.sa_sigaction == after.sa_sigaction && before.sa_flags == after.sa_flags);
    printf("mask ignored=%d caught=%d blocked=%d pending=%d\n", has_trap("SigIgn"),
           has_trap("SigCgt"), has_trap("SigBlk"), has_trap("SigPnd") || has_trap("ShdPnd"));
    if (strcmp(what, "default") != 0) {
        syscall(SYS_tgkill, getpid(), getpid(), SIGTRAP);
        sigprocmask(SIG_UNBLOCK, &one, NULL);
    }
    if (strcmp(what, "handler") == 0 || strcmp(what, "block") == 0)
        asm volatile("int3");
    printf("real hits=%d breakpoint=%d ourselves=%d\n", hits, from_breakpoint, from_ourselves);
    return 0;
}
