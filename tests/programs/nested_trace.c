/*
 * nested_trace DENIED: filters of the program's own that answer "ask the tracer", with data of their
 * choice, for calls that nobody else asks about. Without a tracer these calls fail with ENOSYS, and a
 * tracer that did not ask for them must not let them pass, nor treat them as something else. The last
 * one asks about openat() too; it must still be judged.
 */
#include "filters.h"

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    if (add_filter(SYS_getppid, SECCOMP_RET_TRACE | 0, 0) != 0 ||
        add_filter(SYS_getuid, SECCOMP_RET_TRACE | 1, 0) != 0 ||
        add_filter(SYS_getgid, SECCOMP_RET_TRACE | 0xffff, 0) != 0)
        return 1;
    printf("getppid=%ld\n", answer(syscall(SYS_getppid)));
    printf("getuid=%ld\n", answer(syscall(SYS_getuid)));
    printf("getgid=%ld\n", answer(syscall(SYS_getgid)));
    printf("filter=%ld\n", add_filter(SYS_openat, SECCOMP_RET_TRACE | 7, 0));
    printf("byte=%s\n", first_byte(argv[1]));
    return 0;
}
