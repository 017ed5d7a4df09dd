/*
 * race_files DIRECTORY ATTEMPTS PEER WRITER CASE: what is done to a file, and under which name.
 * What the kernel acted on is told from the file.
 *
 *   rename-old       scratch/old-A or old-D, of 1 or 2 bytes
 *   rename-new       new-A or new-D
 *   rename-both      from-A or from-D to to-A or to-D, each raced by itself; denied if they differ
 *   openat2-flags    open_how.flags: O_RDONLY or O_WRONLY
 *   openat2-resolve  open_how.resolve: RESOLVE_NO_SYMLINKS, which fails with ELOOP here, or none
 *   setxattr-name    user.A or user.D
 *   setxattr-value   A or D
 *   symlink          content of the link: A or D
 *   utimensat        a time: 1 or 2 seconds
 */
#include "race.h"

#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/xattr.h>

enum { PATH_SPACE = 256, NAMES = 4 };

static char fixed[NAMES][PATH_SPACE];
static char *raced, *other;
static struct open_how *how;
static struct timespec *times;
static int file;

static const char *path(char *to, const char *name)
{
    if (snprintf(to, PATH_SPACE, "%s/scratch/%s", attack.directory, name) >= PATH_SPACE)
        exit(2);
    return to;
}

static char *shared_path(const char *name)
{
    char *made = race_take(PATH_SPACE);

    path(made, name);
    return made;
}

static void make_file(const char *name, size_t size)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, "xx", size) != (ssize_t)size)
        attack_fail(name);
    close(fd);
}

static void prepare_file(void)
{
    make_file(path(fixed[0], "file"), 1);
    file = open(fixed[0], O_RDONLY | O_CLOEXEC);
    if (file < 0)
        attack_fail(fixed[0]);
}

/* rename: whatever was moved is moved back, by names that nobody rewrites */

static void prepare_rename_old(void)
{
    make_file(path(fixed[0], "old-A"), 1);
    make_file(path(fixed[1], "old-D"), 2);
    path(fixed[2], "moved");
    raced = shared_path("old-A");
    race_flip_last(raced);
}

static char make_rename_old(void)
{
    struct stat found;
    int which;

    if (rename(raced, fixed[2]) != 0)
        return 0;
    if (stat(fixed[2], &found) != 0)
        return '?';
    which = found.st_size == 2;
    return rename(fixed[2], fixed[which]) == 0 ? "AD"[which] : '?';
}

static void prepare_rename_new(void)
{
    path(fixed[0], "new-A");
    path(fixed[1], "new-D");
    make_file(path(fixed[2], "file"), 1);
    raced = shared_path("new-A");
    race_flip_last(raced);
}

static char make_rename_new(void)
{
    int which;

    if (rename(fixed[2], raced) != 0)
        return 0;
    which = access(fixed[1], F_OK) == 0;
    return rename(fixed[which], fixed[2]) == 0 ? "AD"[which] : '?';
}

static void prepare_rename_both(void)
{
    make_file(path(fixed[0], "from-A"), 1);
    make_file(path(fixed[1], "from-D"), 2);
    path(fixed[2], "to-A");
    path(fixed[3], "to-D");
    raced = shared_path("from-A");
    other = shared_path("to-A");
    race_flip_last(raced);
    race_flip_last(other);
}

static char make_rename_both(void)
{
    struct stat found;
    int to, from;

    if (rename(raced, other) != 0)
        return 0;
    to = stat(fixed[2], &found) != 0;
    if (to == 1 && stat(fixed[3], &found) != 0)
        return '?';
    from = found.st_size == 2;
    return rename(fixed[2 + to], fixed[from]) != 0 ? '?' : from == to ? 'A' : 'D';
}

/* openat2 */

static void prepare_how(const char *name)
{
    raced = race_string(name);
    how = race_take(sizeof *how);
    how->flags = O_RDONLY | O_CLOEXEC;
    how->resolve = RESOLVE_NO_SYMLINKS;
}

