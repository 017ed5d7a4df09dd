/*
 * stack_forbid WHEN ACTION PATH NUMBER...: a process that forbids itself some system calls, which
 * whoever wants to pin its arguments may need, before ("first") or between ("later") two calls: an
 * open() of PATH and one of PATH.after. SIGSYS has a handler: it may only come for calls of our own,
 * and of those there is one, at the end.
 *
 * ACTION is errno (EPERM), trap, trace or kill.
 */
#include "filters.h"
#include "sig_frame.h"

static volatile int hits;

static void handler(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    (void)context;
    hits++;
}

static void show(const char *name, const char *which)
{
    const char *changed;
    long result = marked_open(which, O_RDONLY | O_CLOEXEC, &changed);

    dprintf(STDOUT_FILENO, "%s result=%ld registers=%s hits=%d\n", name, result < 0 ? result : 0,
            changed ? changed : "ok", hits);
}

static void forbid(int count, char **numbers, unsigned action)
{
    for (int i = 0; i < count; i++)
        if (add_filter(atol(numbers[i]), action, 0) != 0)
            _exit(1);
}

int main(int argc, char **argv)
{
    struct sigaction action = {0};
    unsigned answer_with;
    int later;
    char after[256];

    if (argc < 5)
        return 2;
    answer_with = strcmp(argv[2], "errno") == 0  ? SECCOMP_RET_ERRNO | EPERM
                  : strcmp(argv[2], "trap") == 0 ? SECCOMP_RET_TRAP
                  : strcmp(argv[2], "trace") == 0 ? SECCOMP_RET_TRACE
                                                  : SECCOMP_RET_KILL_PROCESS;
    later = strcmp(argv[1], "later") == 0;
    snprintf(after, sizeof after, "%s.after", argv[3]);
    handle(SIGSYS, handler, 0);
    if (!later)
        forbid(argc - 4, argv + 4, answer_with);
    dprintf(STDOUT_FILENO, "ready=%d\n", getpid());
    show("call", argv[3]);
    if (later)
        forbid(argc - 4, argv + 4, answer_with);
    show("after", after);
    sigaction(SIGSYS, NULL, &action);
    dprintf(STDOUT_FILENO, "end same_action=%d\n", action.sa_sigaction == handler);
    if (strcmp(argv[2], "trap") == 0) {
        syscall(atol(argv[4]), -1L, 0, 0, 0, -1, 0);
        dprintf(STDOUT_FILENO, "own hits=%d\n", hits);
    }
    return 0;
}
