/* Opens and closes a path in a loop, as often as it is told, and tells how long that took.
 *
 * openat_loop SOCKET PATH [filter]: with a third argument it puts itself under a filter that brings
 * openat, and nothing else, to a listener, and sends the listener over SOCKET. Then, for each
 * 32-bit count that it reads, it answers with two 64-bit numbers: nanoseconds, and how many calls
 * failed or came back with another value in the register of the path.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "floors/loop.h"

static int send_descriptor(int channel, int fd)
{
	char byte = 'L';
	struct iovec data = { &byte, 1 };
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};

	memset(&control, 0, sizeof(control));
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	return sendmsg(channel, &message, 0) == 1 ? 0 : -1;
}

int main(int argc, char **argv)
{
	uint32_t count;
	int channel;

	if (argc < 3)
		return 2;
	channel = atoi(argv[1]);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
		return 3;
	if (argc > 3) {
		int listener = filter_openat(SECCOMP_RET_USER_NOTIF,
						     SECCOMP_FILTER_FLAG_NEW_LISTENER);

		if (listener < 0 || send_descriptor(channel, listener))
			return 4;
		close(listener);
	}
	while (read(channel, &count, sizeof(count)) == sizeof(count)) {
		uint64_t answer[2], start;

		alarm(PATIENCE_SECONDS);
		start = now();
		answer[1] = open_and_close(argv[2], count, 0);
		answer[0] = now() - start;
		alarm(0);
		if (write(channel, answer, sizeof(answer)) != sizeof(answer))
			return 5;
	}
	return 0;
}
