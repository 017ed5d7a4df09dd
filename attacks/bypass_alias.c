/*
 * The denied file by another name that leads to it. Whoever judges the words of a call alone lets it
 * pass; whoever judges where the words lead does not.
 *
 *     link      a symbolic link
 *     dots      one with `..` and `//` in it
 *     chain     one to one to one
 *     relative  one below the working directory
 *     dirfd     one below a descriptor
 *     root      one below /proc/self/root
 *     cwd       one below /proc/self/cwd
 *     fd        one below a descriptor's name in /proc
 *     child     one below the working directory of a child, by its name in /proc
 *     chroot    one whose target begins at another root (root)
 *     exec      one to the denied program
 *     hard      a hard link, made through a symbolic link that is followed
 *     handle    no name at all: a handle that is given out for a link's target (root)
 *     number    no name at all: a handle that is made up from the file's number (root)
 */
#include "bypass.h"

#include <dirent.h>
#include <sys/stat.h>

static char *denied, *link_path, *directory, *scratch;

static enum outcome open_path(const char *path)
{
    return outcome_of_open(open(path, O_RDONLY | O_CLOEXEC));
}

static enum outcome made_link(const char *target)
{
    return symlinkat(target, AT_FDCWD, link_path) == 0 ? ALLOWED : outcome_of_error(errno);
}

static enum outcome open_link_to(const char *target)
{
    enum outcome made = made_link(target);

    return made == ALLOWED ? open_path(link_path) : made;
}

static enum outcome by_link(void)
{
    return open_link_to(denied);
}

static enum outcome dots(void)
{
    return open_link_to("..//scratch/./../files//secret-D");
}

static enum outcome chain(void)
{
    if (symlinkat("second", AT_FDCWD, attack_path("scratch/first")) != 0 ||
        symlinkat("link", AT_FDCWD, attack_path("scratch/second")) != 0 || made_link(denied) != ALLOWED)
        return OTHER;
    return open_path(attack_path("scratch/first"));
}

static enum outcome relative(void)
{
    if (made_link("../files/secret-D") != ALLOWED || chdir(scratch) != 0)
        return OTHER;
    return open_path("link");
}

static enum outcome below(int fd)
{
    if (fd < 0 || made_link("../files/secret-D") != ALLOWED)
        return OTHER;
    return outcome_of_open(openat(fd, "link", O_RDONLY | O_CLOEXEC));
}

static enum outcome dirfd_of(void)
{
    return below(open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static enum outcome below_path(const char *prefix)
{
    char *path;

    if (made_link(denied) != ALLOWED || asprintf(&path, "%s/link", prefix) < 0)
        return OTHER;
    return open_path(path);
}

static enum outcome proc_root(void)
{
    char *prefix;

    if (asprintf(&prefix, "/proc/self/root" "/%s", scratch) < 0)
        return OTHER;
    return below_path(prefix);
}

static enum outcome proc_cwd(void)
{
    if (chdir(scratch) != 0)
        return OTHER;
    return below_path("/proc/self/cwd");
}

static enum outcome proc_fd(void)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/thread-self/fd/%d", open(scratch, O_PATH | O_CLOEXEC));
    return below_path(path);
}

static enum outcome of_child(void)
{
    pid_t self = getpid(), child;
    int pipes[2];
    enum outcome outcome;
    char path[64], byte;

    if (pipe(pipes) != 0 || (child = fork()) < 0)
        return OTHER;
    if (child == 0) {
        attack_die_with(self);
        if (chdir(scratch) != 0 || write(pipes[1], "x", 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    close(pipes[1]);
    snprintf(path, sizeof path, "/proc/%d/cwd", child);
    outcome = read(pipes[0], &byte, 1) == 1 ? below_path(path) : OTHER;
    end_child(child);
    return outcome;
}

static enum outcome change_root(void)
{
    if (geteuid() != 0)
        return ABSENT;
    if (made_link("/files/secret-D") != ALLOWED)
        return OTHER;
    if (chroot(directory) != 0 || chdir("/") != 0)
        return outcome_of_error(errno);
    return open_path("/scratch/link");
}

static enum outcome execute(void)
{
    pid_t child;
    int status;
    enum outcome made = made_link(attack_path("programs/secret-D"));

    if (made != ALLOWED || (child = fork()) < 0)
        return OTHER;
    if (child == 0) {
        execl(link_path, link_path, NULL);
        _exit(errno == EACCES ? REFUSED : OTHER);
    }
    waitpid(child, &status, 0);
    /* The denied program exits with 1. */
    if (WIFEXITED(status) && WEXITSTATUS(status) == 1)
        return ESCAPED;
    return outcome_of_child(status);
}

static enum outcome hard(void)
{
    char *name = attack_path("scratch/hard");

    if (made_link(denied) != ALLOWED)
        return OTHER;
    if (linkat(AT_FDCWD, link_path, AT_FDCWD, name, AT_SYMLINK_FOLLOW) != 0)
        return outcome_of_error(errno);
    return open_path(name);
}

static struct {
    struct file_handle head;
    unsigned char bytes[MAX_HANDLE_SZ];
} handle = {.head.handle_bytes = MAX_HANDLE_SZ};

static enum outcome open_handle(void)
{
    int mount = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return outcome_of_open(open_by_handle_at(mount, &handle.head, O_RDONLY | O_CLOEXEC));
}

static enum outcome given_handle(void)
{
    int mount_id;

    if (geteuid() != 0)
        return ABSENT;
    if (made_link(denied) != ALLOWED)
        return OTHER;
    if (name_to_handle_at(AT_FDCWD, link_path, &handle.head, &mount_id, AT_SYMLINK_FOLLOW) != 0)
        return outcome_of_error(errno);
    return open_handle();
}

static enum outcome made_up_handle(void)
{
    DIR *listed = opendir(attack_path("files"));
    uint32_t parts[2] = {0, 0};
    struct dirent *entry;

    if (geteuid() != 0)
        return ABSENT;
    while (listed != NULL && (entry = readdir(listed)) != NULL)
        if (strcmp(entry->d_name, "secret-D") == 0)
            parts[0] = (uint32_t)entry->d_ino;
    /* FILEID_INO32_GEN; many file systems take generation 0 for any. */
    handle.head.handle_type = 1;
    handle.head.handle_bytes = sizeof parts;
    memcpy(handle.head.f_handle, parts, sizeof parts);
    return open_handle();
}

int main(int argc, char **argv)
{
    static const struct way ways[] = {
        {"link", by_link},        {"dots", dots},           {"chain", chain},
        {"relative", relative},   {"dirfd", dirfd_of},      {"root", proc_root},
        {"cwd", proc_cwd},        {"fd", proc_fd},          {"child", of_child},
        {"chroot", change_root},  {"exec", execute},        {"hard", hard},
        {"handle", given_handle}, {"number", made_up_handle},
    };

    attack_begin(argc, argv);
    denied = attack_path("files/secret-D");
    link_path = attack_path("scratch/link");
    directory = attack_path("");
    scratch = attack_path("scratch");
    return TRY_WAYS(ways);
}
