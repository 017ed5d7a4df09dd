/*
 * diff_structs: calls with structures, names and values that are not paths: their sizes, where they
 * lie, what is behind them.
 *
 *     diff_structs sized     structures that grow, with every odd size
 *     diff_structs options   setsockopt
 *     diff_structs names     names of queues, memory files, keys, attributes; what is forbidden
 *     diff_structs values    values of attributes, times
 */
#include "diff_stage.h"

#include <mqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <utime.h>

#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/keyctl.h>
#include <linux/netlink.h>
#include <linux/openat2.h>

enum {
    NR_STATMOUNT = 457,
    NR_LISTMOUNT = 458,
    NR_LSM_SET_SELF_ATTR = 460,
    NR_SETXATTRAT = 463,
    NR_GETXATTRAT = 464,
    NR_FILE_GETATTR = 468,
    NR_FILE_SETATTR = 469,
};

#define U(pointer) ((uint64_t)(uintptr_t)(pointer))

/* Places for some bytes, each an oddity of its own. */
struct place {
    const char *name;
    const void *at;
};

enum { PLACES = 9 };

static void places_for(struct place places[PLACES], const void *bytes, size_t length)
{
    char *plenty = memset(island_ends[0] - ISLAND, 0, ISLAND), *two = island_ends[4] - 2 * PAGE;
    size_t half = length / 2;

    places[0] = (struct place){"plenty", memcpy(plenty, bytes, length)};
    places[1] = (struct place){"edge", at_edge(1, bytes, length)};
    places[2] = (struct place){"short", at_edge(2, bytes, length > 0 ? length - 1 : 0)};
    places[3] = (struct place){"unaligned", memcpy(island_ends[3] - ISLAND + 3, bytes, length)};
    memcpy(two + PAGE - half, bytes, length);
    places[4] = (struct place){"across", two + PAGE - half};
    places[5] = (struct place){"null", NULL};
    places[6] = (struct place){"gone", gone};
    places[7] = (struct place){"kernel", (void *)0xffffffff81000000};
    places[8] = (struct place){"low", (void *)8};
}

/* Structures that grow */

static int some_path;

struct sized {
    const char *name;
    long number;
    uint64_t arguments[6];
    int pointer, size; /* which arguments */
    const void *bytes;
    size_t length;
};

static void one_sized(const struct sized *call, const char *place, const void *at, uint64_t size,
                      const char *tail)
{
    uint64_t a[6];
    long result;
    int number;

    memcpy(a, call->arguments, sizeof a);
    a[call->pointer] = U(at);
    if (call->size >= 0)
        a[call->size] = size;
    errno = 0;
    result = syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
    number = errno;
    /* How many mounts there are is nobody's business here. */
    begin_line(call->number == NR_LISTMOUNT && result > 0 ? 1 : result, number, "%s %s %lx%s",
               call->name, place, size, tail);
    if (call->number == SYS_openat2 && result >= 0)
        show_descriptor((int)result);
    else if (call->number == SYS_landlock_create_ruleset && result > 2)
        close((int)result);
    show_changes();
    end_line();
}

