/*
 * diff_paths: every call that takes a path, with every sort of path and pointer.
 *
 *     diff_paths one      each call with each pointer, relative to the working directory
 *     diff_paths dirfds   each call that takes a directory's descriptor, with each sort of descriptor
 *     diff_paths two      each call that takes two paths, with each pointer in either place
 *     diff_paths closed   each call with pointers to memory that is readable for some only
 */
#include "diff_stage.h"

#include <linux/openat2.h>
#include <linux/stat.h>
#include <sys/inotify.h>
#include <utime.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
enum {
    NR_SETXATTRAT = 463,
    NR_GETXATTRAT = 464,
    NR_LISTXATTRAT = 465,
    NR_REMOVEXATTRAT = 466,
    NR_FILE_GETATTR = 468,
    NR_FILE_SETATTR = 469,
};

/* Stand for what differs from case to case. */
#define P 0xd1ff000000000001ul /* the pointer under test */
#define Q 0xd1ff000000000002ul /* the pointer in second place */
#define D 0xd1ff000000000003ul /* the directory */
#define E 0xd1ff000000000004ul /* the directory in second place */
#define O 0xd1ff000000000005ul /* where the call writes */
#define CWD ((uint64_t)AT_FDCWD)

enum shows { NOTHING, FD, STAT, STATX, TEXT, LINK, BYTES, FS, CWD_IS, WATCH, CHILD };

struct call {
    const char *name;
    long number;
    enum shows shows;
    uint64_t arguments[6];
};

static struct open_how read_how = {.flags = O_RDONLY | O_CLOEXEC},
                       beneath_how = {.flags = O_RDONLY, .resolve = RESOLVE_BENEATH},
                       in_root_how = {.flags = O_RDONLY, .resolve = RESOLVE_IN_ROOT},
                       no_links_how = {.flags = O_PATH, .resolve = RESOLVE_NO_SYMLINKS},
                       no_magic_how = {.flags = O_RDONLY, .resolve = RESOLVE_NO_MAGICLINKS},
                       create_how = {.flags = O_CREAT | O_WRONLY | O_CLOEXEC, .mode = 0600},
                       bad_how = {.flags = O_CREAT | O_PATH, .mode = 0600},
                       bad_mode_how = {.flags = O_RDONLY, .mode = 0600},
                       bad_resolve_how = {.flags = O_RDONLY, .resolve = 1ul << 40};
static struct utimbuf seconds = {1234, 5678};
static struct timeval micros[2] = {{1234, 5}, {5678, 6}}, bad_micros[2] = {{1, 2}, {3, 1000000}};
static struct timespec nanos[2] = {{1234, 7}, {5678, 8}}, bad_nanos[2] = {{1, 2}, {3, 1000000000}},
                       omit[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}},
                       now_omit[2] = {{7, UTIME_OMIT}, {7, UTIME_NOW}};
static char empty_text[] = "", name_one[] = "user.one", name_two[] = "user.two", name_odd[] = "odd",
            too_long_name[257], value[] = "value";
static struct {
    uint64_t value;
    uint32_t size, flags;
} set_args = {0, 5, 0}, get_args = {0, 64, 0};
static struct {
    uint64_t xflags;
    uint32_t extsize, nextents, projid, cowextsize;
} set_attributes = {.xflags = FS_XFLAG_NODUMP};
static int watch = -1;
static char *out;
enum { OUT = 65536 };

#define U(pointer) ((uint64_t)(uintptr_t)(pointer))

