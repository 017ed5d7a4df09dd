/*
 * fuzz_calls DIRECTORY ATTEMPTS SEED: system calls with any number and any arguments, from threads and
 * children, ATTEMPTS in all. No sequence of calls may open `secret-D`, or bring the supervisor down:
 * in the end an honest call must still be made, and one that is denied be refused.
 *
 * Workers are processes of two threads that share their memory: strings, structures with pointers
 * into it, the ends of pages, pages that are read-only or missing, random bytes, whatever is mapped
 * shared and read-only (pins), and one name that a third thread flips between A and D. A worker
 * lives for a second at most, or until a call of its own kills it, and is replaced. Now and then it
 * forks a child that makes a few calls that end a process: exec, sigreturn, unmapping everything.
 *
 * A descriptor of the file that has D's inode number is an escape, and so is a child that ends as
 * only the denied program does.
 *
 * Root is given up first. Left out are calls that reach other processes (signals, tracing,
 * scheduling), that leave something behind (keys, queues, shared memory), that sleep, and those that
 * make processes: children are counted here. Sockets are of AF_UNIX. No random byte is a slash, so
 * that names stay in the stage.
 */
#include "attack.h"
#include "random.h"

#include <dirent.h>
#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

enum {
    PAGE = 4096,
    PAGES = 12,
    REGION = PAGES * PAGE,
    WORKERS = 3,
    CHILD_EXIT = 3, /* of a child that is none of the stage's programs */
    NOBODY = 65534,
    NUMBERS = 480,
};

struct counts {
    atomic_long made, escapes, allowed, refused, other;
};

static struct counts *counts;
static uint64_t denied_inode, denied_device;
static char *region, *flipping, *names[32];
static int name_count, pin_count, fds[12], fd_count;
static uint64_t pins[32];

static const short left_out[] = {
    /* other processes */
    SYS_kill, SYS_tkill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_ptrace,
    SYS_process_vm_readv, SYS_process_vm_writev, SYS_prlimit64, SYS_setpriority, SYS_ioprio_set,
    SYS_sched_setparam, SYS_sched_setscheduler, SYS_sched_setaffinity, SYS_sched_setattr,
    SYS_migrate_pages, SYS_move_pages, SYS_kcmp, SYS_pidfd_send_signal, SYS_pidfd_open,
    SYS_pidfd_getfd, SYS_process_madvise, SYS_process_mrelease, SYS_fcntl, SYS_ioctl, SYS_prctl,
    SYS_setpgid, SYS_setsid, SYS_unshare, SYS_setns, SYS_chroot, SYS_perf_event_open,
    /* what stays */
    SYS_shmget, SYS_shmat, SYS_shmctl, SYS_semget, SYS_semop, SYS_semctl, SYS_semtimedop,
    SYS_msgget, SYS_msgsnd, SYS_msgrcv, SYS_msgctl, SYS_mq_open, SYS_mq_unlink, SYS_add_key,
    SYS_request_key, SYS_keyctl, SYS_sync, SYS_syncfs,
    /* processes */
    SYS_fork, SYS_vfork, SYS_clone, SYS_clone3, SYS_exit, SYS_exit_group, SYS_execve, SYS_execveat,
    SYS_rt_sigreturn, SYS_arch_prctl, SYS_munmap, SYS_mremap, SYS_brk, SYS_set_robust_list,
    /* what waits, and what a worker's end depends on */
    SYS_pause, SYS_nanosleep, SYS_clock_nanosleep, SYS_futex, SYS_rt_sigsuspend,
    SYS_rt_sigtimedwait, SYS_poll, SYS_ppoll, SYS_select, SYS_pselect6, SYS_epoll_wait,
    SYS_epoll_pwait, SYS_alarm, SYS_setitimer, SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_flock,
    SYS_socket, 441 /* epoll_pwait2 */, 449 /* futex_waitv */, 455 /* futex_wait */,
};

