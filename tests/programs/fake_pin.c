/*
 * fake_pin exec|vfork|clonevm ALLOWED DENIED: learns where its pin is, executes itself anew in the given
 * way, and the new image maps writable memory at the old address before it makes any path call. Built
 * with -static, so that no loader makes one first.
 *
 *   exec      the old address space is gone
 *   vfork     the old one lives on in the parent, which runs again once the child has executed
 *   clonevm   likewise, and the parent never slept
 */
#include "fake.h"

/* The start-up code of a static program would look for its own path: a path call before main(). */
const char *_dl_get_origin(void)
{
    return (const char *)-1;
}

static char *program;
static _Alignas(64) char stack[1 << 16];
static char *next[7];

static int execute(void *unused)
{
    (void)unused;
    execv(program, next);
    _exit(127);
}

static int faked(char **argv)
{
    int failure = fake_pin(strtoul(argv[4], NULL, 16), strtoul(argv[5], NULL, 16), argv[3]);
    char first = open_through_fake(argv[2]), second = open_through_fake(argv[2]);

    printf("mapped=%d byte=%c again=%c\n", failure, first, second);
    return 0;
}

int main(int argc, char **argv)
{
    struct range pins[PINS_AT_MOST];
    static char start[24], size[24];
    pid_t child = -1;
    int count, status;

    setvbuf(stdout, NULL, _IONBF, 0);
    program = argv[0];
    if (argc == 6)
        return faked(argv);
    if (argc != 4 || strcmp(first_byte(argv[2]), "A") != 0)
        return 2;
    count = find_pins(pins);
    printf("pins=%d\n", count);
    if (count <= 0)
        return 0;
    snprintf(start, sizeof start, "%lx", pins[0].start);
    snprintf(size, sizeof size, "%lx", pins[0].end - pins[0].start);
    memcpy(next, (char *[]){program, argv[1], argv[2], argv[3], start, size, NULL}, sizeof next);
    if (strcmp(argv[1], "exec") == 0)
        execute(NULL);
    else if (strcmp(argv[1], "vfork") == 0)
        child = clone(execute, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
    else if (strcmp(argv[1], "clonevm") == 0)
        child = clone(execute, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL);
    if (child < 0 || waitpid(child, &status, 0) != child)
        return 1;
    printf("killed=%d parent=%s\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0, first_byte(argv[2]));
    return 0;
}
