/*
 * alter_pin FILE: every way a program has to write, unmap, move, replace or re-protect the mapping that
 * the supervisor put into it. FILE holds 'A' and may be opened.
 *
 * One line per way: NAME result=R errno=E, where result is 0 or -1; ways to write add changed=1 when the
 * bytes are no longer what they were. Opens in between show what the supervisor can still do: advice may
 * make the pin unreadable for a while, and then an open has to fail or to work, not to reach another
 * file. The last line says whether all of the pin is still there, shared and unwritable.
 */
#include "probe.h"

#include <linux/mempolicy.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/uio.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

static const char *file;
static char *pin;
static size_t size;
static char snapshot[4096];

/* Mappings come back as pointers: success is any that is not MAP_FAILED. */
static void show(const char *name, long result)
{
    int failure = result == -1 ? errno : 0;

    printf("%s result=%d errno=%d\n", name, result == -1 ? -1 : 0, failure);
}

static void show_map(const char *name, void *result)
{
    show(name, result == MAP_FAILED ? -1 : 0);
}

/* Taken right before a write, since the supervisor itself changes the bytes with each path call. */
static void remember(void)
{
    memcpy(snapshot, pin, sizeof snapshot);
}

static void show_write(const char *name, long result)
{
    int failure = result == -1 ? errno : 0;

    printf("%s result=%d errno=%d changed=%d\n", name, result == -1 ? -1 : 0, failure,
           memcmp(snapshot, pin, sizeof snapshot) != 0);
}

static void show_open(const char *name)
{
    printf("%s byte=%s\n", name, first_byte(file));
}

static long write_at(const char *path, uintptr_t at)
{
    long result;
    int fd = open(path, O_RDWR | O_CLOEXEC), failure;

    remember();
    if (fd < 0)
        return -1;
    result = pwrite(fd, "XX", 2, (off_t)at);
    failure = errno;
    close(fd);
    errno = failure;
    return result;
}

