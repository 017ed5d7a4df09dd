/*
 * nested_notify DENIED: a thread puts a filter of its own on itself that sends openat() to a listener,
 * and another thread of the same program answers "continue". An answer of the program's own must not
 * stand in for the supervisor's.
 */
#include "filters.h"

#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>

static _Atomic int listener = -1;
static _Atomic int stop;

static void *answer_all(void *unused)
{
    while (!stop) {
        struct seccomp_notif request = {0};
        struct seccomp_notif_resp reply = {0};
        struct pollfd ready = {listener, POLLIN, 0};

        if (listener < 0 || poll(&ready, 1, 10) != 1) {
            sched_yield();
            continue;
        }
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) != 0)
            continue;
        reply.id = request.id;
        reply.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &reply);
    }
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    long result;

    if (argc != 2 || pthread_create(&thread, NULL, answer_all, NULL) != 0)
        return 2;
    result = add_filter(SYS_openat, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
    if (result >= 0)
        listener = (int)result;
    printf("listener=%s byte=%s\n", result >= 0 ? "ok" : result == -EBUSY ? "EBUSY" : "other",
           first_byte(argv[1]));
    stop = 1;
    pthread_join(thread, NULL);
    return 0;
}
