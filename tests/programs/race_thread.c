/* race_thread ALLOWED DENIED ATTEMPTS: a sibling thread rewrites the path of open(). */
#include "race.h"

#include <pthread.h>

static struct race race;

static void *peer(void *unused)
{
    race_flip(&race);
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;

    if (argc != 4)
        return 2;
    race_set_up(&race, argv[1], argv[2], argv[3]);
    if (pthread_create(&thread, NULL, peer, NULL) != 0)
        return 1;
    race_await_peer(&race);
    race_open(&race);
    return race_report(&race);
}
