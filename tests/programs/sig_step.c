/*
 * sig_step CALLS: steps itself, one instruction at a time, by the trap flag, across calls of open().
 * Prints how many steps there were, how many of them right after the call, and the registers' state.
 */
#include "sig_frame.h"

static volatile long steps, after_call, bad_frames;

static void handler(int number, siginfo_t *info, void *context)
{
    struct seen seen = look_at(context, NULL);
    uintptr_t at = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

    (void)number;
    (void)info;
    steps++;
    after_call += at == (uintptr_t)raw_call_at + 2;
    bad_frames += seen.pins != 0;
}

int main(int argc, char **argv)
{
    const uint64_t arguments[6] = {(uintptr_t)"/nonexistent/step", O_RDONLY | O_CLOEXEC, 0, 76, 77, 78};
    struct registers after;
    long calls, opened = 0, bad_registers = 0;

    if (argc != 3 || !read_pin(argv[1]) || (calls = atol(argv[2])) < 1)
        return 2;
    handle(SIGTRAP, handler, 0);
    for (long i = 0; i < calls; i++) {
        const char *changed;
        long fd;
        asm volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc");
        fd = raw_call(SYS_open, arguments, &after);
        asm volatile("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::: "memory", "cc");
        /* Here the trap flag is supposed to be there. */
        after.flags &= ~(uint64_t)TRAP_FLAG;
        changed = changed_register(arguments, &after);
        bad_registers += changed != NULL;
        if (fd >= 0) {
            opened++;
            close((int)fd);
        }
    }
    printf("opened=%ld steps=%ld after_call=%ld bad_frames=%ld bad_registers=%ld\n", opened, steps,
           after_call, bad_frames, bad_registers);
    return 0;
}
