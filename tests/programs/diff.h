/*
 * What the programs of the differential tests share. Each makes calls with odd arguments and prints a
 * line for each: what was called, what came back, what changed. The lines of two runs are compared as
 * they are, so nothing in them may depend on time, process ids, inode numbers or addresses.
 */
#ifndef DIFF_H
#define DIFF_H

#include "probe.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdbool.h>

enum { PAGE = 4096 };

static inline const char *error_name(int number)
{
    static char text[16];
    const char *name = number == 0 ? "ok" : strerrorname_np(number);

    if (name == NULL) {
        snprintf(text, sizeof text, "E%d", number);
        name = text;
    }
    return name;
}

/* Prints the beginning of a line; result and errno are those of a call that was just made. */
__attribute__((format(printf, 3, 4))) static inline void begin_line(long result, int number,
                                                                    const char *format, ...)
{
    va_list list;

    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    printf(": %ld", result);
    if (result == -1)
        printf(" %s", error_name(number));
}

static inline void end_line(void)
{
    putchar('\n');
}

/* Prints bytes so that every one of them can be told. */
static inline void show_bytes(const char *label, const void *data, size_t length)
{
    const unsigned char *bytes = data;

    printf(" %s=", label);
    for (size_t i = 0; i < length; i++)
        if (bytes[i] > ' ' && bytes[i] < 127 && bytes[i] != '\\')
            putchar(bytes[i]);
        else
            printf("\\%02x", bytes[i]);
}

static inline uint64_t hash_of(const void *data, size_t length)
{
    const unsigned char *bytes = data;
    uint64_t hash = 14695981039346656037u;

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

/* A program that cannot set up what it tests says so, and the test fails. */
#define REQUIRE(condition)                                                                           \
    do {                                                                                             \
        if (!(condition)) {                                                                          \
            fflush(stdout);                                                                          \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, strerror(errno));     \
            _exit(99);                                                                               \
        }                                                                                            \
    } while (0)

/* With all of root's rights some of the calls would do harm. */
static inline void require_few_rights(void)
{
    enum { SYS_MODULE = 16, SYS_PACCT = 20, SYS_ADMIN = 21, SYS_BOOT = 22 };
    char line[256];
    unsigned long long held = ~0ull;
    FILE *status = fopen("/proc/self/status", "re");

    REQUIRE(status != NULL);
    while (fgets(line, sizeof line, status) != NULL)
        if (sscanf(line, "CapEff: %llx", &held) == 1)
            break;
    fclose(status);
    REQUIRE((held &
             (1ull << SYS_MODULE | 1ull << SYS_PACCT | 1ull << SYS_ADMIN | 1ull << SYS_BOOT)) == 0);
}

/*
 * Islands: writable memory with nothing mapped behind it. Data that is put at the end of one is the
 * last that can be read.
 */
enum { ISLANDS = 8, ISLAND_PAGES = 64, ISLAND = ISLAND_PAGES * PAGE };

static char *island_ends[ISLANDS];

/* Addresses where nothing can be read, each for a reason of its own. */
static char *gone, *none;

static inline void make_islands(void)
{
    for (int i = 0; i < ISLANDS; i++) {
        char *base = mmap(NULL, ISLAND + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        REQUIRE(base != MAP_FAILED);
        REQUIRE(mprotect(base + PAGE, ISLAND, PROT_READ | PROT_WRITE) == 0);
        island_ends[i] = base + PAGE + ISLAND;
    }
    /* PROT_NONE behind half of them, nothing at all behind the others. */
    for (int i = 0; i < ISLANDS; i += 2)
        REQUIRE(munmap(island_ends[i], PAGE) == 0);
    gone = island_ends[0];
    none = island_ends[1];
}

/* Returns room for the last `length` bytes of an island. */
static inline void *edge(int island, size_t length)
{
    REQUIRE(length <= ISLAND);
    return island_ends[island] - length;
}

/* Returns a copy of some data that ends where the island does. */
static inline void *at_edge(int island, const void *data, size_t length)
{
    return memcpy(edge(island, length), data, length);
}

static inline char *text_at_edge(int island, const char *text)
{
    return at_edge(island, text, strlen(text) + 1);
}

/* Moves a descriptor out of the way, so that those of the calls under test are the lowest. */
static inline int put_away(int fd)
{
    int moved;

    REQUIRE(fd >= 0);
    moved = fcntl(fd, F_DUPFD_CLOEXEC, 100);
    REQUIRE(moved >= 0);
    close(fd);
    return moved;
}

/* Runs a function in a child, which shares nothing but open files; prints how it ended. */
static inline void in_child(const char *name, void (*run)(void *), void *argument)
{
    pid_t parent = getpid(), child;
    int status;

    fflush(stdout);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        die_with(parent);
        run(argument);
        fflush(stdout);
        _exit(0);
    }
    REQUIRE(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status))
        printf("%s: killed by %d\n", name, WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0)
        printf("%s: exit %d\n", name, WEXITSTATUS(status));
}

#endif
