/*
 * race_clonevm ALLOWED DENIED ATTEMPTS: a process that shares the whole address space, but is no
 * thread of the opener, rewrites the path.
 */
#include "race.h"

#include <sys/wait.h>

static struct race race;
static _Alignas(64) char stack[1 << 16];
static pid_t parent;

static int peer(void *unused)
{
    (void)unused;
    race_die_with(parent);
    race_flip(&race);
    return 0;
}

int main(int argc, char **argv)
{
    pid_t pid;

    if (argc != 4)
        return 2;
    race_set_up(&race, argv[1], argv[2], argv[3]);
    parent = getpid();
    pid = clone(peer, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL);
    if (pid < 0) {
        perror("clone");
        return 1;
    }
    race_await_peer(&race);
    race_open(&race);
    race_report(&race);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0;
}
