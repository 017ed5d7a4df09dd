/*
 * conf_fake_seal START SIZE ALLOWED DENIED ATTEMPTS: puts itself under a filter that claims success of
 * mseal, which is not made then, and asks for the size of ALLOWED, again and again, while another thread
 * moves the pin that is said to be at START away, memory of its own to its place, and all of it back.
 *
 * Its memory is filled so that whatever is read from it names DENIED, whose size is 2; ALLOWED's is 1.
 * Built with -static, so that no loader makes calls first.
 */
#include "fake.h"
#include "filters.h"

#include <pthread.h>

enum { SECONDS = 60, SPIN = 2000 };

static _Atomic int ready, stop;
static char *pin, *own, *spare;
static size_t size;

static void wait_a_little(void)
{
    for (volatile int i = 0; i < SPIN; i++)
        ;
}

static void *exchange(void *unused)
{
    int how = MREMAP_MAYMOVE | MREMAP_FIXED;

    for (double end = now() + SECONDS; !stop && now() < end; ready = 1) {
        if (mremap(pin, size, size, how, spare) != MAP_FAILED) {
            mremap(own, size, size, how, pin);
            wait_a_little();
            mremap(pin, size, size, how, own);
            mremap(spare, size, size, how, pin);
        }
        wait_a_little();
    }
    return unused;
}

static long size_of(const char *path)
{
    struct stat found;
    const uint64_t arguments[6] = {(uint64_t)AT_FDCWD, (uintptr_t)path, (uintptr_t)&found, 0, 0, 0};
    struct registers after;
    long result = raw_call(SYS_newfstatat, arguments, &after);

    return result == 0 ? found.st_size : -1;
}

int main(int argc, char **argv)
{
    long attempts, escapes = 0, allowed = 0, refused = 0, other = 0;
    pthread_t thread;

    if (argc != 6 || add_filter(SYS_mseal, SECCOMP_RET_ERRNO | 0, 0) != 0)
        return 2;
    pin = (char *)strtoul(argv[1], NULL, 0);
    size = strtoul(argv[2], NULL, 0);
    attempts = atol(argv[5]);
    own = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    spare = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (own == MAP_FAILED || spare == MAP_FAILED)
        return 1;
    fill_with_path(own, size, argv[4]);
    size_of(argv[3]); /* has the pin installed */
    if (pthread_create(&thread, NULL, exchange, NULL) != 0)
        return 1;
    while (!ready)
        sched_yield();
    for (long i = 0; i < attempts; i++) {
        long found = size_of(argv[3]);

        if (found == 2)
            escapes++;
        else if (found == 1)
            allowed++;
        else if (found == -1)
            refused++;
        else
            other++;
    }
    stop = 1;
    pthread_join(thread, NULL);
    printf("attempts=%ld escapes=%ld allowed=%ld refused=%ld other=%ld\n", attempts, escapes, allowed,
           refused, other);
    return 0;
}
