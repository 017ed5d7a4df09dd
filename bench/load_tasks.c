/* So many tasks at one time, each of which makes judged calls and checks what comes of them.
 *
 * load_tasks DIRECTORY PROCESSES THREADS ROUNDS EXECS
 *
 * PROCESSES processes of THREADS threads each wait until all of them are there. Then each thread goes
 * through ROUNDS rounds. In a round it opens `allowed` in DIRECTORY, which holds an A; `mapped`, which
 * the sandbox makes another file that holds a B; and `denied`, which must fail with EACCES. EXECS
 * times, spread over its rounds, it has this program executed by a child, for one round more.
 *
 * Prints `tasks=N calls=N wrong=N nanoseconds=N`: the most tasks at one time, the judged opens of all
 * of them, what went otherwise, and the time from the first open to the last.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STACK = 1 << 16, SECONDS = 900, OPENS = 3 };

static struct shared {
    pthread_barrier_t all;
    long wrong, calls, tasks;
} *shared;

static long threads, rounds, execs;
static char *self, *directory;
static char path_allowed[4096], path_mapped[4096], path_denied[4096];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* Whether the file holds this byte. */
static int holds(const char *path, char wanted)
{
    char found = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int right = fd >= 0 && read(fd, &found, 1) == 1 && found == wanted;

    if (fd >= 0)
        close(fd);
    return right;
}

static long one_round(void)
{
    long wrong = !holds(path_allowed, 'A') + !holds(path_mapped, 'B');
    int fd = open(path_denied, O_RDONLY | O_CLOEXEC);

    if (fd >= 0)
        close(fd);
    return wrong + !(fd < 0 && errno == EACCES);
}

static long executed(void)
{
    char *words[] = { self, directory, NULL };
    char *nothing[] = { NULL };
    int status;
    pid_t pid;

    if (posix_spawn(&pid, self, NULL, NULL, words, nothing))
        return OPENS;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return OPENS;
    return WIFEXITED(status) ? WEXITSTATUS(status) : OPENS;
}

static void *work(void *unused)
{
    long wrong = 0, every = execs ? (rounds + execs - 1) / execs : 0;

    __atomic_add_fetch(&shared->tasks, 1, __ATOMIC_RELAXED);
    pthread_barrier_wait(&shared->all);
    for (long round = 0; round < rounds; round++) {
        wrong += one_round();
        if (every && round % every == 0) {
            wrong += executed();
            __atomic_add_fetch(&shared->calls, OPENS, __ATOMIC_RELAXED);
        }
    }
    __atomic_add_fetch(&shared->calls, OPENS * rounds, __ATOMIC_RELAXED);
    __atomic_add_fetch(&shared->wrong, wrong, __ATOMIC_RELAXED);
    pthread_barrier_wait(&shared->all);
    return unused;
}

static void process(void)
{
    pthread_t *other = calloc(threads, sizeof *other);
    pthread_attr_t small;

    alarm(SECONDS);
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK);
    for (long i = 1; i < threads; i++) {
        errno = pthread_create(&other[i], &small, work, NULL);
        if (errno)
            fail("pthread_create");
    }
    work(NULL);
    for (long i = 1; i < threads; i++)
        pthread_join(other[i], NULL);
    exit(0);
}

static long now(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000L + at.tv_nsec;
}

int main(int argc, char **argv)
{
    pthread_barrierattr_t between;
    long processes, began, ended;
    int status, bad = 0;

    if (argc < 2)
        return 2;
    self = argv[0];
    directory = argv[1];
    snprintf(path_allowed, sizeof path_allowed, "%s/allowed", directory);
    snprintf(path_mapped, sizeof path_mapped, "%s/mapped", directory);
    snprintf(path_denied, sizeof path_denied, "%s/denied", directory);
    if (argc == 2)
        return one_round();
    if (argc != 6)
        return 2;
    processes = atol(argv[2]);
    threads = atol(argv[3]);
    rounds = atol(argv[4]);
    execs = atol(argv[5]);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        fail("mmap");
    pthread_barrierattr_init(&between);
    pthread_barrierattr_setpshared(&between, PTHREAD_PROCESS_SHARED);
    errno = pthread_barrier_init(&shared->all, &between, processes * threads + 1);
    if (errno)
        fail("pthread_barrier_init");
    alarm(SECONDS);
    for (long i = 0; i < processes; i++) {
        pid_t pid = fork();

        if (pid < 0)
            fail("fork");
        if (pid == 0)
            process();
    }
    pthread_barrier_wait(&shared->all);
    began = now();
    pthread_barrier_wait(&shared->all);
    ended = now();
    while (wait(&status) > 0)
        bad += !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    printf("tasks=%ld calls=%ld wrong=%ld nanoseconds=%ld\n", shared->tasks + 1, shared->calls,
           shared->wrong, ended - began);
    return bad || shared->wrong != 0;
}
