/*
 * pin_install DIRECTORY ATTEMPTS WAY: attacks the moment in which a pin comes into a new address space.
 * Each attempt executes the program anew. There the first thread opens the allowed file a few times,
 * and so has the pin installed, while a second one
 *
 *   descriptor      puts a file of its own onto the lowest descriptor numbers, over and over, so that
 *                   the mapping is made of that
 *   replace         maps that file over the place where the next mapping is likely to be
 *   unmap           unmaps what is there, and maps the file in the hole
 *   instruction     overwrites the call instruction while calls are injected, by one that claims that
 *                   memory of the program's own was mapped
 *   copy-map        copies the descriptor of the pin's file, and maps it writable
 *   copy-write      likewise, and writes to it
 *   copy-grow       likewise, and changes its size
 *   copy-seal       likewise, and seals it
 *   keep            the same as copy-map, but a filter of its own claims that the descriptor was closed
 *   forbid-mmap     a filter of its own forbids the mapping; meanwhile the path is rewritten
 *   fake-mmap       likewise, by claiming success
 *   delivery        likewise, by answering getpid(), which the descriptor may be asked for with
 *   fake-seal       likewise, by claiming success of mseal(), while the mapping is replaced
 *
 * A file of its own is filled so that whatever is read from it names the denied file. Built with
 * -static, so that a new image makes no path call before main().
 */
#include "pin.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/stat.h>

enum { OWN = 200, COPY = 201, LOWEST = 3, HIGHEST = 6, OPENS = 8, SECONDS = 20 };
enum { CALL = 0x050f, CLAIM = 0xd889, SUCCEED = 0xc031, CALL_AT = 16 };

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif

static _Atomic int ready, stop, won;
static size_t size;
static char *likely[2];         /* where the kernel would map next; where the last pin was */
static char *fake;              /* below 4 GiB */
static char path[PATH_MAX];     /* what is opened */
static volatile uint16_t *instruction;

/* The start-up code of a static program would look for its own path: a path call before main(). */
const char *_dl_get_origin(void)
{
    return (const char *)-1;
}

/* A call whose instruction may be overwritten; rbx holds the last argument meanwhile. */
static const unsigned char code[] = {
    0x53,                         /* push %rbx */
    0x4c, 0x89, 0xc3,             /* mov %r8, %rbx */
    0x48, 0x89, 0xf8,             /* mov %rdi, %rax */
    0x48, 0x89, 0xf7,             /* mov %rsi, %rdi */
    0x48, 0x89, 0xd6,             /* mov %rdx, %rsi */
    0x48, 0x89, 0xca,             /* mov %rcx, %rdx */
    0x0f, 0x05,                   /* syscall; or mov %ebx, %eax; or xor %eax, %eax */
    0x5b,                         /* pop %rbx */
    0xc3,                         /* ret */
};

static void take_descriptors(void)
{
    for (int fd = LOWEST; fd <= HIGHEST; fd++)
        close(fd);
    pin_wander(100e-6);
    for (int fd = LOWEST; fd <= HIGHEST; fd++)
        dup2(OWN, fd);
    pin_wander(50e-6);
}

static void replace(void)
{
    for (int i = 0; i < 2; i++)
        munmap(likely[i], size);
    pin_wander(50e-6);
    for (int i = 0; i < 2; i++)
        mmap(likely[i], size, PROT_READ, MAP_SHARED | MAP_FIXED, OWN, 0);
    pin_wander(100e-6);
}

static void unmap(void)
{
    for (int i = 0; i < 2; i++) {
        munmap(likely[i], size);
        pin_wander(20e-6);
        mmap(likely[i], size, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, OWN, 0);
    }
}

/* Only while the descriptor is there: at any other time the program would execute that itself. */
static void overwrite(void)
{
    if (fcntl(LOWEST, F_GETFD) < 0)
        return;
    *instruction = CLAIM;
    pin_wander(200e-6);
    *instruction = SUCCEED;
    pin_wander(50e-6);
    *instruction = CALL;
    close(LOWEST);
}

/* Returns a copy of the descriptor of the pin's file, -1 as long as there is none. */
static int copied(void)
{
    static int copy = -1;

    for (int fd = LOWEST; copy < 0 && fd <= HIGHEST; fd++)
        if (fcntl(fd, F_GET_SEALS) >= 0)
            copy = dup2(fd, COPY);
    return copy;
}

static void write_letter(char *file, int copy)
{
    char *found = memmem(file, size, pin_allowed, strlen(pin_allowed) + 1), letters[2] = "AD";
    off_t at;

    if (found == NULL)
        found = memmem(file, size, pin_denied, strlen(pin_denied) + 1);
    if (found == NULL)
        return;
    at = found - file + (off_t)strlen(pin_allowed) - 1;
    for (int i = 0; i < 1000 && !stop; i++) {
        int which = (int)(pin_random() >> 63);
        if (copy < 0)
            ((volatile char *)file)[at] = letters[which];
        else if (pwrite(copy, &letters[which], 1, at) != 1)
            return;
    }
}

static void map_copy(void)
{
    static char *file = MAP_FAILED;

    if (copied() < 0)
        return;
    if (file == MAP_FAILED)
        file = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, COPY, 0);
    if (file != MAP_FAILED)
        write_letter(file, -1);
}

static void write_copy(void)
{
    static char *file = MAP_FAILED;

    if (copied() < 0)
        return;
    if (file == MAP_FAILED)
        file = mmap(NULL, size, PROT_READ, MAP_SHARED, COPY, 0);
    if (file != MAP_FAILED)
        write_letter(file, COPY);
}

