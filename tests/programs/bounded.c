/* Gives a supervisor much to remember: names, processes, deep names, programs with long arguments.
 *
 * bounded NAMES PROCESSES DEEP PROGRAMS
 *
 * In each of two rounds it asks for NAMES names that nobody has asked for before, makes PROCESSES
 * processes that end at once, asks for DEEP names of almost 4,096 bytes, and executes itself PROGRAMS
 * times with an argument of 100,000 bytes that is another one each time. After a round it prints
 * `round` and waits for a byte. It prints `busy` now and then.
 *
 * bounded killed
 *
 * prints `ready`, waits for an `x`, and makes a child whose id another process prints as soon as it
 * has one, for whoever is to kill it; and so on.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OFTEN = 2000, LONG = 100000 };

static void fail(const char *what)
{
    perror(what);
    exit(2);
}

static void wait_for(pid_t pid)
{
    int status;

    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        fail("child");
}

static void pause_for_test(void)
{
    char byte;

    fflush(stdout);
    if (read(0, &byte, 1) < 0)
        fail("read");
}

static void busy(long i)
{
    if (i % OFTEN == 0) {
        puts("busy");
        fflush(stdout);
    }
}

static void names(int round, long count)
{
    char path[64];
    struct stat found;

    for (long i = 0; i < count; i++) {
        busy(i);
        snprintf(path, sizeof path, "/nonexistent/%d-%ld", round, i);
        stat(path, &found);
    }
}

static void processes(long count)
{
    for (long i = 0; i < count; i++) {
        busy(i);
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        wait_for(pid);
    }
}

static void deep(int round, long count)
{
    static char path[4096];
    struct stat found;

    for (long i = 0; i < count; i++) {
        size_t at = snprintf(path, sizeof path, "/nonexistent/%d/%ld", round, i);
        while (at + 4 < sizeof path)
            at += snprintf(path + at, sizeof path - at, "/%zx", at % 16);
        stat(path, &found);
    }
}

static void programs(int round, long count)
{
    static char argument[LONG + 1];
    char *argv[] = {"bounded", "nothing", argument, NULL}, *env[] = {NULL};
    pid_t pid;

    for (long i = 0; i < count; i++) {
        memset(argument, 'x', LONG);
        argument[snprintf(argument, LONG, "%d-%ld", round, i)] = 'x';
        if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, env))
            fail("posix_spawn");
        wait_for(pid);
    }
}

static void tell_of_newborns(volatile pid_t *child)
{
    *child = -1;
    for (;;) {
        pid_t pid = *child;
        if (pid > 0) {
            *child = 0;
            /* Not printf: its first use asks what standard output is, and that call is judged. */
            char line[32];
            int length = snprintf(line, sizeof line, "%d\n", pid);
            if (write(1, line, length) != length)
                fail("write");
        }
    }
}

static void killed(void)
{
    volatile pid_t *child = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char byte;

    if (child == MAP_FAILED)
        fail("mmap");
    pid_t teller = fork();
    if (teller == 0)
        tell_of_newborns(child);
    while (*child == 0)
        sched_yield();
    for (;;) {
        puts("ready");
        fflush(stdout);
        if (read(0, &byte, 1) != 1 || byte != 'x')
            break;
        pid_t pid = syscall(SYS_clone, SIGCHLD | CLONE_PARENT_SETTID, NULL, child, NULL, 0);
        if (pid == 0)
            _exit(0);
        wait_for(pid);
    }
    kill(teller, SIGKILL);
    wait_for(teller);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "killed") == 0) {
        killed();
        return 0;
    }
    if (argc != 5)
        return argc == 3 ? 0 : 2;
    for (int round = 1; round <= 2; round++) {
        names(round, atol(argv[1]));
        processes(atol(argv[2]));
        deep(round, atol(argv[3]));
        programs(round, atol(argv[4]));
        puts("round");
        pause_for_test();
    }
    return 0;
}
