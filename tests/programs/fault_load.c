/*
 * fault_load OPEN DENIED: processes that open, fork, start threads and execute themselves, without end.
 * OPEN is opened for its content, DENIED must never be: its first byte is written to standard output
 * if it is. Whoever gets ENOSYS has no supervisor any more, and ends.
 */
#include "probe.h"

#include <pthread.h>

enum { LEAF_CALLS = 3, WATCHDOG_S = 60 };

static const char *const *paths;

static void try(void)
{
    int fd;

    first_byte(paths[0]);
    fd = open(paths[1], O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        char byte;
        if (read(fd, &byte, 1) == 1 && write(STDOUT_FILENO, &byte, 1) != 1)
            _exit(3);
        close(fd);
    } else if (errno == ENOSYS) {
        _exit(2);
    }
}

static void *work(void *calls)
{
    for (long left = (long)calls; left != 0; left--)
        try();
    return NULL;
}

static void leaf(void)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, work, (void *)LEAF_CALLS) != 0)
        _exit(1);
    work((void *)LEAF_CALLS);
    pthread_join(thread, NULL);
    _exit(0);
}

int main(int argc, char **argv)
{
    const char *files[2];
    pthread_t thread;
    pid_t self = getpid();

    if (argc < 3)
        return 2;
    files[0] = argv[1];
    files[1] = argv[2];
    paths = files;
    alarm(WATCHDOG_S);
    if (argc > 3)
        leaf();
    if (pthread_create(&thread, NULL, work, (void *)-1L) != 0)
        return 1;
    for (long round = 0;; round++) {
        pid_t child = round % 3 == 2 ? vfork() : fork();
        if (child == 0) {
            if (round % 3 == 0) {
                die_with(self);
                alarm(WATCHDOG_S);
                work((void *)LEAF_CALLS);
                _exit(0);
            }
            execl(argv[0], argv[0], argv[1], argv[2], "leaf", (char *)NULL);
            _exit(4);
        }
        while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
            ;
        try();
    }
}
