/*
 * reach_supervisor DIRECTORY ATTEMPTS WAYS: lays hands on the supervisor itself, from within.
 *
 * The supervisor is whoever started us and whoever traces us, with all their threads, and other
 * processes that they have started. An attempt tries each way on each of them. It has escaped if any
 * took effect, or only failed of itself, after the question of rights. What took effect is undone
 * where that is possible. What is counted as refused are ways.
 *
 *   memory       its memory, environment, registers, directories
 *   descriptors  its descriptors, and any that we were left with besides the first three
 *   signals      a signal, sent in every way; if none is possible, every signal
 *   limits       its resource limits
 *   scheduling   its processors, scheduling class and priorities
 *   files        its files in /proc that can be written
 *   keyring      its session keyring
 *   children     children that are the supervisor's own, which nobody waits for
 */
#include "attack.h"

#include <dirent.h>
#include <linux/kcmp.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

enum {
    MOST_TARGETS = 64,
    DESCRIPTORS = 64,
    CHILDREN = 64,
    SIGNALS = 64,
    IOPRIO_WHO_PROCESS = 1,
    IOPRIO_WHO_PGRP = 2,
    IOPRIO_WHO_USER = 3,
    IOPRIO_LOWEST = 2 << 13 | 7,        /* best effort, 7 */
    JOIN_SESSION_KEYRING = 1,
    SESSION_TO_PARENT = 18,
};

static const double SOON = 0.2;         /* until something that was not refused shows */

static pid_t targets[MOST_TARGETS];
static int target_count;
static long reached;                    /* ways that took effect in this attempt */

static void tried(int escaped)
{
    if (escaped)
        reached++;
    else
        attack.refused++;
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Opens a file of a process in /proc. */
static int open_of(pid_t pid, const char *name, int flags)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    return open(path, flags | O_CLOEXEC);
}

/* Returns how many bytes of a process's file could be read, with a NUL behind them. */
static ssize_t text_of(pid_t pid, const char *name, char *text, size_t size)
{
    int fd = open_of(pid, name, O_RDONLY);
    ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);

    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = 0;
    return got;
}

/* Returns what follows a process's name in its `stat`: state, parent, group. */
static int stat_of(int fd, char *state, pid_t *parent, pid_t *group)
{
    char text[4096], *end;
    ssize_t got = pread(fd, text, sizeof text - 1, 0);

    if (got <= 0)
        return 0;
    text[got] = 0;
    end = strrchr(text, ')');
    return end != NULL && sscanf(end + 2, "%c %d %d", state, parent, group) == 3;
}

static void add_target(pid_t pid)
{
    for (int i = 0; i < target_count; i++)
        if (targets[i] == pid)
            return;
    if (pid > 0 && pid != getpid() && target_count < MOST_TARGETS)
        targets[target_count++] = pid;
}

static void add_threads(pid_t pid)
{
    char path[64];
    struct dirent *entry;
    DIR *threads;

    add_target(pid);
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    threads = opendir(path);
    while (threads != NULL && (entry = readdir(threads)) != NULL)
        add_target(atoi(entry->d_name));
    if (threads != NULL)
        closedir(threads);
}

/* Adds the processes whose parent is the supervisor, apart from us. */
static void add_children(pid_t of)
{
    struct dirent *entry;
    DIR *processes = opendir("/proc");
    pid_t parent, group;
    char state;

    while (processes != NULL && (entry = readdir(processes)) != NULL) {
        int fd = atoi(entry->d_name) > 0 ? open_of(atoi(entry->d_name), "stat", O_RDONLY) : -1;

        if (fd < 0)
            continue;
        if (stat_of(fd, &state, &parent, &group) && parent == of && state != 'Z')
            add_target(atoi(entry->d_name));
        close(fd);
    }
    if (processes != NULL)
        closedir(processes);
}

static void find_targets(void)
{
    char text[4096], *tracer;

    add_threads(getppid());
    add_children(getppid());
    if (text_of(getpid(), "status", text, sizeof text) > 0 &&
        (tracer = strstr(text, "\nTracerPid:")) != NULL)
        add_threads(atoi(tracer + strlen("\nTracerPid:")));
}

