/*
 * kill_seized FILE PATH: a thread makes an open() of PATH. When it is told to (a byte on standard input)
 * the first thread executes FILE; and when a third one is told to, as long as that exec is under way, it
 * makes an open() of PATH.
 */
#include "probe.h"

#include <pthread.h>

static const char *path;

static void *call(void *unused)
{
    const uint64_t arguments[6] = {(uintptr_t)path, O_RDONLY | O_CLOEXEC, 0, 0, 77, 78};
    struct registers registers;

    raw_call(SYS_open, arguments, &registers);
    return unused;
}

static void *call_later(void *unused)
{
    char word;

    if (read(STDIN_FILENO, &word, 1) != 1)
        _exit(3);
    return call(unused);
}

int main(int argc, char **argv)
{
    pthread_t first, third;
    char word;

    if (argc != 3)
        return 2;
    path = argv[2];
    if (pthread_create(&first, NULL, call, NULL) != 0 || read(STDIN_FILENO, &word, 1) != 1
        || pthread_create(&third, NULL, call_later, NULL) != 0)
        return 1;
    execv(argv[1], (char *[]){argv[1], NULL});
    return 4;
}