/* Another process of the same user, which this one made itself, tries to write into it. */
static void from_child(void)
{
    pid_t self = getpid(), child = fork();

    if (child == 0) {
        struct iovec local = {"XX", 2}, remote = {pin, 2};
        char memory[64];

        die_with(self);
        snprintf(memory, sizeof memory, "/proc/%d/mem", self);
        remember();
        show_write("child_process_vm_writev", process_vm_writev(self, &local, 1, &remote, 1, 0));
        show_write("child_proc_mem", write_at(memory, (uintptr_t)pin));
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

/*
 * A guard makes the pin unreadable. That can cost the program its life when the supervisor keeps code
 * there, so a child does it, whose end is shown.
 */
static void by_guard(void)
{
    pid_t self = getpid(), child = fork();
    int status;

    if (child == 0) {
        die_with(self);
        show("madvise_guard_install", madvise(pin, size, MADV_GUARD_INSTALL));
        show_open("open_under_guard");
        show("madvise_guard_remove", madvise(pin, size, MADV_GUARD_REMOVE));
        show_open("open_after_guard");
        _exit(0);
    }
    if (child > 0 && waitpid(child, &status, 0) == child)
        printf("guard killed=%d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

/* Locking a page splits the mapping in two. Nothing else may come of it. */
static void by_splitting(void)
{
    show("mlock", mlock(pin, 4096));
    show_open("open_after_mlock");
}

/* Returns how many bytes from the pin's start on are still mapped as they were. */
static size_t still_pinned(void)
{
    struct range pins[PINS_AT_MOST];
    uintptr_t reached = (uintptr_t)pin;
    int count = find_pins(pins);

    for (int i = 0; i < count; i++)
        if (pins[i].start <= reached && pins[i].end > reached && pins[i].permissions[0] == 'r' &&
            pins[i].permissions[1] == '-' && pins[i].permissions[3] == 's')
            reached = pins[i].end;
    return reached - (uintptr_t)pin;
}

static void by_mapping(void)
{
    char *own = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
    int segment = shmget(IPC_PRIVATE, size, IPC_CREAT | 0600);

    show("mprotect_rw", mprotect(pin, size, PROT_READ | PROT_WRITE));
    show("mprotect_none", mprotect(pin, size, PROT_NONE));
    show("mprotect_one_page", mprotect(pin, 4096, PROT_READ | PROT_WRITE));
    show("mprotect_from_below", mprotect(pin - 4096, size + 4096, PROT_READ | PROT_WRITE));
    show("pkey_mprotect", syscall(SYS_pkey_mprotect, pin, size, PROT_READ | PROT_WRITE, -1));
    show("munmap", munmap(pin, size));
    show("munmap_one_page", munmap(pin, 4096));
    show("munmap_around", munmap(pin - 4096, size + 8192));
    show_map("mmap_fixed", mmap(pin, 4096, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    show_map("mmap_fixed_file",
             mmap(pin, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, zero, 0));
    show_map("mremap_move", mremap(pin, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, own));
    show_map("mremap_onto", mremap(own, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, pin));
    show_map("mremap_copy", mremap(pin, 0, size, MREMAP_MAYMOVE));
    show_map("mremap_dontunmap", mremap(pin, size, size, MREMAP_MAYMOVE | MREMAP_DONTUNMAP));
    show_map("mremap_shrink", mremap(pin, size, 4096, 0));
    show("remap_file_pages", syscall(SYS_remap_file_pages, pin, 4096, 0, 1, 0));
    show("shmat_remap", (long)(intptr_t)shmat(segment, pin, SHM_REMAP));
    show("mseal", syscall(SYS_mseal, pin, size, 0));
    shmctl(segment, IPC_RMID, NULL);
    munmap(own, size);
    close(zero);
}

static void by_writing(void)
{
    struct iovec local = {"XX", 2}, remote = {pin, 2};
    char path[128];
    int pipes[2], zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);

    remember();
    show_write("read_into", read(zero, pin, 16));
    remember();
    show_write("getcwd_into", syscall(SYS_getcwd, pin, 4096));
    remember();
    show_write("process_vm_writev", process_vm_writev(getpid(), &local, 1, &remote, 1, 0));
    show_write("proc_self_mem", write_at("/proc/self/mem", (uintptr_t)pin));
    snprintf(path, sizeof path, "/proc/self/map_files/%lx-%lx", (long)pin, (long)pin + (long)size);
    show_write("map_files_write", write_at(path, 0));
    show("map_files_truncate", truncate(path, 0));
    if (pipe(pipes) == 0) {
        /* Gifted pages would have to be the program's own. */
        struct iovec gift = {pin, 4096};
        show("vmsplice", vmsplice(pipes[1], &gift, 1, SPLICE_F_GIFT | SPLICE_F_NONBLOCK));
        close(pipes[0]);
        close(pipes[1]);
    }
    close(zero);
}

static void by_advice(void)
{
    show("madvise_dontneed", madvise(pin, size, MADV_DONTNEED));
    show_open("open_after_dontneed");
    show("madvise_remove", madvise(pin, size, MADV_REMOVE));
    show("madvise_free", madvise(pin, size, MADV_FREE));
    show("madvise_cold", madvise(pin, size, MADV_COLD));
    show("madvise_pageout", madvise(pin, size, MADV_PAGEOUT));
    show("madvise_populate_write", madvise(pin, size, MADV_POPULATE_WRITE));
    show("madvise_wipeonfork", madvise(pin, size, MADV_WIPEONFORK));
    show("madvise_mergeable", madvise(pin, size, MADV_MERGEABLE));
    show("mbind", syscall(SYS_mbind, pin, size, MPOL_DEFAULT, NULL, 0, MPOL_MF_MOVE));
    show("msync", msync(pin, 4096, MS_INVALIDATE));
}

int main(int argc, char **argv)
{
    struct range pins[PINS_AT_MOST];
    int count;

    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc != 2)
        return 2;
    file = argv[1];
    show_open("open_before");
    count = find_pins(pins);
    printf("pins=%d\n", count);
    if (count <= 0)
        return 0;
    pin = (char *)pins[0].start;
    size = pins[0].end - pins[0].start;
    printf("permissions=%s\n", pins[0].permissions);
    by_advice();
    by_guard();
    by_mapping();
    by_writing();
    from_child();
    by_splitting();
    printf("still_pinned=%d\n", still_pinned() >= size);
    return 0;
}
