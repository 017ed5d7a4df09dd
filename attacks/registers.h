/* A system call whose registers can be looked at. */
#ifndef REGISTERS_H
#define REGISTERS_H

#include <stddef.h>
#include <stdint.h>

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

#endif
