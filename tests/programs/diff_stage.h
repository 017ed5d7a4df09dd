/*
 * A stage: a directory in a known state, and a way to tell what a call did to it.
 *
 *     f         regular file, 0640, with the attribute user.one
 *     sub/in    directory and a file in it
 *     empty/    empty directory
 *     l, dl, x  symbolic links to f, to sub, to nothing
 *     loop      symbolic link to itself
 *     p         FIFO, open at both ends, so that no open of it blocks
 *
 * The access times of links are left out: who judges a path may have walked them.
 *
 * Looking must be cheap, since it is done after every call, and a call by path is the dearest of all
 * when it is judged. So each file is kept open (O_PATH) and asked by descriptor; only when something
 * has changed the stage is looked at by path, printed, and put up again.
 */
#ifndef DIFF_STAGE_H
#define DIFF_STAGE_H

#include "diff.h"

#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

#include <linux/fs.h>

static const char *const actors[] = {"..", ".",  "f", "sub",  "sub/in", "empty",
                                     "l",  "dl", "x", "loop", "p"};
enum {
    ACTORS = sizeof actors / sizeof *actors,
    PARENT = 0,
    HERE = 1,
    F = 2,
    SUB = 3,
    LONG_AGO = 1000000,  /* the time of everything on the stage */
    RECENT = 1000000000, /* a time beyond this one is that of the call itself */
};

static const char *const own_names[2][ACTORS] = {
    {"f", "sub", "empty", "l", "dl", "x", "loop", "p"},
    {"in"},
};

static int watched[ACTORS], listed[2] = {-1, -1}, above = -1, fifo = -1, file = -1;
static struct stat wanted[ACTORS];
static char before[8192], stage[1024];

static inline void keep(int *where, int fd)
{
    if (*where > 0)
        close(*where);
    *where = put_away(fd);
}

static inline const char *time_of(struct timespec time)
{
    static char text[4][32];
    static int next;
    char *mine = text[next++ % 4];

    if (time.tv_sec > RECENT)
        return "now";
    snprintf(mine, sizeof text[0], "%ld.%ld", time.tv_sec, time.tv_nsec);
    return mine;
}

static inline int by_name(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* Whether a file is the one that was put there, and not another one under its name. */
static inline bool is_actor(const char *name, uint64_t inode)
{
    for (int i = 0; i < ACTORS; i++) {
        const char *slash = strrchr(actors[i], '/');
        if (strcmp(name, slash != NULL ? slash + 1 : actors[i]) == 0)
            return wanted[i].st_ino == inode;
    }
    return false;
}

/*
 * Puts the names in an open directory into `names`, sorted; returns how many there are. Behind each
 * name stands a letter for its type, a capital for a file that was not put there.
 */
static inline int names_in(int directory, char *names[], int most)
{
    static char raw[65536];
    int count = 0;
    long got;

    lseek(directory, 0, SEEK_SET);
    while ((got = syscall(SYS_getdents64, directory, raw, sizeof raw)) > 0)
        for (long at = 0; at < got && count < most;) {
            struct {
                uint64_t inode;
                int64_t offset;
                uint16_t size;
                uint8_t type;
                char name[];
            } *entry = (void *)(raw + at);
            if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0) {
                char letter = is_actor(entry->name, entry->inode) ? 'a' : 'A';
                REQUIRE(asprintf(&names[count], "%s%c", entry->name, entry->type + letter) > 0);
                count++;
            }
            at += entry->size;
        }
    qsort(names, (size_t)count, sizeof *names, by_name);
    return count;
}

