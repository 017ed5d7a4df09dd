/* userfaultfd: memory whose reader waits for as long as the program likes. 0 or a negative errno. */
#include "probe.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

int main(void)
{
    long result = answer(syscall(SYS_userfaultfd, O_CLOEXEC));
    long device = answer(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
    long made = device < 0 ? device : answer(ioctl((int)device, USERFAULTFD_IOC_NEW, O_CLOEXEC));

    printf("userfaultfd=%ld\n", result >= 0 ? 0 : result);
    printf("dev_userfaultfd=%ld made=%ld\n", device >= 0 ? 0 : device, made >= 0 ? 0 : made);
    return 0;
}
