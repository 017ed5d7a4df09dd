/*
 * signal_leak DIRECTORY ATTEMPTS WHERE SOURCE [HANDLER]...: looks for what a redirected call leaves
 * behind: an address inside a pin, or any value that is not the program's own. An attempt is a call,
 * an escape is one for which there is such a find. Each call has marks in all registers that it does not use, and these are
 * stored by the instruction that follows it.
 *
 * Signals come at random, so that they meet a call at every point of it, and as rarely as it takes for
 * calls to get through in between.
 *
 * WHERE     registers   right after each call
 *           frames      in the frame of each signal
 * SOURCE    none        no signals
 *           usr         another process sends SIGUSR1
 *           queue       another process queues real-time signals
 *           timer       the kernel sends SIGALRM
 *           trap        another process sends SIGTRAP, with which a tracer may step us
 *           stop        another process stops and continues us; SIGCONT has a handler
 *           blocked     SIGUSR1, in the middle of opens of a FIFO, which blocks them
 * HANDLER   nested      makes redirected calls of its own
 *           jump        never returns
 *           restart     has SA_RESTART
 */
#include "pin.h"
#include "registers.h"

#include <setjmp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <ucontext.h>

enum { MARK = 0x4d41524b, FIRST_CALLS = 20, CALLS_BETWEEN = 6, CALLS_BETWEEN_BLOCKED = 20,
       SENDER_SECONDS = 300, FLAGS = 0x500 };

/* The call that is under way: whose frame it is can be told by the marks. */
static volatile uint64_t current[6];
static volatile long leaks_in_registers, leaks_in_frames, frames;
static int nested, jump;
static volatile int can_jump;
static sigjmp_buf landing;
static char *fifo;
static pid_t self;
static unsigned pause_at_most;  /* microseconds between signals */

/* By numbers of pages: a signal that comes in here must not find an address of a pin in a register
 * that we have put there ourselves. */
static uint64_t pages[PINS_AT_MOST][2];

static void note_pages(void)
{
    for (int i = 0; i < pin_count; i++) {
        pages[i][0] = (uintptr_t)pins[i].at / PIN_PAGE;
        pages[i][1] = pages[i][0] + pins[i].size / PIN_PAGE;
    }
}

static int is_in_pin(uint64_t value)
{
    const uint64_t page = value / PIN_PAGE;

    for (int i = 0; i < pin_count; i++)
        if (page >= pages[i][0] && page < pages[i][1])
            return 1;
    return 0;
}

static long make(long number, const uint64_t arguments[6])
{
    struct registers after;
    const uint64_t *all = &after.rax;
    long result;
    int bad;

    for (int i = 0; i < 6; i++)
        current[i] = arguments[i];
    result = raw_call(number, arguments, &after);
    bad = changed_register(arguments, &after) != NULL;
    for (size_t i = 0; i < sizeof after / sizeof *all; i++)
        bad |= is_in_pin(all[i]);
    leaks_in_registers += bad;
    return result;
}

static long make_open(const char *path)
{
    const uint64_t arguments[6] = {(uint64_t)AT_FDCWD, (uintptr_t)path, O_RDONLY | O_CLOEXEC, MARK,
                                   MARK + 1, MARK + 2};
    long fd = make(SYS_openat, arguments);

    if (fd >= 0)
        close((int)fd);
    return fd;
}

static void set_timer(void)
{
    const struct itimerval once = {{0, 0}, {0, (long)(pin_random() % pause_at_most) + 1}};

    setitimer(ITIMER_REAL, &once, NULL);
}

/* Says what was found, so that it need not be found again. Called from a handler. */
static void tell(const greg_t *registers)
{
    static const char *const names[NGREG] = {"r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15",
                                             "rdi", "rsi", "rbp", "rbx", "rdx", "rax", "rcx", "rsp",
                                             "rip", "efl", "csgsfs", "err", "trapno", "oldmask",
                                             "cr2"};
    char line[2048];
    int length = snprintf(line, sizeof line, "a frame of a call at %p:", raw_call_at);

    for (int i = 0; i < NGREG; i++)
        length += snprintf(line + length, sizeof line - (size_t)length, " %s=%llx", names[i],
                           registers[i]);
    for (int i = 0; i < 6; i++)
        length += snprintf(line + length, sizeof line - (size_t)length, " %llx",
                           (unsigned long long)current[i]);
    line[length++] = '\n';
    if (write(2, line, (size_t)length) != length)
        _exit(1);
}

