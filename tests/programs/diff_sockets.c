/*
 * diff_sockets: calls with socket addresses and messages, with odd lengths, pointers and contents,
 * and what the other side got.
 *
 *     diff_sockets addresses   connect, bind, sendto: families, lengths, pointers
 *     diff_sockets messages    sendmsg: addresses, vectors, control data
 *     diff_sockets batches     sendmmsg: counts, failures in the middle, lengths written back
 */
#include "diff.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/vm_sockets.h>

static char unique[16];   /* abstract names are not the directory's, but the machine's */
static uint16_t ports[4]; /* of the receivers */
static int pipes_hit;

static void on_pipe(int number)
{
    (void)number;
    pipes_hit++;
}

/* Receivers */

enum { UNIX_PATH, UNIX_FULL, UNIX_ABSTRACT, UDP, UDP6, RECEIVERS };
static const char *const receiver_names[] = {"path", "full", "abstract", "udp", "udp6"};
static int receivers[RECEIVERS], unix_listener, tcp_listener, tcp6_listener;
static char full_path[109];

static struct sockaddr_un unix_address(const char *path, size_t length)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memcpy(address.sun_path, path, length);
    return address;
}

/*
 * With `port`, at a free one below those that the kernel gives to sockets by itself: one of these may
 * otherwise get the same number in another protocol, and would be taken for the receiver's.
 */
static int bound(int family, int type, const void *address, socklen_t length, uint16_t *port)
{
    static uint16_t next;
    int made = socket(family, type | SOCK_NONBLOCK, 0);
    struct sockaddr_in6 name = {0};

    /* Not every machine has it. */
    if (made < 0 && family == AF_INET6)
        return -1;
    made = put_away(made);

    memcpy(&name, address, port != NULL ? length : 0);
    if (port == NULL)
        REQUIRE(bind(made, address, length) == 0);
    for (int tries = 0; port != NULL; tries++) {
        REQUIRE(tries < 1000);
        *port = name.sin6_port = htons(20000 + (getpid() + 7 * next++) % 10000);
        if (bind(made, (struct sockaddr *)&name, length) == 0)
            break;
        if (errno == EADDRNOTAVAIL && family == AF_INET6) {
            close(made);
            return -1;
        }
        REQUIRE(errno == EADDRINUSE);
    }
    if (type == SOCK_STREAM)
        REQUIRE(listen(made, 100) == 0);
    return made;
}

static void make_receivers(void)
{
    struct sockaddr_un by_path = unix_address("receiver", 9), full,
                       stream = unix_address("listener", 9), abstract;
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};

    memset(full_path, 'f', 108);
    memcpy(full_path, "./", 2);
    full = unix_address(full_path, 108);
    snprintf(unique, sizeof unique, "%010d", getpid());
    abstract = unix_address("", 1);
    memcpy(abstract.sun_path + 1, unique, 10);
    receivers[UNIX_PATH] = bound(AF_UNIX, SOCK_DGRAM, &by_path, sizeof by_path, NULL);
    receivers[UNIX_FULL] = bound(AF_UNIX, SOCK_DGRAM, &full, sizeof full, NULL);
    receivers[UNIX_ABSTRACT] = bound(AF_UNIX, SOCK_DGRAM, &abstract, 2 + 11, NULL);
    receivers[UDP] = bound(AF_INET, SOCK_DGRAM, &v4, sizeof v4, &ports[0]);
    receivers[UDP6] = bound(AF_INET6, SOCK_DGRAM, &v6, sizeof v6, &ports[1]);
    unix_listener = bound(AF_UNIX, SOCK_STREAM, &stream, sizeof stream, NULL);
    tcp_listener = bound(AF_INET, SOCK_STREAM, &v4, sizeof v4, &ports[2]);
    tcp6_listener = bound(AF_INET6, SOCK_STREAM, &v6, sizeof v6, &ports[3]);
}

static void show_port(uint16_t port)
{
    for (int i = 0; i < 4; i++)
        if (port == ports[i] && port != 0) {
            printf(":port%d", i);
            return;
        }
    printf(port == 0 ? ":0" : ":some");
}

static void show_address(const char *label, const struct sockaddr_storage *address, socklen_t length)
{
    char text[64];
    const struct sockaddr_un *local = (const void *)address;
    const struct sockaddr_in *v4 = (const void *)address;
    const struct sockaddr_in6 *v6 = (const void *)address;

    printf(" %s=", label);
    if (length < 2) {
        printf("none");
        return;
    }
    switch (address->ss_family) {
    case AF_UNIX:
        if (length > 3 && local->sun_path[0] == 0 && length == 2 + 6)
            printf("automatic");
        else if (length >= 2 + 10 && memcmp(local->sun_path + 1, unique, 9) == 0)
            printf("unique,%u", length);
        else
            show_bytes("unix", local->sun_path, length - 2);
        break;
    case AF_INET:
        printf("%s", inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text));
        show_port(v4->sin_port);
        break;
    case AF_INET6:
        printf("%s", inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text));
        show_port(v6->sin6_port);
        break;
    case AF_NETLINK: {
        const struct sockaddr_nl *netlink = (const void *)address;
        printf("netlink:%s:%x",
               netlink->nl_pid == 0                    ? "0"
               : netlink->nl_pid == (uint32_t)getpid() ? "own"
                                                       : "other",
               netlink->nl_groups);
        break;
    }
    case AF_PACKET: {
        const struct sockaddr_ll *packet = (const void *)address;
        printf("packet:%x:%d:%d", packet->sll_protocol, packet->sll_ifindex, packet->sll_halen);
        break;
    }
    case AF_VSOCK: {
        const struct sockaddr_vm *vm = (const void *)address;
        printf("vsock:%x:%s", vm->svm_cid, vm->svm_port > 100 ? "some" : "low");
        break;
    }
    default:
        printf("family%u,%u", address->ss_family, length);
    }
}

