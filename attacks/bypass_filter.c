/*
 * Filters that the program puts on itself, beside the one it lives under.
 *
 *     notify  one that sends opens to a listener of the program's own, which continues them
 *     synced  the same, put on all threads at once
 *     data    one that answers "ask the tracer", as if about a harmless call
 *     strict  the mode that knows read, write and exit only, in place of the filters
 *     errno   one that makes every open succeed without having been made
 *     domain  a Landlock domain of the program's own
 */
#include "bypass.h"

#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>

static const char *denied;

/* Installs: openat gives `action`, all else is allowed. Returns the answer or a negative errno. */
static long add_filter(unsigned action, unsigned flags)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    long result;

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    return result < 0 ? -errno : result;
}

static enum outcome open_denied(void)
{
    return outcome_of_open((int)syscall(SYS_openat, AT_FDCWD, denied, O_RDONLY | O_CLOEXEC));
}

static void *answer(void *argument)
{
    struct seccomp_notif request = {0};
    struct seccomp_notif_resp reply = {0};
    int listener = *(int *)argument;

    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) == 0) {
        reply.id = request.id;
        reply.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &reply);
    }
    return NULL;
}

static enum outcome notify_with(unsigned flags)
{
    pthread_t thread;
    int listener = (int)add_filter(SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER | flags);

    if (listener == -EBUSY)
        return open_denied();
    if (listener < 0)
        return OTHER;
    /* It starts without an open, and answers one. */
    if (pthread_create(&thread, NULL, answer, &listener) != 0)
        return OTHER;
    return open_denied();
}

static enum outcome notify(void)
{
    return notify_with(0);
}

static enum outcome synced(void)
{
    return notify_with(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH);
}

static enum outcome data(void)
{
    if (add_filter(SECCOMP_RET_TRACE | SYS_getpid, 0) != 0)
        return OTHER;
    return open_denied();
}

static enum outcome strict(void)
{
    /* Where it is taken, the open is a SIGKILL. */
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0);
    return open_denied();
}

static enum outcome fake_success(void)
{
    int fd;

    if (add_filter(SECCOMP_RET_ERRNO | 0, 0) != 0)
        return OTHER;
    fd = (int)syscall(SYS_openat, AT_FDCWD, denied, O_RDONLY | O_CLOEXEC);
    /* Success, and nothing was opened: the result is standard input. */
    return fd == 0 && attack_content(fd) != 'D' ? REFUSED : outcome_of_open(fd);
}

static enum outcome domain(void)
{
    struct landlock_ruleset_attr handled = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_DIR};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0);

    if (ruleset < 0)
        return ABSENT;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (syscall(SYS_landlock_restrict_self, ruleset, 0) != 0)
        return OTHER;
    close(ruleset);
    return open_denied();
}

int main(int argc, char **argv)
{
    static const struct way ways[] = {
        {"notify", notify}, {"synced", synced},      {"data", data},
        {"strict", strict}, {"errno", fake_success}, {"domain", domain},
    };

    attack_begin(argc, argv);
    denied = attack_path("files/secret-D");
    return TRY_WAYS(ways);
}
