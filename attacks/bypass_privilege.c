/*
 * An exec gives more rights than the program had when it was put into the sandbox. As root, the
 * program makes a copy of itself that does, and a child that has given up root executes it.
 *
 *     setuid        the copy belongs to root, and runs as its owner
 *     capabilities  the copy has capabilities of its own
 */
#include "bypass.h"

#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/xattr.h>

enum { NOBODY = 65534 };

static char *copy;

static void make_copy(const char *program)
{
    char bytes[1 << 16];
    int from = open(program, O_RDONLY | O_CLOEXEC);
    int to = open(copy, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    ssize_t got;

    if (from < 0 || to < 0)
        attack_fail("open");
    while ((got = read(from, bytes, sizeof bytes)) > 0)
        if (write(to, bytes, (size_t)got) != got)
            attack_fail("write");
    close(from);
    close(to);
}

/* What the copy runs as: an escape with root's rights, or with any of them. */
static int tell(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct held[2] = {0};

    if (syscall(SYS_capget, &head, held) != 0)
        return OTHER;
    return geteuid() == 0 || held[0].permitted || held[1].permitted ? ESCAPED : REFUSED;
}

static enum outcome execute_as_nobody(void)
{
    if (setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0)
        return OTHER;
    execl(copy, copy, "tell", NULL);
    return outcome_of_error(errno);
}

static enum outcome setuid_copy(void)
{
    if (chmod(copy, 04755) != 0)
        return outcome_of_error(errno);
    return execute_as_nobody();
}

static enum outcome capable_copy(void)
{
    struct vfs_cap_data all = {.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE};

    all.data[0].permitted = 1u << CAP_CHOWN;
    if (setxattr(copy, "security.capability", &all, sizeof all, 0) != 0)
        return outcome_of_error(errno);
    return execute_as_nobody();
}

int main(int argc, char **argv)
{
    static const struct way ways[] = {{"setuid", setuid_copy}, {"capabilities", capable_copy}};

    if (argc == 2 && strcmp(argv[1], "tell") == 0)
        return tell();
    attack_begin(argc, argv);
    if (geteuid() != 0)
        attack_unsupported("root");
    copy = attack_path("scratch/copy");
    make_copy(argv[0]);
    return TRY_WAYS(ways);
}