static const struct call *ones(int *count)
{
    static struct call calls[] = {
        {"open", SYS_open, FD, {P, O_RDONLY, 0}},
        {"open_write", SYS_open, FD, {P, O_WRONLY | O_APPEND | O_CLOEXEC, 0}},
        {"open_create", SYS_open, FD, {P, O_RDWR | O_CREAT, 0666}},
        {"open_create_new", SYS_open, FD, {P, O_RDWR | O_CREAT | O_EXCL, 04711}},
        {"open_truncate", SYS_open, FD, {P, O_WRONLY | O_TRUNC, 0}},
        {"open_nofollow", SYS_open, FD, {P, O_RDONLY | O_NOFOLLOW, 0}},
        {"open_path", SYS_open, FD, {P, O_PATH, 0}},
        {"open_path_nofollow", SYS_open, FD, {P, O_PATH | O_NOFOLLOW, 0}},
        {"open_directory", SYS_open, FD, {P, O_RDONLY | O_DIRECTORY, 0}},
        {"open_temporary", SYS_open, FD, {P, O_RDWR | O_TMPFILE, 0600}},
        {"open_create_directory", SYS_open, FD, {P, O_CREAT | O_DIRECTORY, 0600}},
        {"open_odd_flags", SYS_open, FD, {P, 0xffffffff, 0}},
        {"openat", SYS_openat, FD, {CWD, P, O_RDONLY, 0}},
        {"openat2", SYS_openat2, FD, {CWD, P, U(&read_how), sizeof read_how}},
        {"openat2_beneath", SYS_openat2, FD, {CWD, P, U(&beneath_how), sizeof read_how}},
        {"openat2_in_root", SYS_openat2, FD, {CWD, P, U(&in_root_how), sizeof read_how}},
        {"openat2_no_links", SYS_openat2, FD, {CWD, P, U(&no_links_how), sizeof read_how}},
        {"openat2_no_magic", SYS_openat2, FD, {CWD, P, U(&no_magic_how), sizeof read_how}},
        {"openat2_create", SYS_openat2, FD, {CWD, P, U(&create_how), sizeof read_how}},
        {"openat2_bad", SYS_openat2, FD, {CWD, P, U(&bad_how), sizeof read_how}},
        {"openat2_bad_mode", SYS_openat2, FD, {CWD, P, U(&bad_mode_how), sizeof read_how}},
        {"openat2_bad_resolve", SYS_openat2, FD, {CWD, P, U(&bad_resolve_how), sizeof read_how}},
        {"openat2_short", SYS_openat2, FD, {CWD, P, U(&read_how), 23}},
        {"openat2_null", SYS_openat2, FD, {CWD, P, 0, sizeof read_how}},
        {"creat", SYS_creat, FD, {P, 0600}},
        {"stat", SYS_stat, STAT, {P, O}},
        {"stat_nowhere", SYS_stat, NOTHING, {P, 8}},
        {"lstat", SYS_lstat, STAT, {P, O}},
        {"newfstatat", SYS_newfstatat, STAT, {CWD, P, O, 0}},
        {"newfstatat_empty", SYS_newfstatat, STAT, {CWD, P, O, AT_EMPTY_PATH}},
        {"newfstatat_odd", SYS_newfstatat, STAT, {CWD, P, O, 0x80000001}},
        {"statx", SYS_statx, STATX, {CWD, P, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, O}},
        {"statx_empty", SYS_statx, STATX, {CWD, P, AT_EMPTY_PATH, STATX_BASIC_STATS, O}},
        {"statx_odd", SYS_statx, STATX, {CWD, P, AT_STATX_SYNC_TYPE, STATX_BASIC_STATS, O}},
        {"statx_reserved", SYS_statx, STATX, {CWD, P, 0, 0x80000000, O}},
        {"access", SYS_access, NOTHING, {P, R_OK}},
        {"access_odd", SYS_access, NOTHING, {P, 8}},
        {"faccessat", SYS_faccessat, NOTHING, {CWD, P, X_OK}},
        {"faccessat2", SYS_faccessat2, NOTHING, {CWD, P, W_OK, AT_EACCESS}},
        {"faccessat2_empty", SYS_faccessat2, NOTHING, {CWD, P, F_OK, AT_EMPTY_PATH}},
        {"faccessat2_odd", SYS_faccessat2, NOTHING, {CWD, P, F_OK, 1}},
        {"readlink", SYS_readlink, LINK, {P, O, 4096}},
        {"readlink_short", SYS_readlink, LINK, {P, O, 2}},
        {"readlink_none", SYS_readlink, LINK, {P, O, 0}},
        {"readlinkat", SYS_readlinkat, LINK, {CWD, P, O, 4096}},
        {"statfs", SYS_statfs, FS, {P, O}},
        {"file_getattr", NR_FILE_GETATTR, BYTES, {CWD, P, O, 24, 0}},
        {"file_getattr_empty", NR_FILE_GETATTR, BYTES, {CWD, P, O, 24, AT_EMPTY_PATH}},
        {"file_getattr_short", NR_FILE_GETATTR, BYTES, {CWD, P, O, 23, 0}},
        {"file_setattr", NR_FILE_SETATTR, NOTHING, {CWD, P, U(&set_attributes), 24, 0}},
        {"file_setattr_odd", NR_FILE_SETATTR, NOTHING, {CWD, P, U(&set_attributes), 24, 1}},
        {"chdir", SYS_chdir, CWD_IS, {P}},
        {"chroot", SYS_chroot, CHILD, {P}},
        {"truncate", SYS_truncate, NOTHING, {P, 3}},
        {"truncate_longer", SYS_truncate, NOTHING, {P, 5000}},
        {"truncate_negative", SYS_truncate, NOTHING, {P, -1ul}},
        {"unlink", SYS_unlink, NOTHING, {P}},
        {"unlinkat", SYS_unlinkat, NOTHING, {CWD, P, 0}},
        {"unlinkat_directory", SYS_unlinkat, NOTHING, {CWD, P, AT_REMOVEDIR}},
        {"unlinkat_odd", SYS_unlinkat, NOTHING, {CWD, P, 1}},
        {"rmdir", SYS_rmdir, NOTHING, {P}},
        {"mkdir", SYS_mkdir, NOTHING, {P, 01777}},
        {"mkdirat", SYS_mkdirat, NOTHING, {CWD, P, 0700}},
        {"mknod", SYS_mknod, NOTHING, {P, S_IFIFO | 0666, 0}},
        {"mknod_file", SYS_mknod, NOTHING, {P, 0640, 0}},
        {"mknod_odd", SYS_mknod, NOTHING, {P, S_IFLNK | 0666, 0}},
        {"mknodat_device", SYS_mknodat, NOTHING, {CWD, P, S_IFCHR | 0600, 0x103}},
        {"chmod", SYS_chmod, NOTHING, {P, 0711}},
        {"fchmodat", SYS_fchmodat, NOTHING, {CWD, P, 04755}},
        {"fchmodat2_nofollow", SYS_fchmodat2, NOTHING, {CWD, P, 0711, AT_SYMLINK_NOFOLLOW}},
        {"fchmodat2_empty", SYS_fchmodat2, NOTHING, {CWD, P, 0711, AT_EMPTY_PATH}},
        {"fchmodat2_odd", SYS_fchmodat2, NOTHING, {CWD, P, 0711, 1}},
        {"chown", SYS_chown, NOTHING, {P, -1ul, -1ul}},
        {"chown_other", SYS_chown, NOTHING, {P, 1, 2}},
        {"lchown", SYS_lchown, NOTHING, {P, 3, 4}},
        {"fchownat", SYS_fchownat, NOTHING, {CWD, P, 5, -1ul, AT_SYMLINK_NOFOLLOW}},
        {"fchownat_empty", SYS_fchownat, NOTHING, {CWD, P, 5, 6, AT_EMPTY_PATH}},
        {"fchownat_odd", SYS_fchownat, NOTHING, {CWD, P, 5, 6, 1}},
        {"utime", SYS_utime, NOTHING, {P, U(&seconds)}},
        {"utime_null", SYS_utime, NOTHING, {P, 0}},
        {"utime_nowhere", SYS_utime, NOTHING, {P, 8}},
        {"utimes", SYS_utimes, NOTHING, {P, U(micros)}},
        {"utimes_bad", SYS_utimes, NOTHING, {P, U(bad_micros)}},
        {"futimesat", SYS_futimesat, NOTHING, {CWD, P, U(micros)}},
        {"futimesat_bad", SYS_futimesat, NOTHING, {CWD, P, U(bad_micros)}},
        {"utimensat", SYS_utimensat, NOTHING, {CWD, P, U(nanos), 0}},
        {"utimensat_nofollow", SYS_utimensat, NOTHING, {CWD, P, U(nanos), AT_SYMLINK_NOFOLLOW}},
        {"utimensat_empty", SYS_utimensat, NOTHING, {CWD, P, U(nanos), AT_EMPTY_PATH}},
        {"utimensat_null", SYS_utimensat, NOTHING, {CWD, P, 0, 0}},
        {"utimensat_omit", SYS_utimensat, NOTHING, {CWD, P, U(omit), 0}},
        {"utimensat_now_omit", SYS_utimensat, NOTHING, {CWD, P, U(now_omit), 0}},
        {"utimensat_bad", SYS_utimensat, NOTHING, {CWD, P, U(bad_nanos), 0}},
        {"utimensat_nowhere", SYS_utimensat, NOTHING, {CWD, P, 8, 0}},
        {"utimensat_odd", SYS_utimensat, NOTHING, {CWD, P, U(nanos), 1}},
        {"setxattr", SYS_setxattr, NOTHING, {P, U(name_two), U(value), 5, 0}},
        {"setxattr_replace", SYS_setxattr, NOTHING, {P, U(name_one), U(value), 5, XATTR_REPLACE}},
        {"setxattr_long_name", SYS_setxattr, NOTHING, {P, U(too_long_name), U(value), 5, 0}},
        {"setxattr_null_name", SYS_setxattr, NOTHING, {P, 0, U(value), 5, 0}},
        {"setxattr_huge", SYS_setxattr, NOTHING, {P, U(name_two), U(value), 65537, 0}},
        {"setxattr_odd", SYS_setxattr, NOTHING, {P, U(name_two), U(value), 5, 8}},
        {"setxattr_nowhere", SYS_setxattr, NOTHING, {P, U(name_two), 8, 5, 0}},
        {"lsetxattr", SYS_lsetxattr, NOTHING, {P, U(name_odd), U(value), 5, 0}},
        {"getxattr", SYS_getxattr, TEXT, {P, U(name_one), O, 64}},
        {"getxattr_size", SYS_getxattr, NOTHING, {P, U(name_one), 0, 0}},
        {"getxattr_long_name", SYS_getxattr, NOTHING, {P, U(too_long_name), O, 64}},
        {"getxattr_empty_name", SYS_getxattr, NOTHING, {P, U(empty_text), O, 64}},
        {"lgetxattr", SYS_lgetxattr, TEXT, {P, U(name_two), O, 64}},
        {"listxattr", SYS_listxattr, TEXT, {P, O, 64}},
        {"llistxattr", SYS_llistxattr, TEXT, {P, O, 64}},
        {"removexattr", SYS_removexattr, NOTHING, {P, U(name_one)}},
        {"removexattr_null_name", SYS_removexattr, NOTHING, {P, 0}},
        {"lremovexattr", SYS_lremovexattr, NOTHING, {P, U(name_one)}},
        {"setxattrat", NR_SETXATTRAT, NOTHING, {CWD, P, 0, U(name_two), U(&set_args), 16}},
        {"setxattrat_short", NR_SETXATTRAT, NOTHING, {CWD, P, 0, U(name_two), U(&set_args), 15}},
        {"getxattrat", NR_GETXATTRAT, TEXT, {CWD, P, 0, U(name_one), U(&get_args), 16}},
        {"getxattrat_empty",
         NR_GETXATTRAT,
         TEXT,
         {CWD, P, AT_EMPTY_PATH, U(name_one), U(&get_args), 16}},
        {"listxattrat", NR_LISTXATTRAT, TEXT, {CWD, P, 0, O, 64}},
        {"removexattrat", NR_REMOVEXATTRAT, NOTHING, {CWD, P, 0, U(name_one)}},
        {"inotify_add_watch", SYS_inotify_add_watch, WATCH, {Q, P, IN_MODIFY}},
        {"inotify_add_watch_none", SYS_inotify_add_watch, WATCH, {Q, P, 0}},
        {"inotify_add_watch_closed", SYS_inotify_add_watch, WATCH, {999, P, IN_MODIFY}},
        /* Without the right to these, whatever the path: EPERM, when it comes to that. */
        {"acct", SYS_acct, NOTHING, {P}},
        {"swapon", SYS_swapon, NOTHING, {P, 0}},
        {"swapon_odd", SYS_swapon, NOTHING, {P, 0x80000000}},
        {"swapoff", SYS_swapoff, NOTHING, {P}},
    };

    *count = sizeof calls / sizeof *calls;
    return calls;
}

