/* A fork bomb that a limit of tasks has to hold, and that gives up where none does.
 *
 * load_bomb MOST: every process forks for as long as it can, and so does every child. When there are
 * more than MOST of them, the limit does not hold; then they all exit.
 */
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SECONDS = 120 };

int main(int argc, char **argv)
{
    long most = argc > 1 ? atol(argv[1]) : 0;
    long *alive = mmap(NULL, sizeof *alive, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (alive == MAP_FAILED || most <= 0)
        return 2;
    *alive = 1;
    alarm(SECONDS);
    while (__atomic_load_n(alive, __ATOMIC_RELAXED) <= most) {
        switch (fork()) {
        case -1:
            sched_yield();
            break;
        case 0:
            alarm(SECONDS);
            __atomic_add_fetch(alive, 1, __ATOMIC_RELAXED);
            break;
        }
    }
    return 1;
}
