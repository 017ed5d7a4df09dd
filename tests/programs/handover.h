/* Hands a listener over to the test. */
#ifndef HANDOVER_H
#define HANDOVER_H

#include "probe.h"

#include <sys/socket.h>

/* Sends a descriptor over a Unix socket; returns 0 or -1. */
static inline int hand_over(int socket, int listener)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr header;
    } control = {0};
    struct iovec byte = {"L", 1};
    struct msghdr message = {.msg_iov = &byte,
                             .msg_iovlen = 1,
                             .msg_control = control.room,
                             .msg_controllen = sizeof control.room};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &listener, sizeof listener);
    return sendmsg(socket, &message, 0) == 1 ? 0 : -1;
}

#endif
