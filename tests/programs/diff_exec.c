/*
 * diff_exec: execve and execveat, with odd paths, vectors, totals, scripts and callers. What is run
 * is this program again, under the name of "reporter": it prints what it was given.
 *
 *     diff_exec vectors    odd vectors and strings, in every place
 *     diff_exec limits     where exactly the kernel says E2BIG
 *     diff_exec scripts    scripts, descriptors, callers
 *     diff_exec threads    relative paths of callers with a second thread
 */
#include "diff.h"

#include <pthread.h>
#include <sys/auxv.h>
#include <sys/resource.h>

enum { STRING_MOST = 131072 };
#ifndef AT_EXECVE_CHECK
#define AT_EXECVE_CHECK 0x10000
#endif

static void show_vector(const char *name, char **vector)
{
    uint64_t hash = 0;
    size_t count = 0, bytes = 0;

    for (; vector[count] != NULL; count++) {
        size_t length = strlen(vector[count]);
        hash = hash * 31 + hash_of(vector[count], length + 1);
        bytes += length + 1;
    }
    printf(" %s=%zu,%zu,%lx", name, count, bytes, hash);
    for (size_t i = 0; i < count && i < 6; i++)
        if (strlen(vector[i]) < 60)
            show_bytes("", vector[i], strlen(vector[i]));
        else
            printf(" (%zu)", strlen(vector[i]));
}

static int report(int argc, char **argv, char **envp, const char *name)
{
    char comm[17] = "";

    printf("    ran argc=%d", argc);
    show_vector("argv", argv);
    show_vector("envp", envp);
    if (strlen(name) < 300)
        show_bytes("as", name, strlen(name));
    else
        printf(" as=%zu,%lx", strlen(name), hash_of(name, strlen(name)));
    prctl(PR_GET_NAME, comm);
    show_bytes("comm", comm, strlen(comm));
    printf(" descriptors=%d%d%d\n", fcntl(3, F_GETFD) >= 0, fcntl(4, F_GETFD) >= 0,
           fcntl(100, F_GETFD) >= 0);
    return 0;
}

/* One call, made in a child. */
struct attempt {
    const char *name;
    int directory, flags; /* flags -1: execve */
    const char *path;
    char *const *argv, *const *envp;
    void (*prepare)(void);
    bool vforked, threaded, silent;
};

static void attempt(const struct attempt *this)
{
    if (this->prepare != NULL)
        this->prepare();
    if (this->flags == -1)
        syscall(SYS_execve, this->path, this->argv, this->envp);
    else
        syscall(SYS_execveat, this->directory, this->path, this->argv, this->envp, this->flags);
}

static void *in_thread(void *argument)
{
    attempt(argument);
    printf("    failed %s\n", error_name(errno));
    fflush(stdout);
    _exit(0);
}

/* Returns whether the program ran. */
static bool try(struct attempt this)
{
    pid_t parent = getpid(), child;
    int status;

    if (!this.silent)
        printf("%s\n", this.name);
    fflush(stdout);
    child = this.vforked ? vfork() : fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        if (this.vforked) {
            attempt(&this);
            _exit(30);
        }
        die_with(parent);
        if (this.silent)
            REQUIRE(dup2(open("/dev/null", O_WRONLY), 1) == 1);
        if (this.threaded) {
            pthread_t thread;
            REQUIRE(pthread_create(&thread, NULL, in_thread, &this) == 0);
            pthread_join(thread, NULL);
        }
        attempt(&this);
        /* AT_EXECVE_CHECK succeeds and comes back. */
        printf("    failed %s\n", error_name(errno));
        fflush(stdout);
        _exit(errno == E2BIG ? 20 : 21);
    }
    REQUIRE(waitpid(child, &status, 0) == child);
    if (this.vforked)
        printf("    vforked: %x\n", status);
    else if (WIFSIGNALED(status))
        printf("    killed by %d\n", WTERMSIG(status));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static char *usual_argv[] = {"reporter", "one", "two", NULL}, *usual_envp[] = {"A=1", "B=2", NULL},
            *nothing[] = {NULL};

static bool run(const char *name, const char *path, char *const *argv, char *const *envp)
{
    return try((struct attempt){.name = name, .path = path, .argv = argv, .envp = envp, .flags = -1});
}

static char *string_of(size_t length, char byte)
{
    char *made = malloc(length + 1);

    REQUIRE(made != NULL);
    memset(made, byte, length);
    made[length] = 0;
    return made;
}