static void grow_copy(void)
{
    struct stat made;

    /* There may be more in the file than the pin shows. */
    if (copied() >= 0 && fstat(COPY, &made) == 0 && ftruncate(COPY, made.st_size + PIN_PAGE) == 0)
        won = 1;
}

static void seal_copy(void)
{
    if (copied() >= 0 && fcntl(COPY, F_ADD_SEALS, F_SEAL_GROW) == 0)
        won = 1;
}

static void rewrite(void)
{
    path[strlen(path) - 1] = pin_random() >> 63 ? 'D' : 'A';
}

static const struct way {
    const char *name;
    void (*act)(void);
    int filtered[2];            /* calls that a filter of its own answers, with */
    int answer;
} ways[] = {
    {"descriptor", take_descriptors, {-1, -1}, 0},
    {"replace", replace, {-1, -1}, 0},
    {"unmap", unmap, {-1, -1}, 0},
    {"instruction", overwrite, {-1, -1}, 0},
    {"copy-map", map_copy, {-1, -1}, 0},
    {"copy-write", write_copy, {-1, -1}, 0},
    {"copy-grow", grow_copy, {-1, -1}, 0},
    {"copy-seal", seal_copy, {-1, -1}, 0},
    {"keep", map_copy, {SYS_close, SYS_close_range}, 0},
    {"forbid-mmap", rewrite, {SYS_mmap, -1}, EPERM},
    {"fake-mmap", rewrite, {SYS_mmap, -1}, 0},
    {"delivery", rewrite, {SYS_getpid, -1}, 0},
    {"fake-seal", replace, {SYS_mseal, -1}, 0},
};

static void add_filter(const struct way *way)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)way->filtered[0], 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)way->filtered[1], 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)way->answer),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof program / sizeof *program, program};

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) != 0)
        _exit('?');
}

static void *act(void *with)
{
    const struct way *way = with;

    /* The next mapping of that size goes where the last one that was given back had been. */
    likely[0] = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    munmap(likely[0], size);
    for (double end = pin_now() + SECONDS; !stop && pin_now() < end; ready = 1)
        way->act();
    return NULL;
}

/* Makes no call with a path, or any other that a supervisor may look into: the pin is still to come. */
static void prepare(void)
{
    char *page = mmap(NULL, PIN_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
                      -1, 0);

    fake = pin_fake(NULL, size, MAP_32BIT);
    if (page == MAP_FAILED || fake == NULL)
        _exit('?');
    memcpy(page, code, sizeof code);
    instruction = (volatile uint16_t *)(void *)(page + CALL_AT);
}

static char open_path(void)
{
    long (*call)(long, long, const char *, long, char *) =
        (long (*)(long, long, const char *, long, char *))((uintptr_t)instruction - CALL_AT);
    long fd = call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, fake);
    char content = fd < 0 ? 0 : attack_content((int)fd);

    /* A descriptor is not closed: the file would be taken for the pin's. */
    if (fd < 0)
        return '-';
    return content == 'A' || content == 'D' ? content : '?';
}

/* The new image: DIRECTORY 1 new WAY SIZE ADDRESS. */
static int installing(const struct way *way)
{
    pthread_t thread;
    char results[OPENS + 1] = {0};

    size = strtoul(attack.word[2], NULL, 16);
    likely[1] = (char *)strtoul(attack.word[3], NULL, 16);
    strcpy(path, pin_allowed);
    prepare();
    if (pthread_create(&thread, NULL, act, (void *)way) != 0)
        return '?';
    if (way->filtered[0] >= 0)
        add_filter(way);
    while (!ready)
        sched_yield();
    for (int i = 0; i < OPENS; i++)
        results[i] = open_path();
    stop = 1;
    pthread_join(thread, NULL);
    for (const char *one = "DA-"; *one != 0; one++)
        if (strchr(results, *one) != NULL || (*one == 'D' && won))
            return *one;
    return '?';
}

static void make_file(void)
{
    int made = memfd_create("own", 0);
    char *own;

    if (made < 0 || dup2(made, OWN) != OWN || close(made) != 0 || ftruncate(OWN, (off_t)size) != 0)
        attack_fail("memfd_create");
    own = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, OWN, 0);
    if (own == MAP_FAILED)
        attack_fail("mmap");
    pin_fill(own, size);
    munmap(own, size);
}

int main(int argc, char **argv)
{
    const struct way *way = NULL;
    char bytes[24], address[24];
    pid_t self = getpid();

    attack_begin(argc, argv);
    pin_paths();
    for (size_t i = 0; attack.words > 0 && i < sizeof ways / sizeof *ways; i++)
        if (strcmp(ways[i].name, attack.word[attack.words == 1 ? 0 : 1]) == 0)
            way = &ways[i];
    if (way == NULL)
        return 2;
    if (attack.words == 4)
        return installing(way);
    pin_find();
    size = pins[0].size;
    make_file();
    snprintf(bytes, sizeof bytes, "%lx", (long)size);
    snprintf(address, sizeof address, "%lx", (long)pins[0].at);
    for (long i = 0; i < attack.attempts; i++) {
        pid_t child = fork();
        if (child == 0) {
            attack_die_with(self);
            execv(argv[0], (char *[]){argv[0], argv[1], "1", "new", (char *)way->name, bytes, address,
                                      NULL});
            _exit('?');
        }
        pin_count_child(child);
    }
    return attack_report();
}
