/*
 * exec_from_thread FILE: a thread that is not the first one executes the program anew while others
 * open files and the first one sleeps. The kernel ends all others, and the survivor takes over the
 * process id as its thread id: its old id vanishes without a word to a tracer.
 */
#include "probe.h"

#include <pthread.h>

enum { OPENERS = 4 };

static char *program, *file;

static void *open_on(void *unused)
{
    for (;;) {
        int fd = open(file, O_RDONLY | O_CLOEXEC);
        if (fd >= 0)
            close(fd);
    }
    return unused;
}

static void *execute(void *unused)
{
    char pid[24], tid[24];

    pause_for(0.05);
    snprintf(pid, sizeof pid, "%d", getpid());
    snprintf(tid, sizeof tid, "%d", (int)syscall(SYS_gettid));
    execv(program, (char *[]){program, "after", file, pid, tid, NULL});
    printf("execv=-%d\n", errno);
    exit(1);
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;

    program = argv[0];
    if (argc == 5) {
        pid_t pid = atoi(argv[3]), tid = atoi(argv[4]);
        printf("same_pid=%d leader=%d was_leader=%d old_tid=%ld byte=%s\n", getpid() == pid,
               (int)syscall(SYS_gettid) == getpid(), pid == tid,
               answer(syscall(SYS_tgkill, pid, tid, 0)), first_byte(argv[2]));
        return 0;
    }
    if (argc != 2)
        return 2;
    file = argv[1];
    for (int i = 0; i < OPENERS; i++)
        if (pthread_create(&thread, NULL, open_on, NULL) != 0)
            return 1;
    if (pthread_create(&thread, NULL, execute, NULL) != 0)
        return 1;
    pause_for(30);
    return 1;
}
