/*
 * regs_after: makes each path call, failing and succeeding, and looks at every register right after
 * the `syscall` instruction. One line per call: NAME result=R registers=ok|REGISTER.
 *
 * The results are the same as in a run without a sandbox; a test compares the two.
 */
#include "probe.h"

#include <linux/openat2.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/un.h>
#include <sys/xattr.h>

#define AT ((uint64_t)AT_FDCWD)
#define P(pointer) ((uint64_t)(uintptr_t)(pointer))
#define GUARD 0xdeadbeef0badf00d /* in argument registers that the call does not use */

static int failures;

static long show(const char *name, long number, const uint64_t arguments[6])
{
    struct registers after;
    long result = raw_call(number, arguments, &after);
    const char *changed = changed_register(arguments, &after);

    printf("%s result=%ld registers=%s\n", name, result, changed ? changed : "ok");
    failures += changed != NULL;
    return result;
}

#define SHOW(name, number, ...) show(name, number, (const uint64_t[6]){__VA_ARGS__})

int main(void)
{
    char directory[] = "/tmp/registers-XXXXXX", here[4096], file[64], other[64], none[64], sub[64];
    static char buffer[4096];
    static char *const arguments[] = {"x", NULL}, *const environment[] = {NULL};
    struct open_how how = {.flags = O_RDONLY};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint64_t g = GUARD;
    int inotify, socket_fd;
    long fd;

    if (mkdtemp(directory) == NULL || getcwd(here, sizeof here) == NULL)
        return 1;
    snprintf(file, sizeof file, "%s/file", directory);
    snprintf(other, sizeof other, "%s/other", directory);
    snprintf(none, sizeof none, "%s/none", directory);
    snprintf(sub, sizeof sub, "%s/sub", directory);
    fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || write((int)fd, "A", 1) != 1)
        return 1;
    close((int)fd);

    /* Calls that succeed. Descriptors are closed at once, so that every run counts alike. */
    close((int)SHOW("open", SYS_open, P(file), O_RDONLY, 0, g, g, g));
    close((int)SHOW("openat", SYS_openat, AT, P(file), O_RDONLY, 0, g, g));
    close((int)SHOW("openat2", SYS_openat2, AT, P(file), P(&how), sizeof how, g, g));
    close((int)SHOW("creat", SYS_creat, P(other), 0644, g, g, g, g));
    SHOW("unlink", SYS_unlink, P(other), g, g, g, g, g);
    SHOW("stat", SYS_stat, P(file), P(buffer), g, g, g, g);
    SHOW("lstat", SYS_lstat, P(file), P(buffer), g, g, g, g);
    SHOW("newfstatat", SYS_newfstatat, AT, P(file), P(buffer), 0, g, g);
    SHOW("statx", SYS_statx, AT, P(file), 0, STATX_SIZE, P(buffer), g);
    SHOW("access", SYS_access, P(file), R_OK, g, g, g, g);
    SHOW("faccessat", SYS_faccessat, AT, P(file), R_OK, g, g, g);
    SHOW("faccessat2", SYS_faccessat2, AT, P(file), R_OK, 0, g, g);
    SHOW("chmod", SYS_chmod, P(file), 0600, g, g, g, g);
    SHOW("fchmodat", SYS_fchmodat, AT, P(file), 0644, g, g, g);
    SHOW("truncate", SYS_truncate, P(file), 1, g, g, g, g);
    SHOW("utime", SYS_utime, P(file), 0, g, g, g, g);
    SHOW("utimes", SYS_utimes, P(file), 0, g, g, g, g);
    SHOW("futimesat", SYS_futimesat, AT, P(file), 0, g, g, g);
    SHOW("utimensat", SYS_utimensat, AT, P(file), 0, 0, g, g);
    SHOW("mkdir", SYS_mkdir, P(sub), 0755, g, g, g, g);
    SHOW("chdir", SYS_chdir, P(sub), g, g, g, g, g);
    SHOW("chdir_back", SYS_chdir, P(here), g, g, g, g, g);
    SHOW("rmdir", SYS_rmdir, P(sub), g, g, g, g, g);
    SHOW("mkdirat", SYS_mkdirat, AT, P(sub), 0755, g, g, g);
    SHOW("unlinkat", SYS_unlinkat, AT, P(sub), AT_REMOVEDIR, g, g, g);
    SHOW("rename", SYS_rename, P(file), P(other), g, g, g, g);
    SHOW("renameat", SYS_renameat, AT, P(other), AT, P(file), g, g);
    SHOW("renameat2", SYS_renameat2, AT, P(file), AT, P(other), 0, g);
    SHOW("renameat2_back", SYS_renameat2, AT, P(other), AT, P(file), 0, g);
    SHOW("link", SYS_link, P(file), P(other), g, g, g, g);
    unlink(other);
    SHOW("linkat", SYS_linkat, AT, P(file), AT, P(other), 0, g);
    unlink(other);
    SHOW("symlink", SYS_symlink, P(file), P(other), g, g, g, g);
    SHOW("readlink", SYS_readlink, P(other), P(buffer), sizeof buffer, g, g, g);
    SHOW("readlinkat", SYS_readlinkat, AT, P(other), P(buffer), sizeof buffer, g, g);
    unlink(other);
    SHOW("symlinkat", SYS_symlinkat, P(file), AT, P(other), g, g, g);
    unlink(other);
    SHOW("mknod", SYS_mknod, P(other), S_IFIFO | 0600, 0, g, g, g);
    unlink(other);
    SHOW("mknodat", SYS_mknodat, AT, P(other), S_IFIFO | 0600, 0, g, g);
    unlink(other);
    SHOW("statfs", SYS_statfs, P(file), P(buffer), g, g, g, g);
    SHOW("chown", SYS_chown, P(file), getuid(), getgid(), g, g, g);
    SHOW("lchown", SYS_lchown, P(file), getuid(), getgid(), g, g, g);
    SHOW("fchownat", SYS_fchownat, AT, P(file), getuid(), getgid(), 0, g);
    inotify = inotify_init1(IN_CLOEXEC);
    SHOW("inotify_add_watch", SYS_inotify_add_watch, (uint64_t)inotify, P(file), IN_OPEN, g, g, g);
    close(inotify);

    /* Calls that fail. */
    SHOW("open_missing", SYS_open, P(none), O_RDONLY, 0, g, g, g);
    SHOW("openat_missing", SYS_openat, AT, P(none), O_RDONLY, 0, g, g);
    SHOW("openat_bad_directory", SYS_openat, 9999, P("x"), O_RDONLY, 0, g, g);
    SHOW("openat_null", SYS_openat, AT, 0, O_RDONLY, 0, g, g);
    SHOW("openat_empty", SYS_openat, AT, P(""), O_RDONLY, 0, g, g);
    SHOW("openat2_missing", SYS_openat2, AT, P(none), P(&how), sizeof how, g, g);
    SHOW("openat2_bad_size", SYS_openat2, AT, P(file), P(&how), 1, g, g);
    SHOW("creat_directory", SYS_creat, P(directory), 0644, g, g, g, g);
    SHOW("stat_missing", SYS_stat, P(none), P(buffer), g, g, g, g);
    SHOW("stat_bad_buffer", SYS_stat, P(file), 8, g, g, g, g);
    SHOW("lstat_missing", SYS_lstat, P(none), P(buffer), g, g, g, g);
    SHOW("newfstatat_missing", SYS_newfstatat, AT, P(none), P(buffer), 0, g, g);
    SHOW("statx_missing", SYS_statx, AT, P(none), 0, STATX_SIZE, P(buffer), g);
    SHOW("access_missing", SYS_access, P(none), R_OK, g, g, g, g);
    SHOW("faccessat2_missing", SYS_faccessat2, AT, P(none), R_OK, 0, g, g);
    SHOW("chmod_missing", SYS_chmod, P(none), 0600, g, g, g, g);
    SHOW("chown_missing", SYS_chown, P(none), 0, 0, g, g, g);
    SHOW("truncate_missing", SYS_truncate, P(none), 0, g, g, g, g);
    SHOW("utimensat_missing", SYS_utimensat, AT, P(none), 0, 0, g, g);
    SHOW("mkdir_exists", SYS_mkdir, P(directory), 0755, g, g, g, g);
    SHOW("rmdir_file", SYS_rmdir, P(file), g, g, g, g, g);
    SHOW("chdir_missing", SYS_chdir, P(none), g, g, g, g, g);
    SHOW("chdir_file", SYS_chdir, P(file), g, g, g, g, g);
    SHOW("unlink_missing", SYS_unlink, P(none), g, g, g, g, g);
    SHOW("rename_missing", SYS_rename, P(none), P(other), g, g, g, g);
    SHOW("renameat2_missing", SYS_renameat2, AT, P(none), AT, P(other), 0, g);
    SHOW("link_missing", SYS_link, P(none), P(other), g, g, g, g);
    SHOW("linkat_missing", SYS_linkat, AT, P(none), AT, P(other), 0, g);
    SHOW("symlink_exists", SYS_symlink, P(none), P(file), g, g, g, g);
    SHOW("readlink_file", SYS_readlink, P(file), P(buffer), sizeof buffer, g, g, g);
    SHOW("readlinkat_missing", SYS_readlinkat, AT, P(none), P(buffer), sizeof buffer, g, g);
    SHOW("mknod_exists", SYS_mknod, P(file), S_IFIFO | 0600, 0, g, g, g);
    SHOW("statfs_missing", SYS_statfs, P(none), P(buffer), g, g, g, g);
    SHOW("getxattr_missing", SYS_getxattr, P(none), P("user.x"), P(buffer), 16, g, g);
    SHOW("lgetxattr_missing", SYS_lgetxattr, P(none), P("user.x"), P(buffer), 16, g, g);
    SHOW("setxattr_missing", SYS_setxattr, P(none), P("user.x"), P("v"), 1, 0, g);
    SHOW("listxattr_missing", SYS_listxattr, P(none), P(buffer), 16, g, g, g);
    SHOW("removexattr_missing", SYS_removexattr, P(none), P("user.x"), g, g, g, g);
    SHOW("execve_missing", SYS_execve, P(none), P(arguments), P(environment), g, g, g);
    SHOW("execve_not_executable", SYS_execve, P(file), P(arguments), P(environment), g, g, g);
    SHOW("execve_bad_arguments", SYS_execve, P("/bin/true"), 8, P(environment), g, g, g);
    SHOW("execveat_missing", SYS_execveat, AT, P(none), P(arguments), P(environment), 0, g);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", none);
    socket_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    SHOW("connect_missing", SYS_connect, (uint64_t)socket_fd, P(&address), sizeof address, g, g, g);
    close(socket_fd);

    unlink(file);
    rmdir(directory);
    printf("changed=%d\n", failures);
    return 0;
}
