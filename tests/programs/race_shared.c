/* race_shared ALLOWED DENIED ATTEMPTS: another process rewrites the path through shared memory. */
#include "race.h"

#include <sys/mman.h>
#include <sys/wait.h>

int main(int argc, char **argv)
{
    pid_t parent = getpid(), peer;
    struct race *race;

    if (argc != 4)
        return 2;
    race = mmap(NULL, sizeof *race, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (race == MAP_FAILED)
        return 1;
    race_set_up(race, argv[1], argv[2], argv[3]);
    peer = fork();
    if (peer < 0)
        return 1;
    if (peer == 0) {
        race_die_with(parent);
        race_flip(race);
        _exit(0);
    }
    race_await_peer(race);
    race_open(race);
    race_report(race);
    kill(peer, SIGKILL);
    waitpid(peer, NULL, 0);
    return 0;
}
