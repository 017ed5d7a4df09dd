/*
 * conf_launch SOCKET PARENT FLAGS CALL[,CALL...] PROGRAM ARGUMENT...: puts itself under a filter that
 * notifies of these calls and allows the rest, sends the listener over the Unix socket, and executes the
 * program. A CALL is a number, or NUMBER:ARGUMENT:MASK:VALUE for calls whose argument, cut to 32 bits,
 * has VALUE in the bits of MASK.
 *
 * FLAGS are added to NEW_LISTENER and what `set_filter` adds.
 */
#include "filters.h"
#include "handover.h"

#include <linux/audit.h>

enum { FILTER_AT_MOST = 256, LONGEST_CALL = 6 };

static struct sock_filter code[FILTER_AT_MOST];
static struct sock_fprog program = {0, code};

static void add(unsigned short operation, unsigned operand, unsigned char yes, unsigned char no)
{
    code[program.len++] = (struct sock_filter)BPF_JUMP(operation, operand, yes, no);
}

static void load(unsigned offset)
{
    add(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0);
}

static void add_call(const char *call)
{
    unsigned number, argument, mask, value;
    int count = sscanf(call, "%u:%u:%i:%i", &number, &argument, (int *)&mask, (int *)&value);

    load(offsetof(struct seccomp_data, nr));
    if (count == 4) {
        add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4);
        load((unsigned)offsetof(struct seccomp_data, args) + 8 * argument);
        add(BPF_ALU | BPF_AND | BPF_K, mask, 0, 0);
        add(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    } else {
        add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
    }
    add(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF, 0, 0);
}

static int install(char *calls, unsigned flags)
{
    load(offsetof(struct seccomp_data, arch));
    add(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    add(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
    for (char *call = strtok(calls, ","); call != NULL; call = strtok(NULL, ",")) {
        if (program.len > FILTER_AT_MOST - LONGEST_CALL - 2)
            return -1;
        add_call(call);
    }
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
    return (int)set_filter(&program, flags | SECCOMP_FILTER_FLAG_NEW_LISTENER);
}

int main(int argc, char **argv)
{
    int handover, listener;

    if (argc < 6)
        return 2;
    handover = atoi(argv[1]);
    /* Closed by exec, like the listener: after the filter is there, `close` may be trapped. */
    fcntl(handover, F_SETFD, FD_CLOEXEC);
    die_with(atoi(argv[2]));
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    listener = install(argv[4], (unsigned)strtoul(argv[3], NULL, 0));
    if (listener < 0) {
        fprintf(stderr, "conf_launch: seccomp: %s\n", strerror(-listener));
        return 126;
    }
    if (hand_over(handover, listener) != 0) {
        perror("conf_launch: sendmsg");
        return 126;
    }
    execv(argv[5], argv + 5);
    perror(argv[5]);
    return 127;
}
