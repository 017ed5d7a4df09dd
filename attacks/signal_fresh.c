/*
 * signal_fresh: a program without a library, which looks at the registers that it begins with. Exit
 * status 'D' when one of them is not zero, as the kernel makes them, and else 'A'.
 */
#include <sys/syscall.h>

asm(".globl _start\n"
    "_start:\n"
    "    or %rbx, %rax\n    or %rcx, %rax\n    or %rdx, %rax\n    or %rsi, %rax\n    or %rdi, %rax\n"
    "    or %rbp, %rax\n    or %r8, %rax\n    or %r9, %rax\n    or %r10, %rax\n    or %r11, %rax\n"
    "    or %r12, %rax\n    or %r13, %rax\n    or %r14, %rax\n    or %r15, %rax\n"
    "    mov $'A', %edi\n"
    "    test %rax, %rax\n"
    "    jz 1f\n"
    "    mov $'D', %edi\n"
    "1:  mov $231, %eax\n"
    "    syscall\n");

_Static_assert(SYS_exit_group == 231, "the number of exit_group");
