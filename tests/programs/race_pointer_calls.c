/*
 * race_pointer_calls CALL ALLOWED DENIED ATTEMPTS SCRATCH: a sibling thread rewrites the path of the
 * named call. What the kernel acted on is told from the result:
 *
 *   open openat2               content, 'A' or 'D'
 *   stat lstat statx           size, 1 or 2 bytes
 *   readlink                   target of a symbolic link, A or D
 *   chdir                      getcwd() afterwards
 *   link                       size of the file that SCRATCH became
 *   execve                     exit status, 0 or 1 (scripts that start with #!/bin/true, #!/bin/false)
 */
#include "race.h"

#include <linux/openat2.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static struct race race;
static const char *scratch;

static void *peer(void *unused)
{
    race_flip(&race);
    return unused;
}

static char by_size(long long size)
{
    return size == 1 ? 'A' : size == 2 ? 'D' : '?';
}

/* Each of these returns 'A', 'D', '?', or 0 with errno set. */

static char content_of(long fd)
{
    char content = '?';

    if (fd < 0)
        return 0;
    if (read((int)fd, &content, 1) != 1)
        content = '?';
    close((int)fd);
    return content;
}

static char call_open(void)
{
    return content_of(syscall(SYS_open, race.path, O_RDONLY | O_CLOEXEC, 0));
}

static char call_openat2(void)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC};

    return content_of(syscall(SYS_openat2, AT_FDCWD, race.path, &how, sizeof how));
}

static char call_stat(void)
{
    struct stat found;

    return syscall(SYS_stat, race.path, &found) == 0 ? by_size(found.st_size) : 0;
}

static char call_lstat(void)
{
    struct stat found;

    return syscall(SYS_lstat, race.path, &found) == 0 ? by_size(found.st_size) : 0;
}

static char call_statx(void)
{
    struct statx found;

    if (statx(AT_FDCWD, race.path, 0, STATX_SIZE, &found) != 0)
        return 0;
    return by_size((long long)found.stx_size);
}

static char call_readlink(void)
{
    char target = '?';

    return readlink(race.path, &target, 1) == 1 ? target : 0;
}

static char call_chdir(void)
{
    char here[4096];

    if (chdir(race.path) != 0)
        return 0;
    if (getcwd(here, sizeof here) == NULL)
        return '?';
    return strcmp(here, race.denied) == 0 ? 'D' : strcmp(here, race.allowed) == 0 ? 'A' : '?';
}

static char call_link(void)
{
    struct stat found;
    char result;

    if (link(race.path, scratch) != 0)
        return 0;
    result = stat(scratch, &found) == 0 ? by_size(found.st_size) : '?';
    unlink(scratch);
    return result;
}

static char call_execve(void)
{
    char *const arguments[] = {"raced", NULL}, *const environment[] = {NULL};
    volatile int failure = 0;
    int status;
    pid_t pid = vfork();

    if (pid == 0) {
        execve(race.path, arguments, environment);
        failure = errno;
        _exit(126);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return '?';
    if (failure != 0) {
        errno = failure;
        return 0;
    }
    return WEXITSTATUS(status) == 0 ? 'A' : WEXITSTATUS(status) == 1 ? 'D' : '?';
}

static const struct {
    const char *name;
    char (*make)(void);
} calls[] = {
    {"open", call_open},         {"openat2", call_openat2}, {"stat", call_stat},
    {"lstat", call_lstat},       {"statx", call_statx},     {"readlink", call_readlink},
    {"chdir", call_chdir},       {"link", call_link},       {"execve", call_execve},
};

int main(int argc, char **argv)
{
    char (*make)(void) = NULL;
    pthread_t thread;

    if (argc != 6)
        return 2;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (strcmp(calls[i].name, argv[1]) == 0)
            make = calls[i].make;
    if (make == NULL)
        return 2;
    race_set_up(&race, argv[2], argv[3], argv[4]);
    scratch = argv[5];
    if (pthread_create(&thread, NULL, peer, NULL) != 0)
        return 1;
    race_await_peer(&race);
    for (long i = 0; i < race.attempts; i++) {
        char result = make();
        if (result == 0)
            race_count_failure(&race);
        else
            race_count(&race, result);
    }
    return race_report(&race);
}
