/*
 * sig_with plain|ignore|block COMMAND...: executes COMMAND with SIGTRAP ignored or blocked, both of which
 * an execve() leaves as they are.
 */
#include "probe.h"

int main(int argc, char **argv)
{
    sigset_t one;

    if (argc < 3)
        return 2;
    sigemptyset(&one);
    sigaddset(&one, SIGTRAP);
    if (strcmp(argv[1], "ignore") == 0)
        signal(SIGTRAP, SIG_IGN);
    else if (strcmp(argv[1], "block") == 0)
        sigprocmask(SIG_BLOCK, &one, NULL);
    execv(argv[2], argv + 2);
    return 127;
}
