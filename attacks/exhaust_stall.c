/*
 * exhaust_stall DIRECTORY ATTEMPTS LOAD: keeps the supervisor busy from two processes, while a third
 * one makes ATTEMPTS ordinary calls. An escape is one for which the supervisor computed for more than
 * BUSY_SECONDS before it answered, or, where a load is to make it wait or look elsewhere, that took
 * more than WAIT_SECONDS: on a machine that is busy itself a clock says little of the supervisor.
 *
 *   argv        execve() with as many arguments as a kernel takes, all empty
 *   unreadable  the same with as many pointers to nowhere
 *   sparse      the same with each argument on a page of its own
 *   messages    sendmmsg() with 1,024 messages of 1,024 pieces each
 *   option      setsockopt() with a megabyte
 *   dots        paths of 4,095 bytes that go down into a directory and up again, "a/../"
 *   slashes     paths of 4,095 bytes, nearly all of them slashes
 *   components  a path of 2,000 components, behind a link that only the task itself can follow
 *   links       the same path again and again, in the targets of symbolic links
 *   fifo        FIFOs, opened by many, that nobody writes to
 *   memory      calls by a process whose memory is locked by its own mapping most of the time
 *   signals     a process that drowns in signals
 *   forks       processes that are born and die
 *   crowd       many processes that make one call after the other: each is there again at once
 *   fault       a path in memory that a userfaultfd serves, late
 */
#include "attack.h"

#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

