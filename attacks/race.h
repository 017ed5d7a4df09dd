/*
 * The common part of the races: what a call's pointers lead to, rewritten by a peer while the call
 * is judged and made.
 *
 *     PROGRAM DIRECTORY ATTEMPTS PEER WRITER CASE
 *
 * Whatever is raced, a string, a structure or an array of pointers, lies in one mapping, the room.
 * A *flip* is an aligned word in it and its two values, allowed and denied. They differ in exactly
 * one byte: however a reader copies the word, it sees one of the two and never a mixture, so what
 * is neither allowed, denied nor refused is somebody's bug and counted as `other`.
 *
 * PEER     thread     of the caller
 *          process    of its own, to which only the room is shared
 *          clonevm    a process, and no thread, with all the caller's memory
 *          vfork      a thread, whose process is suspended: the caller is a child made by vfork()
 * WRITER   store      by the peer itself
 *          read       by the kernel on the peer's behalf, out of a pipe
 *          pread      likewise, out of a memory file
 *          vm-writev  likewise, by process_vm_writev()
 *          splice     into the memory file that the room is mapped from, out of a pipe
 *          procmem    through /proc/self/mem: the room is private, and mapped read-only
 *          remap      no byte is written: other pages are mapped in place of these, with mmap()
 */
#ifndef RACE_H
#define RACE_H

#include "attack.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>

typedef uint64_t __attribute__((may_alias)) race_word;

enum {
    RACE_ROOM = 4 * 4096,
    RACE_BLOCK = 256,
    RACE_FLIPS = 2,
    RACE_ODD_END = 255,
    RACE_STACK = 1 << 18,
    RACE_STORES_BETWEEN_CLOCKS = 1 << 16,
    RACE_CALLS_BETWEEN_CLOCKS = 1 << 10,
    RACE_READY_SECONDS = 60,
};

struct race_flip {
    volatile race_word *at;
    uint64_t word[2];           /* allowed, denied */
};

/* Puts one of a flip's values into place; returns whether that could be done. */
typedef int race_write(const struct race_flip *flip, int index, int which);

struct race_case {
    const char *name;
    void (*prepare)(void);
    /* Returns what the kernel acted on, 'A' or 'D', '?' for neither; or 0, errno. */
    char (*make)(void);
};

struct race {
    struct race_flip flips[RACE_FLIPS];
    int count;
    race_write *write;
    int rooms;                  /* memory file with the room, once for each mixture of words */
    int words;                  /* memory file with both words of each flip */
    int pipe[2];
    int memory;                 /* /proc/self/mem */
    char *room;
    size_t used;
    pid_t parent;
    const struct race_case *chosen;
    _Atomic int ready, stop, broken;
};

/* Shared with every kind of peer. Counts are elsewhere: counting must not slow the peer down. */
static struct race *race;

/* How long a caller waits for a peer that has no CPU. */
#define RACE_WAIT_SECONDS 0.001

static inline double race_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* What is raced */

/* Returns memory in the room; blocks do not straddle a multiple of RACE_BLOCK. */
static inline void *race_take(size_t size)
{
    void *taken = race->room + race->used;

    race->used += (size + RACE_BLOCK - 1) / RACE_BLOCK * RACE_BLOCK;
    if (race->used > RACE_ROOM) {
        fprintf(stderr, "no room for %zu bytes\n", size);
        exit(1);
    }
    return taken;
}

/* Returns a copy of a string in the room. */
static inline char *race_string(const char *string)
{
    return strcpy(race_take(strlen(string) + 1), string);
}

/* Has the peer replace the bytes at `at`, which are the allowed ones, and put them back. */
static inline void race_flip(void *at, const void *denied, size_t size)
{
    size_t inside = (uintptr_t)at % 8, differences = 0;
    struct race_flip *flip = &race->flips[race->count++];
    unsigned char *before, *after;

    if (race->count > RACE_FLIPS || inside + size > 8)
        abort();
    flip->at = (volatile race_word *)(void *)((char *)at - inside);
    flip->word[0] = flip->word[1] = *flip->at;
    memcpy((char *)&flip->word[1] + inside, denied, size);
    before = (unsigned char *)&flip->word[0];
    after = (unsigned char *)&flip->word[1];
    for (int i = 0; i < 8; i++)
        differences += before[i] != after[i];
    if (differences != 1) {
        fprintf(stderr, "%zu bytes differ, not 1\n", differences);
        exit(2);
    }
}

/* Flips the letter at the end of a string. */
static inline void race_flip_last(char *string)
{
    race_flip(string + strlen(string) - 1, "D", 1);
}

/* Returns a string that ends in 'A'; its twin, which ends in 'D', lies half a block behind it. */
static inline char *race_twins(const char *string)
{
    char *twins = race_take(RACE_BLOCK);

    if (strlen(string) >= RACE_BLOCK / 2)
        abort();
    strcpy(twins, string);
    strcpy(twins + RACE_BLOCK / 2, string);
    twins[RACE_BLOCK / 2 + strlen(string) - 1] = 'D';
    return twins;
}

