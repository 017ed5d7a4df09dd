/*
 * The common part of the deep races: what a call's pointers lead to, rewritten by a peer while the
 * call is judged and made.
 *
 *     PROGRAM PEER WRITER CASE ATTEMPTS ARGUMENT
 *
 * Whatever is raced, a string, a structure or an array of pointers, lies in one mapping that every
 * kind of peer shares. A *flip* is an aligned word in it and its two values, allowed and denied. They
 * differ in exactly one byte: however a reader copies the word, it sees one of the two and never a
 * mixture, so what is neither allowed, denied nor refused is somebody's bug and counted as `other`.
 *
 * PEER     thread     of the caller
 *          process    of its own; only that mapping is shared
 *          clonevm    a process, and no thread, with all the caller's memory
 * WRITER   store      by the peer itself
 *          pread      by the kernel on the peer's behalf, out of a memory file
 *          vm-writev  likewise, by process_vm_writev()
 *          remap      no byte is written: other pages are mapped in place of these, with mmap()
 */
#ifndef RACE_DEEP_H
#define RACE_DEEP_H

#include "race.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum {
    DEEP_PAGE = 4096,
    DEEP_ROOM = 4 * DEEP_PAGE,
    DEEP_BLOCK = 256,
    DEEP_FLIPS = 2,
    DEEP_STACK = 1 << 16,
    DEEP_STORES_BETWEEN_CLOCKS = 1 << 16,
    DEEP_CALLS_BETWEEN_CLOCKS = 1 << 10,
    DEEP_UNSUPPORTED = 77,      /* exit status */
};

struct flip {
    volatile word_type *at;
    uint64_t word[2];           /* allowed, denied */
};

typedef void deep_writer(const struct flip *flip, int index, int which);

struct deep {
    struct race race;
    struct flip flips[DEEP_FLIPS];
    int count;
    deep_writer *write;
    int words;                  /* memory file with both words of each flip */
    int rooms;                  /* memory file with the whole room, once for each mixture of words */
    pid_t parent, peer;
    size_t used;
    _Alignas(DEEP_PAGE) char room[DEEP_ROOM];
};

struct deep_case {
    const char *name;
    void (*prepare)(const char *argument);
    /* Makes the call; returns what the kernel acted on, 'A' or 'D', '?' for neither, or 0 and errno. */
    char (*make)(void);
};

static struct deep *deep;

static inline void deep_fail(const char *what)
{
    perror(what);
    exit(1);
}

static inline void deep_unsupported(const char *what)
{
    printf("unsupported=%s\n", what);
    exit(DEEP_UNSUPPORTED);
}

/* Returns memory that the peer shares; blocks do not straddle a multiple of DEEP_BLOCK. */
static inline void *deep_take(size_t size)
{
    void *taken = deep->room + deep->used;

    deep->used += (size + DEEP_BLOCK - 1) / DEEP_BLOCK * DEEP_BLOCK;
    if (deep->used > sizeof deep->room) {
        fprintf(stderr, "no room for %zu bytes\n", size);
        exit(1);
    }
    return taken;
}

