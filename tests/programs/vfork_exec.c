/*
 * vfork_exec ROUNDS: children that share the parent's memory until they execute something: a program
 * that is there, and one that is not. The parent opens files in between.
 */
#include "probe.h"

/* Returns the errno that kept the program from starting, 0 when it ran and ended well, else -1. */
static int execute(const char *path)
{
    char *const arguments[] = {"true", NULL}, *const environment[] = {NULL};
    int status;
    pid_t child = vfork();

    if (child == 0) {
        execve(path, arguments, environment);
        _exit(errno);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
    long rounds, good = 0, opens = 0;

    if (argc != 2)
        return 2;
    rounds = atol(argv[1]);
    for (long i = 0; i < rounds; i++) {
        int missing = i & 1, fd;

        good += execute(missing ? "/bin/true/missing" : "/bin/true") == (missing ? ENOTDIR : 0);
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        opens += fd >= 0;
        if (fd >= 0)
            close(fd);
    }
    printf("rounds=%ld good=%ld opens=%ld\n", rounds, good, opens);
    return 0;
}
