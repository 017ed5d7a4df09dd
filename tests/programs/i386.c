/* i386: a 32-bit program that exits with 0. Built with -m32 -nostdlib -static. */
void _start(void)
{
    asm volatile("int $0x80" : : "a"(1), "b"(0));
    __builtin_unreachable();
}
