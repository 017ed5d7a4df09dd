/*
 * orphans KIND ALLOWED DENIED ESCAPED: leaves daemons behind and ends at once.
 *
 * ALLOWED and DENIED are paths of the same length that differ in the last byte. Each daemon, in a
 * session of its own and nobody's child, first has a thread that rewrites one into the other, and
 * opens what is there; one that reads "D" makes the file ESCAPED. Then, or meanwhile, by KIND:
 *
 *   forks       it and all its children fork for ever
 *   blocks      it blocks and ignores every signal
 *   vforks      it waits for a child that shares its memory and does not execute anything
 *   stops       it is stopped
 *   namespaces  it is in new user and pid namespaces, where it may make them, and so are its children
 *
 * What is printed is how many daemons were at work.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { DAEMONS = 4, BEFORE = 20 };

static char path[4096];
static const char *escaped;
static char last;                   /* of DENIED */

static void *flip(void *unused)
{
    volatile char *end = path + strlen(path) - 1;
    char first = *end;

    for (;;) {
        *end = last;
        *end = first;
    }
    return unused;
}

static void race_once(void)
{
    char content = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (read(fd, &content, 1) == 1 && content == 'D')
        close(open(escaped, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    close(fd);
}

static void race_for_ever(void)
{
    for (;;)
        race_once();
}

static void fork_for_ever(void)
{
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        fork();
        race_once();
    }
}

static void block(void)
{
    sigset_t all;

    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_IGN);
    race_for_ever();
}

static void wait_for_vfork(void)
{
    if (vfork() == 0)
        race_for_ever();
}

static void stop(void)
{
    raise(SIGSTOP);
    race_for_ever();
}

static void enter_namespaces(void)
{
    /* Only a child is in the new pid namespace: its first process, which takes no signal there. */
    if (unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0)
        race_for_ever();
    if (fork() == 0)
        block();
    if (fork() == 0)
        race_for_ever();
    race_for_ever();
}

static const struct {
    const char *name;
    void (*work)(void);
} kinds[] = {
    {"forks", fork_for_ever}, {"blocks", block}, {"vforks", wait_for_vfork},
    {"stops", stop},          {"namespaces", enter_namespaces},
};

static void start_daemon(void (*work)(void), int ready, int go)
{
    pthread_t thread;
    char byte;

    if (fork() != 0)
        return;
    setsid();
    if (fork() != 0)
        _exit(0);
    close(STDOUT_FILENO);
    close(STDERR_FILENO);
    for (int i = 0; i < BEFORE; i++)
        race_once();
    /* A process with threads may not make these namespaces. */
    if (work != enter_namespaces && pthread_create(&thread, NULL, flip, NULL) != 0)
        _exit(1);
    /* All are there before the first one uses up what tasks there may be. */
    if (write(ready, "", 1) != 1 || read(go, &byte, 1) != 1)
        _exit(1);
    work();
    pause();
    _exit(0);
}

int main(int argc, char **argv)
{
    void (*work)(void) = NULL;
    int ready[2], go[2], count = 0;
    char byte;

    if (argc != 5)
        return 2;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(argv[1], kinds[i].name) == 0)
            work = kinds[i].work;
    if (work == NULL || strlen(argv[2]) >= sizeof path || pipe2(ready, O_CLOEXEC) != 0 ||
        pipe2(go, O_CLOEXEC) != 0)
        return 2;
    strcpy(path, argv[2]);
    last = argv[3][strlen(argv[3]) - 1];
    escaped = argv[4];
    for (int i = 0; i < DAEMONS; i++)
        start_daemon(work, ready[1], go[0]);
    while (count < DAEMONS && read(ready[0], &byte, 1) == 1)
        count++;
    for (int i = 0; i < count; i++)
        if (write(go[1], "", 1) != 1)
            return 1;
    printf("%d\n", count);
    return 0;
}