static const struct call *of_two(int *count)
{
    static struct call calls[] = {
        {"rename", SYS_rename, NOTHING, {P, Q}},
        {"renameat", SYS_renameat, NOTHING, {D, P, E, Q}},
        {"renameat2", SYS_renameat2, NOTHING, {D, P, E, Q, 0}},
        {"renameat2_noreplace", SYS_renameat2, NOTHING, {D, P, E, Q, 1}},
        {"renameat2_exchange", SYS_renameat2, NOTHING, {D, P, E, Q, 2}},
        {"renameat2_odd", SYS_renameat2, NOTHING, {D, P, E, Q, 3}},
        {"link", SYS_link, NOTHING, {P, Q}},
        {"linkat", SYS_linkat, NOTHING, {D, P, E, Q, 0}},
        {"linkat_follow", SYS_linkat, NOTHING, {D, P, E, Q, AT_SYMLINK_FOLLOW}},
        {"linkat_empty", SYS_linkat, NOTHING, {D, P, E, Q, AT_EMPTY_PATH}},
        {"linkat_odd", SYS_linkat, NOTHING, {D, P, E, Q, 1}},
        {"symlink", SYS_symlink, NOTHING, {P, Q}},
        {"symlinkat", SYS_symlinkat, NOTHING, {P, E, Q}},
    };

    *count = sizeof calls / sizeof *calls;
    return calls;
}