static void show_names(int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;

    if (syscall(SYS_getsockname, fd, &address, &length) == 0)
        show_address("own", &address, length);
    length = sizeof address;
    if (syscall(SYS_getpeername, fd, &address, &length) == 0)
        show_address("peer", &address, length);
}

/* Prints what arrived, control data included. */
static void show_message(int fd, const char *name)
{
    static char data[300000], control[70000];
    struct sockaddr_storage from;
    struct iovec piece = {data, sizeof data};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    long got;
    int empty = 0;

    for (;;) {
        message.msg_name = &from;
        message.msg_namelen = sizeof from;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (got < 0)
            return;
        printf(" %s<%ld,%lx", name, got, hash_of(data, (size_t)got));
        if (message.msg_flags & ~MSG_CMSG_CLOEXEC)
            printf(",flags=%x", message.msg_flags & ~MSG_CMSG_CLOEXEC);
        if (message.msg_namelen > 0)
            show_address("from", &from, message.msg_namelen);
        for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part != NULL;
             part = CMSG_NXTHDR(&message, part)) {
            size_t length = part->cmsg_len - CMSG_LEN(0);
            if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS) {
                uint64_t hash = 0;
                for (size_t i = 0; i < length / 4; i++) {
                    struct stat found;
                    int one;
                    memcpy(&one, CMSG_DATA(part) + 4 * i, 4);
                    syscall(SYS_fstat, one, &found);
                    hash = hash * 31 + found.st_mode +
                           (uint64_t)(S_ISREG(found.st_mode) ? found.st_size : 0);
                    close(one);
                }
                printf(",rights=%zu,%lx", length / 4, hash);
            } else if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_CREDENTIALS) {
                struct ucred who;
                memcpy(&who, CMSG_DATA(part), sizeof who);
                printf(",credentials=%s,%u,%u", who.pid == getpid() ? "own" : "other", who.uid,
                       who.gid);
            } else {
                printf(",%d.%d=%zu", part->cmsg_level, part->cmsg_type, length);
            }
        }
        printf(">");
        /* An empty message, or the end of a stream */
        if (got == 0 && ++empty > 4)
            return;
    }
}

static void show_received(void)
{
    int accepted;
    const int listeners[] = {unix_listener, tcp_listener, tcp6_listener};

    for (int i = 0; i < RECEIVERS; i++)
        show_message(receivers[i], receiver_names[i]);
    for (int i = 0; i < 3; i++)
        while ((accepted = accept4(listeners[i], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
            printf(" accepted%d", i);
            show_message(accepted, "");
            close(accepted);
        }
}

/* Addresses */

struct address {
    const char *name;
    char bytes[256];
    size_t length;
};

static struct address addresses[64];
static int address_count;

static void add_address(const char *name, const void *bytes, size_t length)
{
    struct address *one = &addresses[address_count++];

    REQUIRE(address_count <= 64 && length <= sizeof one->bytes);
    one->name = name;
    memcpy(one->bytes, bytes, length);
    one->length = length;
}

static void make_addresses(void)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_nl netlink = {.nl_family = AF_NETLINK};
    struct sockaddr_ll packet = {
        .sll_family = AF_PACKET, .sll_ifindex = 1, .sll_protocol = htons(0x88b5), .sll_halen = 6};
    struct sockaddr_vm vm = {.svm_family = AF_VSOCK, .svm_port = 5555, .svm_cid = VMADDR_CID_LOCAL};
    struct sockaddr_un local;
    char raw[128] = {0};

    local = unix_address("receiver", 9);
    add_address("path", &local, 2 + 9);
    add_address("path_whole", &local, sizeof local);
    add_address("path_without_nul", &local, 2 + 8);
    local = unix_address("listener", 9);
    add_address("listener", &local, 2 + 9);
    local = unix_address("missing", 8);
    add_address("missing", &local, 2 + 8);
    local = unix_address("sub/../receiver", 16);
    add_address("climbs", &local, 2 + 16);
    local = unix_address("receiver\0hidden", 16);
    add_address("path_and_more", &local, 2 + 16);
    local = unix_address(full_path, 108);
    add_address("full", &local, sizeof local);
    local = unix_address("", 1);
    memcpy(local.sun_path + 1, unique, 10);
    add_address("abstract", &local, 2 + 11);
    add_address("abstract_and_nul", &local, 2 + 12);
    add_address("unnamed", &local, 2);
    memcpy(local.sun_path + 1, unique, 10);
    local.sun_path[11] = '-';
    add_address("abstract_new", &local, 2 + 12);
    add_address("abstract_whole", &local, sizeof local);
    v4.sin_port = ports[0];
    add_address("udp", &v4, sizeof v4);
    v4.sin_port = ports[2];
    add_address("tcp", &v4, sizeof v4);
    v4.sin_port = htons(1);
    add_address("port_1", &v4, sizeof v4);
    v4.sin_port = 0;
    add_address("port_0", &v4, sizeof v4);
    v4.sin_family = AF_UNSPEC;
    v4.sin_port = ports[0];
    add_address("unspecified", &v4, sizeof v4);
    v4.sin_addr.s_addr = 0;
    v4.sin_port = 0;
    add_address("unspecified_any", &v4, sizeof v4);
    v6.sin6_port = ports[1];
    add_address("udp6", &v6, sizeof v6);
    add_address("udp6_rfc2133", &v6, 24);
    v6.sin6_port = ports[3];
    add_address("tcp6", &v6, sizeof v6);
    v6.sin6_scope_id = 77;
    v6.sin6_flowinfo = htonl(0x12345);
    add_address("tcp6_scope", &v6, sizeof v6);
    v6.sin6_scope_id = 0;
    v6.sin6_flowinfo = 0;
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &v6.sin6_addr);
    v6.sin6_port = ports[0];
    add_address("mapped", &v6, sizeof v6);
    add_address("netlink", &netlink, sizeof netlink);
    netlink.nl_pid = (uint32_t)getpid();
    add_address("netlink_own", &netlink, sizeof netlink);
    netlink.nl_groups = 1;
    add_address("netlink_group", &netlink, sizeof netlink);
    add_address("packet", &packet, sizeof packet);
    packet.sll_ifindex = 9999;
    add_address("packet_missing", &packet, sizeof packet);
    add_address("vsock", &vm, sizeof vm);
    vm.svm_cid = VMADDR_CID_ANY;
    add_address("vsock_any", &vm, sizeof vm);
    raw[0] = (char)0xff;
    raw[1] = (char)0xff;
    add_address("odd_family", raw, 20);
}

