/*
 * bypass_i386: a 32-bit program that opens the file which it is given, and exits with what
 * `enum outcome` (bypass.h) says of it. Built with -m32 -nostdlib -static.
 */
enum { ALLOWED = 40, ESCAPED, REFUSED, OTHER };

static long call(long number, long a, long b, long c)
{
    asm volatile("int $0x80" : "+a"(number) : "b"(a), "c"(b), "d"(c) : "memory");
    return number;
}

__attribute__((used)) static void begin(long *stack)
{
    char content = 0;
    long fd = call(5, stack[2], 0, 0), outcome = OTHER;

    if (fd < 0)
        outcome = REFUSED;
    else if (call(3, fd, (long)&content, 1) == 1)
        outcome = content == 'D' ? ESCAPED : content == 'A' ? ALLOWED : OTHER;
    call(1, outcome, 0, 0);
    __builtin_unreachable();
}

asm(".globl _start\n"
    "_start:\n"
    "    mov %esp, %eax\n"
    "    push %eax\n"
    "    call begin\n");
