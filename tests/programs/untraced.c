/* untraced DENIED: a child made with CLONE_UNTRACED opens a file that it must not have. */
#include "probe.h"

int main(int argc, char **argv)
{
    int pipes[2];
    long child;

    if (argc != 2 || pipe(pipes) != 0)
        return 2;
    child = syscall(SYS_clone, CLONE_UNTRACED | SIGCHLD, NULL, NULL, NULL, 0);
    if (child == 0) {
        const char *byte = first_byte(argv[1]);
        if (write(pipes[1], byte, strlen(byte) + 1) < 0)
            _exit(1);
        _exit(0);
    }
    if (child > 0) {
        char byte[16] = "nothing";
        close(pipes[1]);
        if (read(pipes[0], byte, sizeof byte - 1) < 0)
            return 1;
        waitpid((pid_t)child, NULL, __WALL);
        printf("clone=ok child=%s\n", byte);
    } else {
        printf("clone=-%d child=none\n", errno);
    }
    return 0;
}
