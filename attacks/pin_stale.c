/*
 * pin_stale DIRECTORY ATTEMPTS WAY: passes the address of bytes in the pin as a path, where an earlier
 * call of somebody has left a path, and somebody writes another one soon. Another thread opens the
 * allowed and the denied file in turn, and so has the supervisor write their paths there.
 *
 *   thread     by a thread
 *   child      by a process that inherited the pin
 */
#include "pin.h"

#include <pthread.h>

enum { PLACES_AT_MOST = 8, WRITER_SECONDS = 300, LOOK_AGAIN = 50 };

static _Atomic int stop;
static pid_t self;

static void *open_both(void *unused)
{
    for (double end = pin_now() + WRITER_SECONDS; !stop && pin_now() < end;)
        pin_open(pin_random() >> 63 ? pin_denied : pin_allowed);
    return unused;
}

/* Returns how many places of the pin hold one of the two paths now. */
static int find_places(const char **places)
{
    size_t length = strlen(pin_allowed);
    int count = 0;

    for (int i = 0; i < pin_count; i++)
        for (char *at = pins[i].at, *end = at + pins[i].size; count < PLACES_AT_MOST; at += length) {
            at = memmem(at, (size_t)(end - at), pin_allowed, length - 1);
            if (at == NULL)
                break;
            places[count++] = at;
        }
    return count;
}

int main(int argc, char **argv)
{
    const char *places[PLACES_AT_MOST];
    pthread_t writer;
    pid_t child = -1;
    int by_child, count = 0;

    attack_begin(argc, argv);
    if (attack.words != 1)
        return 2;
    by_child = strcmp(attack.word[0], "child") == 0;
    self = getpid();
    pin_paths();
    pin_find();
    if (by_child) {
        child = fork();
        if (child == 0) {
            attack_die_with(self);
            open_both(NULL);
            _exit(0);
        }
    } else if (pthread_create(&writer, NULL, open_both, NULL) != 0) {
        attack_fail("pthread_create");
    }
    for (long i = 0; i < attack.attempts; i++) {
        if (i % LOOK_AGAIN == 0)
            count = find_places(places);
        pin_count_result(pin_open(count == 0 ? pin_allowed : places[pin_random() % (unsigned)count]));
    }
    stop = 1;
    if (by_child) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    } else {
        pthread_join(writer, NULL);
    }
    return attack_report();
}
