/*
 * A ring (io_uring) makes calls that no filter sees.
 *
 *     open, open2     the denied file
 *     connect         to a socket that no call may connect to (peer-D)
 *     rename, link    the denied file, to a name that may be opened
 *     mkdir           of the name that no call may mention
 *     unlink          of the denied file
 */
#include "bypass.h"

#include <linux/io_uring.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static const char *denied, *made;

/* Makes one call through a ring of its own; returns its result, INT_MIN without a ring. */
static int through_ring(struct io_uring_sqe request)
{
    struct io_uring_params params = {0};
    int ring = (int)syscall(SYS_io_uring_setup, 1, &params), result = INT_MIN;
    struct io_uring_sqe *requests;
    struct io_uring_cqe *done;
    size_t size;
    char *queues;

    if (ring < 0)
        return INT_MIN;
    size = params.cq_off.cqes + params.cq_entries * sizeof *done;
    if (size < params.sq_off.array + params.sq_entries * sizeof(uint32_t))
        size = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
    queues = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
                  IORING_OFF_SQ_RING);
    requests = mmap(NULL, params.sq_entries * sizeof *requests, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
    if (!(params.features & IORING_FEAT_SINGLE_MMAP) || queues == MAP_FAILED ||
        requests == MAP_FAILED)
        return INT_MIN;
    requests[0] = request;
    *(uint32_t *)(queues + params.sq_off.array) = 0;
    __atomic_store_n((uint32_t *)(queues + params.sq_off.tail), 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1) {
        done = (struct io_uring_cqe *)(queues + params.cq_off.cqes);
        result = done->res;
    }
    close(ring);
    return result;
}

static struct io_uring_sqe request(int code, const char *path)
{
    return (struct io_uring_sqe){.opcode = (uint8_t)code, .fd = AT_FDCWD, .addr = (uintptr_t)path};
}

static enum outcome outcome_of_failure(int result)
{
    return result == INT_MIN ? REFUSED : outcome_of_error(-result);
}

static enum outcome ring_open(void)
{
    int result = through_ring(request(IORING_OP_OPENAT, denied));

    return result < 0 ? outcome_of_failure(result) : outcome_of_open(result);
}

static enum outcome ring_open2(void)
{
    struct open_how how = {.flags = O_RDONLY};
    struct io_uring_sqe one = request(IORING_OP_OPENAT2, denied);
    int result;

    one.len = sizeof how;
    one.addr2 = (uintptr_t)&how;
    result = through_ring(one);
    return result < 0 ? outcome_of_failure(result) : outcome_of_open(result);
}

static enum outcome ring_connect(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0), result;
    char *path = attack_path("scratch/peer-x"), *peer = attack_path("scratch/peer-D");
    struct io_uring_sqe one = {.opcode = IORING_OP_CONNECT, .fd = client, .addr = (uintptr_t)&name,
                               .off = sizeof name};

    snprintf(name.sun_path, sizeof name.sun_path, "%s", path);
    if (server < 0 || client < 0 || bind(server, (struct sockaddr *)&name, sizeof name) != 0 ||
        listen(server, 1) != 0 || rename(path, peer) != 0)
        return OTHER;
    snprintf(name.sun_path, sizeof name.sun_path, "%s", peer);
    result = through_ring(one);
    unlink(peer);
    if (result < 0)
        return outcome_of_failure(result);
    return accept(server, NULL, NULL) >= 0 ? ESCAPED : OTHER;
}

/* Opens what the denied file was made known as. */
static enum outcome opened_as(int result, const char *path)
{
    return result < 0 ? outcome_of_failure(result) : outcome_of_open(open(path, O_RDONLY));
}

static enum outcome two_names(int code)
{
    struct io_uring_sqe one = request(code, denied);

    one.len = (uint32_t)AT_FDCWD;
    one.addr2 = (uintptr_t)made;
    return opened_as(through_ring(one), made);
}

static enum outcome ring_rename(void)
{
    return two_names(IORING_OP_RENAMEAT);
}

static enum outcome ring_link(void)
{
    return two_names(IORING_OP_LINKAT);
}

/* Success is what the kernel says; below the result, the parent's number of links proves it. */
static enum outcome ring_mkdir(void)
{
    char *parent = attack_path("scratch"), *path = attack_path("scratch/secret-D");
    struct stat before, after;
    struct io_uring_sqe one = request(IORING_OP_MKDIRAT, path);
    int result;

    one.len = 0700;
    stat(parent, &before);
    result = through_ring(one);
    stat(parent, &after);
    if (result < 0)
        return outcome_of_failure(result);
    return after.st_nlink == before.st_nlink + 1 ? ESCAPED : OTHER;
}

static enum outcome ring_unlink(void)
{
    struct stat before, after;
    int result;
    char *parent = attack_path("files");

    stat(parent, &before);
    result = through_ring(request(IORING_OP_UNLINKAT, denied));
    stat(parent, &after);
    if (result < 0)
        return outcome_of_failure(result);
    return before.st_mtim.tv_sec != after.st_mtim.tv_sec ||
                   before.st_mtim.tv_nsec != after.st_mtim.tv_nsec
               ? ESCAPED
               : OTHER;
}

int main(int argc, char **argv)
{
    static const struct way ways[] = {
        {"open", ring_open},     {"open2", ring_open2}, {"connect", ring_connect},
        {"rename", ring_rename}, {"link", ring_link},   {"mkdir", ring_mkdir},
        {"unlink", ring_unlink},
    };
    char setting = '2';
    int fd;

    attack_begin(argc, argv);
    fd = open("/proc/sys/kernel/io_uring_disabled", O_RDONLY);
    if (fd < 0 || read(fd, &setting, 1) != 1 || setting == '2')
        attack_unsupported("io_uring");
    close(fd);
    denied = attack_path("files/secret-D");
    made = attack_path("scratch/made");
    return TRY_WAYS(ways);
}
