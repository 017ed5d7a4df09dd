/*
 * diff_context: path calls of callers whose surroundings are odd: a directory that is gone, or
 * renamed, or deeper than a path can be; another root; threads; other ids; no descriptors left. One
 * line a call.
 *
 *     diff_context alone      everything that one thread does
 *     diff_context threads    the same surroundings with a second thread there
 *     diff_context lost       a second thread, and a directory that is gone
 *     diff_context deep       a directory whose path no call could take
 */
#include "diff.h"

#include <linux/openat2.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

static char here[4096];

static void show(const char *where, const char *what, long result)
{
    int number = errno;

    begin_line(result, number, "%s: %s", where, what);
    end_line();
}

#define CALL(where, what, ...)                                                                       \
    do {                                                                                             \
        errno = 0;                                                                                   \
        show(where, what, (long)(__VA_ARGS__));                                                      \
    } while (0)

/* A descriptor: prints what it leads to, closes it. */
static void opened(const char *where, const char *what, int fd)
{
    char text[64], byte = 0;
    struct stat found;
    int number = errno;

    begin_line(fd, number, "%s: %s", where, what);
    if (fd >= 0) {
        syscall(SYS_fstat, fd, &found);
        printf(" mode=%o links=%lu", found.st_mode, found.st_nlink);
        if (S_ISREG(found.st_mode)) {
            snprintf(text, sizeof text, "/proc/self/fdinfo/%d", fd);
            if (pread(fd, &byte, 1, 0) == 1)
                printf(" byte=%c", byte);
        }
        close(fd);
    }
    end_line();
}

/* What can be done with names, relative ones and those that start over. */
static void usual_calls(const char *where)
{
    struct stat found;
    char text[4096];

    opened(where, "open .", open(".", O_RDONLY));
    opened(where, "open ..", open("..", O_RDONLY));
    opened(where, "open new", open("new", O_CREAT | O_RDWR, 0666));
    opened(where, "open ./new", open("./new", O_RDONLY));
    opened(where, "open x/../new", open("x/../new", O_RDONLY));
    opened(where, "open ../f", open("../f", O_RDONLY));
    opened(where, "open ../../f", open("../../f", O_RDONLY));
    opened(where, "open f", open("f", O_RDONLY));
    opened(where, "open /f", open("/f", O_RDONLY));
    opened(where, "open /", open("/", O_RDONLY));
    opened(where, "open /..", open("/../..", O_PATH));
    opened(where, "open /dev/null", open("/dev/null", O_RDONLY));
    opened(where, "open /proc/self/cwd", open("/proc/self/cwd", O_RDONLY));
    opened(where, "open /proc/self/cwd/f", open("/proc/self/cwd/f", O_RDONLY));
    opened(where, "open /proc/thread-self/cwd/../f", open("/proc/thread-self/cwd/../f", O_RDONLY));
    opened(where, "open /proc/self/root", open("/proc/self/root", O_PATH));
    opened(where, "open the root by a link", open("/proc/self/root" "/../f", O_RDONLY));
    opened(where, "open temporary", open(".", O_TMPFILE | O_RDWR, 0600));
    CALL(where, "mkdir d", mkdir("d", 0777));
    CALL(where, "mkdir d/e", mkdir("d/e", 0777));
    CALL(where, "rename", rename("new", "d/e/new"));
    CALL(where, "rename up", rename("d/e/new", "d/e/../new2"));
    CALL(where, "symlink", symlink("../f", "s"));
    opened(where, "open s", open("s", O_RDONLY));
    opened(where, "open s/..", open("s/..", O_RDONLY));
    CALL(where, "link", link("d/new2", "hard"));
    CALL(where, "chmod", chmod("hard", 0600));
    CALL(where, "truncate", truncate("hard", 3));
    CALL(where, "access", access("hard", R_OK));
    CALL(where, "stat", stat("hard", &found));
    CALL(where, "lstat", lstat("s", &found));
    CALL(where, "readlink", readlink("s", text, sizeof text));
    CALL(where, "chdir d", chdir("d"));
    opened(where, "open there", open("e", O_RDONLY));
    CALL(where, "chdir ..", chdir(".."));
    CALL(where, "unlink", unlink("hard"));
    CALL(where, "unlink s", unlink("s"));
    CALL(where, "unlink d/new2", unlink("d/new2"));
    CALL(where, "unlink new", unlink("new"));
    CALL(where, "rmdir d/e", rmdir("d/e"));
    CALL(where, "rmdir d", rmdir("d"));
    CALL(where, "rmdir .", rmdir("."));
    CALL(where, "getcwd", syscall(SYS_getcwd, text, sizeof text));
    CALL(where, "bind", ({
             struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "socket"};
             int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
             int result = bind(fd, (void *)&name, sizeof name);
             close(fd);
             result;
         }));
    CALL(where, "unlink socket", unlink("socket"));
}