static void sized(void)
{
    static const uint64_t sizes[] = {0,    1,     7,          8,           15,        16,        17,
                                     20,   23,    24,         25,          31,        32,        33,
                                     40,   64,    100,        4088,        4095,      4096,      4097,
                                     5000, 65536, 0x80000000, 0x100000018, INT64_MAX, UINT64_MAX};
    static char out[65536];
    struct open_how how = {.flags = O_RDWR | O_CREAT, .mode = 0640};
    struct {
        uint64_t xflags;
        uint32_t rest[4];
    } attributes = {.xflags = FS_XFLAG_NODUMP};
    struct {
        uint64_t value;
        uint32_t size, flags;
    } set = {U("value"), 5, 0}, get = {U(out), sizeof out, 0};
    struct {
        uint64_t handled_fs, handled_net, scoped;
    } ruleset = {1, 0, 0};
    struct {
        uint32_t size, spare;
        uint64_t id, parameter, space;
    } request = {24, 0, ~0ul, 0, 0}, bad_request;
    struct {
        uint64_t id, flags, length, context_length;
        char context[16];
    } label = {100, 0, 48, 8, "unknown"};
    const struct sized calls[] = {
        {"openat2", SYS_openat2, {U(AT_FDCWD), U("new")}, 2, 3, &how, sizeof how},
        {"openat2 existing", SYS_openat2, {U(AT_FDCWD), U("f")}, 2, 3, &how, sizeof how},
        {"openat2 without a path", SYS_openat2, {U(AT_FDCWD), 0}, 2, 3, &how, sizeof how},
        {"openat2 by no descriptor", SYS_openat2, {999, U("f")}, 2, 3, &how, sizeof how},
        {"file_setattr", NR_FILE_SETATTR, {U(AT_FDCWD), U("f"), 0, 0, 0}, 2, 3, &attributes, 24},
        {"file_setattr missing",
         NR_FILE_SETATTR,
         {U(AT_FDCWD), U("missing"), 0, 0, 0},
         2,
         3,
         &attributes,
         24},
        {"file_setattr flags",
         NR_FILE_SETATTR,
         {U(AT_FDCWD), U("f"), 0, 0, 1},
         2,
         3,
         &attributes,
         24},
        {"file_getattr", NR_FILE_GETATTR, {U(AT_FDCWD), U("f"), 0, 0, 0}, 2, 3, &attributes, 24},
        {"setxattrat", NR_SETXATTRAT, {U(AT_FDCWD), U("f"), 0, U("user.two")}, 4, 5, &set, 16},
        {"setxattrat flags", NR_SETXATTRAT, {U(AT_FDCWD), U("f"), 1, U("user.two")}, 4, 5, &set, 16},
        {"setxattrat name", NR_SETXATTRAT, {U(AT_FDCWD), U("f"), 0, U("")}, 4, 5, &set, 16},
        {"getxattrat", NR_GETXATTRAT, {U(AT_FDCWD), U("f"), 0, U("user.one")}, 4, 5, &get, 16},
        {"landlock_create_ruleset", SYS_landlock_create_ruleset, {0, 0, 0}, 0, 1, &ruleset, 24},
        {"landlock_create_ruleset flags", SYS_landlock_create_ruleset, {0, 0, 1}, 0, 1, &ruleset, 24},
        {"landlock_create_ruleset odd",
         SYS_landlock_create_ruleset,
         {0, 0, 0x100},
         0,
         1,
         &ruleset,
         24},
        {"lsm_set_self_attr", NR_LSM_SET_SELF_ATTR, {100, 0, 0, 0}, 1, 2, &label, 48},
        {"lsm_set_self_attr flags", NR_LSM_SET_SELF_ATTR, {100, 0, 0, 1}, 1, 2, &label, 48},
    };
    struct place places[PLACES];

    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
            places_for(places, calls[i].bytes, calls[i].length);
            for (int k = 0; k < PLACES; k++)
                one_sized(&calls[i], places[k].name, places[k].at, sizes[j], "");
            /* Something behind it that no kernel knows */
            char *plenty = island_ends[0] - ISLAND;
            const size_t tails[] = {calls[i].length, calls[i].length + 9, 63, 4095};
            for (size_t k = 0; k < sizeof tails / sizeof *tails; k++) {
                char tail[32];
                plenty[tails[k]] = 1;
                snprintf(tail, sizeof tail, " tail %zu", tails[k]);
                one_sized(&calls[i], "plenty", plenty, sizes[j], tail);
                plenty[tails[k]] = 0;
            }
        }
    /* The beginning cannot be read, what is behind it can. */
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        for (int nonzero = 0; nonzero < 2; nonzero++)
            for (size_t size = 24; size <= 48; size += 8) {
                char *page = island_ends[5] - ISLAND, tail[32];
                memset(page, 0, PAGE);
                page[3] = (char)nonzero;
                snprintf(tail, sizeof tail, " nonzero %d", nonzero);
                one_sized(&calls[i], "begins before", page - 16, size, tail);
                one_sized(&calls[i], "begins before by one size", page - calls[i].length, size, tail);
            }
    /* Structures with their size inside */
    for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++)
        for (int spare = 0; spare < 2; spare++) {
            struct sized mounts[] = {
                {"statmount",
                 NR_STATMOUNT,
                 {0, U(out), sizeof out, 0},
                 0,
                 -1,
                 &bad_request,
                 sizeof bad_request},
                {"statmount flags",
                 NR_STATMOUNT,
                 {0, U(out), sizeof out, 1},
                 0,
                 -1,
                 &bad_request,
                 sizeof bad_request},
                {"listmount",
                 NR_LISTMOUNT,
                 {0, U(out), 1000, 0},
                 0,
                 -1,
                 &bad_request,
                 sizeof bad_request},
                {"listmount flags",
                 NR_LISTMOUNT,
                 {0, U(out), 1000, 8},
                 0,
                 -1,
                 &bad_request,
                 sizeof bad_request},
            };
            bad_request = request;
            bad_request.size = (uint32_t)sizes[j];
            bad_request.spare = (uint32_t)spare;
            for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
                char tail[32];
                snprintf(tail, sizeof tail, " spare %d", spare);
                places_for(places, mounts[i].bytes, mounts[i].length);
                for (int k = 0; k < PLACES; k++)
                    one_sized(&mounts[i], places[k].name, places[k].at, sizes[j], tail);
                for (size_t cut = 1; cut < 32; cut += 5) {
                    snprintf(tail, sizeof tail, " spare %d cut %zu", spare, cut);
                    one_sized(&mounts[i], "cut", at_edge(7, &bad_request, cut), sizes[j], tail);
                }
                ((char *)places[0].at)[40] = 1;
                one_sized(&mounts[i], "plenty with a tail", places[0].at, sizes[j], tail);
            }
        }
}

