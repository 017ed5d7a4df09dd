/* int80: a 64-bit program that makes a 32-bit system call, getpid(). */
#include "probe.h"

int main(void)
{
    long result = 20;

    setvbuf(stdout, NULL, _IONBF, 0);
    printf("before=1\n");
    asm volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
    printf("int80=%s\n", result == getpid() ? "getpid" : "other");
    return 0;
}