static void in_lost_directory(void *unused)
{
    char again[4200];
    int lost;

    (void)unused;
    snprintf(again, sizeof again, "%s/lost", here);
    REQUIRE(mkdir("lost", 0755) == 0 && chdir("lost") == 0 && rmdir("../lost") == 0);
    lost = put_away(open("/proc/self/cwd", O_RDONLY | O_DIRECTORY));
    usual_calls("lost");
    /* One of the same name in its place */
    REQUIRE(fchdir(lost) == 0 && mkdir(again, 0755) == 0);
    usual_calls("lost, and another there");
    REQUIRE(chdir(again) == 0);
    usual_calls("lost, in the other one");
    REQUIRE(rmdir(again) == 0);
}

static void in_renamed_directory(void *unused)
{
    (void)unused;
    REQUIRE(mkdir("before", 0755) == 0 && chdir("before") == 0 &&
            rename("../before", "../sub/after") == 0);
    usual_calls("renamed");
    REQUIRE(chdir(here) == 0 && rmdir("sub/after") == 0);
}

static void in_odd_directory(void *argument)
{
    const char *name = argument;

    REQUIRE(mkdir(argument, 0755) == 0 && chdir(argument) == 0);
    usual_calls(strchr(name, '\n') != NULL ? "a directory of two lines" : name);
    REQUIRE(chdir(here) == 0 && rmdir(argument) == 0);
}

enum { DEPTH = 30 };

static void in_deep_directory(void *unused)
{
    char name[201], what[16];
    int middle = -1;

    (void)unused;
    memset(name, 'd', 200);
    name[200] = 0;
    for (int i = 0; i < DEPTH; i++) {
        REQUIRE(mkdir(name, 0755) == 0 && chdir(name) == 0);
        if (i == 15)
            middle = put_away(open(".", O_RDONLY | O_DIRECTORY));
        snprintf(what, sizeof what, "level %d", i);
        opened("deep", what, open(".", O_RDONLY));
    }
    usual_calls("deep");
    opened("deep", "by descriptor", openat(middle, "..", O_RDONLY));
    for (int i = 0; i < DEPTH; i++)
        REQUIRE(chdir("..") == 0 && rmdir(name) == 0);
}

static void in_new_root(void *unused)
{
    int outside = put_away(open(".", O_RDONLY | O_DIRECTORY));

    (void)unused;
    if (chroot("sub") != 0) {
        show("chroot", "chroot", -1);
        return;
    }
    usual_calls("chroot, outside");
    REQUIRE(chdir("/") == 0);
    usual_calls("chroot, inside");
    opened("chroot", "openat outside", openat(outside, "f", O_RDONLY));
    opened("chroot", "openat outside, up", openat(outside, "sub/../f", O_RDONLY));
    opened("chroot", "openat outside, absolute", openat(outside, "/in", O_RDONLY));
    CALL("chroot", "mkdir", mkdir("deeper", 0755));
    CALL("chroot", "chroot again", chroot("deeper"));
    opened("chroot", "open in", open("in", O_RDONLY));
    opened("chroot", "open ../in", open("../in", O_RDONLY));
    opened("chroot", "open /in", open("/in", O_RDONLY));
    opened("chroot", "open ../f", open("../f", O_RDONLY));
    CALL("chroot", "fchdir", fchdir(outside));
    opened("chroot", "open f", open("f", O_RDONLY));
    CALL("chroot", "chroot out", chroot("."));
    opened("chroot", "open /f", open("/f", O_RDONLY));
    CALL("chroot", "rmdir", rmdir("/sub/deeper"));
}