/* One line for each actor, and one for each of the two directories. */
static inline void look(char *text, size_t room)
{
    char *names[256], value[64];
    size_t at = 0;
    struct fsxattr attributes = {0};

    for (int i = 0; i < ACTORS; i++) {
        struct stat found = {0};
        /* Not by path: see above. */
        REQUIRE(syscall(SYS_fstat, watched[i], &found) == 0);
        at += (size_t)snprintf(text + at, room - at, "%s mode=%o links=%lu owner=%u:%u", actors[i],
                               found.st_mode, found.st_nlink, found.st_uid, found.st_gid);
        if (!S_ISDIR(found.st_mode))
            at += (size_t)snprintf(text + at, room - at, " size=%ld", found.st_size);
        at += (size_t)snprintf(text + at, room - at, " times=%s,%s\n",
                               S_ISLNK(found.st_mode) ? "-" : time_of(found.st_atim),
                               time_of(found.st_mtim));
    }
    for (int i = 0; i < 2; i++) {
        int count = names_in(listed[i], names, 256);
        at += (size_t)snprintf(text + at, room - at, "%s has", i == 0 ? "." : "sub");
        for (int j = 0; j < count; j++) {
            for (char *byte = names[j]; *byte; byte++)
                if (*byte <= ' ' || *byte == 127)
                    *byte = '?';
            if (strlen(names[j]) > 40)
                at +=
                    (size_t)snprintf(text + at, room - at, " %.8s...%zu", names[j], strlen(names[j]));
            else
                at += (size_t)snprintf(text + at, room - at, " %s", names[j]);
            free(names[j]);
        }
        at += (size_t)snprintf(text + at, room - at, "\n");
    }
    long listed_size = syscall(SYS_flistxattr, file, NULL, 0);
    ioctl(file, FS_IOC_FSGETXATTR, &attributes);
    long length = syscall(SYS_pread64, file, value, sizeof value - 1, 0);
    value[length > 0 ? length : 0] = 0;
    snprintf(text + at, room - at, "f attributes=%ld flags=%x holds=%s\n", listed_size,
             attributes.fsx_xflags, value);
}

static inline void remove_all(int directory)
{
    char *names[4096];
    int count = names_in(directory, names, 4096);

    for (int i = 0; i < count; i++) {
        char *name = names[i];
        name[strlen(name) - 1] = 0;
        if (unlinkat(directory, name, 0) != 0) {
            int below;
            if (unlinkat(directory, name, AT_REMOVEDIR) != 0) {
                fchmodat(directory, name, 0700, 0);
                below = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                REQUIRE(below >= 0);
                remove_all(below);
                close(below);
                REQUIRE(unlinkat(directory, name, AT_REMOVEDIR) == 0);
            }
        }
        free(name);
    }
}

static inline void long_ago(const char *path)
{
    const struct timespec times[2] = {{LONG_AGO, 5}, {LONG_AGO, 5}};
    REQUIRE(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) == 0);
}

static inline void put_up(void)
{
    mode_t mask = umask(0);
    int fd;

    REQUIRE(chdir(stage) == 0);
    REQUIRE(chmod("..", 0755) == 0 && chmod(".", 0755) == 0);
    keep(&listed[0], open(".", O_RDONLY | O_DIRECTORY | O_NOATIME));
    remove_all(listed[0]);
    fd = open("f", O_CREAT | O_EXCL | O_WRONLY, 0640);
    REQUIRE(fd >= 0 && write(fd, "content", 7) == 7);
    close(fd);
    /* Not every file system has them. */
    setxattr("f", "user.one", "1", 1, 0);
    REQUIRE(mkdir("sub", 0755) == 0 && mkdir("empty", 0755) == 0);
    fd = open("sub/in", O_CREAT | O_EXCL | O_WRONLY, 0644);
    REQUIRE(fd >= 0 && write(fd, "inner", 5) == 5);
    close(fd);
    REQUIRE(symlink("f", "l") == 0 && symlink("sub", "dl") == 0 && symlink("nothing", "x") == 0);
    REQUIRE(symlink("loop", "loop") == 0 && mkfifo("p", 0644) == 0);
    keep(&listed[1], open("sub", O_RDONLY | O_DIRECTORY | O_NOATIME));
    keep(&fifo, open("p", O_RDWR));
    keep(&file, open("f", O_RDWR | O_NOATIME));
    keep(&above, open("..", O_RDONLY | O_DIRECTORY | O_NOATIME));
    for (int i = ACTORS - 1; i >= 0; i--) {
        long_ago(actors[i]);
        keep(&watched[i], open(actors[i], O_PATH | O_NOFOLLOW));
    }
    umask(mask);
    for (int i = 0; i < ACTORS; i++)
        REQUIRE(syscall(SYS_fstat, watched[i], &wanted[i]) == 0);
    look(before, sizeof before);
}