struct vector {
    const char *name;
    char **vector;
};

static char **at_end(int island, size_t count, ...)
{
    char **made = edge(island, count * sizeof *made);
    va_list list;

    va_start(list, count);
    for (size_t i = 0; i < count; i++)
        made[i] = va_arg(list, char *);
    va_end(list);
    return made;
}

static void vectors(void)
{
    char *longest = string_of(STRING_MOST - 1, 'l'), *too_long = string_of(STRING_MOST, 'l'),
         *long_edge = at_edge(4, string_of(STRING_MOST - 1, 'e'), STRING_MOST),
         *endless = edge(5, 200000);
    char *some[] = {"reporter", string_of(70000, 'm'), "", "x", "", string_of(5000, 'n'), NULL};
    /* More than any limit, all of one string. */
    static char *huge[101], *fits[11];
    char name[200];

    memset(endless, 'a', 200000);
    for (int i = 0; i < 100; i++)
        huge[i] = string_of(100000, 'h');
    for (int i = 0; i < 10; i++)
        fits[i] = huge[0];

    char *good_edge = text_at_edge(2, "edge");
    char *unterminated = at_edge(3, "edge", 4);
    struct vector all[] = {
        {"usual", usual_argv},
        {"null", NULL},
        {"empty", nothing},
        {"gone", (char **)gone},
        {"kernel", (char **)0xffffffff81000000},
        {"other_edge", at_end(6, 3, "reporter", "a", NULL)},
        {"some", some},
        {"longest", (char *[]){"reporter", longest, NULL}},
        {"longest_edge", (char *[]){long_edge, "x", NULL}},
        {"too_long", (char *[]){"reporter", too_long, NULL}},
        {"endless", (char *[]){"reporter", endless, NULL}},
        {"string_gone", (char *[]){"reporter", gone, "x", NULL}},
        {"string_low", (char *[]){(char *)8, "x", NULL}},
        {"string_kernel", (char *[]){"x", (char *)0xffffffff81000000, NULL}},
        {"string_unterminated", (char *[]){"reporter", unterminated, NULL}},
        {"string_edge", (char *[]){good_edge, good_edge, good_edge, NULL}},
        {"string_edge_tail", (char *[]){good_edge + 1, good_edge + 4, good_edge, NULL}},
        {"string_error", (char *[]){"reporter", (char *)-1l, NULL}},
        {"string_error_last", (char *[]){"reporter", (char *)-4095l, NULL}},
        {"string_no_error", (char *[]){"reporter", (char *)-4096l, NULL}},
        {"gone_then_too_long", (char *[]){"reporter", gone, too_long, NULL}},
        {"too_long_then_gone", (char *[]){"reporter", too_long, gone, NULL}},
        {"error_after_null", (char *[]){"reporter", NULL, (char *)-1l}},
        {"huge", huge},
        {"fits", fits},
    };
    enum { ALL = sizeof all / sizeof *all };
    char **runs_out = at_end(7, 2, "reporter", "a"), **ends = NULL;

    for (int i = 0; i < ALL; i++) {
        snprintf(name, sizeof name, "argv %s", all[i].name);
        run(name, "reporter", all[i].vector, usual_envp);
        snprintf(name, sizeof name, "envp %s", all[i].name);
        run(name, "reporter", usual_argv, all[i].vector);
    }
    run("argv runs_out", "reporter", runs_out, usual_envp);
    run("envp runs_out", "reporter", usual_argv, runs_out);
    ends = at_end(7, 3, "reporter", "a", NULL);
    run("argv ends", "reporter", ends, usual_envp);
    run("envp ends", "reporter", usual_argv, ends);
    run("argv nothing, at the end", "reporter", at_end(7, 1, NULL), usual_envp);
    memcpy(edge(7, 3 * sizeof(char *) + 4), (char *[]){"reporter", "odd", NULL}, 3 * sizeof(char *));
    run("argv unaligned", "reporter", edge(7, 3 * sizeof(char *) + 4), usual_envp);
    /* What goes wrong first? */
    const char *const paths[] = {"reporter", "missing", "not_executable", gone};
    const char *const kinds[] = {"usual",       "huge",         "too_long",          "gone",
                                 "string_gone", "string_error", "too_long_then_gone"};
    for (size_t p = 0; p < sizeof paths / sizeof *paths; p++)
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
            for (size_t j = 0; j < sizeof kinds / sizeof *kinds; j++) {
                char **argv = NULL, **envp = NULL;
                for (int k = 0; k < ALL; k++) {
                    if (strcmp(all[k].name, kinds[i]) == 0)
                        argv = all[k].vector;
                    if (strcmp(all[k].name, kinds[j]) == 0)
                        envp = all[k].vector;
                }
                snprintf(name, sizeof name, "order %zu %s %s", p, kinds[i], kinds[j]);
                run(name, paths[p], argv, envp);
            }
}

