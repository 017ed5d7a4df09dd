/*
 * conf_script WORD...: does what its arguments say, one word an action, so that a test shows at a glance
 * what its target does. Fields of a word are separated by colons; numbers may be hexadecimal. Lines that
 * are printed start with the word's LABEL. Built with -static, so that no loader makes calls first.
 *
 *   open:LABEL[:PATH]         opens for reading with openat, by default /no/such/LABEL; prints result=,
 *                             rdev= and flags= of what was opened, registers= (the first one that the
 *                             call changed) and string= (whether the path is what it was), and closes it
 *   call:LABEL:NUMBER[:A...]  makes any call; prints result= and registers=
 *   map:LABEL:ADDRESS:SIZE:PATH   maps private memory there, filled so that all of it names PATH
 *   kept:LABEL:ADDRESS:SIZE:PATH  prints whether that memory still holds what `map` put there
 *   share:LABEL:ADDRESS:SIZE:OFFSET:FD  maps a descriptor there, shared and read-only
 *   file:LABEL:FD:SIZE:PATH   makes a memory file, filled likewise, and gives it that number
 *   advise:LABEL:ADDRESS:SIZE:ADVICE    madvise
 *   unmap:LABEL:ADDRESS:SIZE      munmap
 *   store:ADDRESS             writes a byte there
 *   forbid:LABEL:NUMBER:ERRNO puts itself under a further filter that answers the call with an errno
 *   filter:LABEL:NUMBER:ACTION:FLAGS    puts itself under a filter that gives the call any action
 *   nofile:LABEL:COUNT        sets RLIMIT_NOFILE
 *   space:LABEL:SIZE          sets RLIMIT_AS to what is mapped now and SIZE more
 *   seal:LABEL:ADDRESS:SIZE   mseal
 *   exhaust:LABEL             uses up the number of mappings that a process may have
 *   go                        waits for one byte of standard input
 *   say:LABEL                 prints pid= and tid=
 *   fork ... end              a child does what is in the block, and is waited for
 *   vfork ... end             likewise, sharing the parent's memory, which sleeps until exec or exit
 *   spawn ... end             a child does it meanwhile
 *   thread ... end            a thread does it meanwhile
 *   join                      waits for every thread and spawned child of this process
 *   exec                      executes the program anew with the rest of the block
 *   run:PROGRAM[:ARGUMENT...] executes another program; in its arguments, @ stands for a colon
 */
#include "filters.h"

#include <pthread.h>
#include <stdarg.h>
#include <sys/resource.h>

#define GUARD 0xdeadbeef0badf00d /* in argument registers that the call does not use */

enum { FIELDS = 10, THREADS = 32, CHILDREN = 32, STACK = 1 << 16, LINE = 256 };

static char *program;
static pthread_t threads[THREADS];
static pid_t children[CHILDREN];
static int thread_count, child_count;

/* The start-up code of a static program would look for its own path: a path call before main(). */
const char *_dl_get_origin(void)
{
    return (const char *)-1;
}

static void fail(const char *what)
{
    fprintf(stderr, "conf_script: %s: %s\n", what, strerror(errno));
    _exit(3);
}

/* One write a line: threads do not mix theirs, and nothing is left in a buffer at fork. */
static void __attribute__((format(printf, 1, 2))) say(const char *format, ...)
{
    char line[LINE];
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (length >= LINE || write(STDOUT_FILENO, line, (size_t)length) != length)
        fail("write");
}

static int split(const char *word, char *copy, size_t size, char *fields[FIELDS])
{
    int count = 0;
    char *rest = copy;

    if ((size_t)snprintf(copy, size, "%s", word) >= size)
        fail("word too long");
    while (count < FIELDS && rest != NULL)
        fields[count++] = strsep(&rest, ":");
    return count;
}

static uint64_t number(const char *text)
{
    return strtoull(text, NULL, 0);
}

static void do_open(const char *label, const char *wanted)
{
    char path[LINE], described[64] = "rdev=none flags=none";
    struct registers after;
    struct stat found;
    const char *changed;
    long fd;

    if (wanted == NULL)
        snprintf(path, sizeof path, "/no/such/%s", label);
    else
        snprintf(path, sizeof path, "%s", wanted);
    {
        char before[LINE];
        const uint64_t arguments[6] = {(uint64_t)AT_FDCWD, (uintptr_t)path,
                                       O_RDONLY | O_CLOEXEC, GUARD + 3, GUARD + 4, GUARD + 5};

        memcpy(before, path, sizeof before);
        fd = raw_call(SYS_openat, arguments, &after);
        changed = changed_register(arguments, &after);
        if (fd >= 0 && fstat((int)fd, &found) == 0) {
            snprintf(described, sizeof described, "rdev=%lx flags=%x", (long)found.st_rdev,
                     fcntl((int)fd, F_GETFL));
            close((int)fd);
        }
        say("%s result=%ld %s registers=%s string=%s\n", label, fd, described,
            changed ? changed : "ok", memcmp(before, path, sizeof before) == 0 ? "kept" : "changed");
    }
}

