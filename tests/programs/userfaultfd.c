/* userfaultfd: memory whose reader waits for as long as the program likes. 0 or a negative errno. */
#include "probe.h"

int main(void)
{
    long result = answer(syscall(SYS_userfaultfd, O_CLOEXEC));
    long device = answer(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));

    printf("userfaultfd=%ld\n", result >= 0 ? 0 : result);
    printf("dev_userfaultfd=%ld\n", device >= 0 ? 0 : device);
    return 0;
}
