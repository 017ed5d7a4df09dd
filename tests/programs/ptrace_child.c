/* ptrace_child: becomes a tracer in each of the three ways. 0 or a negative errno. */
#include "probe.h"

#include <sys/ptrace.h>

static pid_t self;

static pid_t sleeper(void)
{
    pid_t child = fork();

    if (child == 0) {
        die_with(self);
        pause_for(30);
        _exit(0);
    }
    return child;
}

static void end(pid_t child)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, __WALL);
}

int main(void)
{
    int status;
    pid_t child;

    setvbuf(stdout, NULL, _IONBF, 0);
    self = getpid();
    child = fork();
    if (child == 0) {
        die_with(self);
        _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 ? 0 : errno);
    }
    waitpid(child, &status, __WALL);
    printf("traceme=%d\n", WIFEXITED(status) ? -WEXITSTATUS(status) : -999);
    child = sleeper();
    printf("seize=%ld\n", answer(ptrace(PTRACE_SEIZE, child, NULL, NULL)));
    end(child);
    child = sleeper();
    printf("attach=%ld\n", answer(ptrace(PTRACE_ATTACH, child, NULL, NULL)));
    end(child);
    return 0;
}
