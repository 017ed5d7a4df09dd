/*
 * threads64 DIRECTORY ROUNDS: 64 threads open files of their own and each other's, all at the same
 * time, and check that each open gave the file that was asked for.
 */
#include "probe.h"

#include <pthread.h>

enum { THREADS = 64 };

static const char *directory;
static long rounds;
static pthread_barrier_t barrier;
static _Atomic long opens, wrong, errors;

static void *work(void *argument)
{
    uintptr_t own = (uintptr_t)argument;
    char path[4096];

    pthread_barrier_wait(&barrier);
    for (long i = 0; i < rounds; i++) {
        unsigned wanted = (unsigned)((own + (uintptr_t)i) % THREADS), found = THREADS;
        int fd;

        snprintf(path, sizeof path, "%s/%u", directory, wanted);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            errors++;
            continue;
        }
        opens++;
        wrong += read(fd, &found, sizeof found) != (ssize_t)sizeof found || found != wanted;
        close(fd);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    char path[4096];

    if (argc != 3)
        return 2;
    directory = argv[1];
    rounds = atol(argv[2]);
    for (unsigned i = 0; i < THREADS; i++) {
        int fd;
        snprintf(path, sizeof path, "%s/%u", directory, i);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0 || write(fd, &i, sizeof i) != (ssize_t)sizeof i)
            return 1;
        close(fd);
    }
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)i) != 0)
            return 1;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("threads=%d opens=%ld wrong=%ld errors=%ld\n", THREADS, opens, wrong, errors);
    return 0;
}
