/*
 * sig_sleep PIN CALL [eintr|restart]: a call that waits for PATIENCE seconds, unless whoever judges it
 * makes the time another one. With a word, USR1 has a handler; SA_RESTART does not matter to these.
 *
 *   nanosleep, clock_nanosleep   the time is a pointer; what is left of it comes back
 *   absolute                     clock_nanosleep to a point in time
 *   futex                        the time is a pointer
 *   poll                         the time is a number of milliseconds
 *   ppoll                        the time is a pointer; USR1 is let in for as long as it waits
 *   sigtimedwait                 the time is a pointer; USR1 is blocked, and waited for
 */
#include "sig_frame.h"

#include <linux/futex.h>
#include <poll.h>

enum { PATIENCE = 100, NOWHERE = -1 };

static const char *own;
static int hits;

static void handler(int number, siginfo_t *info, void *context)
{
    struct seen seen = look_at(context, own);

    (void)number;
    (void)info;
    dprintf(STDOUT_FILENO, "hit%d pins=%d rewound=%d stepping=%d\n", ++hits, seen.pins,
            seen.rewound, seen.stepping);
}

int main(int argc, char **argv)
{
    struct timespec time = {PATIENCE, 0}, left = {0, 0};
    struct registers after;
    struct pollfd nothing = {.fd = NOWHERE};
    uint64_t arguments[6] = {0, 0, 0, MARK_R10, MARK_R8, MARK_R9};
    const char *changed;
    unsigned long usr1 = 1UL << (SIGUSR1 - 1), nobody = 0, mask;
    siginfo_t info = {0};
    uint32_t word = 0;
    double begin;
    long number, result;

    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc < 3 || !read_pin(argv[1]))
        return 2;
    if (argc > 3)
        handle(SIGUSR1, handler, strcmp(argv[3], "restart") == 0 ? SA_RESTART : 0);
    if (strcmp(argv[2], "nanosleep") == 0) {
        number = SYS_nanosleep;
        arguments[0] = (uintptr_t)&time;
        arguments[1] = (uintptr_t)&left;
    } else if (strcmp(argv[2], "poll") == 0) {
        number = SYS_poll;
        arguments[0] = (uintptr_t)&nothing;
        arguments[1] = 1;
        arguments[2] = PATIENCE * 1000;
    } else if (strcmp(argv[2], "futex") == 0) {
        number = SYS_futex;
        arguments[0] = (uintptr_t)&word;
        arguments[1] = FUTEX_WAIT | FUTEX_PRIVATE_FLAG;
        arguments[2] = 0;
        arguments[3] = (uintptr_t)&time;
    } else if (strcmp(argv[2], "ppoll") == 0) {
        number = SYS_ppoll;
        arguments[0] = (uintptr_t)&nothing;
        arguments[1] = 1;
        arguments[2] = (uintptr_t)&time;
        arguments[3] = (uintptr_t)&nobody;
        arguments[4] = sizeof nobody;
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &usr1, NULL, sizeof usr1);
    } else if (strcmp(argv[2], "sigtimedwait") == 0) {
        number = SYS_rt_sigtimedwait;
        arguments[0] = (uintptr_t)&usr1;
        arguments[1] = (uintptr_t)&info;
        arguments[2] = (uintptr_t)&time;
        arguments[3] = sizeof usr1;
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &usr1, NULL, sizeof usr1);
    } else {
        number = SYS_clock_nanosleep;
        arguments[0] = CLOCK_MONOTONIC;
        if (strcmp(argv[2], "absolute") == 0) {
            clock_gettime(CLOCK_MONOTONIC, &time);
            time.tv_sec += PATIENCE;
            arguments[1] = TIMER_ABSTIME;
        }
        arguments[2] = (uintptr_t)&time;
        arguments[3] = (uintptr_t)&left;
    }
    own = (const char *)arguments[0];
    mask = mask_now();
    printf("ready=%d\n", getpid());
    begin = now();
    result = raw_call(number, arguments, &after);
    changed = changed_register(arguments, &after);
    printf("call result=%ld registers=%s waited=%.3f left=%.3f value=%d same_mask=%d\n", result,
           changed ? changed : "ok", now() - begin, (double)left.tv_sec + (double)left.tv_nsec / 1e9,
           info.si_value.sival_int, mask_now() == mask);
    return 0;
}
