/*
 * storm CALLS SIGNALS: another process sends SIGUSR1 at a high rate while openat() runs in a loop;
 * the handler makes an openat() of its own. Results, registers and signal frames are checked.
 */
#include "probe.h"

#include <ucontext.h>

static struct range pins[PINS_AT_MOST];
static int pin_count;
static volatile long signals, nested, nested_failures, bad_frames, bad_registers;
static volatile uintptr_t current;

static long open_path(const char *path)
{
    const uint64_t arguments[6] = {(uint64_t)AT_FDCWD, (uintptr_t)path, O_RDONLY | O_CLOEXEC, 0, 77, 78};
    struct registers after;
    long result = raw_call(SYS_openat, arguments, &after);

    if (changed_register(arguments, &after) != NULL)
        bad_registers++;
    return result;
}

static void handler(int number, siginfo_t *info, void *context)
{
    const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t at = (uintptr_t)registers[REG_RIP], call = (uintptr_t)raw_call_at;
    long fd;

    (void)number;
    (void)info;
    signals++;
    for (int i = 0; i < NGREG; i++)
        if (in_pins(pins, pin_count, (uintptr_t)registers[i])) {
            bad_frames++;
            break;
        }
    if ((at == call || at == call + 2) && (uintptr_t)registers[REG_RSI] != current)
        bad_frames++;
    fd = open_path("/dev/null");
    if (fd >= 0) {
        nested++;
        close((int)fd);
    } else {
        nested_failures++;
    }
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
    /* Copies, so that each path has an address of its own. */
    char here[] = "/dev/null", missing[] = "/dev/null/missing";
    long calls, wanted, bad_results = 0;
    pid_t self = getpid(), child;

    if (argc != 3)
        return 2;
    calls = atol(argv[1]);
    wanted = atol(argv[2]);
    close((int)open_path(here));
    pin_count = find_pins(pins);
    sigaction(SIGUSR1, &action, NULL);
    child = fork();
    if (child < 0)
        return 1;
    if (child == 0) {
        signal(SIGUSR1, SIG_IGN);
        die_with(self);
        for (long i = 0; i < wanted && kill(self, SIGUSR1) == 0; i++)
            pause_for(0.0001);
        _exit(0);
    }
    for (long i = 0; i < calls; i++) {
        const char *path = i & 1 ? missing : here;
        long result;
        current = (uintptr_t)path;
        result = open_path(path);
        if (i & 1)
            bad_results += result != -ENOTDIR;
        else if (result < 0)
            bad_results++;
        else
            close((int)result);
    }
    kill(child, SIGKILL);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    printf("pins=%d calls=%ld signals=%ld nested=%ld nested_failures=%ld\n", pin_count, calls, signals,
           nested, nested_failures);
    printf("bad_results=%ld bad_registers=%ld bad_frames=%ld\n", bad_results, bad_registers, bad_frames);
    return 0;
}
