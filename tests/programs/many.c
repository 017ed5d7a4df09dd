/*
 * many COUNT FILE: that many children, each with a file opened, all alive at the same time.
 */
#include "probe.h"

#include <poll.h>

enum { PATIENCE_MS = 60000 };

int main(int argc, char **argv)
{
    int opened[2], release[2];
    long wanted, started = 0, reported = 0, good = 0, ended = 0;
    pid_t self = getpid();

    if (argc != 3 || pipe(opened) != 0 || pipe(release) != 0)
        return 2;
    wanted = atol(argv[1]);
    while (started < wanted) {
        pid_t child = fork();
        if (child < 0)
            break;
        if (child == 0) {
            char byte;
            die_with(self);
            close(release[1]);
            byte = first_byte(argv[2])[0];
            if (write(opened[1], &byte, 1) != 1 || read(release[0], &byte, 1) != 0)
                _exit(1);
            _exit(0);
        }
        started++;
    }
    while (reported < started) {
        struct pollfd ready = {opened[0], POLLIN, 0};
        char byte;
        if (poll(&ready, 1, PATIENCE_MS) != 1 || read(opened[0], &byte, 1) != 1)
            break;
        reported++;
        good += byte == 'A';
    }
    close(release[1]);
    for (int status; wait(&status) > 0;)
        ended += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    printf("started=%ld reported=%ld good=%ld ended=%ld\n", started, reported, good, ended);
    return 0;
}
