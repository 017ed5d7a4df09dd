/*
 * pin_alter DIRECTORY ATTEMPTS WAY: changes the bytes of a pin, or what is mapped there.
 *
 * A thread writes one letter of the path that is pinned, over and over, so that it is the allowed name
 * that is judged and the denied one that is used:
 *
 *   store            by itself
 *   vm-writev        by process_vm_writev()           child-vm-writev   a child does
 *   proc-mem         through /proc/self/mem           child-proc-mem    a child does
 *   read             by read() from a file of its own
 *   mprotect, pkey-mprotect   by itself, having made the pin writable
 *   mremap-copy      by itself, in a second mapping of the same pages (old_len 0), made writable
 *   map-files        by itself, in a second mapping of the file, opened through /proc/self/map_files
 *
 * Each attempt is a child that puts memory which names the denied file in the pin's place:
 *
 *   mmap             mapped over it                   file              likewise, a file's
 *   munmap           in the hole that is left         mremap-away       likewise, the pin moved away
 *   mremap-onto      moved onto it                    shmat             attached over it
 *   remap-file-pages another page of the pin, which the denied path was written to
 *   advice           none: the pin's pages are given back, locked and guarded in every way there is
 */
#include "pin.h"

#include <linux/mempolicy.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/uio.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

enum { WRITER_SECONDS = 300, ROUNDS_BETWEEN_CLOCKS = 64 };

static char *page, *letter;
static struct pin *pin;         /* the one that the letter is in */
static char *writable;          /* the letter's byte, at another address perhaps */
static int file = -1;
static char letters[2] = "AD";
static _Atomic int *shared;     /* whether the writer is at work, whether it is to stop */
static sigjmp_buf caught;
static pid_t self;

static void fault(int number)
{
    (void)number;
    siglongjmp(caught, 1);
}

static int store(int which)
{
    *(volatile char *)writable = letters[which];
    return 1;
}

static int vm_writev(int which)
{
    struct iovec from = {&letters[which], 1}, to = {letter, 1};

    return process_vm_writev(self, &from, 1, &to, 1, 0) == 1;
}

static int write_memory(int which)
{
    return pwrite(file, &letters[which], 1, (off_t)(uintptr_t)letter) == 1;
}

static int read_into(int which)
{
    return pread(file, letter, 1, which) == 1;
}

static void open_memory(void)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/mem", self);
    file = open(path, O_RDWR | O_CLOEXEC);
}

static void make_file(void)
{
    file = memfd_create("letters", MFD_CLOEXEC);
    if (file < 0 || pwrite(file, letters, 2, 0) != 2)
        attack_fail("memfd_create");
}

static void protect(void)
{
    mprotect(page - PIN_PAGE, 2 * PIN_PAGE, PROT_READ | PROT_WRITE);
    mprotect(page, PIN_PAGE, PROT_READ | PROT_WRITE);
    mprotect(pin->at, pin->size, PROT_READ | PROT_WRITE);
}

static void protect_with_key(void)
{
    syscall(SYS_pkey_mprotect, page, PIN_PAGE, PROT_READ | PROT_WRITE, -1);
    syscall(SYS_pkey_mprotect, pin->at, pin->size, PROT_READ | PROT_WRITE, -1);
}

static void copy_mapping(void)
{
    char *copy = mremap(pin->at, 0, pin->size, MREMAP_MAYMOVE);

    if (copy != MAP_FAILED && mprotect(copy, pin->size, PROT_READ | PROT_WRITE) == 0)
        writable = copy + (letter - pin->at);
}

