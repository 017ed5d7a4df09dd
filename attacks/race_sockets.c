/*
 * race_sockets DIRECTORY ATTEMPTS PEER WRITER CASE: who a socket talks to, and what it passes on.
 * There are two receivers, or names, for each case; the socket that was reached tells which.
 *
 *   connect-unix      path of a stream socket, scratch/peer-A or peer-D
 *   connect-inet      port of a TCP socket on the loopback interface, even or odd
 *   bind              path, scratch/bound-A or bound-D
 *   sendto            path of a datagram socket
 *   sendmsg-name      likewise
 *   sendmsg-pointer   msg_name itself
 *   sendmsg-namelen   length of the path, scratch/peer-DA or peer-D
 *   sendmsg-rights    number of the descriptor that is passed on
 *   sendmsg-control   msg_control itself, aimed at one number or the other
 *   sendmsg-controllen  length of the control data, none or the denied number
 *   sendmmsg-name     paths of two messages in one call, each raced by itself
 *   sendmmsg-pointer  msg_name of the second message
 *   setsockopt        value of an option
 */
#include "race.h"

#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { ALLOWED_FD = 100, DENIED_FD = 101, ALLOWED_PRIORITY = 1, DENIED_PRIORITY = 2, LETTERS = 2 };

static int receivers[LETTERS];  /* allowed, denied */
static int sender;
static struct sockaddr_un *address;
static socklen_t length;
static struct sockaddr_in *inet;
static struct mmsghdr *vector;
static struct msghdr *message;
static int *number;
static char without = '?';      /* what a message without a descriptor means */

static char letter_of(int which)
{
    return which == 0 ? 'A' : 'D';
}

static struct sockaddr_un *named(const char *name)
{
    struct sockaddr_un *made = race_take(sizeof *made);

    made->sun_family = AF_UNIX;
    if ((size_t)snprintf(made->sun_path, sizeof made->sun_path, "%s/scratch/%s", attack.directory,
                         name) >= sizeof made->sun_path)
        exit(2);
    length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(made->sun_path) + 1);
    return made;
}

static int listening(int domain, int type, const void *at, socklen_t size)
{
    int fd = socket(domain, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        attack_fail("socket");
    if (bind(fd, at, size) != 0) {
        close(fd);
        return -1;
    }
    if (type == SOCK_STREAM && listen(fd, 128) != 0)
        attack_fail("listen");
    return fd;
}

static void receive_at(const char *allowed, const char *denied, int type)
{
    const char *names[LETTERS] = {allowed, denied};

    for (int i = 0; i < LETTERS; i++) {
        struct sockaddr_un *at = named(names[i]);
        receivers[i] = listening(AF_UNIX, type, at, length);
        if (receivers[i] < 0)
            attack_fail(at->sun_path);
    }
    sender = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
}

/* Returns how many datagrams a receiver had waiting. */
static int waiting(int which)
{
    char content;
    int count = 0;

    while (recv(receivers[which], &content, 1, MSG_DONTWAIT) == 1)
        count++;
    return count;
}

static char delivered(void)
{
    int denied = waiting(1), allowed = waiting(0);

    return denied + allowed != 1 ? '?' : letter_of(denied);
}

/* connect */

static void prepare_connect_unix(void)
{
    receive_at("peer-A", "peer-D", SOCK_STREAM);
    address = named("peer-A");
    race_flip_last(address->sun_path);
}

static void drain(int which)
{
    int fd;

    while ((fd = accept4(receivers[which], NULL, NULL, SOCK_CLOEXEC)) >= 0)
        close(fd);
}

static char reached_unix(int fd)
{
    struct sockaddr_un peer;
    socklen_t size = sizeof peer;

    memset(&peer, 0, sizeof peer);
    if (getpeername(fd, (struct sockaddr *)&peer, &size) != 0)
        return '?';
    return peer.sun_path[strlen(peer.sun_path) - 1];
}

static char make_connect_unix(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), failure = 0;
    char reached = 0;

    if (connect(fd, (struct sockaddr *)address, length) == 0)
        reached = reached_unix(fd);
    else
        failure = errno;
    drain(0);
    drain(1);
    close(fd);
    errno = failure;
    return reached;
}

static void prepare_connect_inet(void)
{
    in_port_t odd;
    inet = race_take(sizeof *inet);
    for (int i = 0; i < 1000; i++) {
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        socklen_t size = sizeof at;
        int which, first = listening(AF_INET, SOCK_STREAM, &at, sizeof at), second;

        if (first < 0)
            attack_unsupported("loopback");
        getsockname(first, (struct sockaddr *)&at, &size);
        which = ntohs(at.sin_port) & 1;
        at.sin_port = htons(ntohs(at.sin_port) ^ 1);
        second = listening(AF_INET, SOCK_STREAM, &at, sizeof at);
        if (second < 0) {
            close(first);
            continue;
        }
        receivers[which] = first;
        receivers[!which] = second;
        at.sin_port = htons(ntohs(at.sin_port) & ~1);
        *inet = at;
        odd = htons(ntohs(at.sin_port) | 1);
        race_flip(&inet->sin_port, &odd, sizeof odd);
        return;
    }
    attack_fail("no two ports");
}