/* Limits */

static struct rlimit stack_limit;

static void limit_stack(void)
{
    REQUIRE(setrlimit(RLIMIT_STACK, &stack_limit) == 0);
}

enum shape { STRINGS, ENVIRONMENT, BOTH, POINTERS };

/* Vectors that take up about `bytes`, pointers and NULs included, in one of several shapes. */
static void fill(enum shape shape, size_t bytes, char ***argv, char ***envp)
{
    static char *left[1 << 20], *right[1 << 20];
    static char *piece;
    size_t count = 0, taken = 0;
    const size_t of = shape == POINTERS ? 9 : 100000;

    if (piece == NULL)
        piece = string_of(STRING_MOST, 'p');
    while (taken + of <= bytes) {
        left[count++] = piece + STRING_MOST - (of - 9);
        taken += of;
    }
    /* What is left over; no string is shorter than its pointer and its NUL. */
    if (bytes - taken >= 9)
        left[count++] = piece + STRING_MOST - (bytes - taken - 9);
    left[count] = NULL;
    right[0] = NULL;
    *argv = left;
    *envp = right;
    if (shape == ENVIRONMENT) {
        *argv = nothing;
        *envp = left;
    } else if (shape == BOTH) {
        memcpy(right, left + count / 2, (count - count / 2 + 1) * sizeof *left);
        left[count / 2] = NULL;
    }
}

static bool fits(enum shape shape, size_t bytes)
{
    char **argv, **envp;

    fill(shape, bytes, &argv, &envp);
    return try((struct attempt){.name = "",
                                .path = "reporter",
                                .argv = argv,
                                .envp = envp,
                                .flags = -1,
                                .prepare = limit_stack,
                                .silent = true});
}

static void limits(void)
{
    const rlim_t stacks[] = {256 << 10, 1 << 20, 8 << 20, RLIM_INFINITY};
    const enum shape shapes[] = {STRINGS, ENVIRONMENT, BOTH, POINTERS};
    const char *const names[] = {"strings", "environment", "both", "pointers"};

    for (size_t i = 0; i < sizeof stacks / sizeof *stacks; i++)
        for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++) {
            size_t limit = 6 << 20, low, high;
            if (stacks[i] / 4 < limit)
                limit = stacks[i] / 4;
            if (limit < 128 << 10)
                limit = 128 << 10;
            /* An attempt with pointers alone copies some 10,000 strings for each 100 KiB. */
            if (shapes[j] != STRINGS && limit > 1 << 20)
                continue;
            getrlimit(RLIMIT_STACK, &stack_limit);
            stack_limit.rlim_cur = stacks[i];
            low = limit - 512;
            high = limit + 512;
            printf("limit %zu %s: low %d high %d", i, names[j], fits(shapes[j], low),
                   fits(shapes[j], high));
            while (high - low > 1) {
                size_t middle = low + (high - low) / 2;
                if (fits(shapes[j], middle))
                    low = middle;
                else
                    high = middle;
            }
            printf(" most %zu of %zu\n", low, limit);
        }
}

/* Scripts */

static void make_file(const char *path, mode_t mode, const char *content, size_t length)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0700);

    REQUIRE(fd >= 0 && write(fd, content, length) == (ssize_t)length && fchmod(fd, mode) == 0);
    close(fd);
}

static void script(const char *name, const char *format, ...)
{
    char *line;
    va_list list;
    int length;

    va_start(list, format);
    length = vasprintf(&line, format, list);
    va_end(list);
    REQUIRE(length >= 0);
    make_file(name, 0755, line, (size_t)length);
    free(line);
}

static void lose_directory(void)
{
    REQUIRE(mkdir("lost", 0700) == 0 && chdir("lost") == 0 && rmdir("../lost") == 0);
}

