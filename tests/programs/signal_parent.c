/*
 * signal_parent: signals that would do no harm, sent to the parent in each way there is. 0 or a negative
 * errno.
 */
#include "probe.h"

int main(void)
{
    pid_t parent = getppid();
    siginfo_t info = {.si_signo = SIGCONT, .si_code = SI_QUEUE};
    long fd;

    printf("parent=%d\n", parent);
    printf("kill_nothing=%ld\n", answer(kill(parent, 0)));
    printf("kill=%ld\n", answer(kill(parent, SIGCONT)));
    printf("tkill=%ld\n", answer(syscall(SYS_tkill, parent, SIGCONT)));
    printf("tgkill=%ld\n", answer(syscall(SYS_tgkill, parent, parent, SIGCONT)));
    printf("rt_sigqueueinfo=%ld\n", answer(syscall(SYS_rt_sigqueueinfo, parent, SIGCONT, &info)));
    fd = answer(syscall(SYS_pidfd_open, parent, 0));
    if (fd >= 0)
        fd = answer(syscall(SYS_pidfd_send_signal, fd, SIGCONT, NULL, 0));
    printf("pidfd_send_signal=%ld\n", fd);
    return 0;
}
