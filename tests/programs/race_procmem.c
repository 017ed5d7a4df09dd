/*
 * race_procmem ALLOWED DENIED ATTEMPTS: the path lies in a page that is mapped read-only and private,
 * and a sibling thread rewrites it all the same, through /proc/self/mem.
 */
#include "race.h"

#include <pthread.h>
#include <sys/mman.h>

static struct race *race;
static char *page;
static int memory;

static void *peer(void *unused)
{
    double end = race_now() + PEER_SECONDS;
    off_t at = (off_t)(uintptr_t)(page + race->at);

    while (!race->stop && race_now() < end) {
        for (int i = 0; i < 1024; i++) {
            if (pwrite(memory, race->denied + race->at, 1, at) != 1 ||
                pwrite(memory, race->allowed + race->at, 1, at) != 1)
                return unused;
        }
        race->ready = 1;
    }
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;

    if (argc != 4)
        return 2;
    page = mmap(NULL, sizeof *race, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return 1;
    race = calloc(1, sizeof *race);
    if (race == NULL)
        return 1;
    race_set_up(race, argv[1], argv[2], argv[3]);
    strcpy(page, race->path);
    if (mprotect(page, sizeof *race, PROT_READ) != 0)
        return 1;
    memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    if (memory < 0) {
        /* Refusing this is an answer too. */
        printf("memory=-%d\n", errno);
        return 0;
    }
    if (pthread_create(&thread, NULL, peer, NULL) != 0)
        return 1;
    race_await_peer(race);
    for (long i = 0; i < race->attempts; i++) {
        char content = 0;
        int fd = open(page, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            race_count_failure(race);
            continue;
        }
        if (read(fd, &content, 1) != 1)
            content = 0;
        close(fd);
        race_count(race, content);
    }
    return race_report(race);
}