/* Calls that a supervisor reads for: tried more often than others, with what they are about. */
static const short read_for[] = {
    SYS_open, SYS_openat, SYS_openat, 437 /* openat2 */, SYS_creat, SYS_stat, SYS_lstat,
    SYS_newfstatat, SYS_statx, SYS_access, SYS_faccessat, 439 /* faccessat2 */, SYS_readlink,
    SYS_readlinkat, SYS_unlink, SYS_unlinkat, SYS_rename, SYS_renameat, SYS_renameat2, SYS_link,
    SYS_linkat, SYS_symlink, SYS_symlinkat, SYS_mkdir, SYS_mkdirat, SYS_rmdir, SYS_chmod,
    SYS_fchmodat, SYS_chown, SYS_lchown, SYS_fchownat, SYS_truncate, SYS_utime, SYS_utimes,
    SYS_utimensat, SYS_mknod, SYS_mknodat, SYS_chdir, SYS_statfs, SYS_setxattr, SYS_lsetxattr,
    SYS_fsetxattr, SYS_getxattr, SYS_listxattr, SYS_removexattr, SYS_connect, SYS_bind, SYS_sendto,
    SYS_sendmsg, SYS_sendmmsg, SYS_setsockopt, SYS_memfd_create, SYS_inotify_add_watch,
    SYS_name_to_handle_at, SYS_mount, SYS_umount2, 463 /* setxattrat */, 464 /* getxattrat */,
};

static const short takes_descriptor_first[] = {
    SYS_openat, 437, SYS_newfstatat, SYS_statx, SYS_faccessat, 439, SYS_readlinkat, SYS_unlinkat,
    SYS_renameat, SYS_renameat2, SYS_linkat, SYS_mkdirat, SYS_fchmodat, SYS_fchownat,
    SYS_utimensat, SYS_mknodat, SYS_connect, SYS_bind, SYS_sendto, SYS_sendmsg, SYS_sendmmsg,
    SYS_setsockopt, SYS_fsetxattr, SYS_inotify_add_watch, SYS_name_to_handle_at, 463, 464,
};

static bool is_in(const short *list, size_t count, long number)
{
    for (size_t i = 0; i < count; i++)
        if (list[i] == number)
            return true;
    return false;
}

static uint64_t pointer(void)
{
    const uint64_t odd[] = {0,
                            1,
                            (uint64_t)region - 4,
                            (uint64_t)region + REGION,
                            (uint64_t)region + REGION - 3,
                            0x7fffffffefff,
                            0x7ffffffff000,
                            0x8000000000000000,
                            0xffffffffff600000,
                            0xfffffffffffff000,
                            0xffffffffffffffff,
                            (uint64_t)&attack_fail,
                            any()};

    switch (below(16)) {
    case 0:
        return odd[below(sizeof odd / sizeof *odd)];
    case 1:
        return (uint64_t)region + (1 + below(PAGES)) * PAGE - below(40);
    case 2:
        if (pin_count > 0)
            return pins[below((uint64_t)pin_count)] + 64 * below(256);
        /* fall through */
    case 3:
        return (uint64_t)flipping;
    case 4:
    case 5:
    case 6:
    case 7:
    case 8:
        return (uint64_t)names[below((uint64_t)name_count)];
    case 9:
    case 10:
        return (uint64_t)region + 8 * below(REGION / 8);
    default:
        return (uint64_t)region + 256 * below(REGION / 256);
    }
}

static uint64_t number(void)
{
    static const uint64_t odd[] = {0, 1, 2, 3, 4, 8, 16, 24, 32, 56, 64, 110, 128, 129, 255, 256, 4095,
                                   4096, 4097, 65536, 1ul << 20, 1ul << 31, 1ul << 32, -1ul, -1ul >> 1,
                                   (uint64_t)AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW,
                                   O_CREAT | O_RDWR, O_PATH, O_TMPFILE | O_RDWR, O_DIRECTORY};

    return below(12) == 0 ? any() : odd[below(sizeof odd / sizeof *odd)];
}

