/*
 * The denied name lies where the kernel reads it on the program's behalf, and a supervisor may not.
 *
 *     secret   memory that only its own address space maps (memfd_secret)
 *     write    a page that may be written, and not read
 *     execute  a page that may be executed only, which the program gives itself the key to
 *     half     a name that begins on an ordinary page and ends on one that may not be read
 *     device   a page of a device's memory: the buffer of a performance counter
 *     flicker  a page that a thread makes readable and unreadable again
 *     hidden   ordinary memory of a process that nobody may look at (PR_SET_DUMPABLE)
 *     program  ordinary memory of a program that may be executed and not read
 */
#include "bypass.h"

#include <cpuid.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

static const char *denied;
static size_t page;

static enum outcome open_at(const char *path)
{
    return outcome_of_open((int)syscall(SYS_open, path, O_RDONLY | O_CLOEXEC, 0));
}

static char *fresh(size_t pages)
{
    char *at = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED)
        attack_fail("mmap");
    return at;
}

static enum outcome secret(void)
{
    int fd = (int)syscall(SYS_memfd_secret, 0);
    char *at;

    if (fd < 0 && errno == ENOSYS)
        return ABSENT;
    if (fd < 0 || ftruncate(fd, (off_t)page) != 0)
        return OTHER;
    at = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return OTHER;
    strcpy(at, denied);
    return open_at(at);
}

static enum outcome write_only(void)
{
    char *at = fresh(1);

    strcpy(at, denied);
    if (mprotect(at, page, PROT_WRITE) != 0)
        return OTHER;
    return open_at(at);
}

/* Whether the kernel uses protection keys (OSPKE). */
static int has_keys(void)
{
    unsigned a, b, c, d;

    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c >> 4 & 1);
}

static enum outcome execute_only(void)
{
    char *at = fresh(1);

    strcpy(at, denied);
    if (mprotect(at, page, PROT_EXEC) != 0)
        return OTHER;
    /* The page has a protection key of its own now, where the machine has such. All keys are ours. */
    if (has_keys())
        asm volatile("wrpkru" : : "a"(0), "c"(0), "d"(0) : "memory");
    return open_at(at);
}

static enum outcome half(void)
{
    char *at = fresh(2), *path = at + page - strlen(denied) + 1;

    strcpy(path, denied);
    if (mprotect(at + page, page, PROT_WRITE) != 0)
        return OTHER;
    return open_at(path);
}

static enum outcome device(void)
{
    struct perf_event_attr event = {
        .type = PERF_TYPE_SOFTWARE,
        .size = sizeof event,
        .config = PERF_COUNT_SW_DUMMY,
        .exclude_kernel = 1,
        .exclude_hv = 1,
    };
    int fd = (int)syscall(SYS_perf_event_open, &event, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    char *at, *path;

    if (fd < 0)
        return errno == ENOSYS ? ABSENT : outcome_of_error(errno);
    at = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return outcome_of_error(errno);
    /* The kernel uses the first half of this page only. */
    path = at + page / 2;
    strcpy(path, denied);
    return open_at(path);
}

static void *flicker_page(void *argument)
{
    for (;;) {
        mprotect(argument, page, PROT_NONE);
        mprotect(argument, page, PROT_READ);
    }
    return NULL;
}

static enum outcome hidden(void)
{
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return open_at(denied);
}

static enum outcome program(void)
{
    char *path = attack_path("programs/bypass_opener");

    if (open(path, O_RDONLY | O_CLOEXEC) >= 0)
        return ABSENT;
    execl(path, path, denied, NULL);
    return outcome_of_error(errno);
}

/* Many attempts in one process, with one thread. */
static int flicker(void)
{
    char *at = fresh(1);
    pthread_t thread;

    strcpy(at, denied);
    if (pthread_create(&thread, NULL, flicker_page, at) != 0)
        attack_fail("pthread_create");
    for (long i = 0; i < attack.attempts; i++)
        count(open_at(at));
    return attack_report();
}

int main(int argc, char **argv)
{
    static const struct way ways[] = {
        {"secret", secret}, {"write", write_only}, {"execute", execute_only}, {"half", half},
        {"device", device}, {"hidden", hidden},    {"program", program},
    };

    attack_begin(argc, argv);
    page = (size_t)sysconf(_SC_PAGESIZE);
    denied = attack_path("files/secret-D");
    if (attack.words > 0 && strcmp(attack.word[0], "flicker") == 0)
        return flicker();
    return TRY_WAYS(ways);
}
