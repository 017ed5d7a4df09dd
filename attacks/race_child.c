/*
 * race_child: tells by its exit status what it was executed with.
 *
 *   bits 0 and 1  0: its first argument ends in A, or there is none; 1: in D; 2: in something else
 *   bit 2         whether its environment has LD_PRELOAD
 *
 * It is built without a C library, so that it starts fast and makes no call that would be trapped.
 */
#include <sys/syscall.h>

static int begins(const char *text, const char *with)
{
    while (*with != 0 && *text == *with)
        text++, with++;
    return *with == 0;
}

__attribute__((noreturn, used)) static void report(char **stack)
{
    long count = (long)stack[0], status = 0;
    char **arguments = stack + 1, **environment = arguments + count + 1;

    if (count > 1) {
        const char *end = arguments[1];
        while (end[0] != 0 && end[1] != 0)
            end++;
        status = *end == 'A' ? 0 : *end == 'D' ? 1 : 2;
    }
    for (; *environment != 0; environment++)
        if (begins(*environment, "LD_PRELOAD="))
            status |= 4;
    for (;;)
        __asm__ volatile("syscall" : : "a"(SYS_exit_group), "D"(status) : "rcx", "r11", "memory");
}

__attribute__((naked, noreturn)) void _start(void)
{
    __asm__("mov %rsp, %rdi\n\tand $-16, %rsp\n\tcall report");
}