struct pointer {
    const char *name, *value;
};

static const struct pointer no_second = {"-", "-"};

enum { POINTERS = 128 };
static struct pointer pointers[POINTERS];
static int pointer_count;

static void pointer(const char *name, const char *value_)
{
    REQUIRE(pointer_count < POINTERS);
    pointers[pointer_count++] = (struct pointer){name, value_};
}

__attribute__((format(printf, 1, 2))) static const char *text(const char *format, ...)
{
    char *made;
    va_list list;

    va_start(list, format);
    REQUIRE(vasprintf(&made, format, list) >= 0);
    va_end(list);
    return made;
}

static const char *protected_copy(const char *content, size_t length, int protection)
{
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    REQUIRE(page != MAP_FAILED);
    memcpy(page + 100, content, length);
    REQUIRE(mprotect(page, PAGE, protection) == 0);
    return page + 100;
}

static const char *key_protected_copy(const char *content, size_t length)
{
    const char *copy = protected_copy(content, length, PROT_READ | PROT_WRITE);
    int key = pkey_alloc(0, PKEY_DISABLE_ACCESS);

    /* Without such keys, or where the page could not be read for one: a page like any other. */
    if (key >= 0)
        REQUIRE(pkey_mprotect((void *)((uintptr_t)copy & -PAGE), PAGE, PROT_READ, key) == 0);
    return copy;
}