/* Socket options */

struct option {
    const char *name;
    int kind, level, option;
    const void *value;
    size_t length;
};

static void one_option(const struct option *option, const char *place, const void *at,
                       uint64_t length)
{
    static const struct {
        int family, type, protocol;
    } kinds[] = {{AF_UNIX, SOCK_DGRAM, 0},
                 {AF_INET, SOCK_STREAM, 0},
                 {AF_INET6, SOCK_DGRAM, 0},
                 {AF_PACKET, SOCK_DGRAM, 0},
                 {AF_NETLINK, SOCK_RAW, NETLINK_ROUTE}};
    unsigned char value[64];
    socklen_t size = sizeof value;
    long result;
    int fd = socket(kinds[option->kind].family, kinds[option->kind].type,
                    kinds[option->kind].protocol),
        number;

    if (fd < 0)
        return;
    errno = 0;
    result = syscall(SYS_setsockopt, fd, option->level, option->option, at, length);
    number = errno;
    begin_line(result, number, "%s %s %lx", option->name, place, length);
    if (result == 0 && option->option != SO_ATTACH_FILTER &&
        getsockopt(fd, option->level, option->option, value, &size) == 0)
        show_bytes("now", value, size);
    close(fd);
    end_line();
}

static void options(void)
{
    static const uint64_t lengths[] = {0,           1,
                                       2,           3,
                                       4,           5,
                                       7,           8,
                                       9,           12,
                                       15,          16,
                                       17,          100,
                                       4095,        4096,
                                       4097,        65535,
                                       65536,       200000,
                                       1 << 20,     (1 << 20) + 1,
                                       1 << 30,     INT32_MAX,
                                       0x80000000,  0xffffffff,
                                       0x100000004, UINT64_MAX};
    struct sock_filter accept = BPF_STMT(BPF_RET, 0xffff);
    const struct sock_fprog program = {1, &accept}, bad_program = {1, (void *)gone};
    const struct linger linger = {1, 5};
    const struct timeval time = {3, 0}, bad_time = {3, 2000000};
    const struct ip_mreqn group = {{htonl(0xe0000105)}, {htonl(INADDR_LOOPBACK)}, 0};
    const struct ipv6_mreq group6 = {IN6ADDR_LOOPBACK_INIT, 1};
    const struct packet_mreq packet = {.mr_ifindex = 1, .mr_type = PACKET_MR_ALLMULTI};
    const unsigned char hops[8] = {0, 0, 5, 2, 0, 0, 1, 0};
    const int one = 1, many = 100000;
    const struct option all[] = {
        {"SO_REUSEADDR", 1, SOL_SOCKET, SO_REUSEADDR, &one, 4},
        {"SO_PASSCRED", 0, SOL_SOCKET, SO_PASSCRED, &one, 4},
        {"SO_SNDBUF", 1, SOL_SOCKET, SO_SNDBUF, &many, 4},
        {"SO_PEEK_OFF", 0, SOL_SOCKET, SO_PEEK_OFF, &one, 4},
        {"SO_LINGER", 1, SOL_SOCKET, SO_LINGER, &linger, sizeof linger},
        {"SO_RCVTIMEO", 2, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time},
        {"SO_RCVTIMEO bad", 2, SOL_SOCKET, SO_RCVTIMEO, &bad_time, sizeof bad_time},
        {"SO_ATTACH_FILTER", 0, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program},
        {"SO_ATTACH_FILTER gone", 1, SOL_SOCKET, SO_ATTACH_FILTER, &bad_program, sizeof bad_program},
        {"SO_DETACH_FILTER", 1, SOL_SOCKET, SO_DETACH_FILTER, &one, 4},
        {"SO_BINDTODEVICE", 1, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3},
        {"SO_BINDTODEVICE missing", 1, SOL_SOCKET, SO_BINDTODEVICE, "nothing", 8},
        {"SO_PRIORITY", 1, SOL_SOCKET, SO_PRIORITY, &one, 4},
        {"SO_KEEPALIVE", 1, SOL_SOCKET, SO_KEEPALIVE, &one, 4},
        {"SO_TYPE", 1, SOL_SOCKET, SO_TYPE, &one, 4},
        {"odd option", 1, SOL_SOCKET, 999, &one, 4},
        {"odd level", 1, 999, 1, &one, 4},
        {"TCP_NODELAY", 1, IPPROTO_TCP, TCP_NODELAY, &one, 4},
        {"TCP_CONGESTION", 1, IPPROTO_TCP, TCP_CONGESTION, "reno", 5},
        {"TCP_KEEPIDLE", 1, IPPROTO_TCP, TCP_KEEPIDLE, &one, 4},
        {"TCP_ULP", 1, IPPROTO_TCP, TCP_ULP, "nothing", 8},
        {"IP_TTL", 1, IPPROTO_IP, IP_TTL, &one, 4},
        {"IP_OPTIONS", 1, IPPROTO_IP, IP_OPTIONS, "\1\1\1\0", 4},
        {"IP_ADD_MEMBERSHIP", 1, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group},
        {"IP_MULTICAST_IF", 1, IPPROTO_IP, IP_MULTICAST_IF, &group, sizeof group},
        {"IPV6_V6ONLY", 2, IPPROTO_IPV6, IPV6_V6ONLY, &one, 4},
        {"IPV6_JOIN_GROUP", 2, IPPROTO_IPV6, IPV6_JOIN_GROUP, &group6, sizeof group6},
        {"IPV6_HOPOPTS", 2, IPPROTO_IPV6, IPV6_HOPOPTS, hops, sizeof hops},
        {"PACKET_ADD_MEMBERSHIP", 3, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &packet, sizeof packet},
        {"NETLINK_ADD_MEMBERSHIP", 4, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &one, 4},
        {"NETLINK_CAP_ACK", 4, SOL_NETLINK, NETLINK_CAP_ACK, &one, 4},
    };
    struct place places[PLACES];

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++) {
            /* The kernel takes its time with the likes of these. */
            if (all[i].kind == 3 && j % 4 != 0)
                continue;
            places_for(places, all[i].value, all[i].length);
            for (int k = 0; k < PLACES; k++)
                one_option(&all[i], places[k].name, places[k].at, lengths[j]);
        }
    for (int fd = -1; fd < 2; fd++)
        for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++) {
            long result = syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_REUSEADDR, gone, lengths[j]);
            begin_line(result, errno, "setsockopt by %d %lx", fd, lengths[j]);
            end_line();
        }
}