static void do_call(char **field, int count)
{
    uint64_t arguments[6];
    struct registers after;
    const char *changed;
    long result;

    for (int i = 0; i < 6; i++)
        arguments[i] = i + 3 < count ? number(field[i + 3]) : GUARD + (uint64_t)i;
    result = raw_call((long)number(field[2]), arguments, &after);
    changed = changed_register(arguments, &after);
    say("%s result=%ld registers=%s\n", field[1], result, changed ? changed : "ok");
}

/* Each page is slashes with the path at its end, and any number of leading slashes is one. */
static void fill(char *page, const char *path)
{
    size_t length = strlen(path) + 1;

    memset(page, '/', 4096);
    memcpy(page + 4096 - length, path, length);
}

static void do_map(char **field)
{
    uintptr_t address = number(field[2]), size = number(field[3]);
    char *memory = mmap((void *)address, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    say("%s result=%d\n", field[1], memory == MAP_FAILED ? -errno : 0);
    if (memory != MAP_FAILED)
        for (size_t at = 0; at < size; at += 4096)
            fill(memory + at, field[4]);
}

static void do_kept(char **field)
{
    const char *memory = (const char *)number(field[2]);
    char wanted[4096];
    int kept = 1;

    fill(wanted, field[4]);
    for (size_t at = 0; at < number(field[3]); at += 4096)
        kept &= memcmp(memory + at, wanted, 4096) == 0;
    say("%s kept=%d\n", field[1], kept);
}

static void do_file(char **field)
{
    int made = memfd_create("own", 0), wanted = (int)number(field[2]);
    char page[4096];

    fill(page, field[4]);
    for (size_t at = 0; made >= 0 && at < number(field[3]); at += sizeof page)
        if (write(made, page, sizeof page) != sizeof page)
            fail("write");
    say("%s result=%ld\n", field[1], answer(dup2(made, wanted)));
    close(made);
}

static void do_share(char **field)
{
    void *memory = mmap((void *)number(field[2]), number(field[3]), PROT_READ,
                        MAP_SHARED | MAP_FIXED_NOREPLACE, (int)number(field[5]),
                        (off_t)number(field[4]));

    say("%s result=%d\n", field[1], memory == MAP_FAILED ? -errno : 0);
}

/* Every second page gets another protection, so that none of them merge. */
static void do_exhaust(const char *label)
{
    size_t pages = 1 << 18;
    char *base = mmap(NULL, pages * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (base == MAP_FAILED)
        fail("mmap");
    for (size_t page = 1; page < pages; page += 2)
        if (mprotect(base + page * 4096, 4096, PROT_NONE) != 0)
            break;
    /* A split needs two at once; this takes the last one. */
    for (int i = 0; i < 1024; i++)
        if (mmap(NULL, 4096, i & 1 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
            MAP_FAILED)
            break;
    say("%s errno=%d\n", label, errno);
}

static void do_nofile(const char *label, rlim_t most)
{
    struct rlimit limit = {most, most};

    say("%s result=%ld\n", label, answer(setrlimit(RLIMIT_NOFILE, &limit)));
}

static void do_space(const char *label, rlim_t more)
{
    struct rlimit limit;
    char text[LINE] = "";
    /* Not with openat, which tests trap. */
    int fd = (int)syscall(SYS_open, "/proc/self/statm", O_RDONLY | O_CLOEXEC);
    rlim_t pages;

    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        fail("statm");
    close(fd);
    pages = strtoul(text, NULL, 10);
    limit.rlim_cur = limit.rlim_max = pages * 4096 + more;
    say("%s result=%ld\n", label, answer(setrlimit(RLIMIT_AS, &limit)));
}

static void do_go(void)
{
    char byte;

    if (read(STDIN_FILENO, &byte, 1) != 1)
        fail("go");
}

static int opens_block(const char *word)
{
    return strcmp(word, "fork") == 0 || strcmp(word, "vfork") == 0 || strcmp(word, "spawn") == 0 ||
           strcmp(word, "thread") == 0;
}

/* Returns the word after the block that `word` is in. */
static char **after_block(char **word)
{
    for (int depth = 1; *word != NULL; word++) {
        depth += opens_block(*word);
        if (strcmp(*word, "end") == 0 && --depth == 0)
            return word + 1;
    }
    return word;
}

static void do_exec(char **word)
{
    char *arguments[64] = {program};
    int count = 1, depth = 1;

    for (; *word != NULL && count < 62; word++) {
        depth += opens_block(*word);
        if (strcmp(*word, "end") == 0 && --depth == 0)
            break;
        arguments[count++] = *word;
    }
    execv(program, arguments);
    fail("execv");
}

static void do_run(char **field, int count)
{
    char *arguments[FIELDS + 1] = {NULL};

    for (int i = 1; i < count; i++) {
        arguments[i - 1] = field[i];
        for (char *at = i > 1 ? strchr(field[i], '@') : NULL; at != NULL; at = strchr(at, '@'))
            *at = ':';
    }
    execv(field[1], arguments);
    fail("execv");
}

static void perform(char **word);

static void *in_thread(void *words)
{
    perform(words);
    return NULL;
}

static int in_child(void *words)
{
    perform(words);
    _exit(0);
}

static pid_t start(const char *how, char **block)
{
    pid_t self = getpid(), child;

    if (strcmp(how, "vfork") == 0) {
        char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return clone(in_child, stack + STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, block);
    }
    child = fork();
    if (child == 0) {
        thread_count = child_count = 0;
        die_with(self);
        in_child(block);
    }
    return child;
}

static void await(pid_t child)
{
    int status;

    if (waitpid(child, &status, 0) != child)
        fail("waitpid");
    if (WIFSIGNALED(status))
        say("killed=%d\n", WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0)
        fail("a child");
}

static void do_block(const char *how, char **block)
{
    if (strcmp(how, "thread") == 0) {
        if (pthread_create(&threads[thread_count++], NULL, in_thread, block) != 0)
            fail("pthread_create");
    } else if (strcmp(how, "spawn") == 0) {
        children[child_count++] = start(how, block);
    } else {
        await(start(how, block));
    }
}

static void do_join(void)
{
    while (thread_count > 0)
        pthread_join(threads[--thread_count], NULL);
    while (child_count > 0)
        await(children[--child_count]);
}

/* Returns 0 where the word is none of those with fields. */
static int do_word(char **field, int count)
{
    const char *verb = field[0], *label = field[1];

    if (strcmp(verb, "open") == 0)
        do_open(label, count > 2 ? field[2] : NULL);
    else if (strcmp(verb, "call") == 0 && count > 2)
        do_call(field, count);
    else if (strcmp(verb, "map") == 0 && count == 5)
        do_map(field);
    else if (strcmp(verb, "kept") == 0 && count == 5)
        do_kept(field);
    else if (strcmp(verb, "file") == 0 && count == 5)
        do_file(field);
    else if (strcmp(verb, "share") == 0 && count == 6)
        do_share(field);
    else if (strcmp(verb, "advise") == 0 && count == 5)
        say("%s result=%ld\n", label,
            answer(madvise((void *)number(field[2]), number(field[3]), (int)number(field[4]))));
    else if (strcmp(verb, "unmap") == 0 && count == 4)
        say("%s result=%ld\n", label, answer(munmap((void *)number(field[2]), number(field[3]))));
    else if (strcmp(verb, "forbid") == 0 && count == 4)
        say("%s result=%ld\n", label,
            add_filter((long)number(field[2]),
                       SECCOMP_RET_ERRNO | (unsigned)number(field[3]), 0));
    else if (strcmp(verb, "filter") == 0 && count == 5)
        say("%s result=%ld\n", label,
            add_filter((long)number(field[2]), (unsigned)number(field[3]), (unsigned)number(field[4])));
    else if (strcmp(verb, "space") == 0 && count == 3)
        do_space(label, number(field[2]));
    else if (strcmp(verb, "seal") == 0 && count == 4)
        say("%s result=%ld\n", label,
            answer(syscall(SYS_mseal, number(field[2]), number(field[3]), 0)));
    else if (strcmp(verb, "nofile") == 0 && count == 3)
        do_nofile(label, number(field[2]));
    else if (strcmp(verb, "exhaust") == 0)
        do_exhaust(label);
    else if (strcmp(verb, "run") == 0)
        do_run(field, count);
    else if (strcmp(verb, "store") == 0)
        *(volatile char *)number(label) = 'X';
    else if (strcmp(verb, "say") == 0)
        say("%s pid=%d tid=%ld\n", label, getpid(), syscall(SYS_gettid));
    else
        return 0;
    return 1;
}

static void perform(char **word)
{
    while (*word != NULL && strcmp(*word, "end") != 0) {
        char copy[LINE], *fields[FIELDS];
        int count = split(*word, copy, sizeof copy, fields);

        if (opens_block(*word)) {
            do_block(*word, word + 1);
            word = after_block(word + 1);
            continue;
        }
        if (strcmp(*word, "exec") == 0)
            do_exec(word + 1);
        else if (strcmp(*word, "go") == 0)
            do_go();
        else if (strcmp(*word, "join") == 0)
            do_join();
        else if (count < 2 || !do_word(fields, count)) {
            fprintf(stderr, "conf_script: unknown word %s\n", *word);
            _exit(2);
        }
        word++;
    }
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    program = argv[0];
    perform(argv + 1);
    return 0;
}