static void prepare_openat2_flags(void)
{
    const uint64_t denied = O_WRONLY | O_CLOEXEC;

    prepare_file();
    prepare_how(fixed[0]);
    race_flip(&how->flags, &denied, sizeof denied);
}

static char make_openat2_flags(void)
{
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, raced, how, sizeof *how), mode;

    if (fd < 0)
        return 0;
    mode = fcntl(fd, F_GETFL) & O_ACCMODE;
    close(fd);
    return mode == O_RDONLY ? 'A' : mode == O_WRONLY ? 'D' : '?';
}

static void prepare_openat2_resolve(void)
{
    const uint64_t denied = 0;

    prepare_file();
    if (symlink("file", path(fixed[1], "link")) != 0)
        attack_fail("link");
    prepare_how(fixed[1]);
    race_flip(&how->resolve, &denied, sizeof denied);
}

static char make_openat2_resolve(void)
{
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, raced, how, sizeof *how);

    if (fd < 0)
        return errno == ELOOP ? 'A' : 0;
    close(fd);
    return 'D';
}

/* extended attributes */

static void prepare_xattr(void)
{
    prepare_file();
    if (setxattr(fixed[0], "user.A", "A", 1, 0) != 0 || removexattr(fixed[0], "user.A") != 0)
        attack_unsupported("user.xattr");
}

static void prepare_setxattr_name(void)
{
    prepare_xattr();
    raced = race_string("user.A");
    race_flip_last(raced);
}

static char make_setxattr_name(void)
{
    if (setxattr(fixed[0], raced, "v", 1, 0) != 0)
        return 0;
    if (removexattr(fixed[0], "user.D") == 0)
        return 'D';
    return removexattr(fixed[0], "user.A") == 0 ? 'A' : '?';
}

static void prepare_setxattr_value(void)
{
    prepare_xattr();
    raced = race_string("A");
    race_flip_last(raced);
}

static char make_setxattr_value(void)
{
    char value = '?';

    if (setxattr(fixed[0], "user.letter", raced, 1, 0) != 0)
        return 0;
    return fgetxattr(file, "user.letter", &value, 1) == 1 ? value : '?';
}

/* symlink */

static void prepare_symlink(void)
{
    path(fixed[0], "link");
    raced = race_string("target-A");
    race_flip_last(raced);
}

static char make_symlink(void)
{
    char content[PATH_SPACE];
    ssize_t size;

    if (symlink(raced, fixed[0]) != 0)
        return 0;
    size = readlink(fixed[0], content, sizeof content);
    return size < 1 || unlink(fixed[0]) != 0 ? '?' : content[size - 1];
}

/* utimensat */

static void prepare_utimensat(void)
{
    const time_t denied = 2;

    prepare_file();
    times = race_take(2 * sizeof *times);
    times[0].tv_sec = times[1].tv_sec = 1;
    race_flip(&times[0].tv_sec, &denied, sizeof denied);
}

static char make_utimensat(void)
{
    struct stat found;

    if (syscall(SYS_utimensat, file, NULL, times, 0) != 0)
        return 0;
    /* The C library's fstat() has a path, which would be judged. */
    if (syscall(SYS_fstat, file, &found) != 0)
        return '?';
    return found.st_atim.tv_sec == 1 ? 'A' : found.st_atim.tv_sec == 2 ? 'D' : '?';
}

static const struct race_case cases[] = {
    {"rename-old", prepare_rename_old, make_rename_old},
    {"rename-new", prepare_rename_new, make_rename_new},
    {"rename-both", prepare_rename_both, make_rename_both},
    {"openat2-flags", prepare_openat2_flags, make_openat2_flags},
    {"openat2-resolve", prepare_openat2_resolve, make_openat2_resolve},
    {"setxattr-name", prepare_setxattr_name, make_setxattr_name},
    {"setxattr-value", prepare_setxattr_value, make_setxattr_value},
    {"symlink", prepare_symlink, make_symlink},
    {"utimensat", prepare_utimensat, make_utimensat},
};

int main(int argc, char **argv)
{
    return race_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