/* Names */

struct text {
    const char *name, *at;
};

enum { TEXTS = 40 };
static struct text texts[TEXTS];
static int text_count;

static char *run_of(const char *start, size_t length, char byte)
{
    char *made = malloc(length + 1);

    REQUIRE(made != NULL);
    memset(made, byte, length);
    made[length] = 0;
    memcpy(made, start, strlen(start) < length ? strlen(start) : length);
    return made;
}

static void text(const char *name, const char *at)
{
    REQUIRE(text_count < TEXTS);
    texts[text_count++] = (struct text){name, at};
}

/* Strings around a limit of `most` bytes, NUL not counted, that begin with `start`. */
static void make_texts(const char *start, size_t most)
{
    char *endless = run_of(start, most + 600, 'e');

    text_count = 0;
    text("usual", run_of(start, strlen(start) + 3, 'x'));
    text("start", start);
    text("empty", "");
    text("longest", run_of(start, most, 'l'));
    text("one more", run_of(start, most + 1, 'l'));
    text("two more", run_of(start, most + 2, 'l'));
    text("much more", run_of(start, most + 400, 'l'));
    text("enormous", run_of(start, 70000, 'l'));
    text("odd bytes", run_of("\1\xff \n%s", 8, 'o'));
    text("edge", text_at_edge(0, run_of(start, strlen(start) + 3, 'x')));
    text("longest at edge", text_at_edge(1, run_of(start, most, 'l')));
    text("unterminated, short", at_edge(2, run_of(start, 12, 'u'), 12));
    text("unterminated, longest", at_edge(3, endless, most));
    text("unterminated, one more", at_edge(4, endless, most + 1));
    text("unterminated, two more", at_edge(5, endless, most + 2));
    text("unterminated, much more", at_edge(6, endless, most + 500));
    text("null", NULL);
    text("low", (char *)8);
    text("gone", gone);
    text("kernel", (char *)0xffffffff81000000);
}

