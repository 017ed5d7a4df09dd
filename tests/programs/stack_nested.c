/*
 * stack_nested PATH: asks for a listener of its own beside the one it lives under, then opens PATH.
 */
#include "filters.h"

int main(int argc, char **argv)
{
    const char *changed;
    struct registers after;
    long listener, result;
    uint64_t arguments[6] = {0, O_RDONLY | O_CLOEXEC, 0, 0, 77, 78};

    if (argc != 2)
        return 2;
    listener = add_filter(SYS_open, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
    arguments[0] = (uintptr_t)argv[1];
    result = raw_call(SYS_open, arguments, &after);
    changed = changed_register(arguments, &after);
    dprintf(STDOUT_FILENO, "listener=%ld result=%ld registers=%s\n", listener < 0 ? listener : 0,
            result < 0 ? result : 0, changed ? changed : "ok");
    return 0;
}