struct socket_kind {
    const char *name;
    int family, type, protocol;
};

static const struct socket_kind kinds[] = {
    {"unix_dgram", AF_UNIX, SOCK_DGRAM, 0},
    {"unix_stream", AF_UNIX, SOCK_STREAM, 0},
    {"unix_seqpacket", AF_UNIX, SOCK_SEQPACKET, 0},
    {"udp", AF_INET, SOCK_DGRAM, 0},
    {"tcp", AF_INET, SOCK_STREAM, 0},
    {"udp6", AF_INET6, SOCK_DGRAM, 0},
    {"tcp6", AF_INET6, SOCK_STREAM, 0},
    {"netlink", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE},
    {"netlink_user", AF_NETLINK, SOCK_RAW, NETLINK_USERSOCK},
    {"packet", AF_PACKET, SOCK_DGRAM, 0},
    {"raw", AF_INET, SOCK_RAW, 253},
    {"vsock", AF_VSOCK, SOCK_STREAM, 0},
    {"vsock_dgram", AF_VSOCK, SOCK_DGRAM, 0},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

enum { CONNECT, BIND, SENDTO };
static const char *const call_names[] = {"connect", "bind", "sendto"};

static void one_address(const struct socket_kind *kind, int call, const char *name,
                        const void *address, uint64_t length, const char *more)
{
    int fd = socket(kind->family, kind->type | SOCK_NONBLOCK | SOCK_CLOEXEC, kind->protocol), number;
    struct nlmsghdr nothing = {.nlmsg_len = sizeof nothing, .nlmsg_type = NLMSG_NOOP};
    long result;

    if (fd < 0) {
        printf("%s: %s\n", kind->name, error_name(errno));
        return;
    }
    errno = 0;
    if (call == CONNECT)
        result = syscall(SYS_connect, fd, address, length);
    else if (call == BIND)
        result = syscall(SYS_bind, fd, address, length);
    else
        result = syscall(SYS_sendto, fd, &nothing, sizeof nothing, 0, address, length);
    number = errno;
    begin_line(result, number, "%s %s %s %s", kind->name, call_names[call], name, more);
    show_names(fd);
    show_received();
    if (call == CONNECT && result == 0) {
        /* AF_UNSPEC dissolves it. */
        errno = 0;
        result = syscall(SYS_connect, fd, &(struct sockaddr){.sa_family = AF_UNSPEC},
                         sizeof(struct sockaddr));
        printf(" dissolved=%ld,%s", result, error_name(errno));
        show_names(fd);
    }
    close(fd);
    if (call == BIND && kind->family == AF_UNIX) {
        DIR *here = opendir(".");
        for (struct dirent *entry; (entry = readdir(here)) != NULL;)
            if (entry->d_type == DT_SOCK && strcmp(entry->d_name, "receiver") != 0 &&
                strcmp(entry->d_name, "listener") != 0 && strcmp(entry->d_name, full_path + 2) != 0) {
                show_bytes("made", entry->d_name, strlen(entry->d_name));
                unlink(entry->d_name);
            }
        closedir(here);
    }
    end_line();
}

static void addresses_of(const struct socket_kind *kind)
{
    const int64_t lengths[] = {0,   1,   2,  3,         8,       15,        16,
                               17,  24,  27, 28,        29,      110,       111,
                               128, 129, -1, INT32_MIN, 1 << 30, INT64_MIN, 0x100000000};
    char more[64];
    int fd = socket(kind->family, kind->type, kind->protocol);

    if (fd < 0) {
        printf("%s: %s\n", kind->name, error_name(errno));
        return;
    }
    close(fd);
    for (int call = CONNECT; call <= SENDTO; call++)
        for (int i = 0; i < address_count; i++) {
            const struct address *one = &addresses[i];
            sa_family_t family;
            memcpy(&family, one->bytes, sizeof family);
            /* Closing one takes the kernel long. */
            if (kind->family == AF_PACKET && family != AF_PACKET && i % 8 != 0)
                continue;
            one_address(kind, call, one->name, one->bytes, one->length, "");
            /* Odd lengths and places are tried where the address would do. */
            if (family != kind->family && strncmp(one->name, "unspecified", 11) != 0)
                continue;
            for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++) {
                snprintf(more, sizeof more, "length %ld", lengths[j]);
                one_address(kind, call, one->name, one->bytes, (uint64_t)lengths[j], more);
            }
            one_address(kind, call, one->name, at_edge(0, one->bytes, one->length), one->length,
                        "edge");
            one_address(kind, call, one->name, at_edge(1, one->bytes, one->length - 1), one->length,
                        "short");
            one_address(kind, call, one->name, at_edge(1, one->bytes, one->length - 1),
                        one->length - 1, "one less");
            one_address(kind, call, one->name, at_edge(2, one->bytes, one->length), one->length + 1,
                        "one more, gone");
            one_address(kind, call, one->name, one->bytes, one->length | 0x7700000000, "high half");
        }
    for (int call = CONNECT; call <= SENDTO; call++) {
        const uint64_t tried[] = {0, 1, 16, 110, 129, -1ul};
        for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
            snprintf(more, sizeof more, "length %ld", (long)tried[i]);
            one_address(kind, call, "null", NULL, tried[i], more);
            one_address(kind, call, "gone", gone, tried[i], more);
            one_address(kind, call, "kernel", (void *)0xffffffff81000000, tried[i], more);
        }
    }
}

