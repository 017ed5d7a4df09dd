/*
 * What the programs of the suite share: a system call whose registers can be looked at, and a way to
 * find pinfold's own mappings.
 */
#ifndef PROBE_H
#define PROBE_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

/* Every register that a system call must keep, as it stood right after the `syscall` instruction. */
struct registers {
    uint64_t rax, rdi, rsi, rdx, r10, r8, r9, rbx, rbp, r12, r13, r14, r15, flags;
};

/*
 * long raw_call(long number, const uint64_t arguments[6], struct registers *after)
 *
 * Makes the call and stores the registers before anything else runs. The callee-saved ones hold
 * recognisable values meanwhile. rcx and r11 belong to the kernel and are used as scratch. The call
 * instruction itself is at raw_call_at, two bytes long.
 */
asm(".pushsection .text\n"
    ".type raw_call, @function\n"
    "raw_call:\n"
    "    push %rbx\n    push %rbp\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
    "    push %rdx\n"
    "    mov %rdi, %rax\n"
    "    mov %rsi, %rcx\n"
    "    mov (%rcx), %rdi\n    mov 8(%rcx), %rsi\n    mov 16(%rcx), %rdx\n"
    "    mov 24(%rcx), %r10\n    mov 32(%rcx), %r8\n    mov 40(%rcx), %r9\n"
    "    mov $0x51, %ebx\n    mov $0x52, %ebp\n    mov $0x53, %r12d\n"
    "    mov $0x54, %r13d\n    mov $0x55, %r14d\n    mov $0x56, %r15d\n"
    "raw_call_at:\n"
    "    syscall\n"
    "    mov (%rsp), %rcx\n"
    "    mov %rax, (%rcx)\n    mov %rdi, 8(%rcx)\n    mov %rsi, 16(%rcx)\n    mov %rdx, 24(%rcx)\n"
    "    mov %r10, 32(%rcx)\n    mov %r8, 40(%rcx)\n    mov %r9, 48(%rcx)\n    mov %rbx, 56(%rcx)\n"
    "    mov %rbp, 64(%rcx)\n    mov %r12, 72(%rcx)\n    mov %r13, 80(%rcx)\n"
    "    mov %r14, 88(%rcx)\n    mov %r15, 96(%rcx)\n"
    "    pushfq\n    pop %r11\n    mov %r11, 104(%rcx)\n"
    "    pop %rdx\n"
    "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbp\n    pop %rbx\n"
    "    ret\n"
    ".size raw_call, . - raw_call\n"
    ".popsection\n");

extern long raw_call(long number, const uint64_t arguments[6], struct registers *after)
    __attribute__((visibility("hidden")));
extern const char raw_call_at[] __attribute__((visibility("hidden")));

/* Returns the name of the first register that a call changed, or NULL. */
static inline const char *changed_register(const uint64_t arguments[6], const struct registers *after)
{
    const struct {
        const char *name;
        uint64_t wanted, found;
    } all[] = {
        {"rdi", arguments[0], after->rdi}, {"rsi", arguments[1], after->rsi},
        {"rdx", arguments[2], after->rdx}, {"r10", arguments[3], after->r10},
        {"r8", arguments[4], after->r8},   {"r9", arguments[5], after->r9},
        {"rbx", 0x51, after->rbx},         {"rbp", 0x52, after->rbp},
        {"r12", 0x53, after->r12},         {"r13", 0x54, after->r13},
        {"r14", 0x55, after->r14},         {"r15", 0x56, after->r15},
        {"flags", 0, after->flags & 0x500}, /* trap and direction */
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].wanted != all[i].found)
            return all[i].name;
    return NULL;
}

/* Returns a system call's own answer, -errno instead of -1. */
static inline long answer(long result)
{
    return result == -1 ? -errno : result;
}

static inline double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static inline void pause_for(double seconds)
{
    struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        ;
}

/* For a child: it shall not outlive the program, however that ends. */
static inline void die_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

/* Returns the first byte of a file, or a word that says why there is none. */
static inline const char *first_byte(const char *path)
{
    static __thread char text[16];
    char byte = '?';
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        snprintf(text, sizeof text, "-%d", errno);
        return text;
    }
    if (read(fd, &byte, 1) != 1)
        byte = '?';
    close(fd);
    snprintf(text, sizeof text, "%c", byte);
    return text;
}

struct range {
    uintptr_t start, end;
    char permissions[5];
};

enum { PINS_AT_MOST = 32 };

/* Returns how many mappings of pinfold's memfd this process has, and where they are. */
static inline int find_pins(struct range pins[PINS_AT_MOST])
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char *line = NULL;
    size_t size = 0;
    int count = 0;

    if (maps == NULL)
        return -1;
    while (count < PINS_AT_MOST && getline(&line, &size, maps) > 0) {
        struct range *pin = &pins[count];
        if (strstr(line, "memfd:pinfold") == NULL)
            continue;
        if (sscanf(line, "%lx-%lx %4s", &pin->start, &pin->end, pin->permissions) == 3)
            count++;
    }
    free(line);
    fclose(maps);
    return count;
}

static inline int in_pins(const struct range *pins, int count, uintptr_t address)
{
    for (int i = 0; i < count; i++)
        if (address >= pins[i].start && address < pins[i].end)
            return 1;
    return 0;
}

#endif