/* Removes what does not belong into a directory; returns whether what does is there. */
static inline bool mend_names(int which)
{
    char *names[256];
    int count = names_in(listed[which], names, 256), there = 0, expected = 0;
    bool mended = true;

    for (int i = 0; i < count; i++) {
        bool known = false;
        names[i][strlen(names[i]) - 1] = 0;
        for (int j = 0; own_names[which][j] != NULL; j++)
            known |= strcmp(names[i], own_names[which][j]) == 0;
        there += known;
        if (!known && unlinkat(listed[which], names[i], 0) != 0 &&
            unlinkat(listed[which], names[i], AT_REMOVEDIR) != 0)
            mended = false;
        free(names[i]);
    }
    while (own_names[which][expected] != NULL)
        expected++;
    return mended && there == expected;
}

/* Tries to get along without putting everything up again; returns whether that was enough. */
static inline bool mend(void)
{
    static char now[sizeof before];
    struct fsxattr attributes = {0};
    const struct timespec times[2] = {{LONG_AGO, 5}, {LONG_AGO, 5}};

    if (fchdir(listed[0]) != 0 || fchmod(above, 0755) != 0 || fchmod(listed[0], 0755) != 0 ||
        !mend_names(0) || !mend_names(1))
        return false;
    if (syscall(SYS_flistxattr, file, NULL, 0) != 9) {
        fremovexattr(file, "user.two");
        fsetxattr(file, "user.one", "1", 1, 0);
    }
    if (ioctl(file, FS_IOC_FSGETXATTR, &attributes) == 0 && attributes.fsx_xflags & FS_XFLAG_NODUMP) {
        attributes.fsx_xflags &= ~(uint32_t)FS_XFLAG_NODUMP;
        ioctl(file, FS_IOC_FSSETXATTR, &attributes);
    }
    for (int i = 0; i < ACTORS; i++) {
        struct stat found;
        int by = i == PARENT ? above
                 : i == HERE ? listed[0]
                 : i == F    ? file
                 : i == SUB  ? listed[1]
                             : -1;
        if (syscall(SYS_fstat, watched[i], &found) != 0)
            return false;
        if (found.st_uid != wanted[i].st_uid || found.st_gid != wanted[i].st_gid) {
            if (by >= 0 ? fchown(by, wanted[i].st_uid, wanted[i].st_gid) != 0
                        : lchown(actors[i], wanted[i].st_uid, wanted[i].st_gid) != 0)
                return false;
        }
        if (i == F && pwrite(file, "content", 7, 0) == 7 && ftruncate(file, 7) != 0)
            return false;
        if (found.st_mode != wanted[i].st_mode &&
            (by < 0 || fchmod(by, wanted[i].st_mode & 07777) != 0))
            return false;
        if (syscall(SYS_fstat, watched[i], &found) != 0)
            return false;
        if (memcmp(&found.st_mtim, &times[1], sizeof times[1]) != 0 ||
            (!S_ISLNK(found.st_mode) && memcmp(&found.st_atim, &times[0], sizeof times[0]) != 0))
            if (by >= 0 ? futimens(by, times) != 0
                        : utimensat(AT_FDCWD, actors[i], times, AT_SYMLINK_NOFOLLOW) != 0)
                return false;
    }
    look(now, sizeof now);
    return strcmp(before, now) == 0;
}

/* Goes to a fresh directory below the working directory. */
static inline void go_on_stage(void)
{
    REQUIRE(mkdir("stage", 0755) == 0);
    REQUIRE(getcwd(stage, sizeof stage) != NULL && strlen(stage) < sizeof stage - 8);
    strcat(stage, "/stage");
    put_up();
}

