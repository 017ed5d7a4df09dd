/*
 * What the programs of the suite share: a system call whose registers can be looked at, and a way to
 * find pinfold's own mappings.
 */
#ifndef PROBE_H
#define PROBE_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../attacks/registers.h"

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

/* Returns a system call's own answer, -errno instead of -1. */
static inline long answer(long result)
{
    return result == -1 ? -errno : result;
}

static inline double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static inline void pause_for(double seconds)
{
    struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        ;
}

/* For a child: it shall not outlive the program, however that ends. */
static inline void die_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

/* Returns the first byte of a file, or a word that says why there is none. */
static inline const char *first_byte(const char *path)
{
    static __thread char text[16];
    char byte = '?';
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        snprintf(text, sizeof text, "-%d", errno);
        return text;
    }
    if (read(fd, &byte, 1) != 1)
        byte = '?';
    close(fd);
    snprintf(text, sizeof text, "%c", byte);
    return text;
}

struct range {
    uintptr_t start, end;
    char permissions[5];
};

enum { PINS_AT_MOST = 32 };

/* Returns how many mappings of pinfold's memfd this process has, and where they are. */
static inline int find_pins(struct range pins[PINS_AT_MOST])
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char *line = NULL;
    size_t size = 0;
    int count = 0;

    if (maps == NULL)
        return -1;
    while (count < PINS_AT_MOST && getline(&line, &size, maps) > 0) {
        struct range *pin = &pins[count];
        if (strstr(line, "memfd:pinfold") == NULL)
            continue;
        if (sscanf(line, "%lx-%lx %4s", &pin->start, &pin->end, pin->permissions) == 3)
            count++;
    }
    free(line);
    fclose(maps);
    return count;
}

static inline int in_pins(const struct range *pins, int count, uintptr_t address)
{
    for (int i = 0; i < count; i++)
        if (address >= pins[i].start && address < pins[i].end)
            return 1;
    return 0;
}

#endif