/* Returns a path of exactly `length` bytes that leads to `name`. */
static const char *padded(const char *name, size_t length)
{
    char *made = malloc(length + 1);
    size_t at = 0;

    REQUIRE(made != NULL);
    while (at + 2 + strlen(name) <= length) {
        memcpy(made + at, "./", 2);
        at += 2;
    }
    if (at + strlen(name) < length)
        made[at++] = '/';
    strcpy(made + at, name);
    REQUIRE(strlen(made) == length);
    return made;
}

static int dir_fd, file_fd, pipe_fd, deleted_fd, deleted_directory_fd, path_fd, link_fd,
    closed_fd = 99;

static void open_descriptors(void)
{
    int both[2];

    dir_fd = put_away(open("sub", O_RDONLY | O_DIRECTORY));
    file_fd = put_away(open("f", O_RDWR));
    REQUIRE(pipe(both) == 0);
    pipe_fd = put_away(both[0]);
    close(both[1]);
    deleted_fd = put_away(open("gone", O_CREAT | O_RDWR, 0600));
    REQUIRE(write(deleted_fd, "gone", 4) == 4);
    unlink("gone");
    REQUIRE(mkdir("gone", 0700) == 0);
    deleted_directory_fd = put_away(open("gone", O_RDONLY | O_DIRECTORY));
    REQUIRE(rmdir("gone") == 0);
    path_fd = put_away(open("sub", O_PATH));
    link_fd = put_away(open("l", O_PATH | O_NOFOLLOW));
    watch = put_away(inotify_init1(IN_CLOEXEC));
}

/* The numbers stay the same when the stage is put up again and what they led to is gone. */
static void reopen_descriptors(void)
{
    int fd;

    if (fcntl(dir_fd, F_GETFL) < 0)
        return;
#define AGAIN(number, path, flags)                                                                   \
    do {                                                                                             \
        fd = open(path, (flags) | O_CLOEXEC);                                                        \
        REQUIRE(fd >= 0 && dup3(fd, number, O_CLOEXEC) == number);                                   \
        close(fd);                                                                                   \
    } while (0)
    AGAIN(dir_fd, "sub", O_RDONLY | O_DIRECTORY);
    AGAIN(file_fd, "f", O_RDWR);
    AGAIN(path_fd, "sub", O_PATH);
    AGAIN(link_fd, "l", O_PATH | O_NOFOLLOW);
}