static void scripts(void)
{
    char here[4096], name[300], *long_path = string_of(4095, '/');
    int reporter, plain, directory, path, cloexec_script, open_script, deleted;

    REQUIRE(getcwd(here, sizeof here) != NULL);
    script("script", "#!%s/reporter\n", here);
    script("script_argument", "#! \t%s/reporter \tsome argument \t\n", here);
    script("script_relative", "#!reporter x\n");
    script("script_missing", "#!/missing/interpreter\n");
    script("script_empty", "#!\n");
    script("script_blank", "#!   \t \n");
    script("script_no_newline", "#!%s/reporter", here);
    script("script_cr", "#!%s/reporter\r\n", here);
    script("script_unreadable_interpreter", "#!%s/not_executable\n", here);
    script("script_to_directory", "#!%s/sub\n", here);
    for (int length = 250; length <= 260; length++) {
        int rest = length - 2 - (int)strlen(here) - 10;
        snprintf(name, sizeof name, "line_%d", length);
        script(name, "#!%s/reporter %.*s\n", here, rest < 0 ? 0 : rest, long_path);
        snprintf(name, sizeof name, "path_%d", length);
        script(name, "#!%s/%.*s/reporter\n", here, rest < 0 ? 0 : rest, long_path);
    }
    script("nested_1", "#!%s/script_argument one\n", here);
    script("nested_2", "#!%s/nested_1 two\n", here);
    script("nested_3", "#!%s/nested_2 three\n", here);
    script("nested_4", "#!%s/nested_3 four\n", here);
    script("nested_5", "#!%s/nested_4 five\n", here);
    script("nested_6", "#!%s/nested_5 six\n", here);
    script("to_itself", "#!%s/to_itself\n", here);
    script("text", "just text\n");
    script("nul", "#!%s/reporter%c hidden\n", here, 0);
    make_file("elf_like", 0755, "\177ELF\2\1\1", 7);
    make_file("nothing", 0755, "", 0);
    DIR *listing = opendir(".");
    char *names[256];
    int count = 0;
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;)
        if (entry->d_name[0] != '.')
            names[count++] = strdup(entry->d_name);
    closedir(listing);
    for (int i = 1; i < count; i++)
        for (int j = i; j > 0 && strcmp(names[j - 1], names[j]) > 0; j--) {
            char *one = names[j];
            names[j] = names[j - 1];
            names[j - 1] = one;
        }
    for (int i = 0; i < count; i++) {
        run(names[i], names[i], usual_argv, usual_envp);
        snprintf(name, sizeof name, "%s, absolute, without argv", names[i]);
        run(name, strcat(strcat(strcpy(long_path, here), "/./"), names[i]), NULL, NULL);
    }
    /* Descriptors */
    reporter = open("reporter", O_RDONLY);
    plain = put_away(open("not_executable", O_RDONLY));
    directory = put_away(open("sub", O_RDONLY | O_DIRECTORY));
    path = put_away(open("reporter", O_PATH | O_CLOEXEC));
    cloexec_script = put_away(open("script", O_RDONLY | O_CLOEXEC));
    open_script = open("script", O_RDONLY);
    make_file("deleted", 0755, "#!/proc/self/exe x\n", 19);
    deleted = put_away(open("deleted", O_RDONLY));
    unlink("deleted");
    const struct {
        const char *name;
        int fd;
    } descriptors[] = {{"reporter", reporter},
                       {"plain", plain},
                       {"directory", directory},
                       {"path", path},
                       {"cloexec_script", cloexec_script},
                       {"open_script", open_script},
                       {"deleted", deleted},
                       {"cwd", AT_FDCWD},
                       {"closed", 99},
                       {"minus_one", -1}};
    const char *const paths[] = {"",       NULL,        "../reporter", "../link",
                                 "script", "../script", "missing",     gone};
    const char *const path_names[] = {"empty",  "null",      "../reporter", "../link",
                                      "script", "../script", "missing",     "gone"};
    const int flags[] = {0,
                         AT_EMPTY_PATH,
                         AT_SYMLINK_NOFOLLOW,
                         AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW,
                         AT_EXECVE_CHECK,
                         AT_EXECVE_CHECK | AT_EMPTY_PATH,
                         1};
    for (size_t i = 0; i < sizeof descriptors / sizeof *descriptors; i++)
        for (size_t j = 0; j < sizeof paths / sizeof *paths; j++)
            for (size_t k = 0; k < sizeof flags / sizeof *flags; k++) {
                snprintf(name, sizeof name, "execveat %s %s %x", descriptors[i].name, path_names[j],
                         (unsigned)flags[k]);
                try((struct attempt){.name = name,
                                     .directory = descriptors[i].fd,
                                     .path = paths[j],
                                     .argv = usual_argv,
                                     .envp = usual_envp,
                                     .flags = flags[k]});
            }
    try((struct attempt){.name = "check with a bad vector",
                         .directory = AT_FDCWD,
                         .path = "reporter",
                         .argv = (char **)gone,
                         .envp = usual_envp,
                         .flags = AT_EXECVE_CHECK});
    /* Callers */
    try((struct attempt){.name = "vfork",
                         .path = "reporter",
                         .argv = usual_argv,
                         .envp = usual_envp,
                         .flags = -1,
                         .vforked = true});
    try((struct attempt){.name = "vfork, missing",
                         .path = "missing",
                         .argv = usual_argv,
                         .envp = usual_envp,
                         .flags = -1,
                         .vforked = true});
    try((struct attempt){.name = "thread, bad vector",
                         .path = "reporter",
                         .argv = (char **)gone,
                         .envp = usual_envp,
                         .flags = -1,
                         .threaded = true});
    memset(long_path, '.', 4086);
    for (int i = 1; i < 4086; i += 2)
        long_path[i] = '/';
    strcpy(long_path + 4086, "reporter");
    try((struct attempt){.name = "long relative path",
                         .path = long_path,
                         .argv = usual_argv,
                         .envp = usual_envp,
                         .flags = -1});
    try((struct attempt){.name = "lost directory",
                         .path = "../reporter",
                         .argv = usual_argv,
                         .envp = usual_envp,
                         .flags = -1,
                         .prepare = lose_directory});
    try((struct attempt){.name = "lost directory, descriptor",
                         .directory = reporter,
                         .path = "",
                         .argv = usual_argv,
                         .envp = usual_envp,
                         .flags = AT_EMPTY_PATH,
                         .prepare = lose_directory});
    snprintf(name, sizeof name, "/proc/self/fd/%d", reporter);
    run("/proc/self/fd/N", name, usual_argv, usual_envp);
    snprintf(name, sizeof name, "/proc/self/fd/%d", deleted);
    run("/proc/self/fd/N, deleted", name, usual_argv, usual_envp);
    run("/proc/self/exe", "/proc/self/exe", (char *[]){"x", "report", NULL}, usual_envp);
}