enum {
    LOADERS = 2,
    BUSY_SECONDS = 5,
    WAIT_SECONDS = 20,
    FAULT_SECONDS = 25,
    VECTOR_BYTES = 6 << 20,
    PAGE = 4096,
    MESSAGES = 1024,
    PIECES = 1024,
    OPTION = 1 << 20,
    LINKS = 38,
    FIFOS = 64,
    CROWD = 16,
    LOCKED = 64 << 20,
};

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Returns the processor time that the supervisor, which started us, has used so far. */
static double used(int stat)
{
    unsigned long user = 0, system = 0;
    char text[4096], *end;
    ssize_t got = pread(stat, text, sizeof text - 1, 0);

    text[got > 0 ? got : 0] = 0;
    end = strrchr(text, ')');
    if (end == NULL ||
        sscanf(end + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        attack_fail("stat");
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static void *mapped(size_t size, int protection)
{
    void *memory =
        mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        attack_fail("mmap");
    return memory;
}

/* Executes what is not there, over and over, with one vector of `step` bytes between its strings. */
static void execute(size_t bytes, uintptr_t first, size_t step)
{
    size_t count = VECTOR_BYTES / bytes - 2;
    uintptr_t *vector = mapped((count + 1) * sizeof *vector, PROT_READ | PROT_WRITE);
    char *none[] = {NULL}, *path = attack_path("programs/none");

    for (size_t i = 0; i < count; i++)
        vector[i] = first + i * step;
    vector[count] = 0;
    for (;;)
        execve(path, (char **)vector, none);
}

static void load_argv(int loader)
{
    (void)loader;
    execute(sizeof(void *) + 1, (uintptr_t)mapped(PAGE, PROT_READ), 0);
}

static void load_unreadable(int loader)
{
    (void)loader;
    execute(sizeof(void *), PAGE, 1);
}

static void load_sparse(int loader)
{
    size_t count = VECTOR_BYTES / (sizeof(void *) + 1);

    (void)loader;
    execute(sizeof(void *) + 1, (uintptr_t)mapped(count * PAGE, PROT_READ), PAGE);
}

static void load_messages(int loader)
{
    static struct mmsghdr messages[MESSAGES];
    static struct iovec pieces[PIECES];
    static char piece;
    int ends[2];

    (void)loader;
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) != 0)
        attack_fail("socketpair");
    for (int i = 0; i < PIECES; i++)
        pieces[i] = (struct iovec){&piece, i == 0};
    for (int i = 0; i < MESSAGES; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = pieces, .msg_iovlen = PIECES};
    for (;;) {
        char byte[PIECES];

        sendmmsg(ends[0], messages, MESSAGES, MSG_DONTWAIT);
        while (recv(ends[1], byte, sizeof byte, MSG_DONTWAIT) > 0)
            continue;
    }
}

static void load_option(int loader)
{
    void *option = mapped(OPTION, PROT_READ | PROT_WRITE);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    (void)loader;
    memset(option, 1, OPTION);
    for (;;)
        setsockopt(fd, SOL_SOCKET, SO_PRIORITY, option, OPTION);
}

/* Returns a path that fits: a beginning, as often as possible a piece that leads nowhere, an end. */
static char *long_path(const char *beginning, const char *piece, const char *end)
{
    char *path = malloc(PATH_MAX);
    size_t used, size = strlen(piece);

    if (path == NULL)
        attack_fail("malloc");
    strcpy(path, beginning);
    used = strlen(path);
    while (used + size + strlen(end) < PATH_MAX) {
        strcpy(path + used, piece);
        used += size;
    }
    strcpy(path + used, end);
    return path;
}

static void enter_scratch(void)
{
    if (chdir(attack_path("scratch")) != 0)
        attack_fail("chdir");
}

/* Renames, since such a call has two paths. */
static void rename_long(const char *piece)
{
    char *path = long_path("./", piece, "none");

    for (;;)
        rename(path, path);
}

static void load_dots(int loader)
{
    enter_scratch();
    if (mkdir("a", 0700) != 0 && errno != EEXIST)
        attack_fail("mkdir");
    (void)loader;
    rename_long("a/../");
}

static void load_slashes(int loader)
{
    (void)loader;
    enter_scratch();
    rename_long("/");
}

static void load_components(int loader)
{
    char *path = long_path("/proc/self/cwd/", "./", "none");

    (void)loader;
    enter_scratch();
    for (;;)
        open(path, O_RDONLY);
}

static void load_links(int loader)
{
    char name[64], next[64], beginning[96], *path;

    enter_scratch();
    for (int i = 0; i < LINKS; i++) {
        snprintf(name, sizeof name, "%d-%d", loader, i);
        snprintf(next, sizeof next, "%d-%d", loader, i + 1);
        if (symlink(long_path("./", "./", next), name) != 0)
            attack_fail("symlink");
    }
    snprintf(beginning, sizeof beginning, "/proc/self/cwd/%d-0/", loader);
    path = long_path(beginning, "./", "none");
    for (;;)
        open(path, O_RDONLY);
}

static void load_fifo(int loader)
{
    char name[64];
    pid_t parent = getpid();

    enter_scratch();
    snprintf(name, sizeof name, "fifo-%d", loader);
    if (mkfifo(name, 0600) != 0)
        attack_fail("mkfifo");
    for (int i = 0; i < FIFOS; i++) {
        pid_t pid = fork();

        if (pid == 0) {
            attack_die_with(parent);
            for (;;)
                open(name, O_RDONLY);
        }
        if (pid < 0)
            attack_fail("fork");
    }
    for (;;)
        close(open(name, O_RDONLY | O_NONBLOCK));
}

static void *map_and_unmap(void *unused)
{
    for (;;) {
        void *memory = mmap(NULL, LOCKED, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

        if (memory != MAP_FAILED)
            munmap(memory, LOCKED);
    }
    return unused;
}

static void load_memory(int loader)
{
    char *path = attack_path("scratch/none");
    pthread_t thread;

    (void)loader;
    for (int i = 0; i < 2; i++)
        if (pthread_create(&thread, NULL, map_and_unmap, NULL) != 0)
            attack_fail("pthread_create");
    for (;;)
        open(path, O_RDONLY);
}

static void take_signal(int number)
{
    (void)number;
}

static void *send_signals(void *unused)
{
    for (;;)
        kill(getpid(), SIGUSR1);
    return unused;
}

static void load_signals(int loader)
{
    char *path = attack_path("scratch/none");
    struct sigaction action = {.sa_handler = take_signal};
    pthread_t thread;

    (void)loader;
    if (sigaction(SIGUSR1, &action, NULL) != 0 ||
        pthread_create(&thread, NULL, send_signals, NULL) != 0)
        attack_fail("signals");
    for (;;)
        open(path, O_RDONLY);
}

static void load_forks(int loader)
{
    (void)loader;
    for (;;) {
        pid_t pid = fork();

        if (pid == 0)
            _exit(0);
        if (pid > 0)
            waitpid(pid, NULL, 0);
    }
}

static void load_crowd(int loader)
{
    char *path = attack_path("scratch/none");
    pid_t parent = getpid();

    (void)loader;
    for (int i = 0; i < CROWD; i++) {
        pid_t pid = fork();

        if (pid < 0)
            attack_fail("fork");
        if (pid == 0) {
            attack_die_with(parent);
            for (;;)
                open(path, O_RDONLY);
        }
    }
    for (;;)
        open(path, O_RDONLY);
}

static int open_faulting(void *path)
{
    attack_die_with(getppid());
    open(path, O_RDONLY);
    pause();
    return 0;
}

static void load_fault(int loader)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register served = {.mode = UFFDIO_REGISTER_MODE_MISSING};
    struct uffdio_zeropage filled;
    char *page = mapped(PAGE, PROT_READ | PROT_WRITE);
    struct uffd_msg message;
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    static _Alignas(64) char stack[1 << 16];

    served.range.start = (uintptr_t)page;
    served.range.len = PAGE;
    /* Where it is refused there is nothing to wait for. */
    if (loader != 0 || fd < 0 || ioctl(fd, UFFDIO_API, &api) != 0 ||
        ioctl(fd, UFFDIO_REGISTER, &served) != 0)
        for (;;)
            pause();
    /* Of the same memory: who serves the page must not be the one that waits for it. */
    if (clone(open_faulting, stack + sizeof stack, CLONE_VM | SIGCHLD, page) < 0 ||
        read(fd, &message, sizeof message) != sizeof message)
        attack_fail("userfaultfd");
    for (double end = now() + FAULT_SECONDS; now() < end;)
        usleep(100000);
    filled = (struct uffdio_zeropage){.range = served.range};
    ioctl(fd, UFFDIO_ZEROPAGE, &filled);
    for (;;)
        pause();
}

static const struct {
    const char *name;
    void (*load)(int loader);
} loads[] = {
    {"argv", load_argv},         {"unreadable", load_unreadable}, {"sparse", load_sparse},
    {"messages", load_messages}, {"option", load_option},         {"components", load_components},
    {"dots", load_dots},         {"slashes", load_slashes},
    {"links", load_links},       {"fifo", load_fifo},             {"memory", load_memory},
    {"signals", load_signals},   {"forks", load_forks},           {"crowd", load_crowd},
    {"fault", load_fault},
};

int main(int argc, char **argv)
{
    pid_t loaders[LOADERS], parent = getpid();
    char *path, name[64];
    double worst = 0, busiest = 0;
    size_t chosen = 0, count = sizeof loads / sizeof *loads;
    int stat, waits;

    attack_begin(argc, argv);
    while (chosen < count && (attack.words != 1 || strcmp(attack.word[0], loads[chosen].name) != 0))
        chosen++;
    if (chosen == count) {
        fprintf(stderr, "no such load\n");
        return 2;
    }
    waits = loads[chosen].load == load_fault || loads[chosen].load == load_crowd;
    path = attack_path("files/secret-A");
    snprintf(name, sizeof name, "/proc/%d/stat", getppid());
    stat = open(name, O_RDONLY | O_CLOEXEC);
    if (stat < 0)
        attack_unsupported("times-of-the-supervisor");
    for (int i = 0; i < LOADERS; i++) {
        loaders[i] = fork();
        if (loaders[i] == 0) {
            attack_die_with(parent);
            loads[chosen].load(i);
        }
        if (loaders[i] < 0)
            attack_fail("fork");
    }
    for (long i = 0; i < attack.attempts; i++) {
        double took, computed, before;
        char content;
        int fd;

        /* Some time for the load, and none where a call took some. */
        usleep(5000);
        computed = used(stat);
        before = now();
        fd = open(path, O_RDONLY | O_CLOEXEC);
        took = now() - before;
        computed = used(stat) - computed;
        content = fd < 0 ? 0 : attack_content(fd);
        if (fd >= 0)
            close(fd);
        if (took > worst)
            worst = took;
        if (computed > busiest)
            busiest = computed;
        if (computed > BUSY_SECONDS || (waits && took > WAIT_SECONDS))
            attack.escapes++;
        else if (content == 'A')
            attack.allowed++;
        else
            attack.other++;
    }
    for (int i = 0; i < LOADERS; i++) {
        kill(loaders[i], SIGKILL);
        if (waitpid(loaders[i], NULL, 0) != loaders[i])
            attack_fail("waitpid");
    }
    fprintf(stderr, "the longest call took %.3f s, %.2f s of them computed\n", worst, busiest);
    return attack_report();
}
