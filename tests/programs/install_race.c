/*
 * install_race descriptor|replace|unmap ALLOWED DENIED ATTEMPTS: attacks the moment in which the pin
 * comes into a new address space. Each attempt executes the program anew; there, one thread makes the
 * first path call while others
 *
 *   descriptor   free the lowest descriptor number and put a file of their own onto it, again and
 *                again, so that the mapping is made of it
 *   replace      map that file, again and again, where the next mapping is likely to be
 *   unmap        unmap what is there, likewise
 *
 * The file is filled so that whatever is read from it names the denied file. Built with -static, so
 * that the loader makes no path call first.
 */
#include "fake.h"

#include <pthread.h>

/* The start-up code of a static program would look for its own path: a path call before main(). */
const char *_dl_get_origin(void)
{
    return (const char *)-1;
}

enum { HIGH = 200, LOWEST = 3, SECONDS = 5 };

static int own;
static _Atomic int ready, stop;
static char *likely;
static size_t size;

/* Waits for some random time below a limit, so that no two rounds are alike. */
static void wander(long nanoseconds)
{
    static uint64_t random = 0x9e3779b97f4a7c15;
    double end;

    random = random * 6364136223846793005 + 1442695040888963407;
    end = now() + (double)(random >> 40) / (1 << 24) * (double)nanoseconds / 1e9;
    while (now() < end)
        ;
}

static void *take_descriptors(void *unused)
{
    for (double end = now() + SECONDS; !stop && now() < end; ready = 1) {
        close(LOWEST);
        wander(50000);
        dup2(own, LOWEST);
        wander(100000);
    }
    return unused;
}

static void *replace(void *unused)
{
    for (double end = now() + SECONDS; !stop && now() < end; ready = 1) {
        munmap(likely, size);
        wander(50000);
        mmap(likely, size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_FIXED, own, 0);
        wander(100000);
    }
    return unused;
}

static void *unmap(void *unused)
{
    for (double end = now() + SECONDS; !stop && now() < end; ready = 1) {
        munmap(likely, size);
        wander(20000);
    }
    return unused;
}

/* The new image. Its exit status is 'A', 'D', or 0 where the call was refused. */
static int attack(char **argv)
{
    void *(*with)(void *) = argv[1][0] == 'd'   ? take_descriptors
                            : argv[1][0] == 'r' ? replace
                                                : unmap;
    pthread_t thread;
    char *memory, byte;

    size = strtoul(argv[5], NULL, 16);
    own = memfd_create("own", MFD_CLOEXEC);
    if (own < 0 || ftruncate(own, (off_t)size) != 0)
        return 2;
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, own, 0);
    if (memory == MAP_FAILED)
        return 2;
    fill_with_path(memory, size, argv[3]);
    munmap(memory, size);
    if (dup3(own, HIGH, O_CLOEXEC) != HIGH)
        return 2;
    close(own);
    own = HIGH;
    if (pthread_create(&thread, NULL, with, NULL) != 0)
        return 2;
    /* The next mapping of that size goes where the last one that was given back had been. */
    likely = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    munmap(likely, size);
    expect_return_through(likely, size);
    while (!ready)
        sched_yield();
    byte = open_through_fake(argv[2]);
    stop = 1;
    return byte == '-' ? 0 : byte;
}

int main(int argc, char **argv)
{
    struct range pins[PINS_AT_MOST];
    char bytes[24];
    long attempts, escapes = 0, allowed = 0, refused = 0, killed = 0, other = 0;
    int count;

    if (argc == 6)
        return attack(argv);
    if (argc != 5 || strcmp(first_byte(argv[2]), "A") != 0)
        return 2;
    attempts = atol(argv[4]);
    count = find_pins(pins);
    snprintf(bytes, sizeof bytes, "%lx", count > 0 ? pins[0].end - pins[0].start : 1 << 16);
    for (long i = 0; i < attempts; i++) {
        char *const arguments[] = {argv[0], argv[1], argv[2], argv[3], argv[4], bytes, NULL};
        char *const environment[] = {NULL};
        pid_t self = getpid(), child = fork();
        int status;

        if (child == 0) {
            die_with(self);
            execve(argv[0], arguments, environment);
            _exit(127);
        }
        if (child < 0 || waitpid(child, &status, 0) != child)
            other++;
        else if (WIFSIGNALED(status))
            killed++;
        else if (WEXITSTATUS(status) == 'D')
            escapes++;
        else if (WEXITSTATUS(status) == 'A')
            allowed++;
        else if (WEXITSTATUS(status) == 0)
            refused++;
        else
            other++;
    }
    printf("pins=%d attempts=%ld escapes=%ld allowed=%ld refused=%ld killed=%ld other=%ld\n", count,
           attempts, escapes, allowed, refused, killed, other);
    return 0;
}