static void with_masks(void *unused)
{
    const mode_t masks[] = {0, 022, 077, 0777};
    struct stat found;
    char what[100];

    (void)unused;
    for (int i = 0; i < 4; i++) {
        umask(masks[i]);
        int fd = open("masked", O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 07777);
        REQUIRE(fd >= 0);
        close(fd);
        REQUIRE(mkdir("masked_directory", 03777) == 0 &&
                mknod("masked_fifo", S_IFIFO | 0777, 0) == 0);
        const char *const names[] = {"masked", "masked_directory", "masked_fifo"};
        for (int j = 0; j < 3; j++) {
            REQUIRE(stat(names[j], &found) == 0);
            snprintf(what, sizeof what, "%s %o is %o", names[j], masks[i], found.st_mode);
            show("umask", what, 0);
        }
        REQUIRE(unlink("masked") == 0 && rmdir("masked_directory") == 0 &&
                unlink("masked_fifo") == 0);
    }
}

static void with_temporaries(void *unused)
{
    char path[64];
    struct stat found;
    int fd = open(".", O_TMPFILE | O_RDWR, 0640), made;

    (void)unused;
    show("temporary", "open", fd >= 0 ? 0 : -1);
    REQUIRE(write(fd, "t", 1) == 1);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    CALL("temporary", "linkat", linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    CALL("temporary", "linkat again", linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    CALL("temporary", "linkat empty", linkat(fd, "", AT_FDCWD, "named_too", AT_EMPTY_PATH));
    REQUIRE(fstat(fd, &found) == 0);
    show("temporary", "links", (long)found.st_nlink);
    made = open(".", O_TMPFILE | O_EXCL | O_RDWR, 0640);
    snprintf(path, sizeof path, "/proc/self/fd/%d", made);
    CALL("temporary", "linkat exclusive",
         linkat(AT_FDCWD, path, AT_FDCWD, "never", AT_SYMLINK_FOLLOW));
    opened("temporary", "named", open("named", O_RDONLY));
    unlink("named");
    unlink("named_too");
    close(made);
    made = open(path, O_RDWR);
    show("temporary", "through a closed descriptor", made);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    opened("temporary", "again, by its descriptor", open(path, O_RDONLY));
    CALL("temporary", "chmod", chmod(path, 0600));
    CALL("temporary", "truncate", truncate(path, 0));
    close(fd);
}

static void as_others(void *unused)
{
    (void)unused;
    if (geteuid() != 0)
        return;
    REQUIRE(mkdir("closed", 0700) == 0);
    int inside = put_away(open("closed", O_RDONLY | O_DIRECTORY));
    REQUIRE(setresgid(65534, 65534, 0) == 0 && setresuid(0, 65534, 0) == 0);
    CALL("others", "access f as real", access("closed/x", F_OK));
    CALL("others", "access f as effective", faccessat(AT_FDCWD, "closed/x", F_OK, AT_EACCESS));
    opened("others", "open", open("closed/x", O_CREAT | O_RDWR, 0600));
    REQUIRE(setresuid(65534, 65534, 65534) == 0);
    usual_calls("others");
    opened("others", "openat", openat(inside, "x", O_CREAT | O_RDWR, 0600));
    CALL("others", "chdir", chdir("closed"));
    CALL("others", "fchdir", fchdir(inside));
    usual_calls("others, inside");
}

static void remove_closed(void *unused)
{
    (void)unused;
    if (geteuid() == 0)
        CALL("others", "rmdir", rmdir("closed"));
}

static void without_descriptors(void *unused)
{
    struct rlimit limit = {5, 5};
    int fds[10], count = 0;

    (void)unused;
    opened("descriptors", "before", open("f", O_RDONLY));
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    while (count < 10 && (fds[count] = open("f", O_RDONLY)) >= 0)
        count++;
    show("descriptors", "until", count);
    CALL("descriptors", "none left", open("f", O_RDONLY));
    CALL("descriptors", "none left, missing", open("missing", O_RDONLY));
    CALL("descriptors", "none left, null", syscall(SYS_open, NULL, O_RDONLY));
    CALL("descriptors", "mkdir", mkdir("d", 0700));
    CALL("descriptors", "rmdir", rmdir("d"));
}

static void in_shared_directory(void *unused)
{
    struct stat found;
    pid_t child;
    int status;

    (void)unused;
    /* A process that shares the directory changes it. */
    child = (pid_t)syscall(SYS_clone, CLONE_FS | SIGCHLD, 0, 0, 0, 0);
    REQUIRE(child >= 0);
    if (child == 0)
        _exit(chdir("sub"));
    REQUIRE(waitpid(child, &status, 0) == child && status == 0);
    CALL("shared", "in", stat("in", &found));
    CALL("shared", "../f", stat("../f", &found));
    usual_calls("shared");
    CALL("shared", "unshare", unshare(CLONE_FS));
    CALL("shared", "chdir", chdir(".."));
    usual_calls("unshared");
}

static int in_vfork_child(void *unused)
{
    struct stat found;

    (void)unused;
    return stat("f", &found) | mkdir("by_vfork", 0700) | rmdir("by_vfork");
}

static void with_vfork(void *unused)
{
    pid_t child = vfork();
    int status;

    (void)unused;
    if (child == 0)
        _exit(in_vfork_child(NULL));
    REQUIRE(waitpid(child, &status, 0) == child);
    show("vfork", "status", status);
}

static const struct {
    const char *name;
    void (*run)(void *);
    void *argument;
    bool changes_root; /* which is refused with a second thread */
} contexts[] = {
    {"lost", in_lost_directory, NULL, false}, /* the first: see main */
    {"renamed", in_renamed_directory, NULL, false},
    {"deleted, by name", in_odd_directory, "x (deleted)", false},
    {"newline", in_odd_directory, "new\nline", false},
    {"backslash", in_odd_directory, "back\\slash \xff", false},
    {"chroot", in_new_root, NULL, true},
    {"masks", with_masks, NULL, false},
    {"temporaries", with_temporaries, NULL, false},
    {"others", as_others, NULL, false},
    {"others, after", remove_closed, NULL, false},
    {"descriptors", without_descriptors, NULL, false},
    {"shared", in_shared_directory, NULL, false},
    {"vfork", with_vfork, NULL, false},
};

static int hold[2];

static void *bystander(void *unused)
{
    char byte;

    while (read(hold[0], &byte, 1) < 0)
        ;
    return unused;
}

static void beside_a_thread(void *argument)
{
    int index = *(int *)argument;
    pthread_t thread;

    REQUIRE(pipe2(hold, O_CLOEXEC) == 0);
    hold[0] = put_away(hold[0]);
    hold[1] = put_away(hold[1]);
    REQUIRE(pthread_create(&thread, NULL, bystander, NULL) == 0);
    contexts[index].run(contexts[index].argument);
}

int main(int argc, char **argv)
{
    REQUIRE(argc == 2);
    umask(022);
    REQUIRE(mkdir("work", 0777) == 0 && chmod("work", 0777) == 0 && chdir("work") == 0);
    REQUIRE(getcwd(here, sizeof here) != NULL);
    REQUIRE(mkdir("sub", 0755) == 0);
    for (int i = 0; i < 2; i++) {
        int fd = open(i == 0 ? "f" : "sub/in", O_CREAT | O_WRONLY, 0644);
        REQUIRE(fd >= 0 && write(fd, i == 0 ? "F" : "I", 1) == 1);
        close(fd);
    }
    if (strcmp(argv[1], "deep") == 0) {
        in_child("deep", in_deep_directory, NULL);
        return 0;
    }
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        int index = (int)i;
        if (strcmp(argv[1], "alone") == 0)
            in_child(contexts[i].name, contexts[i].run, contexts[i].argument);
        else if (strcmp(argv[1], i == 0 ? "lost" : "threads") == 0 && !contexts[i].changes_root)
            in_child(contexts[i].name, beside_a_thread, &index);
    }
    return 0;
}
