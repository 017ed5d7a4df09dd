/* Opens and closes a path in a loop, as often as it is told, and tells how long that took.
 *
 * openat_loop SOCKET PATH [filter]: with a third argument it puts itself under a filter that brings
 * openat, and nothing else, to a listener, and sends the listener over SOCKET. Then, for each
 * 32-bit count that it reads, it answers with two 64-bit numbers: nanoseconds, and how many calls
 * failed or came back with another value in the register of the path.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_SECONDS = 120 };

static long open_and_look(const char *path, int *restored)
{
	long result = SYS_openat;
	const char *after = path;

	__asm__ volatile("syscall"
			 : "+a"(result), "+S"(after)
			 : "D"((long)AT_FDCWD), "d"((long)O_RDONLY)
			 : "rcx", "r11", "memory");
	*restored = after == path;
	return result;
}

static int install(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
		       &program);
}

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
		int listener = install();

		if (listener < 0 || send_descriptor(channel, listener))
			return 4;
		close(listener);
	}
	while (read(channel, &count, sizeof(count)) == sizeof(count)) {
		struct timespec start, end;
		uint64_t answer[2] = { 0, 0 };
		uint32_t i;

		alarm(PATIENCE_SECONDS);
		clock_gettime(CLOCK_MONOTONIC, &start);
		for (i = 0; i < count; i++) {
			int restored;
			long fd = open_and_look(argv[2], &restored);

			if (fd >= 0)
				close(fd);
			answer[1] += fd < 0 || !restored;
		}
		clock_gettime(CLOCK_MONOTONIC, &end);
		alarm(0);
		answer[0] = (end.tv_sec - start.tv_sec) * 1000000000ull + end.tv_nsec -
			    start.tv_nsec;
		if (write(channel, answer, sizeof(answer)) != sizeof(answer))
			return 5;
	}
	return 0;
}
