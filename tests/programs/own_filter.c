/*
 * own_filter HOW FILE: puts a filter on itself by which FILE can be opened from one instruction of
 * this program alone, and opens it there: before and after, in a thread that was there before, and
 * in a child. HOW is `seccomp`, `tsync` or `prctl`. One line per open: WHO=RESULT.
 */
#include "filters.h"

#include <pthread.h>

extern const char here[];
static const char *file;
static int go[2], done[2];

static __attribute__((noinline)) long open_here(void)
{
    long result;

    __asm__ volatile("syscall\n"
                     "    .globl here\n"
                     "here:\n"
                     : "=a"(result)
                     : "0"((long)SYS_openat), "D"((long)AT_FDCWD), "S"(file), "d"(0L)
                     : "rcx", "r11", "memory");
    if (result >= 0)
        close((int)result);
    return result < 0 ? result : 0;
}

static long filter(const char *how)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(uintptr_t)here, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    unsigned flags = strcmp(how, "tsync") == 0 ? SECCOMP_FILTER_FLAG_TSYNC : 0;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -errno;
    if (strcmp(how, "prctl") == 0)
        return answer(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
    return answer(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
}

static void *beside(void *unused)
{
    char byte;

    printf("thread_before=%ld\n", open_here());
    if (write(done[1], "x", 1) != 1 || read(go[0], &byte, 1) != 1)
        exit(1);
    printf("thread_after=%ld\n", open_here());
    return unused;
}

int main(int count, char **arguments)
{
    pthread_t thread;
    char byte;
    int status;
    pid_t child;

    if (count != 3 || pipe(go) != 0 || pipe(done) != 0)
        return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    file = arguments[2];
    printf("before=%ld\n", open_here());
    if (pthread_create(&thread, NULL, beside, NULL) != 0 || read(done[0], &byte, 1) != 1)
        return 1;
    printf("filter=%ld\n", filter(arguments[1]));
    printf("after=%ld\n", open_here());
    printf("refused=%d\n", answer(syscall(SYS_openat, AT_FDCWD, file, O_RDONLY)) == -EPERM);
    if (write(go[1], "x", 1) != 1 || pthread_join(thread, NULL) != 0)
        return 1;
    child = fork();
    if (child == 0) {
        printf("child=%ld\n", open_here());
        _exit(0);
    }
    return waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
}
