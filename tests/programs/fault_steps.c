/*
 * fault_steps OPEN DENIED MADE: a short program that takes every way through a supervisor once: calls
 * that are made, redirected and denied, in the process, a thread, a child and a program that the child
 * executes. The first byte of OPEN is printed; so is that of DENIED, which must never be. MADE is made a
 * directory and removed. SIGUSR1 is counted.
 */
#include "probe.h"

#include <pthread.h>

enum { WATCHDOG_S = 60 };

static const char *const *paths;
static volatile sig_atomic_t signals;

static void handler(int number)
{
    (void)number;
    signals++;
}

static void try(const char *who)
{
    int fd;

    /* Without the C library's buffers, which a child would write again. */
    dprintf(STDOUT_FILENO, "%s.open=%s\n", who, first_byte(paths[0]));
    fd = open(paths[1], O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        char byte = '?';
        if (read(fd, &byte, 1) == 1)
            dprintf(STDOUT_FILENO, "%s.denied=%c\n", who, byte);
        close(fd);
    }
}

static void *work(void *unused)
{
    try("thread");
    return unused;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    const char *files[2];
    sigset_t usr1;
    pthread_t thread;
    pid_t self = getpid(), child;
    int status = -1;

    if (argc < 4)
        return 2;
    files[0] = argv[1];
    files[1] = argv[2];
    paths = files;
    alarm(WATCHDOG_S);
    /* It is blocked when a program starts: the signal may come before its handler is there. */
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigaction(SIGUSR1, &action, NULL);
    sigprocmask(SIG_UNBLOCK, &usr1, NULL);
    if (argc > 4) {
        try("program");
        return 0;
    }
    try("first");
    if (mkdir(argv[3], 0700) == 0)
        rmdir(argv[3]);
    if (pthread_create(&thread, NULL, work, NULL) != 0)
        return 1;
    pthread_join(thread, NULL);
    child = fork();
    if (child == 0) {
        die_with(self);
        try("child");
        sigprocmask(SIG_BLOCK, &usr1, NULL);
        execl(argv[0], argv[0], argv[1], argv[2], argv[3], "program", (char *)NULL);
        _exit(4);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    dprintf(STDOUT_FILENO, "status=%d\n", status);
    return 0;
}
