/*
 * diff_random: carries out programs of system calls that are written down, one after the other, each
 * in a child and in a directory of its own. Prints what each call returned, what it wrote, and what
 * was in the directory in the end. `tests/differential/generate.py` writes the programs.
 *
 * From standard input, a line each:
 *
 *     program N
 *     blob PLACE HEX           bytes: p anywhere, e before the end of memory, r in read-only memory
 *     link BLOB OFFSET VALUE   eight bytes of a blob become a value
 *     call NAME SHOWS NUMBER VALUE VALUE VALUE VALUE VALUE VALUE
 *
 * SHOWS is h for a call whose result is the length of what it wrote, x for one that may run another
 * program, - for the others. A value is
 *
 *     nHEX        a number
 *     bBLOB+HEX   an address in a blob
 *     o           where a call may write
 *     fN          a descriptor: one of those there were at first, or that a call returned
 *     wN          an address where nothing can be read
 */
#include "diff_stage.h"

#include <sys/inotify.h>
#include <sys/socket.h>

#include <linux/netlink.h>

enum {
    BLOBS = 128,
    EDGE_ROOM = 4 * PAGE,
    MOST_FDS = 256,
    PLAIN = 64 * PAGE,
    OUT = 16 * PAGE,
    DEPTH = 128
};

/* Fixed places, so that addresses in what is compared are the same in each run. */
#define PLAIN_AT ((char *)0x20000000)
#define EDGES_AT ((char *)0x30000000)
#define OUT_AT ((char *)0x40000000)
#define READ_ONLY_AT ((char *)0x50000000)

static struct {
    char *at;
    size_t length;
} blobs[BLOBS];
static int blob_count, fds[MOST_FDS], fd_count;
static size_t plain_used, read_only_used;
static char plain_before[PLAIN], edges_before[BLOBS * EDGE_ROOM];

static const uint64_t nowhere[] = {
    0,
    1,
    8,
    0x10000,
    0x60000000,
    0x7fffffffefff,
    0x7ffffffff000,
    0x8000000000000000,
    0xffffffff81000000,
    0xffffffffff600000,
    0xfffffffffffff000,
    0xffffffffffffffff,
};

static void *fixed(char *at, size_t length, int protection)
{
    void *made =
        mmap(at, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    REQUIRE(made == at);
    return made;
}

static int digit(char one)
{
    return one >= 'a' ? one - 'a' + 10 : one - '0';
}

static void add_blob(const char *line)
{
    char place = line[0];
    const char *hex = line + 2;
    size_t length = strspn(hex, "0123456789abcdef") / 2;
    char *at;

    REQUIRE(blob_count < BLOBS);
    if (place == 'e') {
        char *end = EDGES_AT + (size_t)blob_count * (EDGE_ROOM + PAGE) + EDGE_ROOM;
        at = end - length;
    } else if (place == 'r') {
        at = READ_ONLY_AT + read_only_used;
        read_only_used += (length + 15) & -16ul;
    } else {
        at = PLAIN_AT + plain_used;
        plain_used += (length + 15) & -16ul;
    }
    REQUIRE(length <= EDGE_ROOM && plain_used <= PLAIN && read_only_used <= PLAIN);
    for (size_t i = 0; i < length; i++)
        at[i] = (char)(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]));
    blobs[blob_count].at = at;
    blobs[blob_count].length = length;
    blob_count++;
}

static uint64_t value_of(const char *text)
{
    char *rest;
    uint64_t number = strtoull(text + 1, &rest, text[0] == 'n' ? 16 : 10);

    switch (text[0]) {
    case 'n':
        return number;
    case 'b':
        REQUIRE(number < (uint64_t)blob_count);
        return (uint64_t)blobs[number].at + (*rest == '+' ? strtoull(rest + 1, NULL, 16) : 0);
    case 'o':
        return (uint64_t)OUT_AT;
    case 'f':
        return (uint64_t)(int64_t)(fd_count > 0 ? fds[number % (uint64_t)fd_count] : -1);
    default:
        REQUIRE(text[0] == 'w');
        return nowhere[number % (sizeof nowhere / sizeof *nowhere)];
    }
}