/* Has the peer replace the bytes at `at`, which are the allowed ones, by others, and put them back. */
static inline void deep_flip(void *at, const void *denied, size_t size)
{
    size_t inside = (uintptr_t)at % 8, differences = 0;
    struct flip *flip = &deep->flips[deep->count++];
    unsigned char *before, *after;

    if (deep->count > DEEP_FLIPS || inside + size > 8)
        abort();
    flip->at = (volatile word_type *)(void *)((char *)at - inside);
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
static inline void deep_flip_last(char *string)
{
    deep_flip(string + strlen(string) - 1, "D", 1);
}

/* Returns a string that ends in 'A'; its twin, which ends in 'D', lies half a block behind it. */
static inline char *deep_twins(const char *string)
{
    char *twins = deep_take(DEEP_BLOCK);

    if (strlen(string) >= DEEP_BLOCK / 2)
        abort();
    strcpy(twins, string);
    strcpy(twins + DEEP_BLOCK / 2, string);
    twins[DEEP_BLOCK / 2 + strlen(string) - 1] = 'D';
    return twins;
}

/* Aims a pointer at one of two twins, or half blocks of any kind, in turn. */
static inline void deep_flip_pointer(void *at, const char *twins)
{
    const char *denied = twins + DEEP_BLOCK / 2;

    memcpy(at, &twins, sizeof twins);
    deep_flip(at, &denied, sizeof denied);
}

static inline void deep_store(const struct flip *flip, int index, int which)
{
    (void)index;
    *flip->at = flip->word[which];
}

static inline void deep_pread(const struct flip *flip, int index, int which)
{
    if (pread(deep->words, (void *)flip->at, 8, (index * 2 + which) * 8) != 8)
        _exit(1);
}

static inline void deep_vm_writev(const struct flip *flip, int index, int which)
{
    struct iovec from = {(void *)&flip->word[which], 8}, to = {(void *)flip->at, 8};

    (void)index;
    if (process_vm_writev(getpid(), &from, 1, &to, 1, 0) != 8)
        _exit(1);
}

static inline void deep_remap(const struct flip *flip, int index, int which)
{
    static int mixture;

    (void)flip;
    mixture = (mixture & ~(1 << index)) | which << index;
    if (index == deep->count - 1 &&
        mmap(deep->room, DEEP_ROOM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, deep->rooms,
             (off_t)mixture * DEEP_ROOM) != deep->room)
        _exit(1);
}

/* Makes the files that the writers take the words from. */
static inline void deep_files(void)
{
    deep->words = memfd_create("words", MFD_CLOEXEC);
    deep->rooms = memfd_create("rooms", MFD_CLOEXEC);
    for (int i = 0; i < deep->count; i++)
        if (pwrite(deep->words, deep->flips[i].word, 16, i * 16) != 16)
            deep_fail("words");
    for (int mixture = 0; mixture < 1 << deep->count; mixture++) {
        for (int i = 0; i < deep->count; i++)
            deep_store(&deep->flips[i], i, mixture >> i & 1);
        if (pwrite(deep->rooms, deep->room, DEEP_ROOM, (off_t)mixture * DEEP_ROOM) != DEEP_ROOM)
            deep_fail("rooms");
    }
}

/* The peer. The values come in random order, for the reason that race_flip() has. */
static inline void deep_flips(void)
{
    double end = race_now() + PEER_SECONDS;
    int between = deep->write == deep_store ? DEEP_STORES_BETWEEN_CLOCKS : DEEP_CALLS_BETWEEN_CLOCKS;
    uint64_t random = 0x9e3779b97f4a7c15;

    while (!deep->race.stop && race_now() < end) {
        for (int i = 0; i < between; i++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            for (int j = 0; j < deep->count; j++)
                deep->write(&deep->flips[j], j, random >> (63 - j) & 1);
        }
        deep->race.ready = 1;
    }
}

static void *deep_thread(void *unused)
{
    deep_flips();
    return unused;
}

static int deep_process(void *unused)
{
    (void)unused;
    race_die_with(deep->parent);
    deep_flips();
    return 0;
}

static inline void deep_start(const char *peer, const char *writer)
{
    static _Alignas(64) char stack[DEEP_STACK];
    pthread_t thread;

    deep->write = strcmp(writer, "store") == 0     ? deep_store
                  : strcmp(writer, "pread") == 0     ? deep_pread
                  : strcmp(writer, "vm-writev") == 0 ? deep_vm_writev
                  : strcmp(writer, "remap") == 0     ? deep_remap
                                                     : NULL;
    if (deep->write == NULL)
        exit(2);
    deep_files();
    deep->parent = getpid();
    if (strcmp(peer, "thread") == 0) {
        if (pthread_create(&thread, NULL, deep_thread, NULL) != 0)
            exit(1);
    } else if (strcmp(peer, "process") == 0) {
        deep->peer = fork();
        if (deep->peer == 0)
            _exit(deep_process(NULL));
    } else if (strcmp(peer, "clonevm") == 0) {
        deep->peer = clone(deep_process, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL);
    } else {
        exit(2);
    }
    if (deep->peer < 0)
        deep_fail("peer");
    race_await_peer(&deep->race);
}

static inline int deep_race(int argc, char **argv, const struct deep_case *cases, size_t count)
{
    const struct deep_case *found = NULL;

    if (argc != 6)
        return 2;
    for (size_t i = 0; i < count; i++)
        if (strcmp(cases[i].name, argv[3]) == 0)
            found = &cases[i];
    if (found == NULL)
        return 2;
    deep = mmap(NULL, sizeof *deep, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (deep == MAP_FAILED)
        deep_fail("mmap");
    deep->race.attempts = atol(argv[4]);
    found->prepare(argv[5]);
    deep_start(argv[1], argv[2]);
    for (long i = 0; i < deep->race.attempts; i++) {
        char result = found->make();
        if (result == 0)
            race_count_failure(&deep->race);
        else
            race_count(&deep->race, result);
    }
    race_report(&deep->race);
    if (deep->peer != 0) {
        kill(deep->peer, SIGKILL);
        waitpid(deep->peer, NULL, 0);
    }
    return 0;
}

#endif
