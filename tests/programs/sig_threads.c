/*
 * sig_threads THREADS PATH: each thread makes one open() of PATH; all of them are under way at the
 * same time. USR1 has a handler without SA_RESTART, which the first thread (it makes no call) blocks.
 */
#include "sig_frame.h"

#include <pthread.h>

enum { THREADS_AT_MOST = 16 };

static const char *path;
static _Thread_local int hits;

static void handler(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    (void)context;
    hits++;
}

static void *work(void *number)
{
    const char *changed;
    long result;

    dprintf(STDOUT_FILENO, "thread%ld tid=%ld\n", (long)number, syscall(SYS_gettid));
    result = marked_open(path, O_RDONLY | O_CLOEXEC, &changed);
    dprintf(STDOUT_FILENO, "end%ld result=%ld registers=%s hits=%d\n", (long)number,
            result < 0 ? result : 0, changed ? changed : "ok", hits);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS_AT_MOST];
    sigset_t one;
    long count;

    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc != 3 || (count = atol(argv[1])) < 1 || count > THREADS_AT_MOST)
        return 2;
    path = argv[2];
    handle(SIGUSR1, handler, 0);
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    for (long i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)i) != 0)
            return 1;
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    printf("ready=%d\n", getpid());
    for (long i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    printf("end=1\n");
    return 0;
}
