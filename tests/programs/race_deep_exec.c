/*
 * race_deep_exec PEER WRITER CASE ATTEMPTS CHILD: execve() of CHILD (race_deep_child), whose exit
 * status says what it really got:
 *
 *   argv          the bytes of an argument: --mode=A or --mode=D
 *   argv-pointer  the pointer to it
 *   argv-end      the pointer to it, or NULL, so that there is none
 *   envp          the bytes of a variable: LD_PRELOAA or LD_PRELOAD
 *   envp-pointer  the pointer to it
 */
#include "race_deep.h"

/* One non-zero byte, so that it differs from NULL in one. */
#define LONE_ADDRESS ((char *)0x10000)

static const char *child;
static char **arguments, **environment;
static int shift;               /* which of the child's answers counts */

static void prepare(const char *path)
{
    child = path;
    arguments = deep_take(4 * sizeof *arguments);
    environment = deep_take(4 * sizeof *environment);
    arguments[0] = strcpy(deep_take(16), "raced");
}

static void prepare_argv(const char *path)
{
    prepare(path);
    arguments[1] = strcpy(deep_take(16), "--mode=A");
    deep_flip_last(arguments[1]);
}

static void prepare_argv_pointer(const char *path)
{
    prepare(path);
    deep_flip_pointer(&arguments[1], deep_twins("--mode=A"));
}

static void prepare_argv_end(const char *path)
{
    char *denied = mmap(LONE_ADDRESS, 4096, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (denied == MAP_FAILED)
        deep_unsupported("mmap_min_addr");
    prepare(path);
    strcpy(denied, "--mode=D");
    deep_flip(&arguments[1], &denied, sizeof denied);
}

static void prepare_envp(const char *path)
{
    prepare(path);
    shift = 2;
    environment[0] = strcpy(deep_take(16), "LD_PRELOAA=x");
    deep_flip(strchr(environment[0], '=') - 1, "D", 1);
}

static void prepare_envp_pointer(const char *path)
{
    char *names;

    prepare(path);
    shift = 2;
    names = deep_twins("LD_PRELOAA");
    strcat(names, "=x");
    strcat(names + DEEP_BLOCK / 2, "=x");
    deep_flip_pointer(&environment[0], names);
}

static char make(void)
{
    volatile int failure = 0;
    int status;
    pid_t pid = vfork();

    if (pid == 0) {
        execve(child, arguments, environment);
        failure = errno;
        _exit(126);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return '?';
    if (failure != 0) {
        errno = failure;
        return 0;
    }
    return "AD??"[WEXITSTATUS(status) >> shift & 3];
}

static const struct deep_case cases[] = {
    {"argv", prepare_argv, make},
    {"argv-pointer", prepare_argv_pointer, make},
    {"argv-end", prepare_argv_end, make},
    {"envp", prepare_envp, make},
    {"envp-pointer", prepare_envp_pointer, make},
};

int main(int argc, char **argv)
{
    return deep_race(argc, argv, cases, sizeof cases / sizeof *cases);
}
