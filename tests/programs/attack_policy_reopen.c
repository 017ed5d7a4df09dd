/*
 * attack_policy_reopen READ_ONLY WRITABLE ATTEMPTS: opens /proc/self/fd/N for writing, while a thread
 * has N stand for one file and the other in turn. Both were opened with O_PATH, which asks for no
 * right to either. A descriptor for writing READ_ONLY is an escape.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RACED = 100 };

static int read_only, writable;
static _Atomic int stop;

static void *swap(void *unused)
{
    while (!stop) {
        dup2(read_only, RACED);
        dup2(writable, RACED);
    }
    return unused;
}

int main(int argc, char **argv)
{
    long attempts = argc == 4 ? atol(argv[3]) : 0;
    long escapes = 0, allowed = 0, refused = 0, other = 0;
    struct stat denied, found;
    pthread_t thread;

    if (attempts <= 0)
        return 2;
    read_only = open(argv[1], O_PATH);
    writable = open(argv[2], O_PATH);
    if (fstat(read_only, &denied) || dup2(writable, RACED) < 0 ||
        pthread_create(&thread, NULL, swap, NULL)) {
        perror(argv[1]);
        return 1;
    }
    for (long i = 0; i < attempts; i++) {
        int fd = open("/proc/self/fd/100", O_WRONLY);

        if (fd < 0) {
            if (errno == EACCES)
                refused++;
            else
                other++;
            continue;
        }
        fstat(fd, &found);
        if (found.st_ino == denied.st_ino)
            escapes++;
        else
            allowed++;
        close(fd);
    }
    stop = 1;
    pthread_join(thread, NULL);
    printf("attempts=%ld escapes=%ld allowed=%ld refused=%ld other=%ld\n", attempts, escapes,
           allowed, refused, other);
    return 0;
}
