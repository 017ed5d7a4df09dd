/*
 * exhaust_calls DIRECTORY ATTEMPTS WHO: has more calls under way at one time than one arena has slots,
 * and races one more. CALLERS tasks open a FIFO that nobody writes to, each in a call that a verdict
 * has let go. While they all wait, the path of an open, secret-A or secret-D, is rewritten by a thread.
 * Half of the attempts are made meanwhile; then the callers are released, or killed in their calls,
 * and the other half is made while their slots come back.
 *
 *   processes  each caller is a process; every other one is killed
 *   threads    all are threads of one process
 *
 * An open that nobody races has to work all the while, and one of secret-D has to fail.
 */
#include "attack.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

enum { CALLERS = 300, STACK = 1 << 16, READY_SECONDS = 120, BETWEEN_HONEST = 64 };

struct shared {
    _Atomic pid_t begun[CALLERS];       /* which task is about to open */
    _Atomic int over;                   /* callers that are through */
};

static struct shared *shared;
static const char *fifo, *allowed, *denied;
static _Alignas(64) char path[PATH_MAX];
static _Alignas(64) volatile char *volatile flipped;

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void *call(void *which)
{
    int fd;

    shared->begun[(intptr_t)which] = (pid_t)syscall(SYS_gettid);
    fd = open(fifo, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        attack_fail("the open of a caller");
    close(fd);
    shared->over++;
    return NULL;
}

static void *flip(void *unused)
{
    uint64_t random = 0x9e3779b97f4a7c15;

    for (;;) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        *flipped = random >> 63 ? 'D' : 'A';
    }
    return unused;
}

static void start_thread(void *(*body)(void *), void *argument)
{
    pthread_attr_t attributes;
    pthread_t thread;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK);
    if ((errno = pthread_create(&thread, &attributes, body, argument)) != 0)
        attack_fail("pthread_create");
}

static pid_t start_process(int which)
{
    pid_t parent = getpid(), pid = fork();

    if (pid == 0) {
        attack_die_with(parent);
        call((void *)(intptr_t)which);
        _exit(0);
    }
    if (pid < 0)
        attack_fail("fork");
    return pid;
}

/* Returns whether a task sleeps, as nothing but its open makes it. */
static int sleeps(pid_t tid)
{
    char name[64], text[4096], *end;
    ssize_t got;
    int fd;

    snprintf(name, sizeof name, "/proc/%d/stat", tid);
    fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        attack_fail(name);
    got = read(fd, text, sizeof text - 1);
    close(fd);
    text[got > 0 ? got : 0] = 0;
    end = strrchr(text, ')');
    return end != NULL && end[2] == 'S';
}

static void wait_for_callers(void)
{
    double end = now() + READY_SECONDS;

    for (int i = 0; i < CALLERS; i++)
        while (shared->begun[i] == 0 || !sleeps(shared->begun[i])) {
            if (now() > end) {
                fprintf(stderr, "caller %d is not in its call\n", i);
                exit(1);
            }
            sched_yield();
        }
}

static void be_honest(void)
{
    int fd = open(allowed, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || attack_content(fd) != 'A')
        attack_fail("an honest open");
    close(fd);
    fd = open(denied, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        attack.escapes++;
        close(fd);
    }
}

static void try(long attempts)
{
    for (long i = 0; i < attempts; i++) {
        if (i % BETWEEN_HONEST == 0)
            be_honest();
        attack_count_open(open(path, O_RDONLY | O_CLOEXEC));
    }
    be_honest();
}

int main(int argc, char **argv)
{
    static pid_t callers[CALLERS];
    int processes, writer, status, killed = 0;
    double end;

    attack_begin(argc, argv);
    if (attack.words != 1)
        return 2;
    processes = strcmp(attack.word[0], "processes") == 0;
    fifo = attack_path("scratch/fifo");
    allowed = attack_path("files/secret-A");
    denied = attack_path("files/secret-D");
    strcpy(path, allowed);
    flipped = path + strlen(path) - 1;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || mkfifo(fifo, 0600) != 0)
        attack_fail("scratch/fifo");
    for (int i = 0; i < CALLERS; i++)
        if (processes)
            callers[i] = start_process(i);
        else
            start_thread(call, (void *)(intptr_t)i);
    wait_for_callers();
    start_thread(flip, NULL);
    try(attack.attempts / 2);
    if (shared->over != 0) {
        fprintf(stderr, "a caller did not wait\n");
        return 1;
    }
    for (int i = 1; processes && i < CALLERS; i += 2, killed++)
        kill(callers[i], SIGKILL);
    writer = open(fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (writer < 0)
        attack_fail("the other end");
    try(attack.attempts - attack.attempts / 2);
    end = now() + READY_SECONDS;
    while (shared->over + killed < CALLERS && now() < end)
        sched_yield();
    for (int i = 0; processes && i < CALLERS; i++)
        if (waitpid(callers[i], &status, 0) != callers[i] || status != (i % 2 ? SIGKILL : 0))
            attack_fail("a caller");
    if (shared->over + killed != CALLERS) {
        fprintf(stderr, "%d of %d callers are through\n", shared->over, CALLERS - killed);
        return 1;
    }
    return attack_report();
}
