/*
 * fuzz_decoders SEED SECONDS: makes calls whose pointers lead anywhere, to memory that holds
 * anything.
 *
 * From standard input, a line for each call: its name, its number, and a letter for each argument:
 *
 *     p  a pointer that the call reads, anywhere       z  a length, or anything
 *     o  where it may write                            x  struct xattr_args, whose value is written
 *     f  a descriptor   d  of a directory              k  the process's key ring
 *     m  a mode, but not that of a device              s  flags of a call that sends
 *     n  any number     0  nothing
 *
 * Most of the memory is random bytes; some of it are pointers into itself, to the ends of pages, to
 * places where nothing is mapped, to the kernel. Here and there is something that has a meaning: a
 * name, a vector, a message. It must all look the same after each call as before.
 *
 * Root runs this, so no string in memory has a slash: no name leads out of the directory, but to the
 * one above, which is as fresh. Addresses that are sent to are on this machine.
 */
#include "diff.h"
#include "../../attacks/random.h"

#include <net/if.h>
#include <netinet/in.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <linux/keyctl.h>
#include <linux/netlink.h>

enum { REGION_PAGES = 24, REGION = REGION_PAGES * PAGE, CALLS = 200, OUT = 64 * PAGE, MARKS = 400 };

static char *region, shadow[REGION], *out;
static bool hole[REGION_PAGES];
static size_t marks[MARKS]; /* where something with a meaning is */
static int mark_count;

static uint64_t pointer(void)
{
    const uint64_t odd[] = {0,
                            1,
                            8,
                            (uint64_t)region - 4,
                            (uint64_t)region + REGION,
                            0x7fffffffefff,
                            0x7ffffffff000,
                            0x8000000000000000,
                            0xffffffff81000000,
                            0xffffffffff600000,
                            0xfffffffffffff000,
                            0xffffffffffffffff,
                            any()};
    uint64_t page;

    switch (below(12)) {
    case 0:
        return odd[below(sizeof odd / sizeof *odd)];
    case 1:
    case 2:
        page = (uint64_t)region + (1 + below(REGION_PAGES)) * PAGE;
        return page - below(64);
    case 3:
        return (uint64_t)region + 8 * below(REGION / 8);
    case 4:
    case 5:
    case 6:
    case 7:
        if (mark_count > 0)
            return (uint64_t)region + marks[below((uint64_t)mark_count)];
        /* fall through */
    default:
        return (uint64_t)region + below(REGION);
    }
}

static uint64_t length(void)
{
    const uint64_t odd[] = {
        0,    1,    2,    3,     4,     8,         15,        16,        20,        24,   28,
        56,   64,   88,   110,   128,   129,       255,       256,       1024,      1025, 4095,
        4096, 4097, 8192, 65536, 65537, 1ul << 20, 1ul << 30, 1ul << 31, 1ul << 32, -1ul, -1ul >> 1};

    return below(20) == 0 ? any() : odd[below(sizeof odd / sizeof *odd)];
}

/* Writes to a region that may have holes. */
static void put(size_t at, const void *data, size_t size)
{
    for (size_t i = 0; i < size && at + i < REGION; i++)
        if (!hole[(at + i) / PAGE]) {
            char byte = ((const char *)data)[i];
            region[at + i] = byte == '/' ? '.' : byte;
        }
}

/* Returns a place for something with a meaning. */
static size_t mark(size_t align)
{
    size_t at = align * below(REGION / align);

    if (mark_count < MARKS)
        marks[mark_count++] = at;
    return at;
}

