/*
 * conf_install_race descriptors|replace|unmap START SIZE ALLOWED DENIED ATTEMPTS: asks for the size of a
 * file, again and again, while another thread attacks the pin that the supervisor installs for each of
 * these calls: the first at START, the next one SIZE bytes above it, and so on.
 *
 *   descriptors  puts a file of its own onto the lowest descriptor numbers
 *   replace      maps that file where the next pin will be, and removes it again
 *   unmap        unmaps what is there
 *
 * Its file is filled so that whatever is read from it names DENIED, whose size is 2; ALLOWED's is 1.
 * Built with -static, so that no loader makes calls first.
 */
#include "fake.h"

#include <pthread.h>

enum { LOWEST = 3, HOW_MANY = 3, OWN = 200, SECONDS = 60 };

static _Atomic uintptr_t next;
static _Atomic int ready, stop;
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

static void take_descriptors(void)
{
    for (int fd = LOWEST; fd < LOWEST + HOW_MANY; fd++)
        close(fd);
    wander(100000);
    for (int fd = LOWEST; fd < LOWEST + HOW_MANY; fd++)
        dup2(OWN, fd);
    wander(20000);
}

static void replace(void)
{
    void *there = (void *)next;

    munmap(there, size);
    wander(100000);
    mmap(there, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, OWN, 0);
    wander(20000);
}

static void unmap(void)
{
    munmap((void *)next, size);
    wander(5000);
}

static void *attack(void *with)
{
    double end = now() + SECONDS;

    for (; !stop && now() < end; ready = 1)
        ((void (*)(void))with)();
    return NULL;
}

int main(int argc, char **argv)
{
    long attempts, escapes = 0, allowed = 0, refused = 0, other = 0;
    void (*with)(void);
    pthread_t thread;
    char *memory;
    int own;

    if (argc != 7)
        return 2;
    with = argv[1][0] == 'd' ? take_descriptors : argv[1][0] == 'r' ? replace : unmap;
    next = strtoul(argv[2], NULL, 0);
    size = strtoul(argv[3], NULL, 0);
    attempts = atol(argv[6]);
    own = memfd_create("own", MFD_CLOEXEC);
    if (own < 0 || ftruncate(own, (off_t)size) != 0 || dup3(own, OWN, O_CLOEXEC) != OWN)
        return 1;
    close(own);
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, OWN, 0);
    if (memory == MAP_FAILED)
        return 1;
    fill_with_path(memory, size, argv[5]);
    if (pthread_create(&thread, NULL, attack, (void *)with) != 0)
        return 1;
    while (!ready)
        sched_yield();
    for (long i = 0; i < attempts; i++) {
        struct stat found;
        const uint64_t arguments[6] = {(uint64_t)AT_FDCWD, (uintptr_t)argv[4], (uintptr_t)&found, 0, 0, 0};
        struct registers after;
        long result = raw_call(SYS_newfstatat, arguments, &after);

        if (result != 0)
            refused++;
        else if (found.st_size == 2)
            escapes++;
        else if (found.st_size == 1)
            allowed++;
        else
            other++;
        next += size;
    }
    stop = 1;
    pthread_join(thread, NULL);
    printf("attempts=%ld escapes=%ld allowed=%ld refused=%ld other=%ld\n", attempts, escapes, allowed,
           refused, other);
    return 0;
}