static void bad_descriptors(void)
{
    const int descriptors[] = {-1, 99, 1, AT_FDCWD};
    struct msghdr message = {0};
    struct mmsghdr batch = {0};

    for (size_t i = 0; i < sizeof descriptors / sizeof *descriptors; i++) {
        int fd = descriptors[i];
        const void *const pointers[] = {addresses[0].bytes, NULL, gone};
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 3; k++) {
                const long lengths[] = {11, -1, 129};
                long result = syscall(SYS_connect, fd, pointers[j], lengths[k]);
                begin_line(result, errno, "connect by %d %d %ld", fd, j, lengths[k]);
                end_line();
                result = syscall(SYS_bind, fd, pointers[j], lengths[k]);
                begin_line(result, errno, "bind by %d %d %ld", fd, j, lengths[k]);
                end_line();
                result = syscall(SYS_sendto, fd, "x", 1, 0, pointers[j], lengths[k]);
                begin_line(result, errno, "sendto by %d %d %ld", fd, j, lengths[k]);
                end_line();
            }
        const void *const messages[] = {&message, NULL, gone}, *const batches[] = {&batch, NULL,
                                                                                   gone};
        for (int j = 0; j < 3; j++) {
            long result = syscall(SYS_sendmsg, fd, messages[j], 0);
            begin_line(result, errno, "sendmsg by %d %d", fd, j);
            end_line();
            for (int k = 0; k < 3; k++) {
                result = syscall(SYS_sendmmsg, fd, batches[j], k, 0);
                begin_line(result, errno, "sendmmsg by %d %d %d", fd, j, k);
                end_line();
            }
        }
    }
}

static void data_of_sendto(void)
{
    int both[2];
    const struct {
        const char *name;
        const void *data;
        size_t length;
    } all[] = {
        {"edge", at_edge(0, "last bytes", 10), 10},
        {"edge, one more", at_edge(0, "last bytes", 10), 11},
        {"none at all", gone, 0},
        {"null", NULL, 0},
        {"null, one", NULL, 1},
        {"gone", gone, 5},
        {"kernel", (void *)0xffffffff81000000, 5},
        {"huge", "x", SIZE_MAX},
        {"half of everything", "x", SIZE_MAX / 2},
        {"too much", island_ends[3] - ISLAND, ISLAND},
    };

    REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, both) == 0);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (int flags = 0; flags < 3; flags++) {
            const int tried[] = {MSG_DONTWAIT, MSG_OOB | MSG_DONTWAIT, 0x7f0f0000 | MSG_DONTWAIT};
            long result;
            errno = 0;
            result = syscall(SYS_sendto, both[0], all[i].data, all[i].length, tried[flags], NULL, 55);
            begin_line(result, errno, "sendto %s flags %d", all[i].name, flags);
            show_message(both[1], "got");
            end_line();
        }
    close(both[0]);
    close(both[1]);
}

/* Messages */

struct pair {
    const char *name;
    int left, right;
};

static struct pair pairs[5];
static int pair_count, some_file;

