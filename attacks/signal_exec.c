/*
 * signal_exec DIRECTORY ATTEMPTS WAY: executes DIRECTORY/programs/signal_fresh, which looks at the
 * registers that it begins with: whatever is in them is left over from the redirected call.
 *
 *   first      the first thread executes it
 *   thread     a second one does, while the first one is in the middle of redirected calls
 */
#include "pin.h"

#include <pthread.h>

static char *program;

static void *execute(void *unused)
{
    execve(program, (char *[]){program, "argument", NULL}, (char *[]){"A=1", NULL});
    _exit('?');
    return unused;
}

int main(int argc, char **argv)
{
    pid_t self = getpid();

    attack_begin(argc, argv);
    if (attack.words != 1)
        return 2;
    pin_paths();
    program = attack_path("programs/signal_fresh");
    for (long i = 0; i < attack.attempts; i++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t thread;
            attack_die_with(self);
            if (strcmp(attack.word[0], "first") == 0)
                execute(NULL);
            pin_open(pin_allowed);
            if (pthread_create(&thread, NULL, execute, NULL) != 0)
                _exit('?');
            for (;;)
                pin_open(pin_allowed);
        }
        pin_count_child(child);
    }
    return attack_report();
}
