/*
 * pin_end DIRECTORY ATTEMPTS HOW: processes whose calls are ended in the middle, each of which is an
 * attempt. In each a thread rewrites the path that others open, over and over: no verdict of one call
 * may serve another one, of the next process with the same slot or of the same after all.
 *
 *   kill       it is killed
 *   stop       it is stopped and continued, again and again, and then killed
 *   exit       another one of its threads ends it
 */
#include "pin.h"

#include <pthread.h>

enum { AT_MOST_US = 8000, STOPS = 3, OPENERS = 2 };

static _Atomic int *results;    /* of the children's opens: 'D', 'A', 0 */
static char path[PATH_MAX];
static pid_t self;

static void *rewrite(void *unused)
{
    volatile char *letter = path + strlen(path) - 1;

    for (;;)
        *letter = pin_random() >> 63 ? 'D' : 'A';
    return unused;
}

static void *open_on(void *unused)
{
    for (;;) {
        char result = pin_open(path);
        if (result == 'D' || (result == 'A' && *results != 'D'))
            *results = result;
    }
    return unused;
}

static void wait_a_little(void)
{
    usleep((useconds_t)(pin_random() % AT_MOST_US));
}

static void work(int exits)
{
    pthread_t thread;

    attack_die_with(self);
    if (pthread_create(&thread, NULL, rewrite, NULL) != 0)
        _exit(1);
    for (int i = exits ? 0 : 1; i < OPENERS; i++)
        if (pthread_create(&thread, NULL, open_on, NULL) != 0)
            _exit(1);
    if (!exits)
        open_on(NULL);
    wait_a_little();
    wait_a_little();
    _exit(0);
}

int main(int argc, char **argv)
{
    int exits, stops;

    attack_begin(argc, argv);
    if (attack.words != 1)
        return 2;
    exits = strcmp(attack.word[0], "exit") == 0;
    stops = strcmp(attack.word[0], "stop") == 0 ? STOPS : 0;
    self = getpid();
    pin_paths();
    strcpy(path, pin_allowed);
    results = mmap(NULL, PIN_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (results == MAP_FAILED)
        attack_fail("mmap");
    for (long i = 0; i < attack.attempts; i++) {
        pid_t child;
        *results = 0;
        child = fork();
        if (child == 0)
            work(exits);
        if (child < 0)
            attack_fail("fork");
        for (int j = 0; j < stops; j++) {
            wait_a_little();
            kill(child, SIGSTOP);
            wait_a_little();
            kill(child, SIGCONT);
        }
        if (!exits) {
            wait_a_little();
            wait_a_little();
            kill(child, SIGKILL);
        }
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
            ;
        pin_count_result(*results == 0 ? '-' : (char)*results);
    }
    return attack_report();
}
