/*
 * The denied file under another path: by mounts of the program's own, in a mount namespace of its own
 * (and, without root, in a user namespace where it is root).
 *
 *     bind      the file is mounted upon another one
 *     tree      a detached mount of it, which is open already (open_tree)
 *     move      a detached mount is attached upon another file (move_mount)
 *     overlay   a file system of another type shows the directory's files, and one is renamed in it
 *     setns     the mount is made in another process's namespace, which is then entered
 *     pivot     another root is made of the directory
 */
#include "bypass.h"

#include <linux/mount.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

static char *denied, *other, *files, *scratch;

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (write(fd, text, strlen(text)) < 0)
        perror(path);
    close(fd);
}

/*
 * Enters namespaces whose mounts nobody else sees. Those of a new user namespace are such from the
 * start; it also gives rights to mount where root has none.
 */
static enum outcome enter(void)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    char map[64];

    if (uid == 0 && unshare(CLONE_NEWNS) == 0) {
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
            return outcome_of_error(errno);
        return ALLOWED;
    }
    if (unshare(CLONE_NEWNS | CLONE_NEWUSER) != 0)
        return errno == EINVAL || errno == ENOSPC ? ABSENT : outcome_of_error(errno);
    snprintf(map, sizeof map, "0 %u 1", uid);
    write_file("/proc/self/uid_map", map);
    write_file("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "0 %u 1", gid);
    write_file("/proc/self/gid_map", map);
    return ALLOWED;
}

static enum outcome open_other(void)
{
    return outcome_of_open(open(other, O_RDONLY | O_CLOEXEC));
}

static enum outcome bind_mount(void)
{
    if (mount(denied, other, NULL, MS_BIND, NULL) != 0)
        return outcome_of_error(errno);
    return open_other();
}

static enum outcome tree(void)
{
    int detached = (int)syscall(SYS_open_tree, AT_FDCWD, denied, OPEN_TREE_CLONE);
    char path[64];

    if (detached < 0)
        return outcome_of_error(errno);
    snprintf(path, sizeof path, "/proc/self/fd/%d", detached);
    return outcome_of_open(open(path, O_RDONLY | O_CLOEXEC));
}

static enum outcome move(void)
{
    int detached = (int)syscall(SYS_open_tree, AT_FDCWD, denied, OPEN_TREE_CLONE);

    if (detached < 0)
        return outcome_of_error(errno);
    if (syscall(SYS_move_mount, detached, "", AT_FDCWD, other, MOVE_MOUNT_F_EMPTY_PATH) != 0)
        return outcome_of_error(errno);
    return open_other();
}

static enum outcome set_namespace(void)
{
    int pipes[2], namespace;
    pid_t self = getpid(), child;
    char path[64];
    char byte;

    if (pipe(pipes) != 0 || (child = fork()) < 0)
        return OTHER;
    if (child == 0) {
        attack_die_with(self);
        byte = (char)(unshare(CLONE_NEWNS) == 0 ? bind_mount() : OTHER);
        if (write(pipes[1], &byte, 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    if (read(pipes[0], &byte, 1) != 1)
        return OTHER;
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", child);
    namespace = open(path, O_RDONLY | O_CLOEXEC);
    if (byte != ESCAPED || namespace < 0 || setns(namespace, CLONE_NEWNS) != 0) {
        end_child(child);
        return byte != ESCAPED ? (enum outcome)byte : outcome_of_error(errno);
    }
    end_child(child);
    return open_other();
}

static enum outcome pivot(void)
{
    char *root = attack_path("scratch/top"), *old = attack_path("scratch/top/old");

    mkdir(root, 0755);
    if (mount(root, root, NULL, MS_BIND, NULL) != 0)
        return outcome_of_error(errno);
    mkdir(old, 0755);
    if (asprintf(&other, "%s/here", root) < 0 || mknod(other, S_IFREG | 0644, 0) != 0)
        return OTHER;
    if (mount(denied, other, NULL, MS_BIND, NULL) != 0 || syscall(SYS_pivot_root, root, old) != 0)
        return outcome_of_error(errno);
    return outcome_of_open(open("/here", O_RDONLY | O_CLOEXEC));
}

/* Sets up an overlay of the directory, with the new calls, and renames the file in it. */
static enum outcome overlay(void)
{
    char *upper = attack_path("scratch/upper"), *work = attack_path("scratch/work");
    int context = (int)syscall(SYS_fsopen, "tmpfs", 0), mounted;

    if (context < 0)
        return errno == ENODEV ? ABSENT : outcome_of_error(errno);
    /* The layers that are written to must not be on an overlay themselves. */
    if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) != 0)
        return outcome_of_error(errno);
    mounted = (int)syscall(SYS_fsmount, context, 0, 0);
    if (mounted < 0 ||
        syscall(SYS_move_mount, mounted, "", AT_FDCWD, scratch, MOVE_MOUNT_F_EMPTY_PATH) != 0)
        return outcome_of_error(errno);
    if (mkdir(upper, 0755) != 0 || mkdir(work, 0755) != 0)
        return outcome_of_error(errno);
    context = (int)syscall(SYS_fsopen, "overlay", 0);
    if (context < 0)
        return errno == ENODEV ? ABSENT : outcome_of_error(errno);
    if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "lowerdir", files, 0) != 0 ||
        syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "upperdir", upper, 0) != 0 ||
        syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "workdir", work, 0) != 0 ||
        syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) != 0)
        return outcome_of_error(errno);
    mounted = (int)syscall(SYS_fsmount, context, 0, 0);
    if (mounted < 0)
        return outcome_of_error(errno);
    if (syscall(SYS_renameat2, mounted, "secret-D", mounted, "renamed", 0) != 0)
        return outcome_of_error(errno);
    return outcome_of_open(openat(mounted, "renamed", O_RDONLY | O_CLOEXEC));
}

int main(int argc, char **argv)
{
    static const struct way ways[] = {
        {"bind", bind_mount},     {"tree", tree},   {"move", move},
        {"setns", set_namespace}, {"pivot", pivot}, {"overlay", overlay},
    };
    enum outcome entered;
    int fd;

    attack_begin(argc, argv);
    denied = attack_path("files/secret-D");
    files = attack_path("files");
    scratch = attack_path("scratch");
    other = attack_path("scratch/other");
    fd = open(other, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        attack_fail("open");
    close(fd);
    entered = enter();
    if (entered == ABSENT)
        attack_unsupported("namespaces");
    if (entered != ALLOWED) {
        attack.attempts = 1;
        count(entered);
        return attack_report();
    }
    return TRY_WAYS(ways);
}
