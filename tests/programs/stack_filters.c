/*
 * stack_filters SOCKET ORDER ACTION PATH PIN: two filters on one process. The notifying one asks about
 * every open(); its listener goes out through SOCKET. The judging one answers ACTION to every open()
 * that may write. ORDER says which of the two is the older: "outer" the judging one, "inner" the
 * notifying one.
 *
 * Two calls: one that writes to PATH (what the judging filter says to its face), then one that only
 * reads it, which the supervisor may turn into one that writes. A SIGSYS is looked at in its handler.
 * With ACTION "kill" or "kill_thread" a child makes each call.
 */
#include "filters.h"
#include "handover.h"
#include "sig_frame.h"

static const char *path;
static int hits;

static void handler(int number, siginfo_t *info, void *context)
{
    struct seen seen = look_at(context, path);
    const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;

    (void)number;
    dprintf(STDOUT_FILENO,
            "sigsys%d code=%d call=%d at_call=%d pins=%d in_call=%d own=%d flags=%lld number=%lld"
            " stepping=%d\n",
            ++hits, info->si_code, info->si_syscall, (uintptr_t)info->si_call_addr == (uintptr_t)raw_call_at + 2,
            seen.pins, seen.in_call, seen.own, registers[REG_RSI], registers[REG_RAX],
            seen.stepping);
}

static long add_judge(unsigned action)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_open, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_WRONLY | O_RDWR, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};

    return answer(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

static void make_call(const char *name, int flags)
{
    const char *changed;
    long result = marked_open(path, flags | O_CLOEXEC, &changed);
    int mode = 0;

    if (result > 2) {
        mode = fcntl((int)result, F_GETFL) & O_ACCMODE;
        close((int)result);
    }
    dprintf(STDOUT_FILENO, "%s result=%ld registers=%s mode=%d\n", name, result > 2 ? 0 : result,
            changed ? changed : "ok", mode);
}

static void made_by_child(const char *name, int flags)
{
    pid_t self = getpid(), child = fork();
    int status = 0;

    if (child == 0) {
        die_with(self);
        make_call(name, flags);
        _exit(0);
    }
    waitpid(child, &status, 0);
    dprintf(STDOUT_FILENO, "child_%s signal=%d\n", name, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        unsigned action;
    } actions[] = {
        {"errno", SECCOMP_RET_ERRNO | EPERM}, {"kill", SECCOMP_RET_KILL_PROCESS},
        {"kill_thread", SECCOMP_RET_KILL_THREAD}, {"trap", SECCOMP_RET_TRAP},
        {"trace", SECCOMP_RET_TRACE | 42}, {"log", SECCOMP_RET_LOG}, {"allow", SECCOMP_RET_ALLOW},
    };
    void (*call)(const char *, int) = make_call;
    unsigned action = 0;
    int known = 0, channel;
    long listener;
    char word;

    if (argc != 6 || !read_pin(argv[5]))
        return 2;
    channel = atoi(argv[1]);
    path = argv[4];
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
        if (strcmp(argv[3], actions[i].name) == 0) {
            action = actions[i].action;
            known = 1;
        }
    if (!known)
        return 2;
    if (strncmp(argv[3], "kill", 4) == 0)
        call = made_by_child;
    handle(SIGSYS, handler, 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (strcmp(argv[2], "outer") == 0 && add_judge(action) != 0)
        return 1;
    listener = add_filter(SYS_open, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
    if (listener < 0 || hand_over(channel, (int)listener) != 0 || recv(channel, &word, 1, 0) != 1)
        return 1;
    close((int)listener);
    if (strcmp(argv[2], "inner") == 0 && add_judge(action) != 0)
        return 1;
    call("direct", O_WRONLY);
    call("redirected", O_RDONLY);
    return 0;
}