static void make_pairs(void)
{
    const int types[] = {SOCK_DGRAM, SOCK_STREAM, SOCK_SEQPACKET};
    const char *const names[] = {"dgram", "stream", "seqpacket"};
    int both[2], on = 1;
    struct sockaddr_in name = {0};
    socklen_t length = sizeof name;

    for (int i = 0; i < 3; i++) {
        REQUIRE(socketpair(AF_UNIX, types[i] | SOCK_NONBLOCK, 0, both) == 0);
        REQUIRE(setsockopt(both[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
        pairs[pair_count++] = (struct pair){names[i], put_away(both[0]), put_away(both[1])};
    }
    /* Connected to each other over the loopback device */
    both[0] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    both[1] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(both[1], (struct sockaddr *)&name, sizeof name) == 0);
    REQUIRE(getsockname(both[1], (struct sockaddr *)&name, &length) == 0);
    REQUIRE(connect(both[0], (struct sockaddr *)&name, sizeof name) == 0);
    pairs[pair_count++] = (struct pair){"udp", put_away(both[0]), put_away(both[1])};
    some_file = put_away(open("some file", O_RDWR | O_CREAT, 0600));
    REQUIRE(write(some_file, "123", 3) == 3);
}

static void send_message(const struct pair *pair, const char *name, const void *message,
                         uint64_t flags)
{
    long result;
    int number, hits = pipes_hit;

    errno = 0;
    result = syscall(SYS_sendmsg, pair->left, message, flags);
    number = errno;
    begin_line(result, number, "%s %s", pair->name, name);
    show_message(pair->right, "got");
    show_received();
    if (pipes_hit != hits)
        printf(" SIGPIPE");
    end_line();
}

__attribute__((noinline)) static char *control_of(int island, size_t *length, int level, int type,
                                                  const void *data, size_t size)
{
    struct cmsghdr *part;

    *length = CMSG_SPACE(size);
    part = edge(island, *length);
    memset(part, 0, *length);
    part->cmsg_len = CMSG_LEN(size);
    part->cmsg_level = level;
    part->cmsg_type = type;
    memcpy(CMSG_DATA(part), data, size);
    return (char *)part;
}

static void names_of_messages(const struct pair *pair)
{
    static char text[] = "to someone";
    struct iovec piece = {text, sizeof text};
    const int64_t lengths[] = {0, 1, 2, 15, 16, 28, 110, 111, 128, 129, 1 << 20, -1, INT32_MIN};
    char name[200];

    for (int i = 0; i < address_count; i++) {
        struct msghdr message = {.msg_name = addresses[i].bytes,
                                 .msg_namelen = (socklen_t)addresses[i].length,
                                 .msg_iov = &piece,
                                 .msg_iovlen = 1};
        snprintf(name, sizeof name, "to %s", addresses[i].name);
        send_message(pair, name, &message, 0);
        if (strcmp(addresses[i].name, "path") != 0 && strcmp(addresses[i].name, "udp") != 0)
            continue;
        for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++) {
            message.msg_name = addresses[i].bytes;
            message.msg_namelen = (socklen_t)lengths[j];
            snprintf(name, sizeof name, "to %s length %ld", addresses[i].name, lengths[j]);
            send_message(pair, name, &message, 0);
            message.msg_name = NULL;
            snprintf(name, sizeof name, "to %s null length %ld", addresses[i].name, lengths[j]);
            send_message(pair, name, &message, 0);
            message.msg_name = gone;
            snprintf(name, sizeof name, "to %s gone length %ld", addresses[i].name, lengths[j]);
            send_message(pair, name, &message, 0);
            message.msg_name = edge(2, 100);
            memcpy(message.msg_name, addresses[i].bytes, 100);
            snprintf(name, sizeof name, "to %s edge length %ld", addresses[i].name, lengths[j]);
            send_message(pair, name, &message, 0);
        }
    }
}

static void vectors_of_messages(const struct pair *pair)
{
    static struct iovec many[1026];
    /* What lies behind it is the same in each run. */
    char *text = memcpy(memset(island_ends[6] - ISLAND, 0, ISLAND), "vector", 6);
    const struct {
        const char *name;
        struct iovec *vector;
        uint64_t count;
    } all[] = {
        {"none", NULL, 0},
        {"none at gone", (void *)gone, 0},
        {"one at null", NULL, 1},
        {"one at gone", (void *)gone, 1},
        {"one", &(struct iovec){text, 6}, 1},
        {"empty", &(struct iovec){text, 0}, 1},
        {"empty at gone", &(struct iovec){gone, 0}, 1},
        {"data gone", &(struct iovec){gone, 1}, 1},
        {"data kernel", &(struct iovec){(void *)0xffffffff81000000, 1}, 1},
        {"data half gone", &(struct iovec){island_ends[0] - 5, 10}, 1},
        {"length negative", &(struct iovec){text, 1ul << 63}, 1},
        {"length beyond", &(struct iovec){text, (1ul << 63) - 1}, 1},
        {"three", (struct iovec[]){{text, 1}, {text, 2}, {text, 3}}, 3},
        {"second negative", (struct iovec[]){{text, 1}, {text, 1ul << 63}, {text, 3}}, 3},
        {"second gone", (struct iovec[]){{text, 1}, {gone, 2}, {text, 3}}, 3},
        {"second too long", (struct iovec[]){{text, 0x7ffff000}, {text, 0x7ffff000}}, 2},
        {"1024", many, 1024},
        {"1025", many, 1025},
        {"1026 with garbage", many, 1ul << 32 | 3},
        {"all ones", many, -1ul},
        {"edge", at_edge(0, (struct iovec[]){{text, 1}, {text, 2}}, 32), 2},
        {"edge, one more", at_edge(1, (struct iovec[]){{text, 1}, {text, 2}}, 32), 3},
        {"edge, one more, but negative", at_edge(2, (struct iovec[]){{text, 1}, {text, -1ul}}, 32),
         3},
        {"edge, halved", (void *)((char *)at_edge(3, (struct iovec[]){{text, 1}, {text, 2}}, 32) + 8),
         2},
        {"unaligned", (void *)((char *)memcpy(edge(4, 35), &(struct iovec){text, 4}, 16)), 1},
        {"edge, 1024", at_edge(5, many, 1024 * 16), 1024},
    };
    char name[100];

    for (int i = 0; i < 1026; i++)
        many[i] = (struct iovec){text, (size_t)i % 3};
    memcpy(edge(5, 1024 * 16), many, 1024 * 16);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct msghdr message = {.msg_iov = all[i].vector, .msg_iovlen = all[i].count};
        snprintf(name, sizeof name, "vector %s", all[i].name);
        send_message(pair, name, &message, 0);
        snprintf(name, sizeof name, "vector %s, header at the edge", all[i].name);
        send_message(pair, name, at_edge(7, &message, sizeof message), MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

static void controls_of_messages(const struct pair *pair)
{
    int rights[300], bad_rights[2] = {some_file, 9999};
    struct ucred own = {getpid(), getuid(), getgid()}, other = {getpid(), getuid() + 1, getgid()},
                 other_pid = {1, getuid(), getgid()};
    static char text[] = "controlled";
    struct iovec piece = {text, sizeof text};
    size_t length;
    char name[100];
    struct {
        const char *name;
        char *control;
        uint64_t length;
    } all[40];
    int count = 0;

    for (int i = 0; i < 300; i++)
        rights[i] = some_file;
#define CONTROL(title, island, level, type, data, size, claimed)                                     \
    do {                                                                                             \
        char *made = malloc(70000);                                                                  \
        char *built = control_of(island, &length, level, type, data, size);                          \
        memcpy(made, built, length);                                                                 \
        all[count].name = title;                                                                     \
        all[count].control = made;                                                                   \
        all[count].length = claimed;                                                                 \
        count++;                                                                                     \
    } while (0)
    CONTROL("one right", 0, SOL_SOCKET, SCM_RIGHTS, rights, 4, length);
    CONTROL("one right, unpadded", 0, SOL_SOCKET, SCM_RIGHTS, rights, 4, CMSG_LEN(4));
    CONTROL("no rights", 0, SOL_SOCKET, SCM_RIGHTS, rights, 0, length);
    CONTROL("half a right", 0, SOL_SOCKET, SCM_RIGHTS, rights, 6, length);
    CONTROL("253 rights", 0, SOL_SOCKET, SCM_RIGHTS, rights, 4 * 253, length);
    CONTROL("254 rights", 0, SOL_SOCKET, SCM_RIGHTS, rights, 4 * 254, length);
    CONTROL("bad right", 0, SOL_SOCKET, SCM_RIGHTS, bad_rights, 8, length);
    CONTROL("credentials", 0, SOL_SOCKET, SCM_CREDENTIALS, &own, sizeof own, length);
    CONTROL("credentials of another user", 0, SOL_SOCKET, SCM_CREDENTIALS, &other, sizeof other,
            length);
    CONTROL("credentials of another process", 0, SOL_SOCKET, SCM_CREDENTIALS, &other_pid, sizeof own,
            length);
    CONTROL("credentials, short", 0, SOL_SOCKET, SCM_CREDENTIALS, &own, 8, length);
    CONTROL("odd type", 0, SOL_SOCKET, 77, &own, 8, length);
    CONTROL("odd level", 0, 999, 1, &own, 8, length);
    CONTROL("inet time to live", 0, IPPROTO_IP, IP_TTL, &(int){5}, 4, length);
    CONTROL("inet time to live, bad", 0, IPPROTO_IP, IP_TTL, &(int){500}, 4, length);
    CONTROL("truncated", 0, SOL_SOCKET, SCM_RIGHTS, rights, 4, 18);
    CONTROL("header only", 0, SOL_SOCKET, SCM_RIGHTS, rights, 4, 16);
    CONTROL("less than a header", 0, SOL_SOCKET, SCM_RIGHTS, rights, 4, 15);
    CONTROL("one byte", 0, SOL_SOCKET, SCM_RIGHTS, rights, 4, 1);
    CONTROL("big", 0, SOL_SOCKET, 77, island_ends[6] - 60000, 60000, length);
    /* Claims of their own */
    CONTROL("length of the part too large", 0, SOL_SOCKET, SCM_RIGHTS, rights, 4, length);
    ((struct cmsghdr *)all[count - 1].control)->cmsg_len = 10000;
    CONTROL("length of the part too small", 0, SOL_SOCKET, SCM_RIGHTS, rights, 4, length);
    ((struct cmsghdr *)all[count - 1].control)->cmsg_len = 15;
    CONTROL("length of the part enormous", 0, SOL_SOCKET, SCM_RIGHTS, rights, 4, length);
    ((struct cmsghdr *)all[count - 1].control)->cmsg_len = SIZE_MAX;
    for (int i = 0; i < count; i++) {
        struct msghdr message = {.msg_iov = &piece,
                                 .msg_iovlen = 1,
                                 .msg_control = all[i].control,
                                 .msg_controllen = all[i].length};
        snprintf(name, sizeof name, "control %s", all[i].name);
        send_message(pair, name, &message, 0);
        message.msg_control = at_edge(1, all[i].control, all[i].length);
        snprintf(name, sizeof name, "control %s at the edge", all[i].name);
        send_message(pair, name, &message, 0);
        message.msg_control = (char *)message.msg_control + 1;
        snprintf(name, sizeof name, "control %s beyond the edge", all[i].name);
        send_message(pair, name, &message, 0);
    }
    /* Two parts */
    char *two = edge(2, 2 * CMSG_SPACE(sizeof own));
    struct cmsghdr *first =
        (void *)control_of(2, &length, SOL_SOCKET, SCM_CREDENTIALS, &own, sizeof own);
    memmove(two, first, CMSG_SPACE(sizeof own));
    control_of(2, &length, SOL_SOCKET, SCM_RIGHTS, rights, 12);
    send_message(pair, "control of two parts",
                 &(struct msghdr){.msg_iov = &piece,
                                  .msg_iovlen = 1,
                                  .msg_control = two,
                                  .msg_controllen = 2 * CMSG_SPACE(sizeof own)},
                 0);
    const struct {
        void *control;
        uint64_t length;
    } odd[] = {
        {NULL, 0},
        {NULL, 1},
        {NULL, 24},
        {gone, 0},
        {gone, 24},
        {NULL, 131072},
        {gone, 131072},
        {gone, 131073},
        {gone, 262144},
        {gone, 262145},
        {NULL, INT32_MAX},
        {NULL, 1ul << 31},
        {gone, 1ul << 32},
        {gone, -1ul},
        {island_ends[3] - 131072, 131072},
        {island_ends[3] - 131056, 131056},
        {island_ends[3] - 262144, 262144},
        {island_ends[3] - 100000, 100000},
        {(void *)0xffffffff81000000, 24},
    };
    memset(island_ends[3] - ISLAND, 0, ISLAND);
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        snprintf(name, sizeof name, "control, odd %zu", i);
        send_message(pair, name,
                     &(struct msghdr){.msg_iov = &piece,
                                      .msg_iovlen = 1,
                                      .msg_control = odd[i].control,
                                      .msg_controllen = odd[i].length},
                     0);
    }
}

static void flags_of_messages(const struct pair *pair)
{
    const uint64_t flags[] = {0,         MSG_DONTWAIT,       MSG_NOSIGNAL,  MSG_EOR,
                              MSG_OOB,   MSG_MORE,           MSG_DONTROUTE, MSG_CONFIRM,
                              MSG_PROXY, MSG_FASTOPEN,       0x80000000,    0x04000000,
                              1ul << 32, 0xffffffff00000000, MSG_ERRQUEUE,  MSG_BATCH};
    static char text[] = "flagged";
    struct iovec piece = {text, sizeof text};
    char name[100];

    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        for (int inside = 0; inside < 2; inside++) {
            struct msghdr message = {
                .msg_iov = &piece, .msg_iovlen = 1, .msg_flags = inside ? (int)flags[i] : 0};
            snprintf(name, sizeof name, "flags %lx %d", flags[i], inside);
            send_message(pair, name, &message, inside ? MSG_DONTWAIT : flags[i]);
        }
    /* Where the header is */
    struct msghdr plain = {.msg_iov = &piece, .msg_iovlen = 1};
    send_message(pair, "header at the edge", at_edge(0, &plain, sizeof plain), 0);
    send_message(pair, "header beyond the edge", at_edge(0, &plain, sizeof plain - 1), 0);
    send_message(pair, "header unaligned", memcpy(edge(1, 59), &plain, sizeof plain), 0);
    send_message(pair, "header null", NULL, 0);
    send_message(pair, "header gone", gone, 0);
    send_message(pair, "header kernel", (void *)0xffffffff81000000, 0);
    /* Until it is full */
    char name_of[100];
    for (int i = 0; i < 40; i++) {
        long result;
        piece = (struct iovec){island_ends[3] - ISLAND, 100000};
        result = syscall(SYS_sendmsg, pair->left, &plain, MSG_DONTWAIT);
        if (result < 0) {
            snprintf(name_of, sizeof name_of, "%s full after %d", pair->name, i);
            begin_line(result, errno, "%s", name_of);
            end_line();
            break;
        }
    }
    printf("%s then", pair->name);
    show_message(pair->right, "got");
    end_line();
}

static void closed_peers(void)
{
    const int types[] = {SOCK_DGRAM, SOCK_STREAM, SOCK_SEQPACKET};
    struct iovec piece = {"x", 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    struct mmsghdr batch[3] = {{message, 77}, {message, 77}, {message, 77}};
    int both[2], hits;
    long result;

    for (int i = 0; i < 3; i++) {
        REQUIRE(socketpair(AF_UNIX, types[i], 0, both) == 0);
        close(both[1]);
        for (int flags = 0; flags <= MSG_NOSIGNAL; flags += MSG_NOSIGNAL) {
            hits = pipes_hit;
            result = syscall(SYS_sendmsg, both[0], &message, flags);
            begin_line(result, errno, "closed %d sendmsg %x", i, flags);
            printf(" signals=%d\n", pipes_hit - hits);
            hits = pipes_hit;
            result = syscall(SYS_sendmmsg, both[0], batch, 3, flags);
            begin_line(result, errno, "closed %d sendmmsg %x", i, flags);
            printf(" signals=%d lengths=%u,%u,%u\n", pipes_hit - hits, batch[0].msg_len,
                   batch[1].msg_len, batch[2].msg_len);
        }
        close(both[0]);
    }
}

/* Batches */

static void send_batch(const struct pair *pair, const char *name, struct mmsghdr *batch,
                       uint64_t count, uint64_t flags, int shown)
{
    long result;
    int number, hits = pipes_hit;

    errno = 0;
    result = syscall(SYS_sendmmsg, pair->left, batch, count, flags);
    number = errno;
    begin_line(result, number, "%s %s", pair->name, name);
    printf(" lengths");
    for (int i = 0; i < shown; i++)
        printf(" %u", batch[i].msg_len);
    show_message(pair->right, "got");
    show_received();
    if (pipes_hit != hits)
        printf(" SIGPIPE");
    end_line();
}

static struct mmsghdr *batch_of(void *where, int count, struct iovec *piece)
{
    struct mmsghdr *batch = where;

    for (int i = 0; i < count; i++) {
        memset(&batch[i], 0, sizeof batch[i]);
        batch[i].msg_hdr.msg_iov = piece + i % 4;
        batch[i].msg_hdr.msg_iovlen = 1;
        batch[i].msg_len = 0xabcd;
    }
    return batch;
}

static void batches(const struct pair *pair)
{
    static char text[] = "batch of messages";
    static struct mmsghdr room[2000];
    struct iovec pieces[4] = {{text, 5}, {text, 6}, {text + 6, 2}, {text, 17}}, bad = {gone, 3},
                 negative = {text, -1ul}, large = {island_ends[3] - ISLAND, ISLAND},
                 nothing = {text, 0};
    struct mmsghdr *batch;
    char name[100];
    const uint64_t counts[] = {0, 1, 2, 3, 5, 1ul << 32, 1ul << 32 | 2};

    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        batch = batch_of(room, 6, pieces);
        snprintf(name, sizeof name, "count %lx", counts[i]);
        send_batch(pair, name, batch, counts[i], 0, 6);
        snprintf(name, sizeof name, "count %lx, at gone", counts[i]);
        send_batch(pair, name, (void *)gone, counts[i], 0, 0);
        snprintf(name, sizeof name, "count %lx, null", counts[i]);
        send_batch(pair, name, NULL, counts[i], 0, 0);
    }
    /* As many as go into it: the rest finds it full, or the limit of a call is reached. */
    for (int i = 0; i < 2000; i++) {
        batch_of(room + i, 1, &nothing);
        room[i].msg_hdr.msg_iov = &pieces[0];
    }
    send_batch(pair, "1024", room, 1024, MSG_DONTWAIT, 10);
    batch_of(room, 10, pieces);
    send_batch(pair, "1025", room, 1025, MSG_DONTWAIT, 10);
    batch_of(room, 10, pieces);
    send_batch(pair, "2000", room, 2000, MSG_DONTWAIT, 10);
    batch_of(room, 10, pieces);
    send_batch(pair, "all ones", room, -1ul, MSG_DONTWAIT, 10);
    /* One that fails in the middle */
    for (int at = 0; at < 4; at++) {
        const struct {
            const char *name;
            struct msghdr message;
        } odd[] = {
            {"vector gone", {.msg_iov = (void *)gone, .msg_iovlen = 1}},
            {"data gone", {.msg_iov = &bad, .msg_iovlen = 1}},
            {"negative", {.msg_iov = &negative, .msg_iovlen = 1}},
            {"too large", {.msg_iov = &large, .msg_iovlen = 1}},
            {"many pieces", {.msg_iov = pieces, .msg_iovlen = 1025}},
            {"nothing", {.msg_iov = &nothing, .msg_iovlen = 1}},
            {"no vector", {.msg_iovlen = 0}},
            {"address negative",
             {.msg_name = text, .msg_namelen = (socklen_t)-1, .msg_iov = pieces, .msg_iovlen = 1}},
            {"address gone",
             {.msg_name = gone, .msg_namelen = 16, .msg_iov = pieces, .msg_iovlen = 1}},
            {"address missing",
             {.msg_name = addresses[4].bytes,
              .msg_namelen = (socklen_t)addresses[4].length,
              .msg_iov = pieces,
              .msg_iovlen = 1}},
            {"to a path",
             {.msg_name = addresses[0].bytes,
              .msg_namelen = (socklen_t)addresses[0].length,
              .msg_iov = pieces,
              .msg_iovlen = 1}},
            {"control gone",
             {.msg_control = gone, .msg_controllen = 24, .msg_iov = pieces, .msg_iovlen = 1}},
            {"control enormous",
             {.msg_control = gone, .msg_controllen = -1ul, .msg_iov = pieces, .msg_iovlen = 1}},
        };
        for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
            batch = batch_of(room, 4, pieces);
            batch[at].msg_hdr = odd[i].message;
            snprintf(name, sizeof name, "%s at %d", odd[i].name, at);
            send_batch(pair, name, batch, 4, 0, 4);
        }
        /* The vector itself ends too early, or may not be written. */
        batch = batch_of(edge(0, (size_t)(at + 1) * sizeof *batch), at + 1, pieces);
        snprintf(name, sizeof name, "ends after %d", at + 1);
        send_batch(pair, name, batch, 6, 0, at + 1);
        batch = batch_of(edge(1, (size_t)(at + 1) * sizeof *batch), at + 1, pieces);
        snprintf(name, sizeof name, "ends within %d", at + 2);
        send_batch(pair, name, (void *)((char *)batch - 40), 6, 0, 0);
        /* The last entry's length does not fit any more: seven bytes of it are gone. */
        batch = (void *)((char *)edge(2, (size_t)(at + 1) * sizeof *batch) + 4);
        batch_of(room, at + 1, pieces);
        memcpy(batch, room, (size_t)(at + 1) * sizeof *batch - 4);
        snprintf(name, sizeof name, "length fits of %d", at + 1);
        send_batch(pair, name, batch, (uint64_t)at + 1, 0, at + 1);
        batch = (void *)((char *)edge(2, (size_t)(at + 1) * sizeof *batch) + 6);
        memcpy(batch, room, (size_t)(at + 1) * sizeof *batch - 6);
        snprintf(name, sizeof name, "length does not fit of %d", at + 1);
        send_batch(pair, name, batch, (uint64_t)at + 1, 0, at);
        /* Not a part of it is written either. */
        printf("%s what fits of %d: 0", pair->name, at + 1);
        show_bytes("end", island_ends[2] - 2, 2);
        end_line();
    }
    char *page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(page != MAP_FAILED);
    batch = batch_of(page + PAGE - 2 * (int)sizeof *batch, 4, pieces);
    REQUIRE(mprotect(page, PAGE, PROT_READ) == 0);
    send_batch(pair, "read-only from the first", batch, 4, 0, 4);
    batch = (void *)(page + PAGE);
    send_batch(pair, "writable", batch, 2, 0, 2);
    REQUIRE(mprotect(page, PAGE, PROT_READ | PROT_WRITE) == 0 &&
            mprotect(page + PAGE, PAGE, PROT_READ) == 0);
    batch = (void *)(page + PAGE - 2 * (int)sizeof *batch);
    send_batch(pair, "read-only from the third", batch, 4, 0, 4);
    /* What is sent second is where the length of the first is written. */
    batch = batch_of(room, 2, pieces);
    struct iovec own = {&batch[0].msg_len, 4};
    batch[1].msg_hdr.msg_iov = &own;
    send_batch(pair, "sends its own length", batch, 2, 0, 2);
    /* And where the second header is: it becomes one of another length. */
    batch = batch_of(room, 3, pieces);
    send_batch(pair, "flags", batch, 3, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_EOR, 3);
    batch = batch_of(room, 3, pieces);
    send_batch(pair, "odd flags", batch, 3, 0x80000000, 3);
    batch = batch_of(room, 3, pieces);
    send_batch(pair, "out of band", batch, 3, MSG_OOB, 3);
    /* Rights and credentials with each */
    int rights[2] = {some_file, pair->left};
    size_t length;
    batch = batch_of(room, 3, pieces);
    for (int i = 0; i < 3; i++) {
        batch[i].msg_hdr.msg_control =
            control_of(4 + i, &length, SOL_SOCKET, SCM_RIGHTS, rights, i == 1 ? 8 : 4);
        batch[i].msg_hdr.msg_controllen = length;
    }
    send_batch(pair, "rights", batch, 3, 0, 3);
    /* To several, one of which is not there */
    batch = batch_of(room, 4, pieces);
    for (int i = 0; i < 4; i++) {
        const struct address *one = &addresses[i == 2 ? 4 : i];
        batch[i].msg_hdr.msg_name = (void *)one->bytes;
        batch[i].msg_hdr.msg_namelen = (socklen_t)one->length;
    }
    send_batch(pair, "to several", batch, 4, 0, 4);
    /* Until it is full */
    for (int i = 0; i < 40; i++) {
        batch_of(room + i, 1, &large);
        room[i].msg_hdr.msg_iov = &large;
    }
    large.iov_len = 50000;
    send_batch(pair, "until full", room, 40, MSG_DONTWAIT, 40);
}

int main(int argc, char **argv)
{
    static char buffer[1 << 16];

    REQUIRE(argc == 2);
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    make_islands();
    signal(SIGPIPE, on_pipe);
    REQUIRE(mkdir("sub", 0755) == 0);
    make_receivers();
    make_addresses();
    make_pairs();
    if (strcmp(argv[1], "addresses") == 0) {
        for (int i = 0; i < KINDS; i++)
            addresses_of(&kinds[i]);
        bad_descriptors();
        data_of_sendto();
    } else if (strcmp(argv[1], "messages") == 0) {
        for (int i = 0; i < pair_count; i++) {
            names_of_messages(&pairs[i]);
            vectors_of_messages(&pairs[i]);
            controls_of_messages(&pairs[i]);
            flags_of_messages(&pairs[i]);
        }
        closed_peers();
    } else if (strcmp(argv[1], "batches") == 0) {
        for (int i = 0; i < pair_count; i++)
            batches(&pairs[i]);
    } else {
        return 2;
    }
    return 0;
}
