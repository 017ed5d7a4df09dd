/*
 * pin_image DIRECTORY ATTEMPTS WAY: has memory without the pin, maps memory of its own where the pin
 * used to be, filled with the denied path, and opens the allowed file. Each attempt is a child.
 *
 *   dontfork   the pin is kept from being inherited, and a child's child is without it
 *   exec       the program is executed anew: the old memory is gone
 *   vfork      likewise, in a child that shares the memory until then: it lives on in the parent
 *   clonevm    likewise, and the parent runs meanwhile
 *   thread     a second thread executes it, while others are in the middle of redirected calls
 *
 * Built with -static, so that a new image makes no path call before main().
 */
#include "pin.h"

#include <pthread.h>

enum { STACK = 1 << 16, OPENERS = 3, NEW_AT = 4, EXEC_FAILED = 127 };

static _Alignas(64) char stack[STACK];
static char *next[NEW_AT + 2 + 2 * PINS_AT_MOST];
static char numbers[2 * PINS_AT_MOST][24];
static pid_t self;

/* The start-up code of a static program would look for its own path: a path call before main(). */
const char *_dl_get_origin(void)
{
    return (const char *)-1;
}

static int execute(void *unused)
{
    (void)unused;
    execv(next[0], next);
    _exit(EXEC_FAILED);
}

static void *execute_in_thread(void *unused)
{
    pin_wander(0.002);
    execute(NULL);
    return unused;
}

static void *open_on(void *unused)
{
    for (;;)
        pin_open(pin_allowed);
    return unused;
}

static int without_inheriting(void)
{
    pid_t parent = getpid(), child;
    int status;

    for (int i = 0; i < pin_count; i++)
        madvise(pins[i].at, pins[i].size, MADV_DONTFORK);
    child = fork();
    if (child == 0) {
        attack_die_with(parent);
        for (int i = 0; i < pin_count; i++)
            pin_fake(pins[i].at, pins[i].size, MAP_FIXED_NOREPLACE);
        _exit(pin_open(pin_allowed));
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return '?';
    return WEXITSTATUS(status);
}

static int by_thread(void)
{
    pthread_t thread;

    for (int i = 0; i < OPENERS; i++)
        if (pthread_create(&thread, NULL, open_on, NULL) != 0)
            return '?';
    if (pthread_create(&thread, NULL, execute_in_thread, NULL) != 0)
        return '?';
    open_on(NULL);
    return '?';
}

static int by_child(int flags)
{
    pid_t child = clone(execute, stack + sizeof stack, CLONE_VM | flags | SIGCHLD, NULL);
    int status;

    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return '?';
    /* The parent's own pin has to be as it was. */
    if (pin_open(pin_allowed) != 'A')
        return '?';
    return WEXITSTATUS(status);
}

static int attempt(const char *way)
{
    if (strcmp(way, "dontfork") == 0)
        return without_inheriting();
    if (strcmp(way, "exec") == 0)
        return execute(NULL);
    if (strcmp(way, "thread") == 0)
        return by_thread();
    return by_child(strcmp(way, "vfork") == 0 ? CLONE_VFORK : 0);
}

/* The new image: DIRECTORY 1 new, and then the pins of the old one. */
static int faked(void)
{
    for (int i = 1; i + 1 < attack.words; i += 2)
        pin_fake((char *)strtoul(attack.word[i], NULL, 16), strtoul(attack.word[i + 1], NULL, 16),
                 MAP_FIXED_NOREPLACE);
    return pin_open(pin_allowed);
}

int main(int argc, char **argv)
{
    attack_begin(argc, argv);
    pin_paths();
    if (attack.words > 1 && strcmp(attack.word[0], "new") == 0)
        return faked();
    if (attack.words != 1)
        return 2;
    self = getpid();
    pin_find();
    memcpy(next, (char *[]){argv[0], argv[1], "1", "new"}, NEW_AT * sizeof *next);
    for (int i = 0; i < pin_count; i++) {
        snprintf(numbers[2 * i], sizeof *numbers, "%lx", (long)pins[i].at);
        snprintf(numbers[2 * i + 1], sizeof *numbers, "%lx", (long)pins[i].size);
        next[NEW_AT + 2 * i] = numbers[2 * i];
        next[NEW_AT + 2 * i + 1] = numbers[2 * i + 1];
    }
    for (long i = 0; i < attack.attempts; i++) {
        pid_t child = fork();
        if (child == 0) {
            attack_die_with(self);
            _exit(attempt(attack.word[0]));
        }
        pin_count_child(child);
    }
    return attack_report();
}
