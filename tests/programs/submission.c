// What a submission to a judge does, honestly and otherwise: one line for each thing tried.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *what, long result) {
    printf("%s=%s\n", what, result < 0 ? strerrorname_np(errno) : "ok");
    fflush(stdout);
}

static void *nothing(void *argument) { return argument; }

// Forks until it cannot, then ends them all; returns how many there were.
static int children(int most) {
    pid_t made[64];
    int count = 0;
    while (count < most && (made[count] = fork()) >= 0) {
        if (made[count] == 0)
            pause();
        count++;
    }
    for (int index = 0; index < count; index++) {
        kill(made[index], SIGKILL);
        waitpid(made[index], NULL, 0);
    }
    return count;
}

static void limit(const char *name, int resource) {
    struct rlimit limits;
    if (getrlimit(resource, &limits) == 0)
        printf("%s=%llu\n", name, (unsigned long long)limits.rlim_cur);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "spin") == 0)
        for (;;)
            ;
    long a, b;
    if (scanf("%ld %ld", &a, &b) != 2)
        return 1;
    FILE *out = fopen("out.txt", "w");
    if (out == NULL || fprintf(out, "%ld\n", a + b) < 0 || fclose(out) != 0)
        return 2;
    say("own", open("out.txt", O_RDWR));
    say("passwd", open("/etc/passwd", O_RDONLY));
    say("beside", open("../beside", O_RDONLY));
    say("library", open("/usr/lib/pinfold-submission", O_RDWR | O_CREAT, 0600));
    say("maps", open("/proc/self/maps", O_RDONLY));
    say("inet", socket(AF_INET, SOCK_STREAM, 0));
    say("unix", socket(AF_UNIX, SOCK_STREAM, 0));
    say("chdir", chdir("/"));
    say("link", link("out.txt", "second"));
    say("symlink", symlink("/etc/passwd", "passwd"));
    say("rename", rename("out.txt", "result.txt"));
    pthread_t thread;
    errno = pthread_create(&thread, NULL, nothing, NULL);
    say("thread", errno ? -1 : pthread_join(thread, NULL));
    printf("children=%d\n", children(64));
    limit("cpu", RLIMIT_CPU);
    limit("memory", RLIMIT_AS);
    limit("files", RLIMIT_NOFILE);
    limit("size", RLIMIT_FSIZE);
    limit("core", RLIMIT_CORE);
    say("exec", execl("/bin/sh", "sh", "-c", "echo exec=shell", NULL));
    return 0;
}