static void show_queue(long queue)
{
    struct mq_attr attributes;

    if (queue < 0)
        return;
    if (mq_getattr((mqd_t)queue, &attributes) == 0)
        printf(" flags=%lx most=%ld size=%ld now=%ld", attributes.mq_flags, attributes.mq_maxmsg,
               attributes.mq_msgsize, attributes.mq_curmsgs);
    close((int)queue);
}

static void queues(void)
{
    char unique[32];
    struct mq_attr good = {.mq_maxmsg = 3, .mq_msgsize = 100}, zero = {0},
                   large = {.mq_maxmsg = 1 << 30, .mq_msgsize = 1};
    const struct mq_attr *all[] = {&good, &zero, &large};
    const int flags[] = {O_RDWR | O_CREAT, O_RDONLY, O_RDWR | O_CREAT | O_EXCL, 0x7fffffff};
    struct place places[PLACES];
    long result;

    /* The kernel's names do not begin with the slash of the library. */
    snprintf(unique, sizeof unique, "diff-%010d-", getpid());
    make_texts(unique, 255);
    text("with a slash", "/diff");
    text("with a slash in it", "diff/diff");
    text("dots", "..");
    text("path", run_of(unique, 4095, 'p'));
    text("more than a path", run_of(unique, 4096, 'p'));
    text("unterminated path", at_edge(7, run_of(unique, 4096, 'p'), 4096));
    for (int i = 0; i < text_count; i++)
        for (int j = 0; j < 4; j++) {
            result = syscall(SYS_mq_open, texts[i].at, flags[j], 0600, &good);
            begin_line(result, errno, "mq_open %s %d", texts[i].name, j);
            show_queue(result);
            end_line();
            if (flags[j] & O_CREAT && j != 0) {
                result = syscall(SYS_mq_unlink, texts[i].at);
                begin_line(result, errno, "mq_unlink %s %d", texts[i].name, j);
                end_line();
            }
        }
    for (int i = 0; i < 3; i++) {
        places_for(places, all[i], 32);
        for (int k = 0; k < PLACES; k++)
            for (int j = 0; j < 4; j++) {
                result = syscall(SYS_mq_open, unique, flags[j], 0600, places[k].at);
                begin_line(result, errno, "mq_open attributes %d %s %d", i, places[k].name, j);
                show_queue(result);
                end_line();
                syscall(SYS_mq_unlink, unique);
            }
        /* The kernel reads 64 bytes. */
        result =
            syscall(SYS_mq_open, unique, O_RDWR | O_CREAT, 0600, at_edge(7, run_of("", 64, 0), 64));
        begin_line(result, errno, "mq_open all of it %d", i);
        show_queue(result);
        end_line();
        syscall(SYS_mq_unlink, unique);
        result = syscall(SYS_mq_open, gone, O_RDWR, 0600, places[6].at);
        begin_line(result, errno, "mq_open nothing there %d", i);
        end_line();
    }
}

static void memory_files(void)
{
    const unsigned flags[] = {0, 1, 2, 0x80000000, 0x100};

    make_texts("name", 249);
    for (int i = 0; i < text_count; i++)
        for (int j = 0; j < 5; j++) {
            long result = syscall(SYS_memfd_create, texts[i].at, flags[j]);
            begin_line(result, errno, "memfd_create %s %x", texts[i].name, flags[j]);
            if (result >= 0) {
                char link[64], name[400];
                ssize_t length;
                snprintf(link, sizeof link, "/proc/self/fd/%ld", result);
                length = readlink(link, name, sizeof name);
                printf(" %zd,%lx,%x", length, hash_of(name, length > 0 ? (size_t)length : 0),
                       fcntl((int)result, F_GET_SEALS));
                close((int)result);
            }
            end_line();
        }
}