static uint64_t descriptor(void)
{
    return below(3) ? (uint64_t)(int64_t)AT_FDCWD : (uint64_t)(int64_t)fds[below((uint64_t)fd_count)];
}

/* Random bytes without a slash. */
static void put(size_t at, const void *data, size_t size)
{
    for (size_t i = 0; i < size && at + i < REGION; i++) {
        char byte = ((const char *)data)[i];
        region[at + i] = byte == '/' ? '.' : byte;
    }
}

/* A block of the region becomes something: a structure, a vector, an address, words. */
static void refill(void)
{
    uint64_t words[16] = {0};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t at = 256 * below(REGION / 256);
    uint64_t how = below(8);

    if (at / PAGE == 3 || at / PAGE == 7) /* read-only, missing */
        return;
    switch (how) {
    case 0: /* a vector */
        for (uint64_t i = 0; i < below(8); i++)
            words[i] = pointer();
        break;
    case 1: /* struct open_how */
        words[0] = below(4) ? 0 : number();
        words[2] = below(4) ? 0 : number();
        break;
    case 2: /* struct msghdr, and one behind it */
    case 3:
        for (int i = 0; i < 16; i += 8) {
            words[i] = below(2) ? 0 : pointer();
            words[i + 1] = number() & 255;
            words[i + 2] = pointer();
            words[i + 3] = below(4);
            words[i + 4] = pointer();
            words[i + 5] = below(64);
        }
        break;
    case 4: /* an address; names in the abstract space go nowhere */
        snprintf(address.sun_path, sizeof address.sun_path, "socket-%d", (int)below(4));
        put(at, &address, sizeof address);
        return;
    case 5: /* struct xattr_args, times */
        words[0] = pointer();
        words[1] = number();
        break;
    case 6: /* a name without an end */
        memset(region + at, 'x', 256);
        return;
    default:
        for (int i = 0; i < 16; i++)
            words[i] = below(2) ? any() : number();
    }
    if (below(4) == 0) /* damaged */
        words[below(16)] ^= 1ul << below(64);
    put(at, words, sizeof words);
}

/* Looks at a new descriptor, and closes it. */
static void take(long fd)
{
    struct stat found;

    if (fd < 0 || fd > INT_MAX) {
        if (errno == EACCES)
            counts->refused++;
        else
            counts->other++;
        return;
    }
    if (fstat((int)fd, &found) == 0 && found.st_ino == denied_inode && found.st_dev == denied_device)
        counts->escapes++;
    else
        counts->allowed++;
    close((int)fd);
}

static bool opens(long call)
{
    return call == SYS_open || call == SYS_openat || call == 437 || call == SYS_creat;
}

static long number_of_a_call(void)
{
    long call;

    if (below(2) == 0)
        return read_for[below(sizeof read_for / sizeof *read_for)];
    if (below(50) == 0) /* the x32 bit kills, so only numbers below it, and -1 */
        return below(4) ? (long)below(0x40000000) : -1;
    do
        call = (long)below(NUMBERS);
    while (is_in(left_out, sizeof left_out / sizeof *left_out, call));
    return call;
}

