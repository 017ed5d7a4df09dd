/*
 * signals_restart: opens of a FIFO that nobody writes to, so that they block, and what signals do to
 * them. Each handler looks at the frame it was given: in an interrupted call the path register must
 * hold the program's own pointer, the instruction pointer must be at the program's own `syscall`
 * instruction, and no register may hold an address inside a pin.
 *
 *   eintr        a handler without SA_RESTART ends the call with EINTR
 *   restart      a handler with SA_RESTART: the call goes on and sees the writer
 *   nested       handlers that open files of their own meanwhile (both cases above do)
 *   jump         a handler that never returns, then an ordinary call
 *   ignored      signals whose default is to be ignored do not end the call
 *   stopped      SIGSTOP and SIGCONT do not end the call
 *
 * A child does all this. With the word "first", the program's first process does: a supervisor may well
 * follow that one when it stops, and must then not leave the rest of the program standing.
 */
#include "probe.h"

#include <setjmp.h>
#include <ucontext.h>

enum { PATIENCE = 10, SIGNALS_PER_CASE = 5, ALTOGETHER = 60 };

struct shared {
    _Atomic int hits;       /* handlers that ran on top of a blocked call */
    _Atomic int over;       /* the blocked call returned */
};

static struct shared *shared;
static struct range pins[PINS_AT_MOST];
static int pin_count;
static const char *blocked_path;
static volatile int jump, nested, nested_failures, frames, bad_pointer, bad_instruction, bad_frames;
static volatile int bad_registers;
static sigjmp_buf landing;
static pid_t self;

static long open_path(const char *path, int flags)
{
    const uint64_t arguments[6] = {(uint64_t)AT_FDCWD, (uintptr_t)path, (uint64_t)flags, 0, 77, 78};
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
    for (int i = 0; i < NGREG; i++)
        if (in_pins(pins, pin_count, (uintptr_t)registers[i]))
            bad_frames++;
    if (registers[REG_R8] == 77 && registers[REG_R9] == 78 && registers[REG_RBX] == 0x51) {
        frames++;
        if ((uintptr_t)registers[REG_RSI] != (uintptr_t)blocked_path)
            bad_pointer++;
        if (at != call && at != call + 2)
            bad_instruction++;
    }
    fd = open_path("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        close((int)fd);
        nested++;
    } else {
        nested_failures++;
    }
    shared->hits++;
    if (jump) {
        jump = 0;
        siglongjmp(landing, 1);
    }
}

static void handle(int number, int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigaction(number, &action, NULL);
}

/* A child that sends `number` again and again, then opens the writing end if told to. */
static pid_t sender(int number, int signals, int then, int write_end)
{
    pid_t child = fork();

    if (child != 0)
        return child;
    die_with(self);
    for (double end = now() + PATIENCE; !shared->over && now() < end;) {
        pause_for(0.02);
        if (signals-- > 0 || (write_end == 0 && then == 0)) {
            kill(self, number);
            if (then != 0) {
                pause_for(0.02);
                kill(self, then);
            }
        } else if (write_end) {
            int fd = open(blocked_path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
            if (fd >= 0) {
                pause_for(0.1);
                _exit(0);
            }
        }
    }
    _exit(0);
}

static void show(const char *name, long result)
{
    printf("%s result=%s hits=%d\n", name,
           result >= 0 ? "opened" : result == -EINTR ? "EINTR" : "other", shared->hits);
    if (result >= 0)
        close((int)result);
}

static void block(const char *name, int number, int then, int write_end)
{
    pid_t child;
    long result;

    pin_count = find_pins(pins);
    shared->hits = shared->over = 0;
    child = sender(number, SIGNALS_PER_CASE, then, write_end);
    result = open_path(blocked_path, O_RDONLY | O_CLOEXEC);
    shared->over = 1;
    waitpid(child, NULL, 0);
    show(name, result);
}

int main(int argc, char **argv)
{
    char directory[] = "/tmp/signals-XXXXXX", path[64];
    long fd;

    setvbuf(stdout, NULL, _IONBF, 0);
    self = getpid();
    if (argc != 2 || strcmp(argv[1], "first") != 0) {
        pid_t child = fork();
        int status;
        if (child > 0)
            return waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
        die_with(self);
        self = getpid();
    }
    alarm(ALTOGETHER);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || mkdtemp(directory) == NULL)
        return 1;
    snprintf(path, sizeof path, "%s/fifo", directory);
    if (mkfifo(path, 0600) != 0)
        return 1;
    blocked_path = path;
    handle(SIGUSR1, 0);
    block("eintr", SIGUSR1, 0, 0);
    handle(SIGUSR1, SA_RESTART);
    block("restart", SIGUSR1, 0, 1);
    block("ignored", SIGWINCH, 0, 1);
    block("stopped", SIGSTOP, SIGCONT, 1);

    shared->hits = shared->over = 0;
    jump = 1;
    if (sigsetjmp(landing, 1) == 0) {
        sender(SIGUSR1, SIGNALS_PER_CASE, 0, 0);
        fd = open_path(blocked_path, O_RDONLY | O_CLOEXEC);
        jump = 0;
        printf("jump result=%s\n", fd >= 0 ? "opened" : "failed");
    } else {
        printf("jump result=landed\n");
    }
    shared->over = 1;
    wait(NULL);
    fd = open_path("/dev/null", O_RDONLY | O_CLOEXEC);
    printf("after_jump result=%s\n", fd >= 0 ? "opened" : "failed");

    printf("pins=%d nested=%d nested_failures=%d frames=%d\n", pin_count, nested, nested_failures,
           frames);
    printf("bad_pointer=%d bad_instruction=%d bad_frames=%d bad_registers=%d\n", bad_pointer,
           bad_instruction, bad_frames, bad_registers);
    unlink(path);
    rmdir(directory);
    return 0;
}
