// openat2_show PATH FLAGS: opens PATH by openat2 and prints the access mode of what it got.
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    struct open_how how = {.flags = (unsigned)atoi(argv[2])};
    long fd = syscall(SYS_openat2, AT_FDCWD, argv[1], &how, sizeof how);
    printf("%d\n", fd < 0 ? -errno : fcntl((int)fd, F_GETFL) & O_ACCMODE);
    return 0;
}
