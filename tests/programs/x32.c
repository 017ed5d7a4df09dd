/* x32: getpid() with the bit that selects the x32 table. ENOSYS on a kernel without that table. */
#include "probe.h"

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("before=1\n");
    printf("x32=%ld\n", answer(syscall(0x40000000 | SYS_getpid)) == getpid() ? 1 : -(long)errno);
    return 0;
}