static char make_connect_inet(void)
{
    /* Closed with a reset: nothing lingers, so that the ports last. */
    const struct linger none = {1, 0};
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), failure = 0;
    char reached = 0;

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    if (connect(fd, (struct sockaddr *)inet, sizeof *inet) != 0)
        failure = errno;
    else if (getpeername(fd, (struct sockaddr *)&peer, &size) != 0)
        reached = '?';
    else
        reached = letter_of(ntohs(peer.sin_port) & 1);
    close(fd);
    drain(0);
    drain(1);
    errno = failure;
    return reached;
}

/* bind */

static void prepare_bind(void)
{
    address = named("bound-A");
    race_flip_last(address->sun_path);
}

static char make_bind(void)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), failure = 0;
    struct sockaddr_un here;
    socklen_t size = sizeof here;
    char bound = 0;

    memset(&here, 0, sizeof here);
    if (bind(fd, (struct sockaddr *)address, length) != 0)
        failure = errno;
    else if (getsockname(fd, (struct sockaddr *)&here, &size) != 0 || unlink(here.sun_path) != 0)
        bound = '?';
    else
        bound = here.sun_path[strlen(here.sun_path) - 1];
    close(fd);
    errno = failure;
    return bound;
}

/* sendto, sendmsg with an address */

static void prepare_sendto(void)
{
    receive_at("peer-A", "peer-D", SOCK_DGRAM);
    address = named("peer-A");
    race_flip_last(address->sun_path);
}

static char make_sendto(void)
{
    if (sendto(sender, "1", 1, MSG_DONTWAIT, (struct sockaddr *)address, length) != 1)
        return 0;
    return delivered();
}

static void say(struct msghdr *to)
{
    static struct iovec data = {"1", 1};

    to->msg_iov = &data;
    to->msg_iovlen = 1;
}

static void prepare_message(void)
{
    message = race_take(sizeof *message);
    say(message);
}

static void prepare_sendmsg_name(void)
{
    prepare_sendto();
    prepare_message();
    message->msg_name = address;
    message->msg_namelen = length;
}

/* Returns two addresses, half a block apart. */
static char *address_twins(void)
{
    char *twins = race_take(RACE_BLOCK);

    for (int i = 0; i < LETTERS; i++)
        memcpy(twins + i * RACE_BLOCK / 2, named(i == 0 ? "peer-A" : "peer-D"),
               sizeof(struct sockaddr_un));
    return twins;
}

static void prepare_sendmsg_pointer(void)
{
    receive_at("peer-A", "peer-D", SOCK_DGRAM);
    prepare_message();
    race_flip_pointer(&message->msg_name, address_twins());
    message->msg_namelen = length;
}

static void prepare_sendmsg_namelen(void)
{
    socklen_t shorter;

    receive_at("peer-DA", "peer-D", SOCK_DGRAM);
    prepare_message();
    message->msg_name = named("peer-DA");
    message->msg_namelen = length - 1;
    shorter = length - 2;
    race_flip(&message->msg_namelen, &shorter, sizeof shorter);
}

static char make_sendmsg(void)
{
    return sendmsg(sender, message, MSG_DONTWAIT) == 1 ? delivered() : 0;
}

/* sendmsg with a descriptor */

static void open_letter(int which, int at)
{
    const char letter = letter_of(which);
    int fd = memfd_create("letter", MFD_CLOEXEC);

    if (fd < 0 || pwrite(fd, &letter, 1, 0) != 1 || dup3(fd, at, O_CLOEXEC) != at)
        attack_fail("letter");
    close(fd);
}

static void pass(struct cmsghdr *control, int fd)
{
    control->cmsg_len = CMSG_LEN(sizeof fd);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(control), &fd, sizeof fd);
}

static void prepare_passing(void)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
        attack_fail("socketpair");
    sender = pair[0];
    receivers[0] = pair[1];
    open_letter(0, ALLOWED_FD);
    open_letter(1, DENIED_FD);
    prepare_message();
    message->msg_control = race_take(CMSG_SPACE(sizeof(int)));
    message->msg_controllen = CMSG_SPACE(sizeof(int));
    pass(message->msg_control, ALLOWED_FD);
    number = (int *)(void *)CMSG_DATA((struct cmsghdr *)message->msg_control);
}

static void prepare_sendmsg_rights(void)
{
    const int denied = DENIED_FD;
    prepare_passing();
    race_flip(number, &denied, sizeof denied);
}

