/*
 * sig_own_step FILE CALLS: opens FILE until it is pinned, then steps itself by the trap flag across
 * calls of open(). Prints how many steps there were, and how often a handler was shown an address in
 * a pin: in a register, or as where the trap was (si_addr).
 */
#include "probe.h"

#include <ucontext.h>

static struct range pins[PINS_AT_MOST];
static int count;
static long steps, registers, addresses;

static void handler(int number, siginfo_t *info, void *context)
{
    const greg_t *values = ((const ucontext_t *)context)->uc_mcontext.gregs;

    (void)number;
    steps++;
    addresses += in_pins(pins, count, (uintptr_t)info->si_addr);
    for (int i = 0; i < NGREG; i++)
        registers += in_pins(pins, count, (uintptr_t)values[i]);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};

    if (argc != 3)
        return 2;
    for (int i = 0; i < 3; i++)
        first_byte(argv[1]);
    count = find_pins(pins);
    sigaction(SIGTRAP, &action, NULL);
    for (int i = 0; i < atoi(argv[2]); i++) {
        long result;

        __asm__ volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\t"
                         "syscall\n\tnop\n\t"
                         "pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq"
                         : "=a"(result)
                         : "0"((long)SYS_open), "D"("/nonexistent/step"), "S"(0L), "d"(0L)
                         : "rcx", "r11", "memory", "cc");
        if (result != -ENOENT)
            return 1;
    }
    printf("pins=%d steps=%ld registers=%ld addresses=%ld\n", count, steps, registers, addresses);
    return 0;
}
