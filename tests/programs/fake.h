/*
 * Memory that a program passes off as a pin. What the supervisor would aim a call at is not known
 * beforehand, so all of it names the denied file: each page is slashes with the path at its end, and any
 * number of leading slashes is one.
 *
 * A supervisor may also let a call return through code in its pin. The slash is no instruction, so the
 * return ends in SIGILL (or SIGSEGV), long after the call has done its work: the handler goes back to
 * where the call was made, and its result is looked at as if nothing had happened.
 */
#ifndef FAKE_H
#define FAKE_H

#include "probe.h"

#include <ucontext.h>

enum { FAKES_AT_MOST = PINS_AT_MOST, FILL_AT_MOST = 64 << 20 };

static struct range fakes[FAKES_AT_MOST];
static int fake_count;

static void fake_return(int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    greg_t behind_call = (greg_t)(uintptr_t)(raw_call_at + 2);

    (void)info;
    if (in_pins(fakes, fake_count, (uintptr_t)registers[REG_RIP]))
        registers[REG_RIP] = behind_call;
    else if (registers[REG_RIP] != behind_call) /* unless a supervisor has already put it right */
        signal(number, SIG_DFL);
}

static inline void fill_with_path(char *memory, size_t size, const char *path)
{
    size_t length = strlen(path) + 1;

    for (size_t page = 0; page + 4096 <= size && page < FILL_AT_MOST; page += 4096) {
        memset(memory + page, '/', 4096);
        memcpy(memory + page + 4096 - length, path, length);
    }
}

/* Says that [start, start + size) may be mistaken for a pin from now on. */
static inline void expect_return_through(void *start, size_t size)
{
    struct sigaction action = {.sa_sigaction = fake_return, .sa_flags = SA_SIGINFO};

    sigaction(SIGILL, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    fakes[fake_count].start = (uintptr_t)start;
    fakes[fake_count++].end = (uintptr_t)start + size;
}

/* Maps a fake where a pin was. Returns 0 or a negative errno. */
static inline int fake_pin(uintptr_t start, size_t size, const char *path)
{
    char *own = mmap((void *)start, size, PROT_READ | PROT_WRITE | PROT_EXEC,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

    if (own == MAP_FAILED)
        return -errno;
    fill_with_path(own, size, path);
    expect_return_through(own, size);
    return 0;
}

/* Opens a file and returns 'A' or 'D' as it holds, '-' where it was refused, '?' for all else. */
static inline char open_through_fake(const char *path)
{
    const uint64_t arguments[6] = {(uint64_t)AT_FDCWD, (uintptr_t)path, O_RDONLY | O_CLOEXEC, 0, 0, 0};
    struct registers after;
    long fd = raw_call(SYS_openat, arguments, &after);
    char byte = '?';

    if (fd < 0)
        return '-';
    if (read((int)fd, &byte, 1) != 1)
        byte = '?';
    close((int)fd);
    return byte;
}

#endif
