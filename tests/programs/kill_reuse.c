/*
 * kill_reuse PATH: a child makes an open() of PATH and is killed; then a second child gets the very
 * same process id (clone3 with set_tid, which takes CAP_CHECKPOINT_RESTORE). It waits for standard
 * input in epoll_wait(), which the kernel never makes again: whoever takes it for the first child, and
 * disturbs it, is seen.
 */
#include "probe.h"

#include <linux/sched.h>
#include <sys/epoll.h>

static long open_path(const char *path)
{
    const uint64_t arguments[6] = {(uintptr_t)path, O_RDONLY | O_CLOEXEC, 0, 0, 0, 0};
    struct registers after;

    return raw_call(SYS_open, arguments, &after);
}

int main(int argc, char **argv)
{
    struct epoll_event event = {.events = EPOLLIN};
    struct clone_args how = {.exit_signal = SIGCHLD, .set_tid_size = 1};
    pid_t self = getpid(), child, second;
    int queue, status;

    if (argc != 2)
        return 2;
    queue = epoll_create1(EPOLL_CLOEXEC);
    if (queue < 0 || epoll_ctl(queue, EPOLL_CTL_ADD, STDIN_FILENO, &event) != 0)
        return 1;
    child = fork();
    if (child == 0) {
        die_with(self);
        open_path(argv[1]);
        _exit(0);
    }
    waitpid(child, &status, 0);
    how.set_tid = (uintptr_t)&child;
    second = (pid_t)syscall(SYS_clone3, &how, sizeof how);
    if (second == 0) {
        long result;
        die_with(self);
        dprintf(STDOUT_FILENO, "second=%d\n", getpid());
        result = answer(syscall(SYS_epoll_wait, queue, &event, 1, -1));
        dprintf(STDOUT_FILENO, "wait result=%ld\n", result);
        _exit(0);
    }
    if (second < 0) {
        dprintf(STDOUT_FILENO, "second=-%d\n", errno);
        return 0;
    }
    waitpid(second, &status, 0);
    dprintf(STDOUT_FILENO, "status=%d\n", status);
    return 0;
}
