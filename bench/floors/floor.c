/* floor WAY PATH: what any supervisor pays at least, in C. It has the loop of loop.h as its child,
 * is told of each openat, decides nothing, and lets the call go on.
 *
 *   notify       a listener: RECV, SEND with CONTINUE
 *   notify-sync  the same, waking the other side on the same CPU
 *   notify-read  the same, and it copies the path in between
 *   redirect     a listener on a kernel with pins: copies the path into a pin, and redirects the call
 *   stop         a tracer: waitpid, PTRACE_CONT
 *   stops        the same with a second stop when the call is over
 *   stop-all     as stop, and makes all requests that pinfold makes for a redirect: registers, a read
 *                of the path, a question about a mapping, registers
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "loop.h"

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS _IOW('!', 4, uint64_t)
#endif
#ifndef SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP 1ul
#endif

/* The later revision of the two requests, which no released kernel has. */
#define FILTER_FLAG_REDIRECT (1ul << 6)
struct pin_install {
	uint64_t id;
	uint32_t flags, memfd;
	uint64_t target_addr, size, offset;
};
struct send_redirect {
	uint64_t id;
	uint32_t flags, args_mask, ptr_mask, memfd;
	uint64_t args[6], ptr_len[6];
};
#define PIN_INSTALL _IOWR('!', 5, struct pin_install)
#define SEND_REDIRECT _IOW('!', 6, struct send_redirect)
enum { PIN_SIZE = 4096 };

enum { SECCOMP_STOP = SIGTRAP | PTRACE_EVENT_SECCOMP << 8, CALL_STOP = SIGTRAP | 0x80 };

static _Noreturn void fail(const char *what)
{
	perror(what);
	_exit(4);
}

static void ended(int signal)
{
	int status = 0;

	(void)signal;
	if (waitpid(-1, &status, WNOHANG) > 0)
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 4);
}

/* Returns the length of a path, with its end. */
static size_t copy_path(pid_t pid, const void *address, char *path)
{
	size_t room = 4096 - (uintptr_t)address % 4096;
	struct iovec here = { path, room }, there = { (void *)address, room };
	char *end;

	/* Up to the end of its page: what comes after may not be mapped. */
	if (process_vm_readv(pid, &here, 1, &there, 1, 0) <= 0 || !(end = memchr(path, 0, room)))
		fail("process_vm_readv");
	return end + 1 - path;
}

static _Noreturn void answer(int listener, int sync, int reads)
{
	struct seccomp_notif_resp reply = { .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };
	struct seccomp_notif request;
	char path[4096];

	if (sync && ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS,
			  SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP))
		fail("SET_FLAGS");
	for (;;) {
		memset(&request, 0, sizeof(request));
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request)) {
			/* At the child's end: the signal of it follows. */
			if (errno == ENOENT || errno == EINTR)
				continue;
			fail("RECV");
		}
		if (reads)
			copy_path(request.pid, (const void *)request.data.args[1], path);
		reply.id = request.id;
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &reply) && errno != ENOENT)
			fail("SEND");
	}
}

static _Noreturn void redirect(int listener)
{
	int memfd = memfd_create("pin", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct pin_install pin = { .memfd = memfd, .size = PIN_SIZE };
	struct send_redirect reply = { .flags = 1, .args_mask = 2, .ptr_mask = 2, .memfd = memfd };
	struct seccomp_notif request;
	char *slot;

	if (memfd < 0 || ftruncate(memfd, PIN_SIZE))
		fail("memfd_create");
	slot = mmap(NULL, PIN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (slot == MAP_FAILED)
		fail("mmap");
	if (fcntl(memfd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE))
		fail("F_ADD_SEALS");
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP))
		fail("SET_FLAGS");
	for (;;) {
		memset(&request, 0, sizeof(request));
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request)) {
			if (errno == ENOENT || errno == EINTR)
				continue;
			fail("RECV");
		}
		if (!pin.target_addr) {
			pin.id = request.id;
			if (ioctl(listener, PIN_INSTALL, &pin))
				fail("PIN_INSTALL");
			reply.args[1] = pin.target_addr;
		}
		reply.ptr_len[1] = copy_path(request.pid, (const void *)request.data.args[1], slot);
		reply.id = request.id;
		if (ioctl(listener, SEND_REDIRECT, &reply) && errno != ENOENT)
			fail("SEND_REDIRECT");
	}
}

