/*
 * race_exec DIRECTORY ATTEMPTS PEER WRITER CASE: execve() of programs/race_child, whose exit status
 * says what it really got:
 *
 *   argv          the bytes of an argument: --mode=A or --mode=D
 *   argv-pointer  the pointer to it
 *   argv-end      the pointer to it, or NULL, so that there is none
 *   envp          the bytes of a variable: LD_PRELOAA or LD_PRELOAD
 *   envp-pointer  the pointer to it
 */
#include "race.h"

/* One non-zero byte, so that it differs from NULL in one. */
#define LONE_ADDRESS ((char *)0x10000)

static const char *child;
static char **arguments, **environment;
static int shift;               /* which of the child's answers counts */

static void prepare(void)
{
    child = attack_path("programs/race_child");
    arguments = race_take(4 * sizeof *arguments);
    environment = race_take(4 * sizeof *environment);
    arguments[0] = race_string("raced");
}

static void prepare_argv(void)
{
    prepare();
    arguments[1] = race_string("--mode=A");
    race_flip_last(arguments[1]);
}

static void prepare_argv_pointer(void)
{
    prepare();
    race_flip_pointer(&arguments[1], race_twins("--mode=A"));
}

static void prepare_argv_end(void)
{
    char *denied = mmap(LONE_ADDRESS, 4096, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (denied == MAP_FAILED)
        attack_unsupported("mmap_min_addr");
    prepare();
    strcpy(denied, "--mode=D");
    race_flip(&arguments[1], &denied, sizeof denied);
}

static void prepare_envp(void)
{
    prepare();
    shift = 2;
    environment[0] = race_string("LD_PRELOAA=x");
    race_flip(strchr(environment[0], '=') - 1, "D", 1);
}

static void prepare_envp_pointer(void)
{
    char *names;

    prepare();
    shift = 2;
    names = race_twins("LD_PRELOAA");
    strcat(names, "=x");
    strcat(names + RACE_BLOCK / 2, "=x");
    race_flip_pointer(&environment[0], names);
}

static char make(void)
{
    int status = race_execute(child, arguments, environment);

    return status < 0 ? 0 : status == RACE_ODD_END ? '?' : "AD??"[status >> shift & 3];
}

static const struct race_case cases[] = {
    {"argv", prepare_argv, make},
    {"argv-pointer", prepare_argv_pointer, make},
    {"argv-end", prepare_argv_end, make},
    {"envp", prepare_envp, make},
    {"envp-pointer", prepare_envp_pointer, make},
};

int main(int argc, char **argv)
{
    return race_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