/* Aims a pointer at one of two twins, or half blocks of any kind, in turn. */
static inline void race_flip_pointer(void *at, const char *twins)
{
    const char *denied = twins + RACE_BLOCK / 2;

    memcpy(at, &twins, sizeof twins);
    race_flip(at, &denied, sizeof denied);
}

/* The writers */

static inline int race_store(const struct race_flip *flip, int index, int which)
{
    (void)index;
    *flip->at = flip->word[which];
    return 1;
}

static inline int race_read(const struct race_flip *flip, int index, int which)
{
    (void)index;
    return write(race->pipe[1], &flip->word[which], 8) == 8 &&
           read(race->pipe[0], (void *)flip->at, 8) == 8;
}

static inline int race_pread(const struct race_flip *flip, int index, int which)
{
    return pread(race->words, (void *)flip->at, 8, (index * 2 + which) * 8) == 8;
}

static inline int race_vm_writev(const struct race_flip *flip, int index, int which)
{
    struct iovec from = {(void *)&flip->word[which], 8}, to = {(void *)flip->at, 8};

    (void)index;
    return process_vm_writev(getpid(), &from, 1, &to, 1, 0) == 8;
}

static inline int race_splice(const struct race_flip *flip, int index, int which)
{
    off_t at = (char *)(uintptr_t)flip->at - race->room;

    (void)index;
    return write(race->pipe[1], &flip->word[which], 8) == 8 &&
           splice(race->pipe[0], NULL, race->rooms, &at, 8, 0) == 8;
}

static inline int race_procmem(const struct race_flip *flip, int index, int which)
{
    (void)index;
    return pwrite(race->memory, &flip->word[which], 8, (off_t)(uintptr_t)flip->at) == 8;
}

static inline int race_remap(const struct race_flip *flip, int index, int which)
{
    static int mixture;

    (void)flip;
    mixture = (mixture & ~(1 << index)) | which << index;
    return index < race->count - 1 ||
           mmap(race->room, RACE_ROOM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, race->rooms,
                (off_t)mixture * RACE_ROOM) == race->room;
}

static const struct {
    const char *name;
    race_write *write;
} race_writers[] = {
    {"store", race_store},         {"read", race_read},     {"pread", race_pread},
    {"vm-writev", race_vm_writev}, {"splice", race_splice}, {"procmem", race_procmem},
    {"remap", race_remap},
};