static void show_key(long key)
{
    char description[5000];
    static char payload[1 << 21];
    long length;

    if (key < 0)
        return;
    length = syscall(SYS_keyctl, KEYCTL_DESCRIBE, key, description, sizeof description);
    if (length > 0) {
        char *name = strrchr(description, ';');
        printf(" name=%zu,%lx", strlen(name), hash_of(name, strlen(name)));
    }
    length = syscall(SYS_keyctl, KEYCTL_READ, key, payload, sizeof payload);
    printf(" payload=%ld,%lx", length, hash_of(payload, length > 0 ? (size_t)length : 0));
    syscall(SYS_keyctl, KEYCTL_UNLINK, key, KEY_SPEC_PROCESS_KEYRING);
}

static void one_key(const char *name, const void *type, const void *description, const void *payload,
                    uint64_t length)
{
    long result = syscall(SYS_add_key, type, description, payload, length, KEY_SPEC_PROCESS_KEYRING);

    begin_line(result > 0 ? 1 : result, errno, "add_key %s", name);
    show_key(result);
    end_line();
}

static void keys(void)
{
    static const uint64_t lengths[] = {
        0, 1, 100, 4096, 1 << 20, (1 << 20) - 1, (1 << 20) + 1, 1 << 30, 1ul << 32, UINT64_MAX};
    struct place places[PLACES];
    char name[100];
    long result;

    /* Of what others are allowed some is still taken a while after a key is gone. */
    if (geteuid() != 0)
        return;
    make_texts("", 31);
    text("user", "user");
    text("user at edge", text_at_edge(7, "user"));
    text("internal", ".user");
    text("keyring", "keyring");
    for (int i = 0; i < text_count; i++) {
        snprintf(name, sizeof name, "type %s", texts[i].name);
        one_key(name, texts[i].at, "diff", "payload", 7);
        snprintf(name, sizeof name, "type %s, nothing else", texts[i].name);
        one_key(name, texts[i].at, gone, gone, 7);
        snprintf(name, sizeof name, "type %s, too much", texts[i].name);
        one_key(name, texts[i].at, "diff", gone, 1 << 20);
        result = syscall(SYS_request_key, texts[i].at, "diff missing", NULL, 0);
        begin_line(result, errno, "request_key type %s", texts[i].name);
        end_line();
        result = syscall(SYS_request_key, texts[i].at, gone, NULL, 0);
        begin_line(result, errno, "request_key type %s, nothing else", texts[i].name);
        end_line();
    }
    make_texts("diff ", 4095);
    for (int i = 0; i < text_count; i++) {
        snprintf(name, sizeof name, "description %s", texts[i].name);
        one_key(name, "user", texts[i].at, "payload", 7);
        snprintf(name, sizeof name, "description %s, payload gone", texts[i].name);
        one_key(name, "user", texts[i].at, gone, 7);
        snprintf(name, sizeof name, "description %s, bad type", texts[i].name);
        one_key(name, gone, texts[i].at, gone, 7);
        snprintf(name, sizeof name, "description %s, keyring", texts[i].name);
        one_key(name, "keyring", texts[i].at, NULL, 0);
        result = syscall(SYS_request_key, "user", texts[i].at, NULL, 0);
        begin_line(result, errno, "request_key description %s", texts[i].name);
        end_line();
        /* Never with a good one: that starts a program. */
        if (texts[i].at == NULL || texts[i].at == gone) {
            result = syscall(SYS_request_key, "user", "diff missing", texts[i].at, 0);
            begin_line(result, errno, "request_key callout %s", texts[i].name);
            end_line();
        }
    }
    places_for(places, "payload", 7);
    for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++)
        for (int k = 0; k < PLACES; k++) {
            snprintf(name, sizeof name, "payload %s %lx", places[k].name, lengths[j]);
            one_key(name, "user", "diff", places[k].at, lengths[j]);
            snprintf(name, sizeof name, "payload %s %lx, bad type", places[k].name, lengths[j]);
            one_key(name, "nonsense", "diff", places[k].at, lengths[j]);
        }
}

