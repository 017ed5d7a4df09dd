/*
 * bypass_forgotten DIRECTORY ATTEMPTS CALL: a plain call that names what no call may name, by a system
 * call that those who write lists of them forget. Nothing is hidden; whoever looks at it denies it.
 *
 * What it did has to be seen where it did it: a watch on the directory tells of it, or the content
 * is there under another name. Calls that only ask give the answer that this file alone gives.
 */
#include "bypass.h"

#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

/* Newer than some headers. */
enum {
    FCHMODAT2 = 452,
    SETXATTRAT = 463,
    GETXATTRAT,
    LISTXATTRAT,
    REMOVEXATTRAT,
    FILE_GETATTR = 468,
    FILE_SETATTR,
};

enum { EXCHANGE = 2, NO_QUOTA_COMMAND = 0x80000400 };

struct call {
    const char *name;
    long number;
    uintptr_t argument[6];
    /* How it is seen. One of: */
    const char *watched;        /* a directory, whose watch tells of `event` for "secret-D" */
    uint32_t event;
    const char *content;        /* a file that holds the denied content then */
    int opens;                  /* whether the result is a descriptor of the denied file */
    int error;                  /* what the kernel answers for this file, if not success */
    int minor;                  /* of the first kernel 6 that has it */
};

struct xattr_argument {
    uint64_t value;
    uint32_t size, flags;
};

static const struct call *call;

static long make_call(void)
{
    const uintptr_t *a = call->argument;

    return syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static int event_seen(int watch)
{
    _Alignas(struct inotify_event) char buffer[4096];
    struct pollfd ready = {watch, POLLIN, 0};

    /* An event is there by the time that the call is over. */
    while (poll(&ready, 1, 0) == 1) {
        ssize_t got = read(watch, buffer, sizeof buffer);
        for (char *at = buffer; at < buffer + got;) {
            const struct inotify_event *event = (const struct inotify_event *)(const void *)at;
            if ((event->mask & call->event) && event->len && strcmp(event->name, "secret-D") == 0)
                return 1;
            at += sizeof *event + event->len;
        }
    }
    return 0;
}

static enum outcome attempt(void)
{
    int watch = inotify_init1(IN_CLOEXEC);
    char path[64];
    long result;

    if (watch < 0 || (call->watched && inotify_add_watch(watch, call->watched, call->event) < 0))
        return OTHER;
    result = make_call();
    if (result < 0 && (errno != call->error || errno == 0))
        return outcome_of_error(errno);
    if (call->opens) {
        snprintf(path, sizeof path, "/proc/self/fd/%ld", result);
        return outcome_of_open(open(path, O_RDONLY | O_CLOEXEC));
    }
    if (call->content)
        return outcome_of_open(open(call->content, O_RDONLY | O_CLOEXEC));
    return !call->watched || event_seen(watch) ? ESCAPED : OTHER;
}

/* An exec replaces whoever makes it. The denied program exits with 1. */
static enum outcome attempt_exec(void)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        make_call();
        _exit(outcome_of_error(errno));
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return OTHER;
    return WIFEXITED(status) && WEXITSTATUS(status) == 1 ? ESCAPED : outcome_of_child(status);
}

#define AT ((uintptr_t)AT_FDCWD)
#define P(pointer) ((uintptr_t)(pointer))
#define SEEN_IN(directory, what) .watched = directory, .event = what