static void keep_fd(int fd)
{
    if (fd_count < MOST_FDS)
        fds[fd_count++] = fd;
}

static void set_up(void)
{
    int both[2], fd;
    char self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);

    REQUIRE(length > 0);
    self[length] = 0;
    fd = open("f", O_CREAT | O_RDWR, 0640);
    REQUIRE(fd == 3 && write(fd, "content", 7) == 7);
    keep_fd(fd);
    REQUIRE(mkdir("d", 0755) == 0);
    fd = open("d/g", O_CREAT | O_WRONLY, 0600);
    REQUIRE(fd >= 0 && write(fd, "G", 1) == 1);
    close(fd);
    REQUIRE(symlink("f", "l") == 0 && symlink("d", "k") == 0 && symlink("none", "x") == 0);
    /* A script, not a link: what is done to it must not be done to this program. */
    fd = open("run", O_CREAT | O_WRONLY, 0755);
    REQUIRE(fd >= 0 && dprintf(fd, "#!%s\n", self) > 0);
    close(fd);
    keep_fd(open("d", O_RDONLY | O_DIRECTORY));
    REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, both) == 0);
    keep_fd(both[0]);
    keep_fd(both[1]);
    keep_fd(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0));
    keep_fd(open("l", O_PATH | O_NOFOLLOW));
    keep_fd(inotify_init1(IN_NONBLOCK));
    keep_fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
    keep_fd(socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0));
    keep_fd(socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_ROUTE));
    keep_fd(-1);
    keep_fd(AT_FDCWD);
    keep_fd(999);
    for (int i = 0; i < fd_count; i++)
        REQUIRE(fds[i] < 0 || fds[i] > 2);
}

/* Prints what is different in memory since the last call. */
static void show_memory(void)
{
    for (size_t i = 0; i < plain_used && memcmp(PLAIN_AT, plain_before, plain_used) != 0; i++)
        if (PLAIN_AT[i] != plain_before[i]) {
            printf(" [%zx]=%02x", i, PLAIN_AT[i] & 0xff);
            plain_before[i] = PLAIN_AT[i];
        }
    for (int i = 0; i < blob_count; i++) {
        char *at = EDGES_AT + (size_t)i * (EDGE_ROOM + PAGE),
             *was = edges_before + (size_t)i * EDGE_ROOM;
        if (memcmp(at, was, EDGE_ROOM) != 0) {
            for (size_t j = 0; j < EDGE_ROOM; j++)
                if (at[j] != was[j])
                    printf(" [%d:%zx]=%02x", i, EDGE_ROOM - j, at[j] & 0xff);
            memcpy(was, at, EDGE_ROOM);
        }
    }
}

static bool makes_descriptor(const char *name)
{
    return strncmp(name, "open", 4) == 0 || strcmp(name, "creat") == 0 ||
           strcmp(name, "memfd_create") == 0 || strcmp(name, "landlock_create_ruleset") == 0 ||
           strcmp(name, "socket") == 0 || strncmp(name, "dup", 3) == 0;
}

static void make_call(int index, char *line)
{
    char *name = strtok(line, " "), *shows = strtok(NULL, " ");
    long number = strtol(strtok(NULL, " "), NULL, 10), result;
    uint64_t a[6];
    int error;

    for (int i = 0; i < 6; i++) {
        char *text = strtok(NULL, " ");
        REQUIRE(text != NULL);
        a[i] = value_of(text);
    }
    memset(OUT_AT, 0x5a, PAGE);
    fflush(stdout);
    errno = 0;
    if (*shows == 'x') {
        int status;
        pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
            printf("    not run: %s\n", error_name(errno));
            fflush(stdout);
            _exit(0);
        }
        REQUIRE(waitpid(child, &status, 0) == child);
        result = status;
    } else {
        result = syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    error = errno;
    begin_line(result, error, "%d %s", index, name);
    if (*shows == 'h' && result > 0)
        printf(" wrote=%lx", hash_of(OUT_AT, result < OUT ? (size_t)result : OUT));
    show_memory();
    end_line();
    if (result > 2 && makes_descriptor(name))
        keep_fd((int)result);
}

