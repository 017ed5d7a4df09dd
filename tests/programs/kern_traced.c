/*
 * kern_traced SOCKET ORDER CHANGE PATH: a child under two filters, and its tracer. The notifying filter
 * asks about every open(); its listener goes out through SOCKET. The other one asks for the tracer of
 * every open() that may write. ORDER says which of the two is the older: "outer" the tracing one, "inner"
 * the notifying one.
 *
 * The child opens PATH for reading, which the supervisor may turn into an open that writes. CHANGE is
 * what the tracer does about that: "nothing"; "flags" adds O_APPEND in its first stop; "always" does so
 * in every other one, and takes it away in the rest; "skip" has no call made, with the answer EXDEV;
 * "watch" changes nothing, and stops at the entry and the exit of every call as well.
 *
 * Each stop of an open() is a line: stopN op=OP own=0|1 flags=F info_own=0|1 info_flags=F, with the
 * registers, and what the kernel tells of the call. The last line is the child's own.
 */
#include "filters.h"
#include "handover.h"
#include "sig_frame.h"

#include <sys/ptrace.h>
#include <sys/user.h>

enum { DATA = 42 };

static const char *path, *change;
static int stops;

static long add_tracing(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_open, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_WRONLY | O_RDWR, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | DATA),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};

    return set_filter(&program, 0);
}

static int traced(int channel, const char *order, int go)
{
    const char *changed;
    long listener, result;
    int mode = 0;
    char byte;

    if (read(go, &byte, 1) != 1)
        return 1;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (strcmp(order, "outer") == 0 && add_tracing() != 0)
        return 1;
    listener = add_filter(SYS_open, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
    if (listener < 0 || hand_over(channel, (int)listener) != 0)
        return 1;
    close((int)listener);
    if (strcmp(order, "inner") == 0 && add_tracing() != 0)
        return 1;
    result = marked_open(path, O_RDONLY | O_CLOEXEC, &changed);
    if (result > 2)
        mode = fcntl((int)result, F_GETFL) & (O_ACCMODE | O_APPEND);
    dprintf(STDOUT_FILENO, "call result=%ld registers=%s mode=%d\n", result > 2 ? 0 : result,
            changed ? changed : "ok", mode);
    return 0;
}

/* Looks at a stop, and does what was asked for. */
static void look(pid_t child, int in_seccomp)
{
    struct user_regs_struct registers;
    struct __ptrace_syscall_info info = {0};

    if (ptrace(PTRACE_GETREGS, child, NULL, &registers) != 0 || registers.orig_rax != SYS_open ||
        ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, &info) < 0)
        return;
    /* Arguments are in the same place for a seccomp stop and an entry; an exit has none. */
    dprintf(STDOUT_FILENO, "stop%d op=%d own=%d flags=%lld info_own=%d info_flags=%lld\n", ++stops,
            info.op, registers.rdi == (uintptr_t)path, registers.rsi,
            info.op != PTRACE_SYSCALL_INFO_EXIT && info.entry.args[0] == (uintptr_t)path,
            info.op != PTRACE_SYSCALL_INFO_EXIT ? (long long)info.entry.args[1] : -1);
    if (!in_seccomp)
        return;
    if ((strcmp(change, "flags") == 0 && stops == 1) || strcmp(change, "always") == 0) {
        registers.rsi ^= O_APPEND;
    } else if (strcmp(change, "skip") == 0) {
        registers.orig_rax = (unsigned long long)-1;
        registers.rax = (unsigned long long)-EXDEV;
    } else {
        return;
    }
    ptrace(PTRACE_SETREGS, child, NULL, &registers);
}

static int trace(pid_t child)
{
    int status;

    while (waitpid(child, &status, __WALL) == child && !WIFEXITED(status) && !WIFSIGNALED(status)) {
        int number = WSTOPSIG(status), event = status >> 16, how = PTRACE_CONT;

        if (event == PTRACE_EVENT_SECCOMP || number == (SIGTRAP | 0x80))
            look(child, event == PTRACE_EVENT_SECCOMP);
        if (strcmp(change, "watch") == 0)
            how = PTRACE_SYSCALL;
        number = event != 0 || number == (SIGTRAP | 0x80) ? 0 : number;
        if (ptrace(how, child, NULL, (void *)(uintptr_t)number) != 0 && errno != ESRCH)
            return 1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
    pid_t self = getpid(), child;
    int go[2];

    if (argc != 5 || pipe(go) != 0)
        return 2;
    change = argv[3];
    path = argv[4];
    child = fork();
    if (child == 0) {
        die_with(self);
        close(go[1]);
        _exit(traced(atoi(argv[1]), argv[2], go[0]));
    }
    if (ptrace(PTRACE_SEIZE, child, NULL,
               PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) != 0 ||
        (strcmp(change, "watch") == 0 && ptrace(PTRACE_INTERRUPT, child, NULL, NULL) != 0) ||
        write(go[1], "g", 1) != 1)
        return 1;
    return trace(child);
}