static void make_pointers(void)
{
    static char unterminated[8192];
    char *two_pages;

#define NAMED(name) pointer(#name, name)
    pointer("f", "f");
    pointer("sub", "sub");
    pointer("empty", "empty");
    pointer("l", "l");
    pointer("dl", "dl");
    pointer("x", "x");
    pointer("loop", "loop");
    pointer("p", "p");
    pointer("missing", "missing");
    pointer("sub/in", "sub/in");
    pointer("sub/missing", "sub/missing");
    pointer("missing/x", "missing/x");
    pointer("f/", "f/");
    pointer("f/x", "f/x");
    pointer("f/..", "f/..");
    pointer("l/", "l/");
    pointer("dl/", "dl/");
    pointer("dl/in", "dl/in");
    pointer("dl/../f", "dl/../f");
    pointer("sub/", "sub/");
    pointer("empty/", "empty/");
    pointer("missing/", "missing/");
    pointer("x/", "x/");
    pointer("sub/../f", "sub/../f");
    pointer("sub/..", "sub/..");
    pointer("sub/.", "sub/.");
    pointer("./f", "./f");
    pointer("sub//in", "sub//in");
    pointer("../stage/f", "../stage/f");
    pointer("..", "..");
    pointer(".", ".");
    pointer("none", "");
    pointer("absolute", text("%s/f", stage));
    pointer("absolute_new", text("%s/new", stage));
    pointer("absolute_climbs", text("//%s/dl/../sub//../f", stage));
    pointer("self_cwd", "/proc/self/cwd/f");
    pointer("self_cwd_climbs", "/proc/self/cwd/sub/../f");
    pointer("thread_self_cwd", "/proc/thread-self/cwd/f");
    pointer("magic_file", text("/proc/self/fd/%d", file_fd));
    pointer("magic_file_slash", text("/proc/self/fd/%d/", file_fd));
    pointer("magic_directory", text("/proc/self/fd/%d", dir_fd));
    pointer("magic_directory_in", text("/proc/self/fd/%d/in", dir_fd));
    pointer("magic_directory_new", text("/proc/self/fd/%d/new", dir_fd));
    pointer("magic_directory_climbs", text("/proc/self/fd/%d/../f", dir_fd));
    pointer("magic_thread_climbs", text("/proc/thread-self/fd/%d/../sub/../f", dir_fd));
    pointer("magic_pipe", text("/proc/self/fd/%d", pipe_fd));
    pointer("magic_deleted", text("/proc/self/fd/%d", deleted_fd));
    pointer("magic_deleted_directory", text("/proc/self/fd/%d/x", deleted_directory_fd));
    pointer("magic_link", text("/proc/self/fd/%d", link_fd));
    pointer("magic_closed", "/proc/self/fd/99");
    pointer("dev_fd", text("/dev/fd/%d", file_fd));
    pointer("odd_bytes", "\x01\xff\n\\ '\"\xc3\x28");
    pointer("component_255", text("%0255d", 1));
    pointer("component_256", text("%0256d", 1));
    pointer("path_4095", padded("f", 4095));
    pointer("path_4095_new", padded("new", 4095));
    pointer("path_4096", padded("f", 4096));
    /* Pointers that are odd, not strings. */
    pointer("null", NULL);
    pointer("low", (char *)8);
    pointer("gone", gone);
    pointer("protected", none);
    pointer("last", (char *)0x7fffffffefff);
    pointer("beyond", (char *)0x7ffffffff000);
    pointer("noncanonical", (char *)0x8000000000000000);
    pointer("kernel", (char *)0xffffffff81000000);
    pointer("vsyscall", (char *)0xffffffffff600000);
    pointer("error_pointer", (char *)-14l);
    pointer("all_ones", (char *)-1l);
    memset(unterminated, 'a', sizeof unterminated);
    pointer("edge", text_at_edge(0, "f"));
    pointer("edge_protected", text_at_edge(1, "missing"));
    pointer("edge_path_4095", text_at_edge(2, padded("f", 4095)));
    pointer("unterminated", at_edge(3, "f", 1));
    pointer("unterminated_4095", at_edge(4, unterminated, 4095));
    pointer("unterminated_4096", at_edge(5, unterminated, 4096));
    pointer("unterminated_5000", at_edge(6, unterminated, 5000));
    two_pages = island_ends[7] - 2 * PAGE;
    memcpy(two_pages + PAGE - 3, "sub/in", 7);
    pointer("across", two_pages + PAGE - 3);
    pointer("read_only", protected_copy("f", 2, PROT_READ));
}

