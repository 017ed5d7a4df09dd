/*
 * code_page FILE [beside]: opens FILE a few times and looks at its pins. Prints their rights, how a
 * jump to the first bytes of each ends (`death`: by SIGSEGV there and then; `back`: by coming back),
 * what the kernel answers to attempts to alter the pages, what has become of SIGTRAP, and how many
 * descriptors are open. With `beside`, and built with -static, another thread is there before the
 * first path call.
 */
#include "probe.h"

#include <pthread.h>
#include <setjmp.h>

enum { STUB_OF_RDI = 2 };

static sigjmp_buf before;
static void *faulted;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    faulted = info->si_addr;
    siglongjmp(before, 1);
}

/* Jumps as a call returns: to a return stub that puts r11 into rdi and goes on at rcx. */
static unsigned long jump(const char *to)
{
    register unsigned long value __asm__("r11") = 0x1234567;
    unsigned long found = 0;

    __asm__ volatile("lea 1f(%%rip), %%rcx\n\t"
                     "jmp *%[to]\n"
                     "1:\tmov %%rdi, %[found]"
                     : [found] "=a"(found), "+r"(value)
                     : [to] "d"(to)
                     : "rcx", "rdi", "memory");
    return found;
}

static const char *end_of(const char *to)
{
    faulted = NULL;
    if (sigsetjmp(before, 1) != 0)
        return faulted == to ? "death" : "elsewhere";
    return jump(to) == 0x1234567 ? "back" : "other";
}

/* The start-up code of a static program would look for its own path: a path call before main(). */
const char *_dl_get_origin(void)
{
    return (const char *)-1;
}

static void *idle(void *unused)
{
    pause();
    return unused;
}

static int open_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 64; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void alter(const char *name, char *at)
{
    char *other = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    printf("%s.unmap=%ld %s.write=%ld %s.execute=%ld %s.replace=%ld %s.move=%ld\n", name,
           answer(munmap(at, 4096)), name,
           answer(mprotect(at, 4096, PROT_READ | PROT_WRITE)), name,
           answer(mprotect(at, 4096, PROT_READ | PROT_EXEC)), name,
           answer((long)mmap(at, 4096, PROT_READ | PROT_EXEC,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)),
           name, answer((long)mremap(other, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, at)));
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    struct range pins[PINS_AT_MOST];
    int count, before_pins = open_descriptors(), data = 0, code = 0;
    pthread_t thread;
    sigset_t blocked;

    if (argc != 2 && (argc != 3 || pthread_create(&thread, NULL, idle, NULL) != 0))
        return 2;
    sigaction(SIGSEGV, &action, NULL);
    for (int i = 0; i < 3; i++)
        printf("open%d=%s ", i, first_byte(argv[1]));
    count = find_pins(pins);
    for (int i = 0; i < count; i++) {
        char *at = (char *)pins[i].start;
        int executable = pins[i].permissions[2] == 'x';

        if (executable ? code++ : data++)
            continue;
        printf("%s=%s %s.size=%lu %s.jump=%s\n", executable ? "code" : "data", pins[i].permissions,
               executable ? "code" : "data", (unsigned long)(pins[i].end - pins[i].start),
               executable ? "code" : "data", end_of(executable ? at + STUB_OF_RDI : at));
        alter(executable ? "code" : "data", at);
    }
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    sigaction(SIGTRAP, NULL, &action);
    printf("ignored=%d blocked=%d left_open=%d\n", action.sa_handler == SIG_IGN,
           sigismember(&blocked, SIGTRAP), open_descriptors() - before_pins);
    printf("pins=%d executable=%d last=%s\n", data, code, first_byte(argv[1]));
    return 0;
}