static void fill(void)
{
    static const char *const words[] = {"f", "sub", "l",  "user.a", "user.b", "user", "keyring",
                                        ".", "..",  "\1", "#!f",    "lo",     "reno"};
    static const uint16_t families[] = {AF_UNIX,    AF_UNIX,   AF_INET,  AF_INET6,
                                        AF_NETLINK, AF_UNSPEC, AF_VSOCK, AF_PACKET};

    for (int i = 0; i < REGION_PAGES; i++) {
        bool now = i % 8 == 3 && below(2) == 0;
        if (now != hole[i])
            REQUIRE(mprotect(region + (size_t)i * PAGE, PAGE,
                             now ? PROT_NONE : PROT_READ | PROT_WRITE) == 0);
        hole[i] = now;
    }
    for (size_t at = 0; at < REGION; at += 8) {
        uint64_t word;
        switch (below(12)) {
        case 0:
            word = 0;
            break;
        case 1:
        case 2:
        case 3:
            word = pointer();
            break;
        case 4:
            word = length();
            break;
        case 5:
            word = below(200);
            break;
        case 6:
            word = below(2) ? 0x4141414141414141 : 0x0041004200430044;
            break;
        default:
            word = any();
        }
        put(at, &word, 8);
    }
    /* Long runs without a NUL */
    for (int i = 0; i < 3; i++) {
        size_t at = below(REGION);
        for (size_t j = 0; j < 9000 && at + j < REGION; j++)
            put(at + j, "z", 1);
    }
    mark_count = 0;
    for (int i = 0; i < 120; i++) {
        const char *word = words[below(sizeof words / sizeof *words)];
        put(mark(1), word, strlen(word) + 1);
        put(mark(8), &families[below(sizeof families / sizeof *families)], 2);
    }
    for (int i = 0; i < 80; i++) {
        size_t at = mark(8);
        uint64_t count = below(6), nothing = 0;
        if (below(2)) {
            /* A vector of strings */
            for (uint64_t j = 0; j < count; j++) {
                uint64_t one = pointer();
                put(at + 8 * j, &one, 8);
            }
            put(at + 8 * count, &nothing, 8);
        } else {
            /* One of buffers, or a structure with a pointer in front */
            for (uint64_t j = 0; j <= count; j++) {
                uint64_t one[2] = {pointer(), below(300)};
                put(at + 16 * j, one, 16);
            }
        }
    }
    for (int i = 0; i < 60; i++) {
        /* Messages, mostly to the peer */
        size_t at = mark(8);
        for (uint64_t j = 0; j <= below(4); j++) {
            uint64_t one[8] = {below(3) ? 0 : pointer(), below(130), pointer(), below(4), pointer(),
                               below(3) ? 0 : below(100)};
            if (below(20) == 0)
                one[1 + 2 * below(3)] = length();
            put(at + 64 * j, one, 64);
        }
    }
    for (int i = 0; i < REGION_PAGES; i++)
        if (!hole[i])
            memcpy(shadow + (size_t)i * PAGE, region + (size_t)i * PAGE, PAGE);
}

/* Returns whether memory is as it was, but for the lengths that sendmmsg wrote. */
static bool unchanged(const char *name, const uint64_t a[6], long result)
{
    if (strcmp(name, "sendmmsg") == 0 && result > 0)
        for (long i = 0; i < result; i++) {
            uint64_t at = a[1] + 64 * (uint64_t)i + 56 - (uint64_t)region;
            if (at + 4 <= REGION)
                memcpy(shadow + at, region + at, 4);
        }
    for (int i = 0; i < REGION_PAGES; i++)
        if (!hole[i] && memcmp(shadow + (size_t)i * PAGE, region + (size_t)i * PAGE, PAGE) != 0)
            return false;
    return true;
}

struct call {
    char name[32], kinds[8];
    long number;
    unsigned long made, succeeded;
};

static struct call calls[CALLS];
static int call_count, here, above, left, right, fds[8], fd_count;