/* The processor reads what is writable, and, where it has no protection keys, what is executable;
 * and the kernel minds the keys of the thread. */
static void make_closed_pointers(void)
{
    pointer_count = 0;
    pointer("write_only", protected_copy("f", 2, PROT_WRITE));
    pointer("executable_only", protected_copy("f", 2, PROT_EXEC));
    pointer("key_protected", key_protected_copy("f", 2));
}

static void filled_in(const struct call *call, long result)
{
    switch (call->shows) {
    case FD:
        show_descriptor((int)result);
        break;
    case STAT:
        show_stat((struct stat *)out);
        break;
    case STATX: {
        struct statx *found = (void *)out;
        printf(" mask=%x mode=%o links=%u owner=%u:%u size=%llu mtime=%lld", found->stx_mask & 0xfff,
               found->stx_mode, found->stx_nlink, found->stx_uid, found->stx_gid,
               S_ISREG(found->stx_mode) ? found->stx_size : 0,
               found->stx_mtime.tv_sec > RECENT ? 0 : found->stx_mtime.tv_sec);
        break;
    }
    case TEXT:
        show_bytes("text", out, (size_t)result);
        break;
    case LINK:
        show_link("text", out, (size_t)result);
        break;
    case BYTES:
        show_bytes("bytes", out, 24);
        break;
    case FS:
        printf(" type=%lx", (long)((struct statfs *)out)->f_type);
        break;
    case CWD_IS:
        if (syscall(SYS_getcwd, out, OUT) > 0)
            show_bytes("cwd", out, strlen(out));
        REQUIRE(fchdir(listed[0]) == 0);
        break;
    case WATCH:
        inotify_rm_watch(watch, (int)result);
        break;
    case CHILD:
    case NOTHING:
        break;
    }
}

static void in_new_root(long result)
{
    struct stat found;

    if (result == 0) {
        printf(" in=%d", stat("/in", &found));
        printf(",%d", stat("/f", &found));
        printf(",%d", stat("sub/in", &found));
        printf(",%d", stat("/sub/../../../f", &found));
    }
}

static bool differs_by_itself(const struct call *call, const char *one)
{
    /* The attributes of a pipe's file system and of /proc change as they are used. */
    return (call->shows == STAT || call->shows == STATX) && strstr(one, "dev_fd") != NULL;
}

static void make(const struct call *call, struct pointer first, struct pointer second, int directory,
                 int other, const char *more)
{
    uint64_t a[6];
    long result;
    int number;

    for (int i = 0; i < 6; i++) {
        uint64_t one = call->arguments[i];
        a[i] = one == P   ? U(first.value)
               : one == Q ? (call->shows == WATCH ? (uint64_t)watch : U(second.value))
               : one == D ? (uint64_t)(int64_t)directory
               : one == E ? (uint64_t)(int64_t)other
               : one == O ? U(out)
                          : one;
    }
    if (differs_by_itself(call, first.name))
        return;
    memset(out, 0x5a, 8192);
    get_args.value = U(out);
    if (call->shows == CHILD) {
        pid_t child;
        fflush(stdout);
        child = fork();
        REQUIRE(child >= 0);
        if (child > 0) {
            REQUIRE(waitpid(child, NULL, 0) == child);
            return;
        }
    }
    errno = 0;
    result = syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
    number = errno;
    if (second.value == no_second.value)
        begin_line(result, number, "%s%s %s", call->name, more, first.name);
    else
        begin_line(result, number, "%s%s %s %s", call->name, more, first.name, second.name);
    if (call->shows == CHILD) {
        in_new_root(result);
        end_line();
        fflush(stdout);
        _exit(0);
    }
    if (result >= 0)
        filled_in(call, result);
    if (show_changes())
        reopen_descriptors();
    end_line();
}

static void one(void)
{
    int count;
    const struct call *calls = ones(&count);

    for (int i = 0; i < count; i++)
        for (int j = 0; j < pointer_count; j++)
            make(&calls[i], pointers[j], no_second, 0, 0, "");
}

