/*
 * restart_fifo FIFO: opens a FIFO that nobody writes to, so that the call blocks until somebody does,
 * and looks at its registers right after it.
 */
#include "probe.h"

int main(int count, char **arguments)
{
    struct registers after;
    const char *changed;
    uint64_t given[6] = {(uint64_t)AT_FDCWD, 0, O_RDONLY, 7, 8, 9};
    long result;

    if (count != 2)
        return 2;
    given[1] = (uint64_t)(uintptr_t)arguments[1];
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("pid=%d\n", (int)getpid());
    result = raw_call(SYS_openat, given, &after);
    changed = changed_register(given, &after);
    printf("result=%s\n", result < 0 ? "failed" : "opened");
    printf("registers=%s\n", changed ? changed : "ok");
    return 0;
}
