/*
 * conf_overwrite_call plain|ignored|blocked INSTRUCTION: opens a file by a call instruction which another
 * thread overwrites with INSTRUCTION (two bytes, as a number of 16 bits) when standard input has a byte,
 * and says so. At the next byte it puts the call back. SIGTRAP is left as it is, ignored or blocked.
 *
 * An instruction that the processor refuses is tried again. Prints result= of the open. Built with
 * -static, so that no loader makes calls first.
 */
#include "probe.h"

#include <pthread.h>
#include <ucontext.h>

enum { CALL = 0x050f, CALL_AT = 16 };

/* Number and three arguments into their registers, then the call at an aligned address. */
static const unsigned char code[] = {
    0x48, 0x89, 0xf8,             /* mov %rdi, %rax */
    0x48, 0x89, 0xf7,             /* mov %rsi, %rdi */
    0x48, 0x89, 0xd6,             /* mov %rdx, %rsi */
    0x48, 0x89, 0xca,             /* mov %rcx, %rdx */
    0x90, 0x90, 0x90, 0x90,       /* nop */
    0x0f, 0x05,                   /* syscall */
    0xc3,                         /* ret */
};

static volatile uint16_t *instruction;
static uint16_t bad;

static void *overwrite(void *unused)
{
    char byte;

    if (read(STDIN_FILENO, &byte, 1) != 1)
        _exit(3);
    *instruction = bad;
    if (write(STDOUT_FILENO, "overwritten=yes\n", 16) != 16 || read(STDIN_FILENO, &byte, 1) != 1)
        _exit(3);
    *instruction = CALL;
    return unused;
}

static void again(int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;

    (void)number;
    (void)info;
    if (registers[REG_RIP] != (greg_t)(uintptr_t)instruction)
        _exit(4);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_sigaction = again, .sa_flags = SA_SIGINFO};
    pthread_t thread;
    sigset_t trap;
    char *page;
    long (*call)(long, long, const char *, long), result;

    if (argc != 3)
        return 2;
    bad = (uint16_t)strtoul(argv[2], NULL, 0);
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return 1;
    memcpy(page, code, sizeof code);
    instruction = (volatile uint16_t *)(void *)(page + CALL_AT);
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigemptyset(&trap);
    sigaddset(&trap, SIGTRAP);
    if (argv[1][0] == 'i')
        signal(SIGTRAP, SIG_IGN);
    else if (argv[1][0] == 'b')
        sigprocmask(SIG_BLOCK, &trap, NULL);
    if (pthread_create(&thread, NULL, overwrite, NULL) != 0)
        return 1;
    call = (long (*)(long, long, const char *, long))(uintptr_t)page;
    result = call(SYS_openat, AT_FDCWD, "/no/such/call", O_RDONLY | O_CLOEXEC);
    printf("result=%ld\n", result);
    return 0;
}