static void dirfds(void)
{
    const struct {
        const char *name;
        int64_t fd;
    } directories[] = {
        {"directory", dir_fd},
        {"path", path_fd},
        {"file", file_fd},
        {"pipe", pipe_fd},
        {"link", link_fd},
        {"deleted", deleted_fd},
        {"deleted_directory", deleted_directory_fd},
        {"closed", closed_fd},
        {"minus_one", -1},
        {"minus_99", -99},
        {"lowest", INT32_MIN},
        {"highest", INT32_MAX},
        {"cwd", AT_FDCWD},
        {"high_half", dir_fd | 0x1234500000000},
        {"cwd_high_half", 0xffffff9c},
    };
    const char *const tried[] = {"in",   "../f", "absolute",          "none",
                                 "null", "gone", "unterminated_4096", "magic_directory_new"};
    int count;
    const struct call *calls = ones(&count);

    pointer("in", "in");
    pointer("../f", "../f");
    for (int i = 0; i < count; i++) {
        struct call call = calls[i];
        /* A directory's descriptor is the first argument, its path the second. */
        if (call.arguments[0] != CWD || call.arguments[1] != P)
            continue;
        call.arguments[0] = D;
        for (size_t j = 0; j < sizeof directories / sizeof *directories; j++)
            for (size_t k = 0; k < sizeof tried / sizeof *tried; k++)
                for (int l = 0; l < pointer_count; l++)
                    if (strcmp(tried[k], pointers[l].name) == 0) {
                        char more[64];
                        snprintf(more, sizeof more, "[%s]", directories[j].name);
                        call.arguments[0] = (uint64_t)directories[j].fd;
                        make(&call, pointers[l], no_second, 0, 0, more);
                    }
    }
}

static void two(void)
{
    const char *const first[] = {"f", "none", "null", "magic_deleted"},
                      *const second[] = {"new", "absolute_new", "none", "null"},
                      *const bad[] = {"missing/x",     "none",      "null",
                                      "unterminated",  "path_4096", "noncanonical",
                                      "component_256", "f/x",       "unterminated_4096"};
    const int directories[] = {AT_FDCWD, dir_fd, -1, file_fd};
    const char *const names[] = {"cwd", "sub", "-1", "file"};
    int count;
    const struct call *calls = of_two(&count);
    char more[64];

    pointer("new", "new");
    for (int i = 0; i < count; i++) {
        for (int j = 0; j < pointer_count; j++) {
            make(&calls[i], pointers[j], (struct pointer){"new", "new"}, AT_FDCWD, AT_FDCWD, "");
            if (strcmp(pointers[j].name, "new") != 0)
                make(&calls[i], (struct pointer){"f", "f"}, pointers[j], AT_FDCWD, AT_FDCWD, "");
        }
#define NAMED_POINTER(wanted_name, variable)                                                         \
    struct pointer variable = no_second;                                                             \
    for (int m = 0; m < pointer_count; m++)                                                          \
        if (strcmp(pointers[m].name, wanted_name) == 0)                                              \
            variable = pointers[m];
        for (size_t j = 0; j < sizeof bad / sizeof *bad; j++)
            for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
                NAMED_POINTER(bad[j], left)
                NAMED_POINTER(bad[k], right)
                make(&calls[i], left, right, AT_FDCWD, AT_FDCWD, "");
            }
        if (calls[i].arguments[0] != D && calls[i].arguments[1] != E)
            continue;
        for (size_t d = 0; d < sizeof directories / sizeof *directories; d++)
            for (size_t e = 0; e < sizeof directories / sizeof *directories; e++)
                for (size_t j = 0; j < sizeof first / sizeof *first; j++)
                    for (size_t k = 0; k < sizeof second / sizeof *second; k++) {
                        NAMED_POINTER(first[j], left)
                        NAMED_POINTER(second[k], right)
                        snprintf(more, sizeof more, "[%s,%s]", names[d], names[e]);
                        make(&calls[i], left, right, directories[d], directories[e], more);
                    }
    }
}

int main(int argc, char **argv)
{
    static char buffer[1 << 16];

    REQUIRE(argc == 2);
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    require_few_rights();
    umask(022);
    make_islands();
    memset(too_long_name, 'n', sizeof too_long_name - 1);
    memcpy(too_long_name, "user.", 5);
    set_args.value = U(value);
    out = mmap(NULL, OUT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(out != MAP_FAILED);
    go_on_stage();
    open_descriptors();
    make_pointers();
    put_up();
    reopen_descriptors();
    if (strcmp(argv[1], "closed") == 0)
        make_closed_pointers();
    if (strcmp(argv[1], "one") == 0 || strcmp(argv[1], "closed") == 0)
        one();
    else if (strcmp(argv[1], "dirfds") == 0)
        dirfds();
    else if (strcmp(argv[1], "two") == 0)
        two();
    else
        return 2;
    return 0;
}
