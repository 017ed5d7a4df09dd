/*
 * conf_abi: makes openat and sendto with recognisable values in every register, and looks at all of them
 * right after the `syscall` instruction: argument registers and callee-saved ones hold what they held,
 * rcx the address behind the instruction, r11 and the flags what the flags were, without the trap flag.
 *
 * One line per call: NAME result=R REGISTER=ok... or REGISTER=VALUE where it is not.
 */
#include "probe.h"

enum { REGISTERS = 16 };

static const char *const names[REGISTERS] = {"rdi", "rsi", "rdx", "r10", "r8",  "r9",  "rbx",   "rbp",
                                             "r12", "r13", "r14", "r15", "rcx", "r11", "flags", "rsp"};

/* What the call below is given and what it leaves, in the order of `names`. */
struct {
    uint64_t before[REGISTERS], after[REGISTERS];
} state asm("abi_state") __attribute__((visibility("hidden")));

/*
 * long abi_call(long number): loads the registers from state.before, makes the call and stores them in
 * state.after before anything else happens. The flags are set to something that is not their usual value.
 */
asm(".pushsection .text\n"
    ".type abi_call, @function\n"
    "abi_call:\n"
    "    push %rbx\n    push %rbp\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
    "    mov %rdi, %rax\n"
    "    mov abi_state+0(%rip), %rdi\n    mov abi_state+8(%rip), %rsi\n"
    "    mov abi_state+16(%rip), %rdx\n   mov abi_state+24(%rip), %r10\n"
    "    mov abi_state+32(%rip), %r8\n    mov abi_state+40(%rip), %r9\n"
    "    mov abi_state+48(%rip), %rbx\n   mov abi_state+56(%rip), %rbp\n"
    "    mov abi_state+64(%rip), %r12\n   mov abi_state+72(%rip), %r13\n"
    "    mov abi_state+80(%rip), %r14\n   mov abi_state+88(%rip), %r15\n"
    "    lea abi_behind(%rip), %rcx\n     mov %rcx, abi_state+96(%rip)\n"
    "    mov %rsp, abi_state+120(%rip)\n"
    "    cmp %rcx, %rcx\n    stc\n" /* zero, parity and carry set */
    "    pushfq\n    pop %r11\n    mov %r11, abi_state+104(%rip)\n    mov %r11, abi_state+112(%rip)\n"
    "    syscall\n"
    "abi_behind:\n"
    "    mov %rcx, abi_state+224(%rip)\n  mov %r11, abi_state+232(%rip)\n"
    "    mov %rsp, abi_state+248(%rip)\n"
    "    pushfq\n    pop %rcx\n    mov %rcx, abi_state+240(%rip)\n"
    "    mov %rdi, abi_state+128(%rip)\n  mov %rsi, abi_state+136(%rip)\n"
    "    mov %rdx, abi_state+144(%rip)\n  mov %r10, abi_state+152(%rip)\n"
    "    mov %r8, abi_state+160(%rip)\n   mov %r9, abi_state+168(%rip)\n"
    "    mov %rbx, abi_state+176(%rip)\n  mov %rbp, abi_state+184(%rip)\n"
    "    mov %r12, abi_state+192(%rip)\n  mov %r13, abi_state+200(%rip)\n"
    "    mov %r14, abi_state+208(%rip)\n  mov %r15, abi_state+216(%rip)\n"
    "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbp\n    pop %rbx\n"
    "    ret\n"
    ".size abi_call, . - abi_call\n"
    ".popsection\n");

extern long abi_call(long number) __attribute__((visibility("hidden")));

static void show(const char *name, long number, const uint64_t arguments[6])
{
    long result;

    memcpy(state.before, arguments, 6 * sizeof *arguments);
    for (int i = 6; i < 12; i++)
        state.before[i] = 0x5151000051510000 + (uint64_t)i;
    result = abi_call(number);
    printf("%s result=%ld", name, result);
    for (int i = 0; i < REGISTERS; i++)
        if (state.before[i] == state.after[i])
            printf(" %s=ok", names[i]);
        else
            printf(" %s=%lx", names[i], state.after[i]);
    printf("\n");
}

int main(void)
{
    static const char path[] = "/no/such/abi";
    uint64_t guard = 0xdeadbeef0badf00d;

    show("getpid", SYS_getpid, (const uint64_t[6]){guard, guard, guard, guard, guard, guard});
    show("openat", SYS_openat,
         (const uint64_t[6]){(uint64_t)AT_FDCWD, (uintptr_t)path, O_RDONLY, guard, guard, guard});
    show("sendto", SYS_sendto, (const uint64_t[6]){guard, 1, 2, 3, 4, 5});
    return 0;
}
