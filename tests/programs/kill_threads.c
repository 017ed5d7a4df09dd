/*
 * kill_threads WHAT PATH: one thread makes an open() of PATH, and another one acts when it is told to
 * (a byte on standard input). The first thread sleeps, unless it is the one to act.
 *
 *   exit           the first thread ends the process (exit_group 7)
 *   exec           the first thread executes the program anew
 *   exec_thread    a third thread does: the first one is ended too, and its id goes to the third
 *   exec_over      a second thread does, while the first one makes the open(): its id goes to the second
 *   leave          nobody acts: the thread ends by itself after its call, the first one makes another
 *
 * Executed anew, it makes an open() of PATH.after and tells its result.
 */
#include "probe.h"

#include <pthread.h>

static const char *program, *path;
static char after[256];

static long open_path(const char *which)
{
    const uint64_t arguments[6] = {(uintptr_t)which, O_RDONLY | O_CLOEXEC, 0, 0, 77, 78};
    struct registers registers;
    long result = raw_call(SYS_open, arguments, &registers);
    const char *changed = changed_register(arguments, &registers);

    if (changed != NULL)
        dprintf(STDOUT_FILENO, "registers=%s\n", changed);
    return result;
}

static void *call(void *unused)
{
    long result;

    dprintf(STDOUT_FILENO, "thread tid=%ld\n", syscall(SYS_gettid));
    result = open_path(path);
    dprintf(STDOUT_FILENO, "call result=%ld\n", result < 0 ? result : 0);
    return unused;
}

static void *execute(void *unused)
{
    char word;

    if (read(STDIN_FILENO, &word, 1) == 1)
        execv(program, (char *[]){(char *)program, "again", (char *)path, NULL});
    _exit(3);
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    char word;

    if (argc != 3)
        return 2;
    program = argv[0];
    path = argv[2];
    snprintf(after, sizeof after, "%s.after", path);
    if (strcmp(argv[1], "again") == 0) {
        long result = open_path(after);
        dprintf(STDOUT_FILENO, "again result=%ld pid=%d leader=%d\n", result < 0 ? result : 0,
                getpid(), (int)syscall(SYS_gettid) == getpid());
        return 0;
    }
    dprintf(STDOUT_FILENO, "ready=%d\n", getpid());
    if (strcmp(argv[1], "exec_over") == 0) {
        if (pthread_create(&thread, NULL, execute, NULL) != 0)
            return 1;
        call(NULL);
        return 3;
    }
    if (pthread_create(&thread, NULL, call, NULL) != 0)
        return 1;
    if (strcmp(argv[1], "exec") == 0)
        execute(NULL);
    if (strcmp(argv[1], "exec_thread") == 0) {
        pthread_t other;
        if (pthread_create(&other, NULL, execute, NULL) != 0)
            return 1;
        pthread_join(other, NULL);
        return 3;
    }
    if (strcmp(argv[1], "exit") == 0) {
        if (read(STDIN_FILENO, &word, 1) != 1)
            return 3;
        syscall(SYS_exit_group, 7);
    }
    pthread_join(thread, NULL);
    dprintf(STDOUT_FILENO, "joined=1\n");
    {
        long result = open_path(after);
        dprintf(STDOUT_FILENO, "after result=%ld\n", result < 0 ? result : 0);
    }
    return 0;
}
