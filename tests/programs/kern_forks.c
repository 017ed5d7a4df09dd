/*
 * kern_forks NUMBER [ARGUMENT...]: makes a call that makes a process, with recognisable values in the
 * argument registers that are not given, and looks at the registers in the parent and in the child,
 * right after the `syscall` instruction.
 *
 * Prints parent= and child=: "ok", or the first register that is not what it was.
 */
#include "probe.h"

#define GUARD 0xdeadbeef0badf00d

/*
 * long forking_call(long number, const uint64_t arguments[6], struct registers after[2])
 *
 * The parent stores its registers in after[0] and returns. The child stores its own in after[1], and
 * ends at once: it may be on the parent's stack.
 */
asm(".pushsection .text\n"
    ".type forking_call, @function\n"
    "forking_call:\n"
    "    push %rbx\n    push %rbp\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
    "    mov %rdx, %rbp\n"
    "    mov %rdi, %rax\n"
    "    mov %rsi, %rcx\n"
    "    mov (%rcx), %rdi\n    mov 8(%rcx), %rsi\n    mov 16(%rcx), %rdx\n"
    "    mov 24(%rcx), %r10\n    mov 32(%rcx), %r8\n    mov 40(%rcx), %r9\n"
    "    syscall\n"
    "    mov %rbp, %rcx\n"
    "    test %rax, %rax\n"
    "    jnz 1f\n"
    "    add $112, %rcx\n"
    "1:\n"
    "    mov %rax, (%rcx)\n    mov %rdi, 8(%rcx)\n    mov %rsi, 16(%rcx)\n    mov %rdx, 24(%rcx)\n"
    "    mov %r10, 32(%rcx)\n    mov %r8, 40(%rcx)\n    mov %r9, 48(%rcx)\n"
    "    test %rax, %rax\n"
    "    jnz 2f\n"
    "    mov $231, %eax\n    xor %edi, %edi\n    syscall\n"
    "2:\n"
    "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbp\n    pop %rbx\n"
    "    ret\n"
    ".size forking_call, . - forking_call\n"
    ".popsection\n");

extern long forking_call(long number, const uint64_t arguments[6], struct registers after[2])
    __attribute__((visibility("hidden")));

static const char *changed(const uint64_t arguments[6], const struct registers *after)
{
    static const char *const names[6] = {"rdi", "rsi", "rdx", "r10", "r8", "r9"};
    const uint64_t found[6] = {after->rdi, after->rsi, after->rdx, after->r10, after->r8, after->r9};

    for (int i = 0; i < 6; i++)
        if (found[i] != arguments[i])
            return names[i];
    return "ok";
}

int main(int argc, char **argv)
{
    uint64_t arguments[6];
    struct registers *after;
    long child;
    int status = -1;

    _Static_assert(sizeof(struct registers) == 112, "the assembly above steps over one");
    if (argc < 2)
        return 2;
    for (int i = 0; i < 6; i++)
        arguments[i] = i + 2 < argc ? strtoull(argv[i + 2], NULL, 0) : GUARD + (uint64_t)i;
    after = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (after == MAP_FAILED)
        return 1;
    after[1].rax = 1;
    child = forking_call(atol(argv[1]), arguments, after);
    if (child < 0) {
        printf("result=%ld parent=%s\n", child, changed(arguments, after));
        return 0;
    }
    if (waitpid((pid_t)child, &status, __WALL) != child)
        return 1;
    printf("result=0 parent=%s child=%s made=%d status=%d\n", changed(arguments, after),
           changed(arguments, after + 1), after[1].rax == 0, status);
    return 0;
}
