/*
 * forbid_code WAY COMMAND...: executes COMMAND so that a page of a memfd cannot be made executable.
 *
 *   refuse   a filter of its own refuses executable mappings that are shared
 *   trap     likewise, by a signal
 *   tracer   likewise, by asking for a tracer
 *   lie      likewise, by claiming success
 *   gain     nothing may become executable that was mapped without (PR_SET_MDWE): no obstacle
 *   close    a filter of its own refuses close()
 *   signal   SIGTRAP is ignored
 *   block    SIGTRAP is blocked
 */
#include "filters.h"

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

static long forbid_mmap(unsigned action)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MAP_SHARED, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return answer(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

int main(int argc, char **argv)
{
    long failed = -1;

    if (argc < 3)
        return 2;
    if (strcmp(argv[1], "refuse") == 0)
        failed = forbid_mmap(SECCOMP_RET_ERRNO | EACCES);
    else if (strcmp(argv[1], "trap") == 0)
        failed = forbid_mmap(SECCOMP_RET_TRAP);
    else if (strcmp(argv[1], "tracer") == 0)
        failed = forbid_mmap(SECCOMP_RET_TRACE);
    else if (strcmp(argv[1], "lie") == 0)
        failed = forbid_mmap(SECCOMP_RET_ERRNO);
    else if (strcmp(argv[1], "gain") == 0)
        failed = prctl(PR_SET_MDWE, 1, 0, 0, 0);
    else if (strcmp(argv[1], "close") == 0)
        failed = add_filter(SYS_close, SECCOMP_RET_ERRNO | EPERM, 0);
    else if (strcmp(argv[1], "signal") == 0)
        failed = signal(SIGTRAP, SIG_IGN) == SIG_ERR;
    else if (strcmp(argv[1], "block") == 0) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGTRAP);
        failed = sigprocmask(SIG_BLOCK, &set, NULL);
    }
    if (failed != 0)
        return 2;
    execv(argv[2], argv + 2);
    return 127;
}
