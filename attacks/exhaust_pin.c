/*
 * exhaust_pin DIRECTORY ATTEMPTS RESOURCE: uses up what the pin or a call may need, and races the
 * calls that the pin is for. The path of stat(), secret-A or secret-D, is rewritten by a process that shares all
 * memory; which one the kernel acted on is told by the size, 1 or 2 bytes.
 *
 *   maps         as many mappings as there may be
 *   space        RLIMIT_AS is 0
 *   descriptors  RLIMIT_NOFILE is 0
 *
 * These leave no room for the pin. Others leave some:
 *
 *   processes    RLIMIT_NPROC is 0, and a fork fails before each call
 *   stack        RLIMIT_STACK is 0
 *   file-size    RLIMIT_FSIZE is 0
 *   pending      RLIMIT_SIGPENDING is 0: signals that come lose what is known of them
 *   cpu          RLIMIT_CPU is one second, which is over in the midst of it
 *
 * A pin that is there already would serve: so all of this comes before the first call that is judged,
 * and the program is its own libc (-static -nostdlib -fno-stack-protector).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

enum { PAGE = 4096, STACK = 1 << 14, MOST_MAPS = 1 << 21, SOON = 950000000 };

static const struct {
    const char *name;
    int resource;
} limited[] = {
    {"space", RLIMIT_AS},    {"descriptors", RLIMIT_NOFILE}, {"processes", RLIMIT_NPROC},
    {"stack", RLIMIT_STACK}, {"file-size", RLIMIT_FSIZE},
};

static _Alignas(64) char path[4096];
static _Alignas(64) volatile char *volatile flipped;
static volatile int flipping;
static _Alignas(64) char stack[STACK];

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static _Noreturn void leave(int status)
{
    for (;;)
        call(SYS_exit_group, status, 0, 0, 0, 0, 0);
}

static char *add(char *end, const char *text)
{
    while (*text != 0)
        *end++ = *text++;
    *end = 0;
    return end;
}

static char *add_number(char *end, long number)
{
    char digits[24], *first = digits + sizeof digits;

    *--first = 0;
    do
        *--first = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    return add(end, first);
}

static int same(const char *one, const char *other)
{
    while (*one != 0 && *one == *other) {
        one++;
        other++;
    }
    return *one == *other;
}

static _Noreturn void flip(void)
{
    uint64_t random = 0x9e3779b97f4a7c15;

    call(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0);
    for (;;) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        *flipped = random >> 63 ? 'D' : 'A';
        flipping = 1;
    }
}

/* Returns the process that flips the path: it has a stack of its own, and all else together with us. */
static long start_to_flip(void)
{
    long pid;

    *(void **)(stack + STACK - 16) = (void *)flip;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "pop %%rax\n\t"
                     "call *%%rax\n"
                     "1:"
                     : "=a"(pid)
                     : "a"(SYS_clone), "D"(CLONE_VM | SIGCHLD), "S"(stack + STACK - 16)
                     : "rcx", "r11", "memory");
    if (pid < 0)
        leave(1);
    while (!flipping)
        call(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
    return pid;
}

static int limit(int resource)
{
    struct rlimit limits;

    if (call(SYS_prlimit64, 0, resource, 0, (long)&limits, 0, 0) != 0)
        return 0;
    limits.rlim_cur = 0;
    return call(SYS_prlimit64, 0, resource, (long)&limits, 0, 0, 0) == 0;
}

/* A signal that is ignored stops a task that is traced all the same. */
static int ignore(int number)
{
    struct {
        void (*handler)(int);
        unsigned long flags;
        void (*restorer)(void);
        unsigned long mask;
    } action = {SIG_IGN, 0, 0, 0};

    return call(SYS_rt_sigaction, number, (long)&action, 0, sizeof action.mask, 0, 0) == 0;
}

static long used_nanoseconds(void)
{
    struct timespec time;

    call(SYS_clock_gettime, CLOCK_PROCESS_CPUTIME_ID, (long)&time, 0, 0, 0, 0);
    return time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Has the limit's signal come soon. */
static int use_up_cpu(void)
{
    struct rlimit limits;

    if (!ignore(SIGXCPU) || call(SYS_prlimit64, 0, RLIMIT_CPU, 0, (long)&limits, 0, 0) != 0)
        return 0;
    limits.rlim_cur = 1;
    while (used_nanoseconds() < SOON)
        continue;
    return call(SYS_prlimit64, 0, RLIMIT_CPU, (long)&limits, 0, 0, 0) == 0;
}

/* Returns whether there is no new process, as there must not be any. */
static int fork_fails(void)
{
    long pid = call(SYS_clone, SIGCHLD, 0, 0, 0, 0, 0);

    if (pid == 0)
        leave(0);
    if (pid > 0)
        call(SYS_wait4, pid, 0, 0, 0, 0, 0);
    return pid == -EAGAIN;
}

static int exhaust(const char *resource)
{
    long maps = 0, got = 0;

    for (unsigned i = 0; i < sizeof limited / sizeof *limited; i++)
        if (same(resource, limited[i].name))
            return limit(limited[i].resource);
    if (same(resource, "pending"))
        return ignore(SIGUSR1) && limit(RLIMIT_SIGPENDING);
    if (same(resource, "cpu"))
        return use_up_cpu();

    if (!same(resource, "maps"))
        return 0;
    /* Neighbours differ: else they would become one. */
    while (got >= 0 && maps++ < MOST_MAPS)
        got = call(SYS_mmap, 0, PAGE, maps % 2 == 0 ? PROT_NONE : PROT_READ,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return got == -ENOMEM;
}

__attribute__((used)) static _Noreturn void begin(long *frame)
{
    char **argv = (char **)(frame + 1), line[256], *end;
    long attempts = 0, escapes = 0, allowed = 0, refused = 0, other = 0, peer;
    long self = call(SYS_getpid, 0, 0, 0, 0, 0, 0);
    struct stat found;

    if (frame[0] != 4)
        leave(2);
    for (const char *digit = argv[2]; *digit >= '0' && *digit <= '9'; digit++)
        attempts = attempts * 10 + *digit - '0';
    end = add(add(path, argv[1]), "/files/secret-A");
    flipped = end - 1;
    peer = start_to_flip();
    if (!exhaust(argv[3]))
        leave(1);
    for (long i = 0; i < attempts; i++) {
        long result;

        if (same(argv[3], "processes") && !fork_fails())
            leave(1);
        if (same(argv[3], "pending"))
            call(SYS_tkill, self, SIGUSR1, 0, 0, 0, 0);
        result = call(SYS_stat, (long)path, (long)&found, 0, 0, 0, 0);

        if (result == 0 && found.st_size == 1)
            allowed++;
        else if (result == 0 && found.st_size == 2)
            escapes++;
        else if (result < 0)
            refused++;
        else
            other++;
    }
    call(SYS_kill, peer, SIGKILL, 0, 0, 0, 0);
    call(SYS_wait4, peer, 0, 0, 0, 0, 0);
    end = add_number(add(line, "attempts="), attempts);
    end = add_number(add(end, " escapes="), escapes);
    end = add_number(add(end, " allowed="), allowed);
    end = add_number(add(end, " refused="), refused);
    end = add(add_number(add(end, " other="), other), "\n");
    leave(call(SYS_write, 1, (long)line, end - line, 0, 0, 0) == end - line ? 0 : 1);
}

__asm__(".globl _start\n"
        "_start:\n\t"
        "mov %rsp, %rdi\n\t"
        "and $-16, %rsp\n\t"
        "call begin\n");
