/*
 * kern_peers SOCKET: two processes that share one memory (CLONE_VM), each under a filter of its own that
 * notifies of open(). Their listeners go out through SOCKET, the child's first. Then each opens a path of
 * its own, the child /no/such/child, the parent /no/such/parent.
 *
 * Prints child=RESULT and parent=RESULT.
 */
#include "filters.h"
#include "handover.h"

enum { STACK = 1 << 16 };

static int channel, handed[2];
static long results[2];

static long opened(const char *path)
{
    const uint64_t arguments[6] = {(uintptr_t)path, O_RDONLY | O_CLOEXEC};
    struct registers after;

    return raw_call(SYS_open, arguments, &after);
}

static int go_out(void)
{
    long listener = add_filter(SYS_open, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);

    if (listener < 0 || hand_over(channel, (int)listener) != 0)
        return -1;
    close((int)listener);
    return 0;
}

static int child(void *unused)
{
    (void)unused;
    if (go_out() != 0 || write(handed[1], "c", 1) != 1)
        return 1;
    results[0] = opened("/no/such/child");
    return 0;
}

int main(int argc, char **argv)
{
    char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char byte;
    int status = -1;
    pid_t made;

    if (argc != 2 || stack == MAP_FAILED || pipe(handed) != 0)
        return 2;
    channel = atoi(argv[1]);
    made = clone(child, stack + STACK, CLONE_VM | SIGCHLD, NULL);
    if (made < 0 || read(handed[0], &byte, 1) != 1 || go_out() != 0)
        return 1;
    results[1] = opened("/no/such/parent");
    if (waitpid(made, &status, 0) != made || status != 0)
        return 1;
    printf("child=%ld parent=%ld\n", results[0], results[1]);
    return 0;
}
