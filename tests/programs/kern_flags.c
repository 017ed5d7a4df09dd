/*
 * kern_flags: the REDIRECT flag of filters, tried in children of its own. Prints what each attempt to
 * install a filter was answered with; 0 stands for a listener.
 */
#include "filters.h"

static const struct sock_filter notify[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};

static long listener;

static void attempt(const char *name, unsigned flags)
{
    struct sock_fprog program = {sizeof notify / sizeof *notify, (struct sock_filter *)notify};

    listener = answer(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
    dprintf(STDOUT_FILENO, "%s=%ld\n", name, listener > 0 ? 0 : listener);
}

enum {
    LISTENER = SECCOMP_FILTER_FLAG_NEW_LISTENER,
    REDIRECT = SECCOMP_FILTER_FLAG_REDIRECT,
    TSYNC = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
    KILLABLE = SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
};

static void by_itself(void)
{
    attempt("without_listener", REDIRECT);
    attempt("without_listener_log", REDIRECT | SECCOMP_FILTER_FLAG_LOG);
    attempt("without_listener_tsync", REDIRECT | SECCOMP_FILTER_FLAG_TSYNC);
    attempt("next_flag", 1u << 7 | LISTENER);
    attempt("both_flags", REDIRECT | LISTENER | KILLABLE | SECCOMP_FILTER_FLAG_LOG);
}

static void with_threads(void)
{
    attempt("tsync", REDIRECT | LISTENER | TSYNC);
}

static void two(void)
{
    attempt("first", REDIRECT | LISTENER);
    attempt("second", REDIRECT | LISTENER);
    attempt("second_unflagged", LISTENER);
    attempt("plain_after", 0);
}

static void closed(void)
{
    attempt("closed_first", REDIRECT | LISTENER);
    close((int)listener);
    attempt("closed_second", REDIRECT | LISTENER);
    attempt("closed_unflagged", LISTENER);
    close((int)listener);
    attempt("closed_third", REDIRECT | LISTENER);
}

static void unflagged_first(void)
{
    attempt("unflagged", LISTENER);
    attempt("unflagged_then_flagged", REDIRECT | LISTENER);
    attempt("plain_between", 0);
}

static void unflagged_closed(void)
{
    attempt("unflagged_to_close", LISTENER);
    close((int)listener);
    attempt("flagged_after_unflagged", REDIRECT | LISTENER);
}

/* The flag of a parent's filter counts for its child as well. */
static void inherited(void)
{
    pid_t child;

    attempt("parent", REDIRECT | LISTENER);
    close((int)listener);
    child = fork();
    if (child == 0) {
        attempt("child", REDIRECT | LISTENER);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

int main(void)
{
    static void (*const parts[])(void) = {by_itself, with_threads, two, closed, unflagged_first,
                                          unflagged_closed, inherited};
    pid_t self = getpid();

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        pid_t child = fork();
        int status = -1;

        if (child == 0) {
            die_with(self);
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            parts[i]();
            _exit(0);
        }
        if (waitpid(child, &status, 0) != child || status != 0)
            return 1;
    }
    return 0;
}