/* memory */

static void memory(pid_t pid)
{
    static const char *const texts[] = {"environ", "auxv", "maps", "smaps_rollup", "syscall", "io"};
    static const char *const links[] = {"root", "cwd", "exe", "ns/mnt"};
    unsigned long address = 0x400000, nodes = 1;
    void *robust, *page;
    size_t size;
    int status, fd;
    char text[4096], byte;
    struct iovec here = {&byte, 1}, there = {NULL, 1};
    struct perf_event_attr event = {
        .type = PERF_TYPE_SOFTWARE, .size = sizeof event, .config = PERF_COUNT_SW_TASK_CLOCK};
    pid_t child;

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        tried(text_of(pid, texts[i], text, sizeof text) > 0);
    if (text_of(pid, "maps", text, sizeof text) > 0)
        sscanf(text, "%lx", &address);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        fd = open_of(pid, links[i], O_PATH);
        tried(fd >= 0);
        if (fd >= 0)
            close(fd);
    }
    fd = open_of(pid, "mem", O_RDWR);
    tried(fd >= 0 && pread(fd, &byte, 1, (off_t)address) == 1);
    if (fd >= 0)
        close(fd);
    /* Nothing is there, so nothing is harmed; the question of rights comes first. */
    tried(process_vm_readv(pid, &here, 1, &there, 1, 0) >= 0 || errno == EFAULT);
    tried(process_vm_writev(pid, &here, 1, &there, 1, 0) >= 0 || errno == EFAULT);
    there = (struct iovec){(void *)address, 4096};
    fd = (int)syscall(SYS_pidfd_open, pid, 0);
    tried(fd >= 0 && syscall(SYS_process_madvise, fd, &there, 1, MADV_COLD, 0) >= 0);
    if (fd >= 0)
        close(fd);
    page = (void *)address;
    tried(syscall(SYS_move_pages, pid, 1, &page, NULL, &status, 0) >= 0);
    tried(syscall(SYS_migrate_pages, pid, 8 * sizeof nodes, &nodes, &nodes) >= 0);
    tried(syscall(SYS_kcmp, getpid(), pid, KCMP_VM, 0, 0) >= 0);
    tried(syscall(SYS_get_robust_list, pid, &robust, &size) == 0);
    fd = (int)syscall(SYS_perf_event_open, &event, pid, -1, -1, 0);
    tried(fd >= 0);
    if (fd >= 0)
        close(fd);
    /* The end of a tracer sets its tracees free. */
    child = fork();
    if (child == 0)
        _exit(ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0);
    if (child < 0 || waitpid(child, &status, 0) != child)
        attack_fail("fork");
    tried(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
}

/* descriptors */

static void descriptors(pid_t pid)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

    for (int number = 0; number < DESCRIPTORS; number++) {
        char name[32];
        int fd;

        snprintf(name, sizeof name, "fd/%d", number);
        fd = open_of(pid, name, O_PATH);
        tried(fd >= 0);
        if (fd >= 0)
            close(fd);
        fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
        tried(fd >= 0);
        if (fd >= 0)
            close(fd);
    }
    if (pidfd >= 0)
        close(pidfd);
}

/* Descriptors that were open when we started, besides the streams. */
static void inherited(void)
{
    for (int fd = 3; fd < 1024; fd++)
        tried(fcntl(fd, F_GETFD) >= 0);
}

/* signals */

static int send_by_kill(pid_t pid, pid_t process)
{
    (void)process;
    return kill(pid, SIGSTOP);
}

static int send_by_tkill(pid_t pid, pid_t process)
{
    (void)process;
    return (int)syscall(SYS_tkill, pid, SIGSTOP);
}

static int send_by_tgkill(pid_t pid, pid_t process)
{
    return (int)syscall(SYS_tgkill, process, pid, SIGSTOP);
}

static siginfo_t queued(void)
{
    siginfo_t info;

    memset(&info, 0, sizeof info);
    info.si_signo = SIGSTOP;
    info.si_code = SI_QUEUE;
    info.si_pid = getpid();
    info.si_uid = getuid();
    return info;
}

