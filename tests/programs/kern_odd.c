/*
 * kern_odd SOCKET KIND NUMBER: makes one call that is no ordinary call of 64 bits, under a filter that
 * notifies of this number in whatever architecture, and sends its listener through SOCKET.
 *
 * KIND: "int80", the gate of 32-bit calls; "x32", with the bit of that set of numbers; "vsyscall", time()
 * in the vsyscall page; "sigreturn", the return from a signal handler; "plain", for control.
 */
#include "filters.h"
#include "handover.h"

#define VSYSCALL_TIME 0xffffffffff600400ul

enum { X32_BIT = 0x40000000 };

static void handler(int number)
{
    (void)number;
}

static long by_int80(long number)
{
    long result;

    asm volatile("int $0x80" : "=a"(result) : "0"(number), "b"(0L) : "memory", "r8", "r9", "r10", "r11");
    return result;
}

static long by_vsyscall(void)
{
    long (*call)(time_t *);
    uintptr_t address = VSYSCALL_TIME;

    memcpy(&call, &address, sizeof call);
    return call(NULL);
}

int main(int argc, char **argv)
{
    const uint64_t none[6] = {0};
    struct registers after;
    const char *kind;
    long number, listener, result = 0;

    if (argc != 4)
        return 2;
    kind = argv[2];
    number = atol(argv[3]);
    if (strcmp(kind, "x32") == 0)
        number |= X32_BIT;
    listener = add_filter(number, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
    if (listener < 0 || hand_over(atoi(argv[1]), (int)listener) != 0)
        return 1;
    close((int)listener);
    if (strcmp(kind, "int80") == 0) {
        result = by_int80(number);
    } else if (strcmp(kind, "vsyscall") == 0) {
        result = by_vsyscall();
    } else if (strcmp(kind, "sigreturn") == 0) {
        signal(SIGUSR1, handler);
        raise(SIGUSR1);
    } else {
        result = raw_call(number, none, &after);
    }
    printf("result=%ld\n", result);
    return 0;
}