static void make_one(void)
{
    uint64_t a[6];
    long call = number_of_a_call(), result;

    for (int i = 0; i < 6; i++)
        a[i] = below(3) ? pointer() : number();
    if (is_in(takes_descriptor_first, sizeof takes_descriptor_first / sizeof(short), call))
        a[0] = descriptor();
    if (opens(call) && below(4) != 0) {
        int at = call == SYS_openat || call == 437;
        a[at] = below(2) ? (uint64_t)flipping : (uint64_t)names[below((uint64_t)name_count)];
        a[at + 1] = call == 437 ? a[at + 1] : O_NONBLOCK;
        if (call == 437)
            a[3] = 24;
    } else if (opens(call)) {
        int at = call == SYS_openat || call == 437;
        if (call != 437)
            a[at + 1] |= O_NONBLOCK;
    }
    if (call == SYS_close || call == 436 /* close_range */)
        a[0] = 100 + below(20);
    if (call == SYS_mmap || call == SYS_mprotect || call == SYS_madvise)
        a[0] = (uint64_t)region + 8 * PAGE, a[1] = PAGE * below(3);
    result = syscall(call, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (result < 0 || opens(call)) {
        take(result);
    } else {
        counts->allowed++;
        if (result > 2 && result < 256 && call >= SYS_eventfd)
            close((int)result); /* perhaps a descriptor; if not, one that a call just made is lost */
    }
}

/* What ends a process is made in a child. */
static void make_deadly(void)
{
    pid_t parent = getpid(), child = fork();
    int status;

    if (child < 0)
        return;
    if (child == 0) {
        uint64_t a[4];

        attack_die_with(parent);
        alarm(1);
        for (int i = 0; i < 4; i++)
            a[i] = pointer();
        switch (below(5)) {
        case 0:
        case 1:
            syscall(SYS_execve, a[0], a[1], a[2]);
            break;
        case 2:
            syscall(SYS_execveat, descriptor(), a[0], a[1], a[2], below(2) ? 0 : number());
            break;
        case 3:
            syscall(SYS_rt_sigreturn, a[0]);
            break;
        default:
            syscall(SYS_munmap, a[0] & -(uint64_t)PAGE, number());
            syscall(SYS_openat, AT_FDCWD, a[1], O_NONBLOCK, 0);
        }
        _exit(CHILD_EXIT);
    }
    if (waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 1)
        counts->escapes++;
}

static void *flip(void *nothing)
{
    char *last = flipping + strlen(flipping) - 1;

    (void)nothing;
    for (unsigned i = 0;; i++) {
        *(volatile char *)last = *last == 'A' ? 'D' : 'A';
        if (i % 4096 == 0)
            sched_yield();
    }
    return NULL;
}

static void *work(void *seed)
{
    state = (uint64_t)seed | 1;
    for (int i = 0; i < 20; i++)
        any();
    while (counts->made++ < attack.attempts) {
        if (below(4) == 0)
            refill();
        if (below(400) == 0)
            make_deadly();
        else if (below(6) == 0) /* what a supervisor that reads and lets go will lose */
            take(open(flipping, O_RDONLY | O_NONBLOCK));
        else
            make_one();
    }
    _exit(CHILD_EXIT);
}

/* Whatever is mapped shared and read-only may be a pin. */
static void find_pins(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512], mode[5];
    unsigned long start;

    if (maps == NULL)
        return;
    while (fgets(line, sizeof line, maps) != NULL && pin_count < 32)
        if (sscanf(line, "%lx-%*x %4s", &start, mode) == 2 && strcmp(mode, "r--s") == 0)
            pins[pin_count++] = start;
    fclose(maps);
}

static void set_names(void)
{
    static const char *const some[] = {
        "files/secret-A", "files/secret-D",     "links/secret-A", "links/secret-D", "dirs/secret-D",
        "scratch/a",      "scratch/b",          "scratch",        "files",          "secret-D",
        "secret-A",       "files/./secret-D",   "files//secret-D", "dirs/secret-A", "user.A",
        "user.D",         "programs/secret-A",  "programs/secret-D", "scratch/socket", ".", "",
        "scratch/../files/secret-D", "files/secret-D/", "dirs/secret-A/../secret-D",
    };

    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        names[name_count++] = strdup(some[i]);
    names[name_count++] = attack_path("files/secret-A");
    names[name_count++] = attack_path("files/secret-D");
    flipping = strdup("files/secret-A");
}