static int send_by_queue(pid_t pid, pid_t process)
{
    siginfo_t info = queued();

    (void)process;
    return (int)syscall(SYS_rt_sigqueueinfo, pid, SIGSTOP, &info);
}

static int send_by_thread_queue(pid_t pid, pid_t process)
{
    siginfo_t info = queued();

    return (int)syscall(SYS_rt_tgsigqueueinfo, process, pid, SIGSTOP, &info);
}

static int send_by_pidfd(pid_t pid, pid_t process)
{
    int pidfd = (int)syscall(SYS_pidfd_open, process, 0), result;

    (void)pid;
    if (pidfd < 0)
        return -1;
    result = (int)syscall(SYS_pidfd_send_signal, pidfd, SIGSTOP, NULL, 0);
    close(pidfd);
    return result;
}

/* By the kernel, when input comes for a descriptor whose owner it is said to be. */
static int send_by_owner(pid_t pid, int thread)
{
    struct f_owner_ex owner = {thread ? F_OWNER_TID : F_OWNER_PID, pid};
    int ends[2], result;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0)
        attack_fail("socketpair");
    result = fcntl(ends[0], F_SETSIG, SIGSTOP);
    if (result == 0)
        result = fcntl(ends[0], F_SETOWN_EX, &owner);
    if (result == 0)
        result = fcntl(ends[0], F_SETFL, O_ASYNC);
    if (result == 0 && write(ends[1], "x", 1) != 1)
        result = -1;
    close(ends[0]);
    close(ends[1]);
    return result;
}

static int send_by_process_owner(pid_t pid, pid_t process)
{
    (void)pid;
    return send_by_owner(process, 0);
}

static int send_by_thread_owner(pid_t pid, pid_t process)
{
    (void)process;
    return send_by_owner(pid, 1);
}

/* Returns whether a process group has nobody in it but the supervisor and what it has started. */
static int only_ours(pid_t group, pid_t supervisor)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    int ours = processes != NULL;

    while (ours && (entry = readdir(processes)) != NULL) {
        pid_t pid = atoi(entry->d_name), parent, its_group;
        int fd = pid > 0 ? open_of(pid, "stat", O_RDONLY) : -1;
        char state;

        if (fd < 0)
            continue;
        if (stat_of(fd, &state, &parent, &its_group) && its_group == group)
            ours = pid == supervisor || parent == supervisor;
        close(fd);
    }
    if (processes != NULL)
        closedir(processes);
    return ours;
}

/* Our own process is in that group, too, and is stopped and continued with it: we are its child. */
static int send_to_group(pid_t pid, pid_t process)
{
    pid_t group = getpgid(process);

    (void)pid;
    if (group <= 1 || group == getpgrp() || !only_ours(group, process)) {
        errno = EPERM;
        return -1;
    }
    return kill(-group, SIGSTOP);
}

/* `stat` was opened before: a supervisor that is stopped answers no open. */
static int stops(int stat)
{
    double end = now() + SOON;
    pid_t parent, group;
    char state = 0;

    while (stat_of(stat, &state, &parent, &group) && now() < end) {
        if (state == 'T')
            return 1;
        sched_yield();
    }
    return 0;
}

static void signals(pid_t pid)
{
    static int (*const ways[])(pid_t, pid_t) = {
        send_by_kill,  send_by_tkill,         send_by_tgkill,       send_by_queue, send_by_thread_queue,
        send_by_pidfd, send_by_process_owner, send_by_thread_owner, send_to_group,
    };
    long before = reached;
    char text[4096], *line;
    pid_t process = pid, ours = getppid();
    int stat = open_of(pid, "stat", O_RDONLY);

    if (text_of(pid, "status", text, sizeof text) > 0 && (line = strstr(text, "\nTgid:")) != NULL)
        process = atoi(line + strlen("\nTgid:"));
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        int escaped = ways[i](pid, process) == 0 && stops(stat);

        if (ways[i] == send_to_group)
            kill(ours, SIGCONT);
        if (escaped)
            kill(process, SIGCONT);
        tried(escaped);
    }
    for (int number = 0; number <= SIGNALS && reached == before; number++)
        tried(kill(pid, number) == 0);
    if (stat >= 0)
        close(stat);
}

