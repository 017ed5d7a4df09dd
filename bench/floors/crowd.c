/* crowd PROCESSES THREADS PATH [ERRNO]: the loop of loop.h, made by many tasks at the same time.
 *
 * Each of so many processes has so many threads. Told a number, every one of them makes that many
 * calls; the time is from the first one's start to the last one's end. In between they sleep.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "loop.h"

static struct {
	pthread_barrier_t start, end;
	uint32_t count;
	uint64_t wrong;
} *shared;

static const char *path;
static int wanted;

static void *work(void *unused)
{
	(void)unused;
	for (;;) {
		uint64_t wrong;

		pthread_barrier_wait(&shared->start);
		if (!shared->count)
			return NULL;
		wrong = open_and_close(path, shared->count, wanted);
		__atomic_add_fetch(&shared->wrong, wrong, __ATOMIC_RELAXED);
		pthread_barrier_wait(&shared->end);
	}
}

static int process(int threads)
{
	pthread_t thread;

	while (--threads > 0)
		if (pthread_create(&thread, NULL, work, NULL))
			return 4;
	work(NULL);
	return 0;
}

static int prepare(unsigned int tasks)
{
	pthread_barrierattr_t attributes;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	return shared == MAP_FAILED || pthread_barrierattr_init(&attributes) ||
	       pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) ||
	       pthread_barrier_init(&shared->start, &attributes, tasks + 1) ||
	       pthread_barrier_init(&shared->end, &attributes, tasks + 1);
}

int main(int argc, char **argv)
{
	int processes, threads, i, status, failed = 0;

	if (argc < 4)
		return 2;
	processes = atoi(argv[1]);
	threads = atoi(argv[2]);
	path = argv[3];
	wanted = argc > 4 ? atoi(argv[4]) : 0;
	if (prepare(processes * threads))
		return 3;
	for (i = 0; i < processes; i++) {
		pid_t us = getpid(), pid = fork();

		if (pid < 0)
			return 4;
		if (pid == 0) {
			if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || getppid() != us)
				_exit(4);
			_exit(process(threads));
		}
	}
	for (;;) {
		uint64_t answer[2], start;

		if (read(0, &shared->count, sizeof(shared->count)) != sizeof(shared->count))
			shared->count = 0;
		shared->wrong = 0;
		start = now();
		pthread_barrier_wait(&shared->start);
		if (!shared->count)
			break;
		pthread_barrier_wait(&shared->end);
		answer[0] = now() - start;
		answer[1] = shared->wrong;
		if (write(1, answer, sizeof(answer)) != sizeof(answer))
			return 5;
	}
	while (wait(&status) > 0)
		failed |= status;
	return failed ? 6 : 0;
}