static void look(const greg_t *registers)
{
    uint64_t at = (uint64_t)registers[REG_RIP], call = (uintptr_t)raw_call_at;
    int bad = (registers[REG_EFL] & FLAGS) != 0;

    for (int i = 0; i < NGREG; i++)
        bad |= is_in_pin((uint64_t)registers[i]);
    /* In a call, or right after it, all arguments are the program's own. */
    if (at == call || at == call + 2) {
        static const int where[6] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};
        for (int i = 0; i < 6; i++)
            bad |= (uint64_t)registers[where[i]] != current[i];
        frames++;
    }
    if (bad && leaks_in_frames == 0)
        tell(registers);
    leaks_in_frames += bad;
}

static void handler(int number, siginfo_t *info, void *context)
{
    uint64_t before[6];

    (void)info;
    look(((ucontext_t *)context)->uc_mcontext.gregs);
    for (int i = 0; i < 6; i++)
        before[i] = current[i];
    if (nested) {
        make_open(pin_allowed);
        make_open(pin_denied);
    }
    for (int i = 0; i < 6; i++)
        current[i] = before[i];
    if (number == SIGALRM)
        set_timer();
    if (jump && can_jump)
        siglongjmp(landing, 1);
}

/* Until it is continued nobody may end the one who is to do that: it would stay stopped for ever. */
static void stay(int how)
{
    sigset_t end;

    sigemptyset(&end);
    sigaddset(&end, SIGTERM);
    sigprocmask(how, &end, NULL);
}

static void send_all(int number, int queued)
{
    for (double end = pin_now() + SENDER_SECONDS; pin_now() < end;) {
        if (number == SIGCONT) {
            stay(SIG_BLOCK);
            kill(self, SIGSTOP);
        } else if (queued)
            sigqueue(self, number, (union sigval){0});
        else
            kill(self, number);
        usleep((useconds_t)(pin_random() % pause_at_most));
        if (number == SIGCONT) {
            kill(self, SIGCONT);
            stay(SIG_UNBLOCK);
            usleep((useconds_t)(pin_random() % pause_at_most));
        }
    }
}

/* Whoever writes to the FIFO lets the blocked call go on. */
static void open_other_end(void)
{
    for (double end = pin_now() + SENDER_SECONDS; pin_now() < end;) {
        int fd;
        usleep(2 * pause_at_most);
        fd = open(fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0)
            close(fd);
    }
}

static void blocked(void)
{
    const uint64_t arguments[6] = {(uint64_t)AT_FDCWD, (uintptr_t)fifo, O_RDONLY | O_CLOEXEC, MARK,
                                   MARK + 1, MARK + 2};
    long fd = make(SYS_openat, arguments);

    if (fd >= 0) {
        attack.allowed++;
        close((int)fd);
    } else if (fd == -EINTR) {
        attack.refused++;
    } else {
        attack.other++;
    }
}

/* One of many calls with pointers; some work, and some fail in the kernel. */
static void one_call(long i)
{
    static char buffer[PIN_PAGE], missing[PATH_MAX];
    static struct sockaddr_un address = {.sun_family = AF_UNIX};
    static const uint64_t how[3] = {O_RDONLY | O_CLOEXEC, 0, 0};
    static const char *none[] = {NULL};
    uint64_t at = (uint64_t)AT_FDCWD, allowed = (uintptr_t)pin_allowed, m = MARK;
    uint64_t gone = (uintptr_t)missing, to = (uintptr_t)buffer;
    const struct {
        long number;
        uint64_t arguments[6];
    } calls[] = {
        {SYS_openat, {at, allowed, O_RDONLY | O_CLOEXEC, m, m + 1, m + 2}},
        {SYS_open, {allowed, O_RDONLY | O_CLOEXEC, 0, m, m + 1, m + 2}},
        {SYS_openat2, {at, allowed, (uintptr_t)how, sizeof how, m + 1, m + 2}},
        {SYS_stat, {allowed, to, m, m + 1, m + 2, m + 3}},
        {SYS_lstat, {gone, to, m, m + 1, m + 2, m + 3}},
        {SYS_newfstatat, {at, allowed, to, 0, m, m + 1}},
        {SYS_statx, {at, gone, 0, 0xfff, to, m}},
        {SYS_access, {allowed, R_OK, m, m + 1, m + 2, m + 3}},
        {SYS_readlink, {gone, to, sizeof buffer, m, m + 1, m + 2}},
        {SYS_rename, {gone, allowed, m, m + 1, m + 2, m + 3}},
        {SYS_linkat, {at, gone, at, allowed, 0, m}},
        {SYS_symlink, {gone, allowed, m, m + 1, m + 2, m + 3}},
        {SYS_execve, {gone, (uintptr_t)none, (uintptr_t)none, m, m + 1, m + 2}},
        {SYS_connect, {0, (uintptr_t)&address, sizeof address, m, m + 1, m + 2}},
        {SYS_bind, {0, (uintptr_t)&address, sizeof address, m, m + 1, m + 2}},
        {SYS_setsockopt, {0, 1, 2, (uintptr_t)how, 4, m}},
        {SYS_setxattr, {gone, (uintptr_t)"user.A", (uintptr_t)"A", 1, 0, m}},
        {SYS_utimensat, {at, gone, 0, 0, m, m + 1}},
        {SYS_openat, {at, (uintptr_t)pin_denied, O_RDONLY | O_CLOEXEC, m, m + 1, m + 2}},
    };
    const size_t which = (size_t)i % (sizeof calls / sizeof *calls);
    long result;

    if (missing[0] == 0) {
        snprintf(missing, sizeof missing, "%s/scratch/nothing", attack.directory);
        memcpy(address.sun_path, missing, sizeof address.sun_path - 1);
    }
    result = make(calls[which].number, calls[which].arguments);
    if (result == -EACCES)
        attack.refused++;
    else if (result < 0)
        attack.other++;
    else
        attack.allowed++;
    if (result >= 0 && (which < 3))
        close((int)result);
}