static void prepare_sendmsg_control(void)
{
    char *twins;

    prepare_passing();
    twins = race_take(RACE_BLOCK);
    pass((struct cmsghdr *)(void *)twins, ALLOWED_FD);
    pass((struct cmsghdr *)(void *)(twins + RACE_BLOCK / 2), DENIED_FD);
    race_flip_pointer(&message->msg_control, twins);
}

static void prepare_sendmsg_controllen(void)
{
    const size_t denied = CMSG_SPACE(sizeof(int));
    prepare_passing();
    *number = DENIED_FD;
    without = 'A';
    message->msg_controllen = 0;
    race_flip(&message->msg_controllen, &denied, sizeof denied);
}

static char make_passing(void)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    char content, letter = '?';
    struct iovec data = {&content, 1};
    struct msghdr got = {.msg_iov = &data,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof control};
    int fd;

    if (sendmsg(sender, message, MSG_DONTWAIT) != 1)
        return 0;
    if (recvmsg(receivers[0], &got, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1)
        return '?';
    if (CMSG_FIRSTHDR(&got) == NULL)
        return without;
    memcpy(&fd, CMSG_DATA(&control.head), sizeof fd);
    if (pread(fd, &letter, 1, 0) != 1)
        letter = '?';
    close(fd);
    return letter;
}

/* sendmmsg */

static void prepare_vector(void)
{
    vector = race_take(LETTERS * sizeof *vector);
    for (int i = 0; i < LETTERS; i++)
        say(&vector[i].msg_hdr);
}

static void prepare_sendmmsg_name(void)
{
    receive_at("peer-A", "peer-D", SOCK_DGRAM);
    prepare_vector();
    for (int i = 0; i < LETTERS; i++) {
        address = named("peer-A");
        vector[i].msg_hdr.msg_name = address;
        vector[i].msg_hdr.msg_namelen = length;
        race_flip_last(address->sun_path);
    }
}

static void prepare_sendmmsg_pointer(void)
{
    receive_at("peer-A", "peer-D", SOCK_DGRAM);
    prepare_vector();
    for (int i = 0; i < LETTERS; i++) {
        vector[i].msg_hdr.msg_name = named("peer-A");
        vector[i].msg_hdr.msg_namelen = length;
    }
    race_flip_pointer(&vector[1].msg_hdr.msg_name, address_twins());
}

/* A message that is refused after another was sent ends the call without an error. */
static char make_sendmmsg(void)
{
    int sent = sendmmsg(sender, vector, LETTERS, MSG_DONTWAIT), failure = errno;
    int denied = waiting(1), allowed = waiting(0);

    if (denied != 0)
        return 'D';
    if (allowed != (sent < 0 ? 0 : sent))
        return '?';
    for (int i = 0; i < sent; i++)
        if (vector[i].msg_len != 1)
            return '?';
    errno = sent < 0 ? failure : EACCES;
    return sent == LETTERS ? 'A' : 0;
}

/* setsockopt */

static void prepare_setsockopt(void)
{
    const int denied = DENIED_PRIORITY;
    sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    number = race_take(sizeof *number);
    *number = ALLOWED_PRIORITY;
    race_flip(number, &denied, sizeof denied);
}

static char make_setsockopt(void)
{
    int found = 0;
    socklen_t size = sizeof found;

    if (setsockopt(sender, SOL_SOCKET, SO_PRIORITY, number, sizeof *number) != 0)
        return 0;
    if (getsockopt(sender, SOL_SOCKET, SO_PRIORITY, &found, &size) != 0)
        return '?';
    return found == ALLOWED_PRIORITY ? 'A' : found == DENIED_PRIORITY ? 'D' : '?';
}

static const struct race_case cases[] = {
    {"connect-unix", prepare_connect_unix, make_connect_unix},
    {"connect-inet", prepare_connect_inet, make_connect_inet},
    {"bind", prepare_bind, make_bind},
    {"sendto", prepare_sendto, make_sendto},
    {"sendmsg-name", prepare_sendmsg_name, make_sendmsg},
    {"sendmsg-pointer", prepare_sendmsg_pointer, make_sendmsg},
    {"sendmsg-namelen", prepare_sendmsg_namelen, make_sendmsg},
    {"sendmsg-rights", prepare_sendmsg_rights, make_passing},
    {"sendmsg-control", prepare_sendmsg_control, make_passing},
    {"sendmsg-controllen", prepare_sendmsg_controllen, make_passing},
    {"sendmmsg-name", prepare_sendmmsg_name, make_sendmmsg},
    {"sendmmsg-pointer", prepare_sendmmsg_pointer, make_sendmmsg},
    {"setsockopt", prepare_setsockopt, make_setsockopt},
};

int main(int argc, char **argv)
{
    return race_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