static void worker(uint64_t seed)
{
    const struct itimerval second = {{0, 0}, {1, 0}};
    pthread_t thread;
    int pair[2];

    setitimer(ITIMER_REAL, &second, NULL);
    close_range(0, ~0u, 0);
    if (chdir(attack.directory) != 0 || socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair) != 0)
        _exit(CHILD_EXIT + 1);
    fds[fd_count++] = -1;
    fds[fd_count++] = 99;
    fds[fd_count++] = pair[0];
    fds[fd_count++] = pair[1];
    fds[fd_count++] = open("files", O_RDONLY | O_DIRECTORY);
    fds[fd_count++] = open("scratch", O_PATH | O_DIRECTORY);
    fds[fd_count++] = open("scratch/a", O_RDWR | O_CREAT | O_NONBLOCK, 0600);
    fds[fd_count++] = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    fds[fd_count++] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    find_pins();
    region = mmap(NULL, REGION + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region == MAP_FAILED)
        _exit(CHILD_EXIT + 1);
    region += PAGE;
    mprotect(region, REGION, PROT_READ | PROT_WRITE);
    state = seed | 1;
    for (int i = 0; i < 400; i++)
        refill();
    mprotect(region + 3 * PAGE, PAGE, PROT_READ);
    mprotect(region + 7 * PAGE, PAGE, PROT_NONE);
    if (pthread_create(&thread, NULL, flip, NULL) != 0 ||
        pthread_create(&thread, NULL, work, (void *)(seed * 31 + 7)) != 0)
        _exit(CHILD_EXIT + 1);
    work((void *)seed);
}

/* The directory tells D's inode number without naming it in a call. */
static void find_denied(void)
{
    DIR *files = opendir(attack_path("files"));
    struct dirent *one;
    struct stat found;

    if (files == NULL || fstat(dirfd(files), &found) != 0)
        attack_fail("files");
    denied_device = found.st_dev;
    while ((one = readdir(files)) != NULL)
        if (strcmp(one->d_name, "secret-D") == 0)
            denied_inode = one->d_ino;
    closedir(files);
}

static void give_up_root(void)
{
    if (geteuid() != 0)
        return;
    if (setgroups(0, NULL) != 0 || setresgid(NOBODY, NOBODY, NOBODY) != 0 ||
        setresuid(NOBODY, NOBODY, NOBODY) != 0)
        attack_unsupported("giving up root");
}

int main(int argc, char **argv)
{
    const struct rlimit processes = {512, 512}, files = {128, 128}, none = {0, 0};
    const struct rlimit size = {1 << 20, 1 << 20};
    uint64_t seed;
    pid_t own = getpid();
    int fd, running = 0;

    attack_begin(argc, argv);
    seed = attack.words > 0 ? strtoull(attack.word[0], NULL, 10) : 1;
    give_up_root();
    setrlimit(RLIMIT_NPROC, &processes);
    setrlimit(RLIMIT_NOFILE, &files);
    setrlimit(RLIMIT_CORE, &none);
    setrlimit(RLIMIT_FSIZE, &size);
    find_denied();
    set_names();
    counts = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED)
        attack_fail("mmap");
    for (;;) {
        pid_t child;

        while (running < WORKERS && counts->made < attack.attempts) {
            child = fork();
            if (child < 0)
                attack_fail("fork");
            if (child == 0) {
                attack_die_with(own);
                worker(seed * 1000003);
            }
            seed++;
            running++;
        }
        if (running == 0)
            break;
        if (wait(NULL) < 0)
            attack_fail("wait");
        running--;
    }
    attack.escapes = counts->escapes;
    attack.allowed = counts->allowed;
    attack.refused = counts->refused;
    attack.other = counts->other;
    /* Whoever looks after us has to be there still, and to know what it allows. */
    fd = open(attack_path("files/secret-A"), O_RDONLY | O_CLOEXEC);
    if (attack_content(fd) != 'A')
        attack.escapes++;
    fd = open(attack_path("files/secret-D"), O_RDONLY | O_CLOEXEC);
    if (fd >= 0 || errno != EACCES)
        attack.escapes++;
    return attack_report();
}
