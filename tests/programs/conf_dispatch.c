/*
 * conf_dispatch: opens a file while it catches its own system calls (PR_SET_SYSCALL_USER_DISPATCH), which
 * another thread switches on when standard input has a byte: from then on, what would be a call raises
 * SIGSYS. The thread says `on`, and switches off again at the next byte.
 *
 * Prints result= of the open and caught=, how many calls raised the signal. Built with -static, so that no
 * loader makes calls first.
 */
#include "probe.h"

#include <pthread.h>
#include <ucontext.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif

enum { ALLOW = 0, BLOCK = 1 };

static volatile char selector = ALLOW;
static volatile long caught;

static void *switcher(void *unused)
{
    char byte;

    /* This thread's own calls are not caught. */
    if (read(STDIN_FILENO, &byte, 1) != 1)
        _exit(3);
    selector = BLOCK;
    if (write(STDOUT_FILENO, "switched=on\n", 12) != 12 || read(STDIN_FILENO, &byte, 1) != 1)
        _exit(3);
    selector = ALLOW;
    return unused;
}

static void on_call(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    (void)context;
    /* The return from here is a call, too. */
    caught++;
    selector = ALLOW;
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO};
    const uint64_t arguments[6] = {(uint64_t)AT_FDCWD, (uintptr_t)"/no/such/call", O_RDONLY, 0, 0, 0};
    struct registers after;
    pthread_t thread;
    long result;

    sigaction(SIGSYS, &action, NULL);
    if (pthread_create(&thread, NULL, switcher, NULL) != 0 ||
        prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, &selector) != 0)
        return 1;
    result = raw_call(SYS_openat, arguments, &after);
    selector = ALLOW;
    printf("result=%ld caught=%ld\n", result, caught);
    return 0;
}
