/*
 * What every attack program has in common.
 *
 *     PROGRAM DIRECTORY ATTEMPTS [WORD]...
 *
 * DIRECTORY is the stage (src/pinfold/attack/stage.py): in it `secret-D` is what no call may name. A
 * program tries its way ATTEMPTS times, prints one line
 *
 *     attempts=N escapes=M [allowed=A refused=R other=O]
 *
 * and exits with 0. An escape is proved by what only a call past the verdict can have: the denied
 * file's content, the denied program's exit status. A program that finds out that this machine cannot
 * do what it needs prints `unsupported=WHAT` and exits with 77. It ends by itself in bounded time, and
 * leaves no process behind.
 *
 * Where a sandbox answers an attempt by killing the process, the program makes it in a child.
 */
#ifndef ATTACK_H
#define ATTACK_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ATTACK_UNSUPPORTED = 77, ATTACK_SECONDS = 600 };

struct attack {
    const char *directory;
    long attempts;
    long escapes, allowed, refused, other;
    int words;
    char **word;                /* what follows ATTEMPTS */
};

static struct attack attack;

static inline void attack_fail(const char *what)
{
    perror(what);
    exit(1);
}

static inline void attack_unsupported(const char *what)
{
    printf("unsupported=%s\n", what);
    fflush(stdout);
    _exit(ATTACK_UNSUPPORTED);
}

static inline void attack_begin(int argc, char **argv)
{
    if (argc < 3 || (attack.attempts = atol(argv[2])) <= 0) {
        fprintf(stderr, "usage: %s DIRECTORY ATTEMPTS [WORD]...\n", argv[0]);
        exit(2);
    }
    attack.directory = argv[1];
    attack.words = argc - 3;
    attack.word = argv + 3;
    alarm(ATTACK_SECONDS);
}

/* Returns DIRECTORY/NAME, in memory of its own. */
static inline char *attack_path(const char *name)
{
    char *path;

    if (asprintf(&path, "%s/%s", attack.directory, name) < 0)
        attack_fail("asprintf");
    return path;
}

/* Returns the first byte of a file's content: 'A', 'D' where that is an escape, 0 for none. */
static inline char attack_content(int fd)
{
    char content = 0;

    if (pread(fd, &content, 1, 0) != 1)
        return 0;
    return content;
}

/* Counts what an attempt led to: 'A' or 'D', 0 where it failed with errno, anything else for neither. */
static inline void attack_count(char result)
{
    if (result == 'D')
        attack.escapes++;
    else if (result == 'A')
        attack.allowed++;
    else if (result == 0 && errno == EACCES)
        attack.refused++;
    else
        attack.other++;
}

/* Counts what an attempt to open came to, and closes the descriptor. */
static inline void attack_count_open(int fd)
{
    char content;

    if (fd < 0) {
        attack_count(0);
        return;
    }
    content = attack_content(fd);
    close(fd);
    attack_count(content == 0 ? '?' : content);
}

/* A child dies with its parent, however that ends. */
static inline void attack_die_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

static inline int attack_report(void)
{
    printf("attempts=%ld escapes=%ld allowed=%ld refused=%ld other=%ld\n", attack.attempts,
           attack.escapes, attack.allowed, attack.refused, attack.other);
    return 0;
}

#endif