static void run_program(char *text, char *end)
{
    char *line = text;
    static char data[70000];
    int index = 0;
    long got;
    bool started = false;

    set_up();
    while (line < end) {
        char *next = memchr(line, '\n', (size_t)(end - line));
        *next = 0;
        if (strncmp(line, "blob ", 5) == 0) {
            add_blob(line + 5);
        } else if (strncmp(line, "link ", 5) == 0) {
            char *at = line + 5;
            long blob = strtol(at, &at, 10), offset = strtol(at, &at, 10);
            uint64_t value = value_of(at + 1);
            REQUIRE(blob < blob_count && (size_t)offset + 8 <= blobs[blob].length);
            memcpy(blobs[blob].at + offset, &value, 8);
        } else {
            REQUIRE(strncmp(line, "call ", 5) == 0);
            if (!started) {
                started = true;
                memcpy(plain_before, PLAIN_AT, plain_used);
                for (int i = 0; i < blob_count; i++)
                    memcpy(edges_before + (size_t)i * EDGE_ROOM,
                           EDGES_AT + (size_t)i * (EDGE_ROOM + PAGE), EDGE_ROOM);
                REQUIRE(mprotect(READ_ONLY_AT, PLAIN, PROT_READ) == 0);
            }
            make_call(index++, line + 5);
        }
        line = next + 1;
    }
    while ((got = recv(fds[3], data, sizeof data, MSG_DONTWAIT)) > 0)
        printf("    received %ld,%lx\n", got, hash_of(data, (size_t)got));
    if (syscall(SYS_getcwd, data, sizeof data) > 0)
        printf("    in %zu,%lx\n", strlen(data), hash_of(data, strlen(data)));
    fflush(stdout);
    _exit(0);
}

/* What is in a directory, and below it */
static void show_tree(int directory, const char *path)
{
    char *names[4096], text[4097], whole[8192];
    int count = names_in(directory, names, 4096);

    for (int i = 0; i < count; i++) {
        struct stat found;
        char *name = names[i];
        ssize_t length;
        int fd;

        name[strlen(name) - 1] = 0;
        snprintf(whole, sizeof whole, "%s/%s", path, name);
        REQUIRE(fstatat(directory, name, &found, AT_SYMLINK_NOFOLLOW) == 0);
        printf("   ");
        if (strlen(whole) > 100)
            printf(" %.20s...%lx", whole, hash_of(whole, strlen(whole)));
        else
            show_bytes("", whole, strlen(whole));
        printf(" mode=%o links=%lu owner=%u:%u", found.st_mode, found.st_nlink, found.st_uid,
               found.st_gid);
        if (!S_ISLNK(found.st_mode))
            printf(" times=%s,%s", time_of(found.st_atim), time_of(found.st_mtim));
        if (S_ISCHR(found.st_mode) || S_ISBLK(found.st_mode))
            printf(" device=%lx", found.st_rdev);
        if (S_ISLNK(found.st_mode) &&
            (length = readlinkat(directory, name, text, sizeof text - 1)) >= 0)
            printf(" to=%zd,%lx", length, hash_of(text, (size_t)length));
        if ((S_ISREG(found.st_mode) || S_ISDIR(found.st_mode)) &&
            fchmodat(directory, name, 0700, 0) == 0 &&
            (fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOATIME)) >= 0) {
            length = flistxattr(fd, text, sizeof text);
            if (length > 0)
                printf(" attributes=%zd,%lx", length, hash_of(text, (size_t)length));
            if (S_ISREG(found.st_mode)) {
                length = read(fd, text, sizeof text);
                printf(" size=%ld,%lx\n", found.st_size,
                       hash_of(text, length > 0 ? (size_t)length : 0));
            } else {
                putchar('\n');
                show_tree(fd, whole);
            }
            close(fd);
        } else {
            putchar('\n');
        }
        free(names[i]);
    }
}

