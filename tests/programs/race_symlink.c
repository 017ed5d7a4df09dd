// Opens d/f while a thread makes d point to one directory and to the other.
//
//     race_symlink ATTEMPTS GOOD BAD     (in a directory of its own)
//
// Prints attempts, escapes (d/f was the file in BAD), good (the one in GOOD) and refused.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_bool done;
static const char *target[2];

static void *flip(void *unused) {
    (void)unused;
    for (unsigned i = 0; !done; i++) {
        if (symlink(target[i & 1], "next") == 0)
            rename("next", "d");
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    long attempts = atol(argv[1]), escapes = 0, good = 0, refused = 0;
    target[0] = argv[2];
    target[1] = argv[3];
    unlink("d");
    if (symlink(target[0], "d") != 0)
        return 3;
    pthread_t thread;
    if (pthread_create(&thread, NULL, flip, NULL) != 0)
        return 4;
    for (long i = 0; i < attempts; i++) {
        int fd = open("d/f", O_RDONLY);
        if (fd < 0) {
            refused++;
            continue;
        }
        char text[8] = "";
        if (read(fd, text, sizeof text - 1) <= 0)
            return 5;
        close(fd);
        if (strncmp(text, "bad", 3) == 0)
            escapes++;
        else
            good++;
    }
    done = 1;
    pthread_join(thread, NULL);
    printf("attempts=%ld escapes=%ld good=%ld refused=%ld\n", attempts, escapes, good, refused);
    return 0;
}
