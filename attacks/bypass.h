/*
 * What the programs share that try to get one call done without a verdict: what an attempt came to,
 * and attempts in a child, which a sandbox may kill.
 */
#ifndef BYPASS_H
#define BYPASS_H

#include "attack.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/utsname.h>
#include <time.h>

/* Also what a child that makes an attempt exits with. */
enum outcome { ALLOWED = 40, ESCAPED, REFUSED, OTHER, ABSENT };

enum { CHILD_SECONDS = 60 };

static inline enum outcome outcome_of_error(int number)
{
    /* A pointer that the sandbox cannot read is refused with EFAULT, a call that it does not want with
       ENOSYS, EOPNOTSUPP or EPERM. */
    switch (number) {
    case EACCES:
    case EFAULT:
    case ENOSYS:
    case EOPNOTSUPP:
    case EPERM:
        return REFUSED;
    default:
        return OTHER;
    }
}

/* Says what an open came to, and closes the descriptor. */
static inline enum outcome outcome_of_open(int fd)
{
    char content;

    if (fd < 0)
        return outcome_of_error(errno);
    content = attack_content(fd);
    close(fd);
    return content == 'D' ? ESCAPED : content == 'A' ? ALLOWED : OTHER;
}

static inline enum outcome outcome_of_child(int status)
{
    if (WIFSIGNALED(status))
        return WTERMSIG(status) == SIGSYS || WTERMSIG(status) == SIGKILL ? REFUSED : OTHER;
    if (WIFEXITED(status) && WEXITSTATUS(status) >= ALLOWED && WEXITSTATUS(status) <= ABSENT)
        return (enum outcome)WEXITSTATUS(status);
    return OTHER;
}

/* Makes an attempt in a child of its own. */
static inline enum outcome in_child(enum outcome (*attempt)(void))
{
    pid_t self = getpid(), child = fork();
    int status = 0;

    if (child < 0)
        attack_fail("fork");
    if (child == 0) {
        attack_die_with(self);
        alarm(CHILD_SECONDS);
        _exit(attempt());
    }
    if (waitpid(child, &status, 0) != child)
        attack_fail("waitpid");
    return outcome_of_child(status);
}

static inline void count(enum outcome outcome)
{
    if (outcome == ESCAPED)
        attack.escapes++;
    else if (outcome == ALLOWED)
        attack.allowed++;
    else if (outcome == REFUSED)
        attack.refused++;
    else
        attack.other++;
}

/* One way of several, by the word that selects it. */
struct way {
    const char *name;
    enum outcome (*attempt)(void);
};

/* Tries the way that the first word names, each time in a child of its own. */
static inline int try_ways(const struct way *ways, size_t number)
{
    for (size_t i = 0; i < number && attack.words > 0; i++) {
        if (strcmp(ways[i].name, attack.word[0]) != 0)
            continue;
        for (long j = 0; j < attack.attempts; j++) {
            enum outcome outcome = in_child(ways[i].attempt);
            if (outcome == ABSENT)
                attack_unsupported(ways[i].name);
            count(outcome);
        }
        return attack_report();
    }
    fprintf(stderr, "which way? one of");
    for (size_t i = 0; i < number; i++)
        fprintf(stderr, " %s", ways[i].name);
    fprintf(stderr, "\n");
    return 2;
}

#define TRY_WAYS(ways) try_ways(ways, sizeof(ways) / sizeof *(ways))

/* Whether the kernel is at least so new. */
static inline int kernel_has(int major, int minor)
{
    struct utsname name;
    int found_major = 0, found_minor = 0;

    if (uname(&name) != 0 || sscanf(name.release, "%d.%d", &found_major, &found_minor) != 2)
        attack_fail("uname");
    return found_major > major || (found_major == major && found_minor >= minor);
}

/* Ends and reaps a child. */
static inline void end_child(pid_t child)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, __WALL);
}

#endif
