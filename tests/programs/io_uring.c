/* io_uring: the other door: a ring opens and connects without system calls. 0 or a negative errno. */
#include "probe.h"

#include <linux/io_uring.h>

int main(void)
{
    struct io_uring_params parameters = {0};
    long result = answer(syscall(SYS_io_uring_setup, 4, &parameters));

    printf("io_uring_setup=%ld\n", result >= 0 ? 0 : result);
    return 0;
}