/* What takes a right that the program has not, whatever is passed */
static void forbidden(void)
{
    static const uint64_t lengths[] = {0,          1,          64,        65, 4097, (1 << 20) + 1,
                                       0x7fffffff, 0x80000000, UINT64_MAX};
    struct place places[PLACES];

    places_for(places, "name", 5);
    for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++)
        for (int k = 0; k < PLACES; k++) {
            long result = syscall(SYS_sethostname, places[k].at, lengths[j]);
            begin_line(result, errno, "sethostname %s %lx", places[k].name, lengths[j]);
            end_line();
            result = syscall(SYS_setdomainname, places[k].at, lengths[j]);
            begin_line(result, errno, "setdomainname %s %lx", places[k].name, lengths[j]);
            end_line();
        }
    make_texts("name", 55);
    text("a page", run_of("name", 4095, 'p'));
    text("more than a page", run_of("name", 4096, 'p'));
    for (int i = 0; i < text_count; i++) {
        const int flags[] = {0, O_NONBLOCK, 0x7fffffff};
        for (int j = 0; j < 3; j++) {
            long result = syscall(SYS_delete_module, texts[i].at, flags[j]);
            begin_line(result, errno, "delete_module %s %d", texts[i].name, j);
            end_line();
            result = syscall(SYS_finit_module, -1, texts[i].at, flags[j]);
            begin_line(result, errno, "finit_module %s %d", texts[i].name, j);
            end_line();
            result = syscall(SYS_init_module, gone, 100, texts[i].at);
            begin_line(result, errno, "init_module %s %d", texts[i].name, j);
            end_line();
        }
    }
}

static void attribute_names(void)
{
    static char out[70000];
    const struct {
        const char *name;
        const char *path;
    } paths[] = {{"f", "f"}, {"missing", "missing"}, {"null", NULL}};
    struct {
        uint64_t value;
        uint32_t size, flags;
    } set = {U("value"), 5, 0};

    make_texts("user.", 255);
    for (int i = 0; i < text_count; i++)
        for (size_t j = 0; j < 3; j++) {
            const char *path = paths[j].path, *name = texts[i].at;
            long result;
#define SHOW(call, ...)                                                                              \
    do {                                                                                             \
        errno = 0;                                                                                   \
        result = syscall(__VA_ARGS__);                                                               \
        begin_line(result, errno, call " %s %s", texts[i].name, paths[j].name);                      \
        show_changes();                                                                              \
        end_line();                                                                                  \
    } while (0)
            SHOW("setxattr", SYS_setxattr, path, name, "value", 5, 0);
            SHOW("setxattr odd flags", SYS_setxattr, path, name, "value", 5, 4);
            SHOW("setxattr value gone", SYS_setxattr, path, name, gone, 5, 0);
            SHOW("setxattr value too long", SYS_setxattr, path, name, gone, 65537, 0);
            SHOW("lsetxattr", SYS_lsetxattr, path, name, "value", 5, XATTR_CREATE);
            SHOW("getxattr", SYS_getxattr, path, name, out, sizeof out);
            SHOW("lgetxattr", SYS_lgetxattr, path, name, gone, 10);
            SHOW("removexattr", SYS_removexattr, path, name);
            SHOW("lremovexattr", SYS_lremovexattr, path, name);
            SHOW("setxattrat", NR_SETXATTRAT, AT_FDCWD, path, 0, name, &set, sizeof set);
            SHOW("removexattrat", 466, AT_FDCWD, path, 0, name);
            SHOW("fsetxattr", SYS_fsetxattr,
                 j == 0   ? file
                 : j == 1 ? -1
                          : some_path,
                 name, "value", 5, 0);
            SHOW("fgetxattr", SYS_fgetxattr,
                 j == 0   ? file
                 : j == 1 ? -1
                          : some_path,
                 name, out, sizeof out);
            SHOW("fremovexattr", SYS_fremovexattr, j == 0 ? file : j == 1 ? -1 : some_path, name);
        }
}

/* Values */