/* PROCMAP_QUERY of linux/fs.h (Linux 6.11): size, flags and address go in, the rest comes out. */
struct question {
	uint64_t size, flags, address, found[10];
};

static void all_requests(pid_t child, int maps)
{
	struct user_regs_struct registers;
	struct iovec some = { &registers, 17 * sizeof(long) };
	struct question question = { .size = sizeof(question) };
	char path[4096];

	if (ptrace(PTRACE_GETREGS, child, 0, &registers))
		fail("PTRACE_GETREGS");
	copy_path(child, (const void *)registers.rsi, path);
	question.address = registers.rsp;
	if (ioctl(maps, _IOWR('f', 17, struct question), &question))
		fail("PROCMAP_QUERY");
	if (ptrace(PTRACE_SETREGSET, child, 1 /* NT_PRSTATUS */, &some))
		fail("PTRACE_SETREGSET");
}

static _Noreturn void trace(pid_t child, int both, int all)
{
	enum __ptrace_request on = both ? PTRACE_SYSCALL : PTRACE_CONT;
	char name[32];
	int status, maps;

	snprintf(name, sizeof(name), "/proc/%d/maps", child);
	maps = open(name, O_RDONLY | O_CLOEXEC);
	if (maps < 0)
		fail(name);

	for (;;) {
		enum __ptrace_request how = PTRACE_CONT;
		long signal = 0;

		if (waitpid(child, &status, __WALL) != child)
			fail("waitpid");
		if (!WIFSTOPPED(status))
			_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 4);
		if (status >> 8 == SECCOMP_STOP) {
			how = on;
			if (all)
				all_requests(child, maps);
		} else if (WSTOPSIG(status) != CALL_STOP && status >> 16 == 0)
			signal = WSTOPSIG(status);
		if (ptrace(how, child, 0, signal))
			fail("PTRACE_CONT");
	}
}

/* The child: filtered, as soon as it may be. */
static _Noreturn void child(const char *path, int traced, unsigned int flags, int ready, int told)
{
	int listener;
	char byte;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || read(ready, &byte, 1) != 1)
		_exit(4);
	listener = traced ? filter_openat(SECCOMP_RET_TRACE, 0) :
			    filter_openat(SECCOMP_RET_USER_NOTIF,
					  SECCOMP_FILTER_FLAG_NEW_LISTENER | flags);
	if (listener < 0 || write(told, &listener, sizeof(listener)) != sizeof(listener))
		_exit(4);
	_exit(obey(path, 0));
}

int main(int argc, char **argv)
{
	int ready[2], told[2], traced, redirects, listener, pidfd;
	pid_t pid;

	if (argc != 3 || pipe(ready) || pipe(told))
		return 2;
	traced = !strncmp(argv[1], "stop", 4);
	redirects = !strcmp(argv[1], "redirect");
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		/* So that it does not wait for a parent that is gone. */
		close(ready[1]);
		child(argv[2], traced, redirects ? FILTER_FLAG_REDIRECT : 0, ready[0], told[1]);
	}
	close(0);
	close(1);
	close(told[1]);
	/* A listener does not tell of the end of its last task. */
	if (!traced)
		signal(SIGCHLD, ended);
	if (traced && ptrace(PTRACE_SEIZE, pid, 0,
			     PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL))
		fail("PTRACE_SEIZE");
	if (write(ready[1], "", 1) != 1 || read(told[0], &listener, sizeof(listener)) <= 0)
		fail("child");
	if (traced)
		trace(pid, !strcmp(argv[1], "stops"), !strcmp(argv[1], "stop-all"));
	pidfd = syscall(SYS_pidfd_open, pid, 0);
	listener = syscall(SYS_pidfd_getfd, pidfd, listener, 0);
	if (listener < 0)
		fail("pidfd_getfd");
	if (redirects)
		redirect(listener);
	answer(listener, strcmp(argv[1], "notify"), !strcmp(argv[1], "notify-read"));
}