int main(int argc, char **argv)
{
    static char room[4096];
    char *files, *dirs, *scratch, *denied, *allowed, *made, *renamed, *directory, *program;
    struct xattr_argument set = {P("x"), 1, 0}, get = {P(room), sizeof room, 0};

    attack_begin(argc, argv);
    files = attack_path("files");
    dirs = attack_path("dirs");
    scratch = attack_path("scratch");
    denied = attack_path("files/secret-D");
    allowed = attack_path("files/secret-A");
    made = attack_path("scratch/made");
    renamed = attack_path("scratch/secret-D");
    directory = attack_path("dirs/secret-D");
    program = attack_path("programs/secret-D");

    const uintptr_t inotify = (uintptr_t)inotify_init1(IN_CLOEXEC);
    char *const words[] = {program, NULL}, *const environment[] = {NULL};
    const struct call calls[] = {
        {"execveat", SYS_execveat, {AT, P(program), P(words), P(environment)}, .error = 0},
        {"linkat", SYS_linkat, {AT, P(denied), AT, P(made)}, .content = made},
        {"linkat-new", SYS_linkat, {AT, P(allowed), AT, P(renamed)}, SEEN_IN(scratch, IN_CREATE)},
        {"renameat2", SYS_renameat2, {AT, P(denied), AT, P(made)}, .content = made},
        {"exchange", SYS_renameat2, {AT, P(allowed), AT, P(denied), EXCHANGE}, .content = allowed},
        {"truncate", SYS_truncate, {P(denied), 1}, SEEN_IN(files, IN_MODIFY)},
        {"mknod", SYS_mknod, {P(renamed), S_IFIFO | 0600}, SEEN_IN(scratch, IN_CREATE)},
        {"mknodat", SYS_mknodat, {AT, P(renamed), S_IFREG | 0600}, SEEN_IN(scratch, IN_CREATE)},
        {"mkdir", SYS_mkdir, {P(renamed), 0700}, SEEN_IN(scratch, IN_CREATE)},
        {"mkdirat", SYS_mkdirat, {AT, P(renamed), 0700}, SEEN_IN(scratch, IN_CREATE)},
        {"rmdir", SYS_rmdir, {P(directory)}, SEEN_IN(dirs, IN_DELETE)},
        {"symlinkat", SYS_symlinkat, {P("nothing"), AT, P(renamed)}, SEEN_IN(scratch, IN_CREATE)},
        {"chmod", SYS_chmod, {P(denied), 0600}, SEEN_IN(files, IN_ATTRIB)},
        {"fchmodat", SYS_fchmodat, {AT, P(denied), 0600}, SEEN_IN(files, IN_ATTRIB)},
        {"fchmodat2", FCHMODAT2, {AT, P(denied), 0600}, SEEN_IN(files, IN_ATTRIB), .minor = 6},
        {"chown", SYS_chown, {P(denied), 1, 1}, SEEN_IN(files, IN_ATTRIB)},
        {"lchown", SYS_lchown, {P(denied), 1, 1}, SEEN_IN(files, IN_ATTRIB)},
        {"fchownat", SYS_fchownat, {AT, P(denied), 1, 1}, SEEN_IN(files, IN_ATTRIB)},
        {"utime", SYS_utime, {P(denied)}, SEEN_IN(files, IN_ATTRIB)},
        {"utimes", SYS_utimes, {P(denied)}, SEEN_IN(files, IN_ATTRIB)},
        {"futimesat", SYS_futimesat, {AT, P(denied)}, SEEN_IN(files, IN_ATTRIB)},
        {"lsetxattr", SYS_lsetxattr, {P(denied), P("user.x"), P("x"), 1}, SEEN_IN(files, IN_ATTRIB)},
        {"setxattrat",
         SETXATTRAT,
         {AT, P(denied), 0, P("user.x"), P(&set), sizeof set},
         SEEN_IN(files, IN_ATTRIB),
         .minor = 13},
        {"getxattr", SYS_getxattr, {P(denied), P("user.x"), P(room), 64}, .error = ENODATA},
        {"lgetxattr", SYS_lgetxattr, {P(denied), P("user.x"), P(room), 64}, .error = ENODATA},
        {"getxattrat",
         GETXATTRAT,
         {AT, P(denied), 0, P("user.x"), P(&get), sizeof get},
         .error = ENODATA,
         .minor = 13},
        {"listxattr", SYS_listxattr, {P(denied), P(room), sizeof room}, .error = 0},
        {"llistxattr", SYS_llistxattr, {P(denied), P(room), sizeof room}, .error = 0},
        {"listxattrat", LISTXATTRAT, {AT, P(denied), 0, P(room), sizeof room}, .minor = 13},
        {"removexattr", SYS_removexattr, {P(denied), P("user.x")}, .error = ENODATA},
        {"lremovexattr", SYS_lremovexattr, {P(denied), P("user.x")}, .error = ENODATA},
        {"removexattrat",
         REMOVEXATTRAT,
         {AT, P(denied), 0, P("user.x")},
         .error = ENODATA,
         .minor = 13},
        {"faccessat", SYS_faccessat, {AT, P(denied), R_OK}, .error = 0},
        {"faccessat2", SYS_faccessat2, {AT, P(denied), R_OK}, .error = 0},
        {"statfs", SYS_statfs, {P(denied), P(room)}, .error = 0},
        {"file_getattr", FILE_GETATTR, {AT, P(denied), P(room), 24}, .error = EOPNOTSUPP, .minor = 17},
        {"inotify_add_watch", SYS_inotify_add_watch, {inotify, P(denied), IN_ACCESS}, .error = 0},
        {"name_to_handle_at",
         SYS_name_to_handle_at,
         {AT, P(denied), P(room), P(room + 256)},
         .error = EOVERFLOW},
        {"open_tree", SYS_open_tree, {AT, P(denied)}, .opens = 1},
        {"chroot", SYS_chroot, {P(directory)}, .error = 0},
        /* What they name is none of what they take, so that nothing comes of it. */
        {"acct", SYS_acct, {P(directory)}, .error = EISDIR},
        {"swapon", SYS_swapon, {P(directory)}, .error = EISDIR},
        {"swapoff", SYS_swapoff, {P(directory)}, .error = EISDIR},
        {"umount2", SYS_umount2, {P(directory)}, .error = EINVAL},
        {"quotactl", SYS_quotactl, {NO_QUOTA_COMMAND, P(denied)}, .error = ENOTBLK},
    };

    if (attack.words != 1)
        return 2;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (strcmp(calls[i].name, attack.word[0]) == 0)
            call = &calls[i];
    if (call == NULL) {
        for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
            fprintf(stderr, "%s\n", calls[i].name);
        return 2;
    }
    if (!kernel_has(6, call->minor))
        attack_unsupported(call->name);
    for (long i = 0; i < attack.attempts; i++)
        count(in_child(call->number == SYS_execveat ? attempt_exec : attempt));
    return attack_report();
}
