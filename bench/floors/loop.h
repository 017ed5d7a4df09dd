/* What is measured: opening and closing a file, and taking the time over many of them.
 *
 * A program is told on standard input how many calls to make (32 bits), and answers on standard
 * output with two 64-bit numbers: nanoseconds, and how many calls did not end as they had to. It
 * begins again until its input ends.
 */
#ifndef PINFOLD_BENCH_LOOP_H
#define PINFOLD_BENCH_LOOP_H

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_SECONDS = 120 };

/* Makes one openat, and looks whether the register of the path came back as it was. */
static inline long open_and_look(const char *path, int *restored)
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

/* Opens and closes so often. Returns how many opens ended otherwise than with this errno; 0 stands
 * for success. */
static inline uint64_t open_and_close(const char *path, uint32_t count, int wanted)
{
	uint64_t wrong = 0;
	uint32_t i;

	for (i = 0; i < count; i++) {
		int restored;
		long fd = open_and_look(path, &restored);

		wrong += !restored || (wanted ? fd != -wanted : fd < 0);
		if (fd >= 0)
			close(fd);
	}
	return wrong;
}

static inline uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* Does as it is told until its input ends; returns what to exit with. */
static inline int obey(const char *path, int wanted)
{
	uint32_t count;

	while (read(0, &count, sizeof(count)) == sizeof(count)) {
		uint64_t answer[2], start;

		alarm(PATIENCE_SECONDS);
		start = now();
		answer[1] = open_and_close(path, count, wanted);
		answer[0] = now() - start;
		alarm(0);
		if (write(1, answer, sizeof(answer)) != sizeof(answer))
			return 5;
	}
	return 0;
}

/* Puts this process under a filter that answers an openat with an action, and lets all else pass.
 * Returns what seccomp(2) does. */
static inline int filter_openat(uint32_t action, unsigned int flags)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

#endif