static void threads(void)
{
    const char *const names[] = {"reporter", "./reporter", "sub/../link",
                                 "missing",  "script",     "nested"};
    char here[4096], name[5000];

    REQUIRE(getcwd(here, sizeof here) != NULL);
    script("script", "#!%s/reporter argument\n", here);
    script("nested", "#!%s/script\n", here);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        try((struct attempt){.name = names[i],
                             .path = names[i],
                             .argv = usual_argv,
                             .envp = usual_envp,
                             .flags = -1,
                             .threaded = true});
        snprintf(name, sizeof name, "%s/%s", here, names[i]);
        try((struct attempt){.name = "    absolute",
                             .path = name,
                             .argv = usual_argv,
                             .envp = usual_envp,
                             .flags = -1,
                             .threaded = true});
    }
}

int main(int argc, char **argv, char **envp)
{
    char self[4096];
    ssize_t length;

    if (argc != 2 || (strcmp(argv[1], "vectors") != 0 && strcmp(argv[1], "limits") != 0 &&
                      strcmp(argv[1], "scripts") != 0 && strcmp(argv[1], "threads") != 0))
        return report(argc, argv, envp, (const char *)getauxval(AT_EXECFN));
    length = readlink("/proc/self/exe", self, sizeof self - 1);
    REQUIRE(length > 0);
    self[length] = 0;
    make_islands();
    umask(022);
    REQUIRE(symlink(self, "reporter") == 0 && symlink("reporter", "link") == 0);
    REQUIRE(mkdir("sub", 0755) == 0);
    make_file("not_executable", 0644, "#!/bin/sh\n", 10);
    if (strcmp(argv[1], "vectors") == 0)
        vectors();
    else if (strcmp(argv[1], "limits") == 0)
        limits();
    else if (strcmp(argv[1], "scripts") == 0)
        scripts();
    else
        threads();
    return 0;
}
