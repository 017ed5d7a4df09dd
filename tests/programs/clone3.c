/* clone3: the call itself, and the library functions that prefer it but can do without. */
#include "probe.h"

#include <linux/sched.h>
#include <pthread.h>
#include <spawn.h>

static void *nothing(void *argument)
{
    return argument;
}

int main(void)
{
    struct clone_args arguments = {.exit_signal = SIGCHLD};
    char *const command[] = {"true", NULL}, *const environment[] = {NULL};
    pthread_t thread;
    pid_t child;
    int status = -1, created, spawned;
    long result = syscall(SYS_clone3, &arguments, sizeof arguments);

    if (result == 0)
        _exit(0);
    printf("clone3=%ld\n", result > 0 ? 0 : -(long)errno);
    if (result > 0)
        waitpid((pid_t)result, NULL, 0);
    created = pthread_create(&thread, NULL, nothing, NULL);
    if (created == 0)
        pthread_join(thread, NULL);
    spawned = posix_spawn(&child, "/bin/true", NULL, NULL, command, environment);
    if (spawned == 0)
        waitpid(child, &status, 0);
    printf("pthread_create=%d posix_spawn=%d status=%d\n", created, spawned, status);
    return 0;
}
