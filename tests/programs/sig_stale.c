/*
 * sig_stale PATH: an open() of PATH that a handler ends with EINTR, then an epoll_wait() for standard
 * input. The kernel never makes an epoll_wait() again, not even after a stop without a handler: whoever
 * disturbs it is seen.
 */
#include "sig_frame.h"

#include <sys/epoll.h>

static void handler(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    (void)context;
}

int main(int argc, char **argv)
{
    struct epoll_event event = {.events = EPOLLIN};
    const char *changed;
    long result;
    int queue;

    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc != 2)
        return 2;
    handle(SIGUSR1, handler, 0);
    queue = epoll_create1(EPOLL_CLOEXEC);
    if (queue < 0 || epoll_ctl(queue, EPOLL_CTL_ADD, STDIN_FILENO, &event) != 0)
        return 1;
    printf("ready=%d\n", getpid());
    result = marked_open(argv[1], O_RDONLY | O_CLOEXEC, &changed);
    printf("call result=%ld registers=%s\n", result < 0 ? result : 0, changed ? changed : "ok");
    result = answer(syscall(SYS_epoll_wait, queue, &event, 1, -1));
    printf("wait result=%ld\n", result);
    return 0;
}