static int fresh_socket(void)
{
    const struct {
        int family, type;
    } kinds[] = {{AF_INET, SOCK_STREAM}, {AF_INET6, SOCK_STREAM}, {AF_INET, SOCK_DGRAM},
                 {AF_INET6, SOCK_DGRAM}, {AF_UNIX, SOCK_DGRAM},   {AF_UNIX, SOCK_STREAM}};
    int kind = (int)below(sizeof kinds / sizeof *kinds), fd;

    fd = socket(kinds[kind].family, kinds[kind].type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* Whatever is sent stays on this machine. */
    if (fd >= 0 && kinds[kind].family != AF_UNIX &&
        setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static uint64_t argument(const struct call *call, char kind, int own)
{
    static struct {
        uint64_t value;
        uint32_t size, flags;
    } get;

    switch (kind) {
    case 'p':
        return pointer();
    case 'z':
        return length();
    case 'o':
        return below(10) == 0 ? 8 : (uint64_t)out;
    case 'x':
        get.value = (uint64_t)out;
        get.size = (uint32_t)below(OUT);
        return below(4) == 0 ? 8 : (uint64_t)&get;
    case 'f':
        if (own >= 0 && below(2) != 0)
            return (uint64_t)own;
        if (own >= 0 && below(4) != 0)
            return (uint64_t)left;
        return (uint64_t)(int64_t)fds[below((uint64_t)fd_count)];
    case 'd':
        return below(3) ? (uint64_t)AT_FDCWD : (uint64_t)(int64_t)fds[below((uint64_t)fd_count)];
    case 'k':
        return (uint64_t)KEY_SPEC_PROCESS_KEYRING;
    case 'm': {
        const mode_t types[] = {0, S_IFREG, S_IFIFO, S_IFSOCK, S_IFDIR, S_IFLNK};
        return types[below(6)] | below(01000);
    }
    case 's':
        return MSG_DONTWAIT | (below(5) ? 0 : any());
    case 'n':
        if (strcmp(call->name, "setsockopt") == 0)
            return below(3) ? below(60) : length();
        return below(3) ? below(64) : any();
    default:
        return 0;
    }
}

static bool takes_socket(const struct call *call)
{
    return strncmp(call->name, "send", 4) == 0 || strcmp(call->name, "connect") == 0 ||
           strcmp(call->name, "bind") == 0 || strcmp(call->name, "setsockopt") == 0;
}

static void make(struct call *call)
{
    uint64_t a[6] = {0};
    int own = takes_socket(call) ? fresh_socket() : -1;
    long result;

    for (int i = 0; call->kinds[i]; i++)
        a[i] = argument(call, call->kinds[i], own);
    /* Only open itself may block, in a FIFO; then an alarm ends it. */
    result = syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
    call->made++;
    call->succeeded += result >= 0;
    if (!unchanged(call->name, a, result)) {
        printf("changed %s(%lx, %lx, %lx, %lx, %lx, %lx) = %ld\n", call->name, a[0], a[1], a[2], a[3],
               a[4], a[5], result);
        fflush(stdout);
        _exit(1);
    }
    if (own >= 0)
        close(own);
    while (takes_socket(call) && recv(right, out, OUT, MSG_DONTWAIT) >= 0)
        ;
    if (result >= 0) {
        if (strncmp(call->name, "open", 4) == 0 || strcmp(call->name, "creat") == 0 ||
            strcmp(call->name, "memfd_create") == 0 ||
            strcmp(call->name, "landlock_create_ruleset") == 0)
            close((int)result);
        else if (strcmp(call->name, "add_key") == 0)
            syscall(SYS_keyctl, KEYCTL_UNLINK, result, KEY_SPEC_PROCESS_KEYRING);
        else if (strcmp(call->name, "inotify_add_watch") == 0)
            inotify_rm_watch((int)a[0], (int)result);
    }
    REQUIRE(fchmod(here, 0755) == 0 && fchdir(here) == 0);
}

static void on_alarm(int number)
{
    (void)number;
}

/* What the calls need to have something to work on; some of them remove it. */
static void furnish(void)
{
    int fd = open("f", O_CREAT | O_WRONLY | O_NONBLOCK | O_CLOEXEC, 0600);

    if (fd >= 0) {
        if (write(fd, "content", 7) != 7)
            ftruncate(fd, 0);
        close(fd);
    }
    mkdir("sub", 0700);
    if (symlink("f", "l") != 0)
        errno = 0;
}

int main(int argc, char **argv)
{
    const struct itimerval often = {{0, 100000}, {0, 100000}};
    struct sigaction action = {.sa_handler = on_alarm}; /* no SA_RESTART */
    unsigned long rounds = 0, total = 0, succeeded = 0;
    int both[2];
    double end;

    REQUIRE(argc == 3);
    state = strtoull(argv[1], NULL, 10) * 2 + 1;
    for (int i = 0; i < 20; i++)
        any();
    while (call_count < CALLS && scanf("%31s %ld %7s", calls[call_count].name,
                                       &calls[call_count].number, calls[call_count].kinds) == 3)
        call_count++;
    REQUIRE(call_count > 0);
    require_few_rights();
    REQUIRE(mkdir("one", 0755) == 0 && chdir("one") == 0 && mkdir("two", 0755) == 0 &&
            chdir("two") == 0);
    here = put_away(open(".", O_RDONLY | O_DIRECTORY));
    above = put_away(open("..", O_RDONLY | O_DIRECTORY));
    furnish();
    fds[fd_count++] = -1;
    fds[fd_count++] = 99;
    fds[fd_count++] = here;
    fds[fd_count++] = put_away(open("f", O_RDWR));
    fds[fd_count++] = put_away(open("sub", O_RDONLY | O_DIRECTORY));
    REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, both) == 0);
    left = fds[fd_count++] = put_away(both[0]);
    right = put_away(both[1]);
    fds[fd_count++] = put_away(inotify_init1(IN_NONBLOCK));
    fds[fd_count++] = put_away(socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_USERSOCK));
    region = mmap(NULL, REGION + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(region != MAP_FAILED);
    region += PAGE;
    REQUIRE(mprotect(region, REGION, PROT_READ | PROT_WRITE) == 0);
    REQUIRE(munmap(region + REGION, PAGE) == 0);
    out = mmap(NULL, OUT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(out != MAP_FAILED);
    signal(SIGPIPE, SIG_IGN);
    REQUIRE(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
    end = now() + strtod(argv[2], NULL);
    do {
        fill();
        furnish();
        for (int i = 0; i < call_count; i++)
            make(&calls[i]);
        rounds++;
    } while (now() < end);
    fchmod(above, 0755);
    for (int i = 0; i < call_count; i++) {
        printf("%s=%lu/%lu\n", calls[i].name, calls[i].made, calls[i].succeeded);
        total += calls[i].made;
        succeeded += calls[i].succeeded;
    }
    printf("rounds=%lu\ntotal=%lu\nsucceeded=%lu\n", rounds, total, succeeded);
    return 0;
}