static void each_program(char *text, char *end)
{
    int first = put_away(open(".", O_RDONLY | O_DIRECTORY)), top;

    /*
     * So deep that no program gets out again: it is run by root, and has no business anywhere else. A
     * call climbs a few steps at most, since no name has more than one ".." and no link more than
     * that.
     */
    for (int i = 0; i < DEPTH; i++)
        REQUIRE(mkdir("a", 0755) == 0 && chdir("a") == 0);
    top = put_away(open(".", O_RDONLY | O_DIRECTORY));
    while (text < end) {
        char *line_end = memchr(text, '\n', (size_t)(end - text)), *next = text, name[64];
        pid_t parent = getpid(), child;
        int status, directory;

        REQUIRE(strncmp(text, "program ", 8) == 0);
        do {
            next = strchr(next, '\n') + 1;
        } while (next < end && strncmp(next, "program ", 8) != 0);
        printf("%.*s\n", (int)(line_end - text), text);
        snprintf(name, sizeof name, "program%ld", strtol(text + 8, NULL, 10));
        REQUIRE(mkdir(name, 0755) == 0);
        fflush(stdout);
        child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            die_with(parent);
            /* Nothing should block; should it, it shows. */
            alarm(20);
            REQUIRE(chdir(name) == 0);
            run_program(line_end + 1, next);
        }
        REQUIRE(waitpid(child, &status, 0) == child);
        if (status != 0)
            printf("    status %x\n", (unsigned)status);
        /* Names that climb reach as far as here. */
        REQUIRE(fchmod(top, 0755) == 0 && fchmodat(AT_FDCWD, name, 0755, 0) == 0);
        directory = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        REQUIRE(directory >= 0);
        show_tree(directory, "");
        remove_all(directory);
        close(directory);
        REQUIRE(rmdir(name) == 0);
        text = next;
    }
    REQUIRE(fchdir(first) == 0);
    for (int i = 0; i < DEPTH; i++)
        REQUIRE(chmod("a", 0755) == 0 && chdir("a") == 0);
}

static int report(char **argv, char **envp)
{
    uint64_t hash = 0;
    int count = 0, environment = 0;

    for (; argv[count] != NULL; count++)
        hash = hash * 31 + hash_of(argv[count], strlen(argv[count]) + 1);
    for (; envp[environment] != NULL; environment++)
        hash = hash * 37 + hash_of(envp[environment], strlen(envp[environment]) + 1);
    printf("    run with %d,%d,%lx\n", count, environment, hash);
    return 0;
}

int main(int argc, char **argv, char **envp)
{
    size_t room = 1 << 20, used = 0;
    char *text = malloc(room);
    ssize_t got;

    if (argc != 2 || strcmp(argv[1], "--programs") != 0)
        return report(argv, envp);
    require_few_rights();
    REQUIRE(text != NULL);
    while ((got = read(0, text + used, room - used - 1)) > 0) {
        used += (size_t)got;
        if (room - used < 65536) {
            room *= 2;
            text = realloc(text, room);
            REQUIRE(text != NULL);
        }
    }
    text[used] = 0;
    /* Descriptor 0 is no file to play with. */
    REQUIRE(dup2(open("/dev/null", O_RDONLY), 0) == 0);
    close_range(3, ~0u, 0);
    umask(022);
    fixed(PLAIN_AT, PLAIN, PROT_READ | PROT_WRITE);
    for (int i = 0; i < BLOBS; i++)
        fixed(EDGES_AT + (size_t)i * (EDGE_ROOM + PAGE), EDGE_ROOM, PROT_READ | PROT_WRITE);
    fixed(OUT_AT, OUT, PROT_READ | PROT_WRITE);
    fixed(READ_ONLY_AT, PLAIN, PROT_READ | PROT_WRITE);
    signal(SIGPIPE, SIG_IGN);
    each_program(text, text + used);
    return 0;
}
