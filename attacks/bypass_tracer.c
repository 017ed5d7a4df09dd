/*
 * The program traces its own children, and answers the stops that a filter sends to a tracer.
 *
 *     seize     a child, from without
 *     traceme   a child that asks for it; the name is written into it at the stop
 *     untraced  a child that other tracers are not told of (CLONE_UNTRACED)
 *     clone3    the same by clone3, whose flags a filter cannot see
 */
#include "bypass.h"

#include <linux/sched.h>
#include <sys/ptrace.h>

#ifndef CLONE_UNTRACED
#define CLONE_UNTRACED 0x00800000
#endif

static char *path;

/* The child: waits to be traced, then opens. */
static void open_when_told(pid_t parent, int told)
{
    char byte;

    attack_die_with(parent);
    alarm(CHILD_SECONDS);
    if (read(told, &byte, 1) != 1)
        _exit(REFUSED);
    _exit(outcome_of_open((int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC)));
}

/* Carries a traced child to its end; at each stop for a filter, writes the denied name's last byte. */
static enum outcome follow(pid_t child)
{
    size_t last = strlen(path) - 1;
    int status;

    while (waitpid(child, &status, __WALL) == child) {
        int number = WSTOPSIG(status);
        if (!WIFSTOPPED(status))
            return outcome_of_child(status);
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8)) {
            uintptr_t at = (uintptr_t)(path + last) & ~(uintptr_t)7;
            union {
                long word;
                char bytes[sizeof(long)];
            } poked = {.word = ptrace(PTRACE_PEEKDATA, child, at, NULL)};
            poked.bytes[(uintptr_t)(path + last) - at] = 'D';
            ptrace(PTRACE_POKEDATA, child, at, poked.word);
            number = 0;
        } else if (status >> 16 != 0 || number == SIGSTOP) {
            number = 0;
        }
        ptrace(PTRACE_CONT, child, NULL, number);
    }
    return OTHER;
}

static enum outcome trace(pid_t child, int tell)
{
    if (ptrace(PTRACE_SEIZE, child, NULL, PTRACE_O_TRACESECCOMP) != 0) {
        end_child(child);
        return REFUSED;
    }
    if (write(tell, "x", 1) != 1)
        return OTHER;
    return follow(child);
}

static enum outcome seize_made_by(long (*make)(void))
{
    pid_t self = getpid();
    int pipes[2];
    long child;

    if (pipe(pipes) != 0)
        return OTHER;
    child = make();
    if (child < 0)
        return outcome_of_error(errno);
    if (child == 0) {
        close(pipes[1]);
        open_when_told(self, pipes[0]);
    }
    return trace((pid_t)child, pipes[1]);
}

static long plain(void)
{
    return syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
}

static long plain_untraced(void)
{
    return syscall(SYS_clone, CLONE_UNTRACED | SIGCHLD, NULL, NULL, NULL, 0);
}

static long clone3_untraced(void)
{
    struct clone_args arguments = {.flags = CLONE_UNTRACED, .exit_signal = SIGCHLD};

    return syscall(SYS_clone3, &arguments, sizeof arguments);
}

static enum outcome seize(void)
{
    return seize_made_by(plain);
}

static enum outcome untraced(void)
{
    return seize_made_by(plain_untraced);
}

static enum outcome by_clone3(void)
{
    return seize_made_by(clone3_untraced);
}

static enum outcome traceme(void)
{
    pid_t self = getpid(), child = fork();
    int status;

    path[strlen(path) - 1] = 'A';
    if (child < 0)
        return OTHER;
    if (child == 0) {
        attack_die_with(self);
        alarm(CHILD_SECONDS);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(REFUSED);
        raise(SIGSTOP);
        path[strlen(path) - 1] = 'A';
        _exit(outcome_of_open((int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC)));
    }
    if (waitpid(child, &status, __WALL) != child)
        return OTHER;
    if (!WIFSTOPPED(status))
        return outcome_of_child(status);
    ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESECCOMP);
    ptrace(PTRACE_CONT, child, NULL, 0);
    return follow(child);
}

int main(int argc, char **argv)
{
    static const struct way ways[] = {
        {"seize", seize}, {"traceme", traceme}, {"untraced", untraced}, {"clone3", by_clone3},
    };

    attack_begin(argc, argv);
    path = attack_path("files/secret-D");
    return TRY_WAYS(ways);
}