/* limits */

static void limits(pid_t pid)
{
    static const int resources[] = {RLIMIT_CPU,    RLIMIT_FSIZE, RLIMIT_AS,   RLIMIT_NOFILE,
                                    RLIMIT_NPROC,  RLIMIT_DATA,  RLIMIT_STACK, RLIMIT_MEMLOCK,
                                    RLIMIT_SIGPENDING};

    for (size_t i = 0; i < sizeof resources / sizeof *resources; i++) {
        struct rlimit before, changed, after;
        int escaped = 0;

        if (prlimit(pid, resources[i], NULL, &before) == 0) {
            changed = before;
            changed.rlim_cur = before.rlim_cur == RLIM_INFINITY ? 1UL << 40 : before.rlim_cur - 1;
            escaped = prlimit(pid, resources[i], &changed, NULL) == 0 &&
                      prlimit(pid, resources[i], NULL, &after) == 0 &&
                      after.rlim_cur == changed.rlim_cur;
            if (escaped)
                prlimit(pid, resources[i], &before, NULL);
        } else {
            changed = (struct rlimit){RLIM_INFINITY, RLIM_INFINITY};
            escaped = prlimit(pid, resources[i], &changed, NULL) == 0;
        }
        tried(escaped);
    }
}

/* scheduling */

struct scheduling {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static void affinity(pid_t pid)
{
    cpu_set_t before, one, after;
    int first = 0;

    if (sched_getaffinity(pid, sizeof before, &before) != 0)
        CPU_ZERO(&before);
    while (first < CPU_SETSIZE - 1 && !CPU_ISSET(first, &before))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    if (sched_setaffinity(pid, sizeof one, &one) != 0) {
        tried(0);
        return;
    }
    tried(sched_getaffinity(pid, sizeof after, &after) == 0 && CPU_EQUAL(&after, &one));
    sched_setaffinity(pid, sizeof before, &before);
}

static void scheduling(pid_t pid)
{
    static const int whose[][2] = {{PRIO_PGRP, IOPRIO_WHO_PGRP}, {PRIO_USER, IOPRIO_WHO_USER}};
    struct sched_param none = {0};
    struct scheduling attributes = {.size = sizeof attributes, .policy = SCHED_BATCH};
    long before = reached;
    int nice = getpriority(PRIO_PROCESS, pid);

    affinity(pid);
    tried(sched_setparam(pid, &none) == 0);
    attributes.nice = nice;
    tried(syscall(SYS_sched_setattr, pid, &attributes, 0) == 0 &&
          sched_getscheduler(pid) == SCHED_BATCH);
    if (reached > before)
        sched_setscheduler(pid, SCHED_OTHER, &none);
    tried(sched_setscheduler(pid, SCHED_BATCH, &none) == 0 &&
          sched_getscheduler(pid) == SCHED_BATCH);
    if (reached > before)
        sched_setscheduler(pid, SCHED_OTHER, &none);
    tried(setpriority(PRIO_PROCESS, pid, nice + 1) == 0 &&
          getpriority(PRIO_PROCESS, pid) == nice + 1);
    tried(syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid, IOPRIO_LOWEST) == 0 &&
          syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, pid) == IOPRIO_LOWEST);
    if (reached > before) {
        setpriority(PRIO_PROCESS, pid, nice);
        syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid, 0);
        return;
    }
    /* These are about others, too. */
    for (size_t i = 0; i < sizeof whose / sizeof *whose && geteuid() != 0; i++) {
        int id = whose[i][0] == PRIO_PGRP ? getpgid(pid) : (int)getuid();

        setpriority(whose[i][0], id, nice + 1);
        tried(getpriority(PRIO_PROCESS, pid) == nice + 1);
        syscall(SYS_ioprio_set, whose[i][1], id, IOPRIO_LOWEST);
        tried(syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, pid) == IOPRIO_LOWEST);
    }
}

