/*
 * conf_tracer TID: becomes the tracer of a task, as a debugger would, without stopping it, says so, and
 * lets go of it when standard input ends.
 */
#include "probe.h"

#include <sys/ptrace.h>

int main(int argc, char **argv)
{
    char byte;

    if (argc != 2)
        return 2;
    if (ptrace(PTRACE_SEIZE, atoi(argv[1]), NULL, NULL) != 0) {
        printf("seize=-%d\n", errno);
        return 1;
    }
    printf("seize=0\n");
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    return 0;
}