static void attribute_values(void)
{
    static const uint64_t lengths[] = {0,     1,     5,       4000,      4096,      65535,
                                       65536, 65537, 1 << 20, 1ul << 32, UINT64_MAX};
    static char out[70000];
    struct place places[PLACES];

    places_for(places, "value", 5);
    for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++)
        for (int k = 0; k < PLACES; k++)
            for (int flags = 0; flags < 4; flags++) {
                struct {
                    uint64_t value;
                    uint32_t size, flags;
                } set = {U(places[k].at), (uint32_t)lengths[j], (uint32_t)flags};
                const char *const names[] = {"setxattr", "fsetxattr", "setxattrat"};
                for (int call = 0; call < 3; call++) {
                    long result, got;
                    errno = 0;
                    if (call == 0)
                        result =
                            syscall(SYS_setxattr, "f", "user.two", places[k].at, lengths[j], flags);
                    else if (call == 1)
                        result =
                            syscall(SYS_fsetxattr, file, "user.two", places[k].at, lengths[j], flags);
                    else
                        result =
                            syscall(NR_SETXATTRAT, AT_FDCWD, "f", 0, "user.two", &set, sizeof set);
                    begin_line(result, errno, "%s %s %lx %d", names[call], places[k].name, lengths[j],
                               flags);
                    if (result == 0) {
                        got = fgetxattr(file, "user.two", out, sizeof out);
                        printf(" %ld,%lx", got, hash_of(out, got > 0 ? (size_t)got : 0));
                    }
                    show_changes();
                    end_line();
                }
            }
}

static void times(void)
{
    const struct utimbuf seconds = {11, 22};
    const struct timeval micros[][2] = {
        {{11, 1}, {22, 2}}, {{11, 1}, {22, 1000000}}, {{-5, -1}, {22, 3}}};
    const struct timespec nanos[][2] = {{{11, 1}, {22, 2}},
                                        {{11, 1}, {22, 1000000000}},
                                        {{11, UTIME_OMIT}, {22, UTIME_OMIT}},
                                        {{11, UTIME_NOW}, {22, UTIME_NOW}},
                                        {{11, UTIME_OMIT}, {22, 2}},
                                        {{11, 1}, {22, UTIME_NOW}},
                                        {{-11, 1}, {1ul << 40, 2}}};
    const char *const paths[] = {"f", "l", "missing", "", NULL}, *const names[] = {"f", "l",
                                                                                   "missing", "empty",
                                                                                   "null"};
    struct place places[PLACES];
    long result;

    for (int p = 0; p < 5; p++) {
        places_for(places, &seconds, sizeof seconds);
        for (int k = 0; k < PLACES; k++) {
            errno = 0;
            result = syscall(SYS_utime, paths[p], places[k].at);
            begin_line(result, errno, "utime %s %s", names[p], places[k].name);
            show_changes();
            end_line();
        }
        for (int i = 0; i < 3; i++) {
            places_for(places, micros[i], sizeof micros[i]);
            for (int k = 0; k < PLACES; k++)
                for (int fd = 0; fd < 4; fd++) {
                    errno = 0;
                    if (fd == 0)
                        result = syscall(SYS_utimes, paths[p], places[k].at);
                    else
                        result = syscall(SYS_futimesat,
                                         fd == 1   ? AT_FDCWD
                                         : fd == 2 ? file
                                                   : -1,
                                         paths[p], places[k].at);
                    begin_line(result, errno, "utimes %s %d %s %d", names[p], fd, places[k].name, i);
                    show_changes();
                    end_line();
                }
        }
        for (size_t i = 0; i < sizeof nanos / sizeof *nanos; i++) {
            places_for(places, nanos[i], sizeof nanos[i]);
            for (int k = 0; k < PLACES; k++)
                for (int fd = 0; fd < 3; fd++)
                    for (int flags = 0; flags < 4; flags++) {
                        const int all[] = {0, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, 1};
                        errno = 0;
                        result = syscall(SYS_utimensat,
                                         fd == 0   ? AT_FDCWD
                                         : fd == 1 ? file
                                                   : -1,
                                         paths[p], places[k].at, all[flags]);
                        begin_line(result, errno, "utimensat %s %d %s %zu %x", names[p], fd,
                                   places[k].name, i, (unsigned)all[flags]);
                        show_changes();
                        end_line();
                    }
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
    go_on_stage();
    some_path = put_away(open("/", O_PATH));
    if (strcmp(argv[1], "sized") == 0) {
        sized();
    } else if (strcmp(argv[1], "options") == 0) {
        options();
    } else if (strcmp(argv[1], "names") == 0) {
        queues();
        memory_files();
        keys();
        forbidden();
        attribute_names();
    } else if (strcmp(argv[1], "values") == 0) {
        attribute_values();
        times();
    } else {
        return 2;
    }
    return 0;
}
