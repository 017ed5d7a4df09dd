/* loop PATH [ERRNO [listen]]: the loop with nobody of its own to answer its calls; see loop.h.
 *
 * ERRNO is what each open has to fail with; 0 for success. With `listen` it puts itself under a
 * filter that brings openat, and nothing else, to a listener, and first of all answers with the
 * listener's descriptor in place of nanoseconds, for whoever fetches it.
 */
#define _GNU_SOURCE
#include <stdlib.h>

#include "loop.h"

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	if (argc > 3) {
		int listener =
			filter_openat(SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
		uint64_t answer[2] = { listener, 0 };

		if (listener < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
			return 3;
		if (write(1, answer, sizeof(answer)) != sizeof(answer))
			return 4;
	}
	return obey(argv[1], argc > 2 ? atoi(argv[2]) : 0);
}
