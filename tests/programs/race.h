/*
 * The common part of the races: a peer rewrites a path buffer between an allowed and a denied name
 * as fast as it can, and a loop opens whatever the buffer holds.
 *
 * The two names have the same length and differ in exactly one byte. However a reader copies the
 * buffer, by byte or by word, it sees one of the two names and never a mixture, so each result that
 * is neither "allowed", "denied" nor a refusal is somebody's bug and counted as `other`.
 *
 * Files hold 'A' where opening is allowed and 'D' where it is not.
 */
#ifndef RACE_H
#define RACE_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t __attribute__((may_alias)) word_type;

enum { PEER_SECONDS = 600, READY_SECONDS = 20, FLIPS_BETWEEN_CLOCKS = 1 << 16 };

struct race {
    _Alignas(64) char path[4096];
    const char *allowed, *denied;
    size_t at;                  /* the byte that differs */
    uint64_t word[2];           /* the aligned word around it: allowed, denied */
    _Atomic int ready, stop;
    /* On a cache line of their own: counting must not slow the peer down. */
    _Alignas(64) long attempts, escapes, allows, refusals, others;
};

static inline double race_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline void race_set_up(struct race *race, const char *allowed, const char *denied,
                               const char *attempts)
{
    size_t length = strlen(allowed), differences = 0;

    race->allowed = allowed;
    race->denied = denied;
    race->attempts = atol(attempts);
    if (length != strlen(denied) || length >= sizeof race->path)
        differences = 2;
    for (size_t i = 0; differences < 2 && i < length; i++)
        if (allowed[i] != denied[i]) {
            differences++;
            race->at = i;
        }
    if (differences != 1 || race->attempts <= 0) {
        fprintf(stderr, "the names must differ in exactly one byte, ATTEMPTS must be positive\n");
        exit(2);
    }
    memset(race->path, 0, sizeof race->path);
    strcpy(race->path, denied);
    memcpy(&race->word[1], race->path + race->at / 8 * 8, 8);
    strcpy(race->path, allowed);
    memcpy(&race->word[0], race->path + race->at / 8 * 8, 8);
}

/*
 * The peer. Makes no system call that is trapped; ends when told, or when its time is up. The names
 * come in random order: with a strict alternation the reader may fall into step with it and see the
 * same one every time.
 */
static inline void race_flip(struct race *race)
{
    volatile word_type *word = (volatile word_type *)(void *)(race->path + race->at / 8 * 8);
    double end = race_now() + PEER_SECONDS;
    uint64_t random = 0x9e3779b97f4a7c15, words[2] = {race->word[0], race->word[1]};

    while (!race->stop && race_now() < end) {
        for (int i = 0; i < FLIPS_BETWEEN_CLOCKS; i++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *word = words[random >> 63];
        }
        race->ready = 1;
    }
}

/* Waits until the peer is really at work, else the first thousand attempts would race nobody. */
static inline void race_await_peer(struct race *race)
{
    double end = race_now() + READY_SECONDS;

    while (!race->ready) {
        if (race_now() > end) {
            fprintf(stderr, "the peer did not start\n");
            exit(1);
        }
        sched_yield();
    }
}

static inline void race_count(struct race *race, char content)
{
    if (content == 'D')
        race->escapes++;
    else if (content == 'A')
        race->allows++;
    else
        race->others++;
}

static inline void race_count_failure(struct race *race)
{
    if (errno == EACCES)
        race->refusals++;
    else
        race->others++;
}

static inline void race_open(struct race *race)
{
    for (long i = 0; i < race->attempts; i++) {
        char content = 0;
        int fd = open(race->path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            race_count_failure(race);
            continue;
        }
        if (read(fd, &content, 1) != 1)
            content = 0;
        close(fd);
        race_count(race, content);
    }
}

/* A peer in a process of its own dies with its parent, however that ends. */
static inline void race_die_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

static inline int race_report(struct race *race)
{
    race->stop = 1;
    printf("attempts=%ld escapes=%ld allowed=%ld refused=%ld other=%ld\n", race->attempts,
           race->escapes, race->allows, race->refusals, race->others);
    return 0;
}

#endif
