/*
 * sig_mask PATH: blocks a set of signals, makes one open() during which they are sent, and tells what
 * is blocked and pending afterwards, by the kernel's own account. Then it lets them in.
 */
#include "sig_frame.h"

static int hits;

static void handler(int number, siginfo_t *info, void *context)
{
    (void)context;
    hits++;
    dprintf(STDOUT_FILENO, "hit%d signal=%d value=%d code=%d\n", hits,
            number == SIGRTMIN ? 0 : number, info->si_value.sival_int, info->si_code);
}

static unsigned long pending_now(void)
{
    unsigned long mask = 0;

    syscall(SYS_rt_sigpending, &mask, sizeof mask);
    return mask;
}

int main(int argc, char **argv)
{
    static const int blocked[] = {SIGUSR1, SIGUSR2, SIGTERM, SIGTRAP, SIGCHLD};
    const char *changed;
    unsigned long mask = 1UL << (SIGRTMIN - 1);
    long result;

    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc != 2)
        return 2;
    for (size_t i = 0; i < sizeof blocked / sizeof *blocked; i++) {
        mask |= 1UL << (blocked[i] - 1);
        handle(blocked[i], handler, 0);
    }
    handle(SIGRTMIN, handler, 0);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
    printf("ready=%d\n", getpid());
    result = marked_open(argv[1], O_RDONLY | O_CLOEXEC, &changed);
    printf("call result=%ld registers=%s hits=%d same_mask=%d pending=%lx\n", result < 0 ? result : 0,
           changed ? changed : "ok", hits, mask_now() == mask, pending_now());
    mask = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
    printf("end hits=%d pending=%lx\n", hits, pending_now());
    return 0;
}
