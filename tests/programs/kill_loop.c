/*
 * kill_loop PROCESSES THREADS DEATHS PATH: processes whose threads open PATH without end. The only way
 * out for them is to be killed; a killed one is replaced, until DEATHS of them have died. Then the rest
 * is killed, and the first process makes one last open(), of PATH.after.
 *
 * With PROCESSES 0 the first process makes the opens itself.
 */
#include "probe.h"

#include <pthread.h>

enum { PROCESSES_AT_MOST = 16 };

static const char *path;
static long threads;

static long open_path(const char *which)
{
    const uint64_t arguments[6] = {(uintptr_t)which, O_RDONLY | O_CLOEXEC, 0, 0, 0, 0};
    struct registers after;

    return raw_call(SYS_open, arguments, &after);
}

static void *work(void *unused)
{
    for (;;) {
        long fd = open_path(path);
        if (fd >= 0)
            close((int)fd);
    }
    return unused;
}

static void work_in_threads(void)
{
    pthread_t thread;

    for (long i = 1; i < threads; i++)
        if (pthread_create(&thread, NULL, work, NULL) != 0)
            _exit(1);
    work(NULL);
}

static pid_t start(void)
{
    pid_t self = getpid(), child = fork();

    if (child == 0) {
        die_with(self);
        work_in_threads();
    }
    return child;
}

int main(int argc, char **argv)
{
    pid_t children[PROCESSES_AT_MOST];
    long processes, deaths, result;
    char after[256];
    int status;

    if (argc != 5)
        return 2;
    processes = atol(argv[1]);
    threads = atol(argv[2]);
    deaths = atol(argv[3]);
    path = argv[4];
    snprintf(after, sizeof after, "%s.after", path);
    dprintf(STDOUT_FILENO, "ready=%d\n", getpid());
    if (processes == 0)
        work_in_threads();
    for (long i = 0; i < processes; i++)
        children[i] = start();
    for (long died = 0; died < deaths; died++) {
        pid_t child = wait(&status);
        if (child < 0 || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
            dprintf(STDOUT_FILENO, "status=%d\n", status);
            return 1;
        }
        for (long i = 0; i < processes; i++)
            if (children[i] == child)
                children[i] = start();
    }
    for (long i = 0; i < processes; i++) {
        kill(children[i], SIGKILL);
        waitpid(children[i], &status, 0);
    }
    result = open_path(after);
    dprintf(STDOUT_FILENO, "after result=%ld\n", result < 0 ? result : 0);
    return 0;
}
