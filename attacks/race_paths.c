/*
 * race_paths DIRECTORY ATTEMPTS PEER WRITER CASE: the path of a call, secret-A or secret-D. What
 * the kernel acted on is told from the result:
 *
 *   open openat openat2        content, A or DD
 *   stat lstat newfstatat statx  size, 1 or 2 bytes
 *   readlink readlinkat        target of a symbolic link, A or D
 *   chdir                      getcwd() afterwards
 *   link linkat                size of the file that the new name leads to
 *   execve                     exit status, 0 or 1
 */
#include "race.h"

#include <linux/openat2.h>
#include <sys/stat.h>

static char *raced;
static char *linked;

static char by_size(long long size)
{
    return size == 1 ? 'A' : size == 2 ? 'D' : '?';
}

static char last_of(const char *string)
{
    return string[strlen(string) - 1];
}

static void prepare(const char *name)
{
    raced = race_string(attack_path(name));
    race_flip_last(raced);
}

static void prepare_file(void)
{
    prepare("files/secret-A");
}

static void prepare_link(void)
{
    prepare("links/secret-A");
}

static void prepare_directory(void)
{
    prepare("dirs/secret-A");
}

static void prepare_program(void)
{
    prepare("programs/secret-A");
}

static void prepare_linked(void)
{
    prepare("files/secret-A");
    linked = attack_path("scratch/linked");
}

static char content_of(long fd)
{
    char content;

    if (fd < 0)
        return 0;
    content = attack_content((int)fd);
    close((int)fd);
    return content == 0 ? '?' : content;
}

static char make_open(void)
{
    return content_of(syscall(SYS_open, raced, O_RDONLY | O_CLOEXEC, 0));
}

static char make_openat(void)
{
    return content_of(syscall(SYS_openat, AT_FDCWD, raced, O_RDONLY | O_CLOEXEC, 0));
}

static char make_openat2(void)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};

    return content_of(syscall(SYS_openat2, AT_FDCWD, raced, &how, sizeof how));
}

static char make_stat(void)
{
    struct stat found;

    return syscall(SYS_stat, raced, &found) == 0 ? by_size(found.st_size) : 0;
}

static char make_lstat(void)
{
    struct stat found;

    return syscall(SYS_lstat, raced, &found) == 0 ? by_size(found.st_size) : 0;
}

static char make_newfstatat(void)
{
    struct stat found;

    return syscall(SYS_newfstatat, AT_FDCWD, raced, &found, 0) == 0 ? by_size(found.st_size) : 0;
}

static char make_statx(void)
{
    struct statx found;

    if (syscall(SYS_statx, AT_FDCWD, raced, 0, STATX_SIZE, &found) != 0)
        return 0;
    return by_size((long long)found.stx_size);
}

static char make_readlink(void)
{
    char target = '?';

    return syscall(SYS_readlink, raced, &target, 1) == 1 ? target : 0;
}

static char make_readlinkat(void)
{
    char target = '?';

    return syscall(SYS_readlinkat, AT_FDCWD, raced, &target, 1) == 1 ? target : 0;
}

static char make_chdir(void)
{
    char here[PATH_MAX];

    if (chdir(raced) != 0)
        return 0;
    return getcwd(here, sizeof here) == NULL ? '?' : last_of(here);
}

static char what_is_linked(void)
{
    struct stat found;
    char result = stat(linked, &found) == 0 ? by_size(found.st_size) : '?';

    return unlink(linked) == 0 ? result : '?';
}

static char make_link(void)
{
    return syscall(SYS_link, raced, linked) == 0 ? what_is_linked() : 0;
}

static char make_linkat(void)
{
    return syscall(SYS_linkat, AT_FDCWD, raced, AT_FDCWD, linked, 0) == 0 ? what_is_linked() : 0;
}

static char make_execve(void)
{
    char *const arguments[] = {"raced", NULL}, *const environment[] = {NULL};
    int status = race_execute(raced, arguments, environment);

    return status < 0 ? 0 : status == 0 ? 'A' : status == 1 ? 'D' : '?';
}

static const struct race_case cases[] = {
    {"open", prepare_file, make_open},
    {"openat", prepare_file, make_openat},
    {"openat2", prepare_file, make_openat2},
    {"stat", prepare_file, make_stat},
    {"lstat", prepare_file, make_lstat},
    {"newfstatat", prepare_file, make_newfstatat},
    {"statx", prepare_file, make_statx},
    {"readlink", prepare_link, make_readlink},
    {"readlinkat", prepare_link, make_readlinkat},
    {"chdir", prepare_directory, make_chdir},
    {"link", prepare_linked, make_link},
    {"linkat", prepare_linked, make_linkat},
    {"execve", prepare_program, make_execve},
};

int main(int argc, char **argv)
{
    return race_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
