/*
 * A pin as the program sees it that it was put into: where it is, what is in it, and memory that is
 * passed off as one.
 *
 * What the supervisor will aim a call at is not known beforehand, so all of a fake names the denied
 * file: each page is slashes with the path at its end, and any number of leading slashes is one.
 */
#ifndef PIN_H
#define PIN_H

#include "attack.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>

enum { PIN_PAGE = 4096, PINS_AT_MOST = 16, PIN_FILL_AT_MOST = 16 << 20 };

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

struct pin {
    char *at;
    size_t size;
};

static struct pin pins[PINS_AT_MOST];
static int pin_count;
static const char *pin_allowed, *pin_denied;    /* paths of the two files */

static inline double pin_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Returns a random number; each thread and process has a sequence of its own. */
static inline uint64_t pin_random(void)
{
    static _Thread_local uint64_t state;

    if (state == 0)
        state = (uint64_t)(pin_now() * 1e9) ^ (uint64_t)syscall(SYS_gettid) << 32 ^ 0x9e3779b97f4a7c15;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Waits for some random time below a limit, without a system call: no two rounds are to be alike. */
static inline void pin_wander(double seconds)
{
    double end = pin_now() + (double)(pin_random() >> 40) / (1 << 24) * seconds;

    while (pin_now() < end)
        ;
}

static inline void pin_paths(void)
{
    pin_allowed = attack_path("files/secret-A");
    pin_denied = attack_path("files/secret-D");
}

/* Opens a file; returns what it holds, 'A' or 'D', '-' where it was refused, '?' for all else. */
static inline char pin_open(const char *path)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    char content;

    if (fd < 0)
        return '-';
    content = attack_content(fd);
    close(fd);
    return content == 'A' || content == 'D' ? content : '?';
}

static inline void pin_count_result(char result)
{
    if (result == 'D')
        attack.escapes++;
    else if (result == 'A')
        attack.allowed++;
    else if (result == '-')
        attack.refused++;
    else
        attack.other++;
}

/* Has the supervisor pin something, and finds out where. */
static inline void pin_find(void)
{
    FILE *maps;
    char *line = NULL;
    size_t size = 0;

    if (pin_open(pin_allowed) != 'A')
        attack_fail("the allowed file");
    maps = fopen("/proc/self/maps", "re");
    if (maps == NULL)
        attack_fail("/proc/self/maps");
    for (pin_count = 0; pin_count < PINS_AT_MOST && getline(&line, &size, maps) > 0;) {
        unsigned long start, end;
        if (strstr(line, "memfd:pinfold") != NULL && sscanf(line, "%lx-%lx", &start, &end) == 2)
            pins[pin_count++] = (struct pin){(char *)start, end - start};
    }
    free(line);
    fclose(maps);
    if (pin_count == 0)
        attack_unsupported("pins");
}

/* Returns where the supervisor puts the path of this thread's calls. */
static inline char *pin_path(void)
{
    if (pin_open(pin_allowed) != 'A')
        attack_fail("the allowed file");
    for (int i = 0; i < pin_count; i++) {
        char *found = memmem(pins[i].at, pins[i].size, pin_allowed, strlen(pin_allowed) + 1);
        if (found != NULL)
            return found;
    }
    fprintf(stderr, "the path is in no pin\n");
    exit(1);
}

static inline void pin_fill(char *memory, size_t size)
{
    size_t length = strlen(pin_denied) + 1;

    for (size_t page = 0; page + PIN_PAGE <= size && page < PIN_FILL_AT_MOST; page += PIN_PAGE) {
        memset(memory + page, '/', PIN_PAGE);
        memcpy(memory + page + PIN_PAGE - length, pin_denied, length);
    }
}

/* Maps a fake at an address, or anywhere; NULL if that could not be. */
static inline char *pin_fake(char *at, size_t size, int how)
{
    char *fake = mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | how, -1, 0);

    if (fake == MAP_FAILED)
        return NULL;
    pin_fill(fake, size);
    return fake;
}

/* Waits for a child whose exit status is what an attempt came to, and counts that. */
static inline void pin_count_child(pid_t child)
{
    int status;

    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        attack.other++;
    else
        pin_count_result((char)WEXITSTATUS(status));
}

#endif