/* files */

static void files(pid_t pid)
{
    /* What is written, if not what it says already. */
    static const struct {
        const char *name, *written;
    } all[] = {
        {"oom_score_adj", NULL}, {"timerslack_ns", NULL}, {"autogroup", "0"}, {"sched", "0"},
        {"clear_refs", "1"},     {"coredump_filter", "0x33"}, {"comm", "reached"},
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char text[256];
        const char *written = all[i].written;
        int fd;

        if (written == NULL) {
            text_of(pid, all[i].name, text, sizeof text);
            written = text;
        }
        fd = open_of(pid, all[i].name, O_WRONLY);
        tried(fd >= 0 && write(fd, written, strlen(written)) > 0);
        if (fd >= 0)
            close(fd);
    }
}

/* keyring */

static void keyring(void)
{
    if (syscall(SYS_keyctl, JOIN_SESSION_KEYRING, NULL) < 0)
        attack_unsupported("keyrings");
    tried(syscall(SYS_keyctl, SESSION_TO_PARENT) == 0);
}

/* children */

static int zombies(pid_t of)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    int found = 0;

    while (processes != NULL && (entry = readdir(processes)) != NULL) {
        int fd = atoi(entry->d_name) > 0 ? open_of(atoi(entry->d_name), "stat", O_RDONLY) : -1;
        pid_t parent, group;
        char state;

        if (fd < 0)
            continue;
        found += stat_of(fd, &state, &parent, &group) && parent == of && state == 'Z';
        close(fd);
    }
    if (processes != NULL)
        closedir(processes);
    return found;
}

static void children(void)
{
    double end;

    for (int i = 0; i < CHILDREN; i++) {
        long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);

        if (pid == 0)
            _exit(0);
        if (pid < 0)
            attack.refused++;
    }
    /* They have ended; who waits for them does it by then. */
    end = now() + 10 * SOON;
    while (zombies(getppid()) >= CHILDREN / 2)
        if (now() > end) {
            reached++;
            return;
        }
}

static const struct {
    const char *name;
    void (*on_each)(pid_t pid);
    void (*once)(void);
} ways[] = {
    {"memory", memory, NULL},         {"descriptors", descriptors, inherited},
    {"signals", signals, NULL},       {"limits", limits, NULL},
    {"scheduling", scheduling, NULL}, {"files", files, NULL},
    {"keyring", NULL, keyring},       {"children", NULL, children},
};

static void try(size_t way)
{
    if (ways[way].once != NULL)
        ways[way].once();
    find_targets();
    for (int i = 0; i < target_count && ways[way].on_each != NULL; i++)
        ways[way].on_each(targets[i]);
}

/* In a child of a process group of its own, which tells its counts through a pipe. */
static void try_signals(size_t way)
{
    pid_t parent = getpid(), child;
    long counts[2] = {0};
    int ends[2], status;

    find_targets();
    if (pipe2(ends, O_CLOEXEC) != 0)
        attack_fail("pipe2");
    child = fork();
    if (child == 0) {
        attack_die_with(parent);
        if (setpgid(0, 0) != 0)
            attack_fail("setpgid");
        for (int i = 0; i < target_count; i++)
            ways[way].on_each(targets[i]);
        counts[0] = reached;
        counts[1] = attack.refused;
        _exit(write(ends[1], counts, sizeof counts) != sizeof counts);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        attack_fail("signals");
    if (read(ends[0], counts, sizeof counts) != sizeof counts)
        attack_fail("counts");
    reached = counts[0];
    attack.refused = counts[1];
}

int main(int argc, char **argv)
{
    attack_begin(argc, argv);
    for (size_t way = 0; way < sizeof ways / sizeof *ways; way++)
        if (attack.words == 1 && strcmp(attack.word[0], ways[way].name) == 0) {
            for (long i = 0; i < attack.attempts; i++) {
                reached = 0;
                if (ways[way].on_each == signals)
                    try_signals(way);
                else
                    try(way);
                attack.escapes += reached > 0;
            }
            return attack_report();
        }
    fprintf(stderr, "no such ways\n");
    return 2;
}
