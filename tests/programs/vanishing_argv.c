/* Executes a program with an argument that another thread takes out of memory while the call waits
   for its verdict. Prints the name of the error when the call fails. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char *page;

static void *vanish(void *unused)
{
	(void)unused;
	usleep(100000);
	munmap(page, 4096);
	return NULL;
}

int main(void)
{
	pthread_t thread;
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return 2;
	strcpy(page, "argument");
	if (pthread_create(&thread, NULL, vanish, NULL))
		return 2;
	char *argv[] = {"true", page, NULL};
	char *environment[] = {NULL};
	execve("/usr/bin/true", argv, environment);
	puts(errno == EFAULT ? "EFAULT" : "another error");
	return 1;
}