/* Makes the room, and all that a writer writes from or through. */
static inline void race_make_room(const char *writer)
{
    int flags;

    race = mmap(NULL, sizeof *race, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (race == MAP_FAILED)
        attack_fail("mmap");
    for (size_t i = 0; i < sizeof race_writers / sizeof *race_writers; i++)
        if (strcmp(race_writers[i].name, writer) == 0)
            race->write = race_writers[i].write;
    if (race->write == NULL) {
        fprintf(stderr, "no writer: %s\n", writer);
        exit(2);
    }
    race->rooms = memfd_create("rooms", MFD_CLOEXEC);
    race->words = memfd_create("words", MFD_CLOEXEC);
    if (race->rooms < 0 || race->words < 0 || ftruncate(race->rooms, RACE_ROOM) != 0)
        attack_fail("memfd_create");
    if (pipe2(race->pipe, O_CLOEXEC) != 0)
        attack_fail("pipe2");
    flags = race->write == race_procmem ? MAP_PRIVATE : MAP_SHARED;
    race->room = mmap(NULL, RACE_ROOM, PROT_READ | PROT_WRITE, flags, race->rooms, 0);
    if (race->room == MAP_FAILED)
        attack_fail("mmap");
}

/* Fills the writers' files, and tries the writer once. */
static inline void race_ready_writer(const char *writer)
{
    for (int i = 0; i < race->count; i++)
        if (pwrite(race->words, race->flips[i].word, 16, i * 16) != 16)
            attack_fail("words");
    /* The room itself, which is the first one, is filled last: with everything allowed. */
    for (int mixture = (1 << race->count) - 1; mixture >= 0; mixture--) {
        for (int i = 0; i < race->count; i++)
            race_store(&race->flips[i], i, mixture >> i & 1);
        if (mixture != 0 &&
            pwrite(race->rooms, race->room, RACE_ROOM, (off_t)mixture * RACE_ROOM) != RACE_ROOM)
            attack_fail("rooms");
    }
    if (race->write == race_procmem) {
        race->memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
        if (race->memory < 0)
            attack_unsupported(writer);
        if (mprotect(race->room, RACE_ROOM, PROT_READ) != 0)
            attack_fail("mprotect");
    }
    for (int i = 0; i < race->count; i++)
        if (!race->write(&race->flips[i], i, 0))
            attack_unsupported(writer);
}

/* The peers */

/*
 * Makes no call that a path or an address goes into; ends when told, or when its time is up. The
 * values come in random order: with a strict alternation the reader may fall into step with it and
 * see the same one every time.
 */
static inline void race_rewrite(void)
{
    double end = race_now() + ATTACK_SECONDS;
    int between =
        race->write == race_store ? RACE_STORES_BETWEEN_CLOCKS : RACE_CALLS_BETWEEN_CLOCKS;
    uint64_t random = 0x9e3779b97f4a7c15;

    while (!race->stop && race_now() < end) {
        for (int i = 0; i < between; i++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            for (int j = 0; j < race->count; j++)
                if (!race->write(&race->flips[j], j, random >> (63 - j) & 1)) {
                    race->broken = race->ready = 1;
                    return;
                }
        }
        race->ready = 1;
    }
}

static void *race_thread(void *unused)
{
    race_rewrite();
    return unused;
}

static int race_process(void *unused)
{
    (void)unused;
    attack_die_with(race->parent);
    race_rewrite();
    return 0;
}

/* Waits until the peer is really at work, else the first thousand attempts would race nobody. */
static inline void race_await_peer(void)
{
    double end = race_now() + RACE_READY_SECONDS;

    while (!race->ready) {
        if (race_now() > end) {
            fprintf(stderr, "the peer did not start\n");
            exit(1);
        }
        sched_yield();
    }
}

/* Starts the peer; returns its process, or 0 for a thread. */
static inline pid_t race_start(const char *peer)
{
    static _Alignas(64) char stack[RACE_STACK];
    pthread_t thread;
    pid_t pid = 0;

    race->parent = getpid();
    if (strcmp(peer, "thread") == 0 || strcmp(peer, "vfork") == 0) {
        if (pthread_create(&thread, NULL, race_thread, NULL) != 0)
            attack_fail("pthread_create");
    } else if (strcmp(peer, "process") == 0) {
        pid = fork();
        if (pid == 0)
            _exit(race_process(NULL));
    } else if (strcmp(peer, "clonevm") == 0) {
        pid = clone(race_process, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL);
    } else {
        fprintf(stderr, "no peer: %s\n", peer);
        exit(2);
    }
    if (pid < 0)
        attack_fail("peer");
    race_await_peer();
    return pid;
}

/* The caller */

/*
 * Waits a little for everything to be in one form or the other. While a peer has no CPU, what it
 * left there stays, and calls that are refused are over much sooner than others: without this, a
 * busy machine would make nearly all attempts on the denied form. The CPU is not given away, since
 * it would be long until it came back.
 */
static inline void race_await(int which)
{
    double end = race_now() + RACE_WAIT_SECONDS;
    int differs;

    do {
        differs = 0;
        for (int i = 0; i < race->count; i++)
            differs |= *race->flips[i].at != race->flips[i].word[which];
    } while (differs && race_now() < end);
}

static inline void race_calls(void)
{
    for (long i = 0; i < attack.attempts; i++) {
        race_await((int)(i & 1));
        attack_count(race->chosen->make());
    }
}

static int race_calls_in_child(void *unused)
{
    (void)unused;
    attack_die_with(race->parent);
    race_calls();
    return 0;
}

/* What vfork() does, on a stack of its own. */
static inline void race_calls_by_vfork(void)
{
    static _Alignas(64) char stack[RACE_STACK];
    int status;
    pid_t pid =
        clone(race_calls_in_child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);

    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        attack_fail("vfork");
}

/*
 * Has a child made by vfork() execute a program. Returns its exit status, RACE_ODD_END if it ended in
 * some other way, or -1 and errno if it was not executed.
 */
static inline int race_execute(const char *path, char *const *arguments, char *const *environment)
{
    volatile int failure = 0;
    int status;
    pid_t pid = vfork();

    if (pid == 0) {
        execve(path, arguments, environment);
        failure = errno;
        _exit(126);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return RACE_ODD_END;
    if (failure == 0)
        return WEXITSTATUS(status);
    errno = failure;
    return -1;
}

static inline int race_main(int argc, char **argv, const struct race_case *cases, size_t count)
{
    pid_t peer;

    attack_begin(argc, argv);
    if (attack.words != 3) {
        fprintf(stderr, "usage: %s DIRECTORY ATTEMPTS PEER WRITER CASE\n", argv[0]);
        return 2;
    }
    race_make_room(attack.word[1]);
    for (size_t i = 0; i < count; i++)
        if (strcmp(cases[i].name, attack.word[2]) == 0)
            race->chosen = &cases[i];
    if (race->chosen == NULL) {
        fprintf(stderr, "no case: %s\n", attack.word[2]);
        return 2;
    }
    race->chosen->prepare();
    race_ready_writer(attack.word[1]);
    peer = race_start(attack.word[0]);
    if (strcmp(attack.word[0], "vfork") == 0)
        race_calls_by_vfork();
    else
        race_calls();
    race->stop = 1;
    if (peer != 0) {
        kill(peer, SIGKILL);
        waitpid(peer, NULL, 0);
    }
    if (race->broken) {
        fprintf(stderr, "the peer could not write any more\n");
        return 1;
    }
    return attack_report();
}

#endif
