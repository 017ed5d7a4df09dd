/*
 * sig_open PIN PATH [WORD...]: one open() of PATH, which whoever judges it makes block, and what
 * signals do to it. USR1 and the first real-time signal have a handler, which tells what it was given.
 *
 *   restart    the handlers have SA_RESTART
 *   altstack   they run on a stack of their own
 *   nested     they open PATH too
 *   jump       they never return
 *   none       there are none: the signals keep their defaults
 *
 * Afterwards it makes an open() of PATH.after, to show that all is as before.
 */
#include "sig_frame.h"

#include <setjmp.h>

static const char *path;
static int nested, jump, hits;
static sigjmp_buf landing;
static char other_stack[64 * 1024];

static void handler(int number, siginfo_t *info, void *context)
{
    struct seen seen = look_at(context, path);
    char here;
    int aside = &here >= other_stack && &here < other_stack + sizeof other_stack;
    int mine = ++hits;
    long result = 0;
    const char *changed = NULL;

    dprintf(STDOUT_FILENO,
            "hit%d signal=%d code=%d sender=%d value=%d pins=%d in_call=%d own=%d rewound=%d"
            " stepping=%d mask=%lx aside=%d\n",
            mine, number == SIGRTMIN ? 0 : number, info->si_code, info->si_pid,
            info->si_value.sival_int, seen.pins, seen.in_call, seen.own, seen.rewound,
            seen.stepping, seen.mask, aside);
    if (nested) {
        result = marked_open(path, O_RDONLY | O_CLOEXEC, &changed);
        dprintf(STDOUT_FILENO, "nested%d result=%ld registers=%s\n", mine, result < 0 ? result : 0,
                changed ? changed : "ok");
        if (result >= 0)
            close((int)result);
    }
    if (jump)
        siglongjmp(landing, 1);
}

static void show(const char *name, const char *which)
{
    const char *changed;
    long result = marked_open(which, O_RDONLY | O_CLOEXEC, &changed);
    char byte = '-';

    if (result >= 0) {
        if (read((int)result, &byte, 1) != 1)
            byte = '-';
        close((int)result);
    }
    printf("%s result=%ld registers=%s byte=%c hits=%d mask=%lx\n", name, result < 0 ? result : 0,
           changed ? changed : "ok", byte, hits, mask_now());
}

int main(int argc, char **argv)
{
    stack_t stack = {.ss_sp = other_stack, .ss_size = sizeof other_stack};
    char after[256];
    int flags = 0, handled = 1;

    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc < 3 || !read_pin(argv[1]))
        return 2;
    path = argv[2];
    snprintf(after, sizeof after, "%s.after", path);
    for (int i = 3; i < argc; i++) {
        if (strcmp(argv[i], "restart") == 0)
            flags |= SA_RESTART;
        else if (strcmp(argv[i], "altstack") == 0)
            flags |= SA_ONSTACK;
        else if (strcmp(argv[i], "nested") == 0)
            nested = 1;
        else if (strcmp(argv[i], "jump") == 0)
            jump = 1;
        else if (strcmp(argv[i], "none") == 0)
            handled = 0;
        else
            return 2;
    }
    if (flags & SA_ONSTACK && sigaltstack(&stack, NULL) != 0)
        return 1;
    if (handled) {
        handle(SIGUSR1, handler, flags);
        handle(SIGRTMIN, handler, flags);
    }
    printf("ready=%d\n", getpid());
    if (sigsetjmp(landing, 1) == 0)
        show("call", path);
    else
        printf("call result=landed hits=%d\n", hits);
    show("after", after);
    return 0;
}