static void measure(int calls)
{
    double begin = pin_now();

    for (int i = 0; i < FIRST_CALLS; i++)
        pin_open(pin_allowed);
    pause_at_most = 1 + (unsigned)((pin_now() - begin) * 1e6 / FIRST_CALLS * calls);
}

static int numbered(const char *source)
{
    return strcmp(source, "usr") == 0 || strcmp(source, "blocked") == 0 ? SIGUSR1
           : strcmp(source, "queue") == 0                                 ? SIGRTMIN
           : strcmp(source, "timer") == 0                                 ? SIGALRM
           : strcmp(source, "trap") == 0                                  ? SIGTRAP
           : strcmp(source, "stop") == 0                                  ? SIGCONT
                                                                          : 0;
}

/* Starts a child that does something until it is ended. */
static pid_t start(void (*act)(void), int number, int queued)
{
    pid_t child = fork();

    if (child == 0) {
        attack_die_with(self);
        if (act != NULL)
            act();
        else
            send_all(number, queued);
        _exit(0);
    }
    if (child < 0)
        attack_fail("fork");
    return child;
}

static void end(pid_t child)
{
    if (child <= 0)
        return;
    kill(child, SIGTERM);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    const struct itimerval never = {{0, 0}, {0, 0}};
    volatile pid_t sender = 0, writer = 0;
    volatile long *leaks;
    int number, blocks;

    attack_begin(argc, argv);
    if (attack.words < 2)
        return 2;
    for (int i = 2; i < attack.words; i++) {
        nested |= strcmp(attack.word[i], "nested") == 0;
        jump |= strcmp(attack.word[i], "jump") == 0;
        if (strcmp(attack.word[i], "restart") == 0)
            action.sa_flags |= SA_RESTART;
    }
    self = getpid();
    pin_paths();
    pin_find();
    note_pages();
    fifo = attack_path("scratch/fifo");
    blocks = strcmp(attack.word[1], "blocked") == 0;
    measure(blocks ? CALLS_BETWEEN_BLOCKED : CALLS_BETWEEN);
    number = numbered(attack.word[1]);
    if (blocks) {
        if (mkfifo(fifo, 0600) != 0)
            attack_fail(fifo);
        writer = start(open_other_end, 0, 0);
    }
    if (number != 0) {
        sigaction(number, &action, NULL);
        if (number == SIGALRM)
            set_timer();
        else
            sender = start(NULL, number, number == SIGRTMIN);
    }
    leaks = strcmp(attack.word[0], "frames") == 0 ? &leaks_in_frames : &leaks_in_registers;
    for (volatile long i = 0; i < attack.attempts; i++) {
        attack.escapes += *leaks != 0;
        *leaks = 0;
        if (jump && sigsetjmp(landing, 1) != 0) {
            can_jump = 0;
            continue;
        }
        can_jump = 1;
        if (blocks)
            blocked();
        else
            one_call(i);
        can_jump = 0;
    }
    setitimer(ITIMER_REAL, &never, NULL);
    end(sender);
    end(writer);
    attack.escapes += *leaks != 0;
    if (number != 0 && frames == 0) {
        fprintf(stderr, "no signal came in the middle of a call\n");
        return 1;
    }
    return attack_report();
}