/* What a link says; process and inode numbers are left out. */
static inline void show_link(const char *label, char *text, size_t length)
{
    char own[32];

    text[length] = 0;
    snprintf(own, sizeof own, "/proc/%d/", getpid());
    if (strncmp(text, own, strlen(own)) == 0)
        printf(" %s=/proc/OWN/%s", label, text + strlen(own));
    else if (strncmp(text, "pipe:", 5) == 0 || strncmp(text, "anon_inode:", 11) == 0)
        printf(" %s=%.4s", label, text);
    else
        show_bytes(label, text, length);
}

static inline void show_path(int directory, const char *prefix, const char *name)
{
    struct stat found;
    char text[4097];
    ssize_t length;

    if (fstatat(directory, name, &found, AT_SYMLINK_NOFOLLOW) != 0)
        return;
    printf("\n   ");
    show_bytes(prefix, name, strnlen(name, 40));
    printf(" mode=%o links=%lu owner=%u:%u", found.st_mode, found.st_nlink, found.st_uid,
           found.st_gid);
    if (!S_ISDIR(found.st_mode))
        printf(" size=%ld", found.st_size);
    printf(" times=%s,%s", S_ISLNK(found.st_mode) ? "-" : time_of(found.st_atim),
           time_of(found.st_mtim));
    if (S_ISCHR(found.st_mode) || S_ISBLK(found.st_mode))
        printf(" device=%lx", found.st_rdev);
    if (S_ISLNK(found.st_mode) &&
        (length = readlinkat(directory, name, text, sizeof text - 1)) >= 0) {
        if (length > 100)
            printf(" to=%zd,%lx", length, hash_of(text, (size_t)length));
        else
            show_link("to", text, (size_t)length);
    }
}

/*
 * Prints what is different on the stage since the last look, and mends it. Returns whether everything
 * was put up again, so that descriptors of what was there before lead nowhere now.
 */
static inline bool show_changes(void)
{
    static char after[sizeof before];
    char *left, *right, *names[256];

    look(after, sizeof after);
    if (strcmp(before, after) == 0)
        return false;
    for (left = before, right = after; *left && *right;) {
        size_t one = strcspn(left, "\n"), two = strcspn(right, "\n");
        if (one != two || memcmp(left, right, one) != 0)
            printf("\n    %.*s", (int)two, right);
        left += one + 1;
        right += two + 1;
    }
    for (int i = 0; i < 2; i++) {
        int count = names_in(listed[i], names, 256);
        for (int j = 0; j < count; j++) {
            bool known = false;
            names[j][strlen(names[j]) - 1] = 0;
            for (int k = 0; own_names[i][k] != NULL; k++)
                known |= strcmp(names[j], own_names[i][k]) == 0;
            if (!known)
                show_path(listed[i], i == 0 ? "new" : "sub", names[j]);
            free(names[j]);
        }
    }
    if (mend())
        return false;
    put_up();
    return true;
}

/* What a call filled in, as far as it is the same in every run. */

static inline void show_stat(const struct stat *found)
{
    printf(" mode=%o links=%lu owner=%u:%u size=%ld times=%s,%s", found->st_mode, found->st_nlink,
           found->st_uid, found->st_gid, S_ISREG(found->st_mode) ? found->st_size : 0,
           S_ISLNK(found->st_mode) ? "-" : time_of(found->st_atim), time_of(found->st_mtim));
}

/* A descriptor that a call returned: what it leads to; closes it. */
static inline void show_descriptor(int fd)
{
    struct stat found;
    char link[64], text[4097];
    ssize_t length;

    if (syscall(SYS_fstat, fd, &found) == 0)
        show_stat(&found);
    printf(" flags=%o,%o", fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (!S_ISFIFO(found.st_mode) && !S_ISSOCK(found.st_mode) &&
        !(S_ISREG(found.st_mode) && found.st_nlink == 0) &&
        (length = readlink(link, text, sizeof text - 1)) >= 0)
        show_link("at", text, (size_t)length);
    close(fd);
}

#endif