static void open_mapping(void)
{
    char path[128], *copy;
    int fd;

    snprintf(path, sizeof path, "/proc/self/map_files/%lx-%lx", (long)pin->at,
             (long)pin->at + (long)pin->size);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    copy = mmap(NULL, pin->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (copy != MAP_FAILED)
        writable = copy + (letter - pin->at);
    close(fd);
}

/* Each returns what lies in the pin's place afterwards, NULL if it is still the pin. */

static char *map_over(void)
{
    return pin_fake(page, PIN_PAGE, MAP_FIXED);
}

static char *map_file_over(void)
{
    static char fake[PIN_PAGE];
    int fd = memfd_create("fake", MFD_CLOEXEC);

    pin_fill(fake, sizeof fake);
    if (fd < 0 || write(fd, fake, sizeof fake) != sizeof fake)
        attack_fail("memfd_create");
    return mmap(page, PIN_PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
}

static char *unmap(void)
{
    munmap(page - PIN_PAGE, 3 * PIN_PAGE);
    munmap(pin->at, pin->size);
    munmap(page, PIN_PAGE);
    return pin_fake(page, PIN_PAGE, MAP_FIXED_NOREPLACE);
}

static char *move_away(void)
{
    mremap(pin->at, pin->size, pin->size, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
    mremap(page, PIN_PAGE, 2 * PIN_PAGE, MREMAP_MAYMOVE);
    mremap(pin->at, pin->size, PIN_PAGE, MREMAP_MAYMOVE);
    return pin_fake(page, PIN_PAGE, MAP_FIXED_NOREPLACE);
}

static char *move_onto(void)
{
    char *fake = pin_fake(NULL, PIN_PAGE, 0);

    return mremap(fake, PIN_PAGE, PIN_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page);
}

static char *attach(void)
{
    int segment = shmget(IPC_PRIVATE, PIN_PAGE, IPC_CREAT | 0600);
    char *fake = shmat(segment, NULL, 0), *attached;

    if (fake == (char *)-1)
        attack_fail("shmat");
    pin_fill(fake, PIN_PAGE);
    attached = shmat(segment, page, SHM_REMAP);
    shmctl(segment, IPC_RMID, NULL);
    return attached;
}

static char *remap(void)
{
    /* Two names in one call: the second one comes to lie on the next page, at the same place in it. */
    static char filling[PATH_MAX];

    memset(filling, '/', sizeof filling - 1);
    syscall(SYS_rename, filling, pin_denied);
    syscall(SYS_remap_file_pages, page, PIN_PAGE, 0, (page - pin->at) / PIN_PAGE + 1, 0);
    return NULL;
}

static char *advise(void)
{
    static const int advice[] = {MADV_DONTNEED,       MADV_REMOVE,         MADV_FREE,
                                 MADV_COLD,           MADV_PAGEOUT,        MADV_POPULATE_WRITE,
                                 MADV_WIPEONFORK,     MADV_DONTNEED_LOCKED, MADV_MERGEABLE,
                                 MADV_GUARD_INSTALL,  MADV_GUARD_REMOVE};

    mlock(page, PIN_PAGE);
    for (size_t i = 0; i < sizeof advice / sizeof *advice; i++) {
        madvise(page, PIN_PAGE, advice[i]);
        /* Under a guard it has to fail, or to work. */
        if (pin_open(pin_allowed) == 'D')
            _exit('D');
    }
    syscall(SYS_mbind, page, PIN_PAGE, MPOL_DEFAULT, NULL, 0, MPOL_MF_MOVE);
    msync(page, PIN_PAGE, MS_INVALIDATE);
    return NULL;
}

static const struct way {
    const char *name;
    int (*write)(int which);
    void (*prepare)(void);
    int by_child;
    char *(*replace)(void);
} ways[] = {
    {"store", store, NULL, 0, NULL},
    {"vm-writev", vm_writev, NULL, 0, NULL},
    {"child-vm-writev", vm_writev, NULL, 1, NULL},
    {"proc-mem", write_memory, open_memory, 0, NULL},
    {"child-proc-mem", write_memory, open_memory, 1, NULL},
    {"read", read_into, make_file, 0, NULL},
    {"mprotect", store, protect, 0, NULL},
    {"pkey-mprotect", store, protect_with_key, 0, NULL},
    {"mremap-copy", store, copy_mapping, 0, NULL},
    {"map-files", store, open_mapping, 0, NULL},
    {"mmap", NULL, NULL, 0, map_over},
    {"file", NULL, NULL, 0, map_file_over},
    {"munmap", NULL, NULL, 0, unmap},
    {"mremap-away", NULL, NULL, 0, move_away},
    {"mremap-onto", NULL, NULL, 0, move_onto},
    {"shmat", NULL, NULL, 0, attach},
    {"remap-file-pages", NULL, NULL, 0, remap},
    {"advice", NULL, NULL, 0, advise},
};

static void *keep_writing(void *with)
{
    const struct way *way = with;
    double end = pin_now() + WRITER_SECONDS;

    if (sigsetjmp(caught, 1) != 0) {
        shared[0] = 1;
        return NULL;
    }
    if (way->prepare != NULL)
        way->prepare();
    while (!shared[1] && pin_now() < end)
        for (int i = 0; i < ROUNDS_BETWEEN_CLOCKS; i++) {
            int written = way->write((int)(pin_random() >> 63));
            shared[0] = 1;
            if (!written)
                return NULL;
        }
    return NULL;
}

static void race(const struct way *way)
{
    pthread_t thread;
    pid_t child = -1;

    signal(SIGSEGV, fault);
    shared = mmap(NULL, PIN_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        attack_fail("mmap");
    if (way->by_child) {
        child = fork();
        if (child == 0) {
            attack_die_with(self);
            keep_writing((void *)way);
            _exit(0);
        }
    } else if (pthread_create(&thread, NULL, keep_writing, (void *)way) != 0) {
        attack_fail("pthread_create");
    }
    while (!shared[0])
        sched_yield();
    for (long i = 0; i < attack.attempts; i++)
        pin_count_result(pin_open(pin_allowed));
    shared[1] = 1;
    if (way->by_child)
        waitpid(child, NULL, 0);
    else
        pthread_join(thread, NULL);
}

static void replace(const struct way *way)
{
    for (long i = 0; i < attack.attempts; i++) {
        pid_t child = fork();
        if (child == 0) {
            attack_die_with(self);
            way->replace();
            _exit(pin_open(pin_allowed));
        }
        pin_count_child(child);
    }
}

int main(int argc, char **argv)
{
    const struct way *way = NULL;
    char *path;

    attack_begin(argc, argv);
    for (size_t i = 0; attack.words == 1 && i < sizeof ways / sizeof *ways; i++)
        if (strcmp(ways[i].name, attack.word[0]) == 0)
            way = &ways[i];
    if (way == NULL)
        return 2;
    if (way->prepare == open_mapping && geteuid() != 0)
        attack_unsupported("CAP_CHECKPOINT_RESTORE");
    self = getpid();
    pin_paths();
    pin_find();
    path = pin_path();
    letter = writable = path + strlen(path) - 1;
    page = path - (uintptr_t)path % PIN_PAGE;
    for (int i = 0; i < pin_count; i++)
        if (letter >= pins[i].at && letter < pins[i].at + pins[i].size)
            pin = &pins[i];
    if (way->replace != NULL)
        replace(way);
    else
        race(way);
    return attack_report();
}
