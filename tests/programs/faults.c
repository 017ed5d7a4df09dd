/*
 * faults: path pointers at the edges of memory. One line per call and pointer, NAME=RESULT, where the
 * result is a negative errno or ok.
 */
#include "probe.h"

#include <linux/openat2.h>

enum { PAGE = 4096 };

static char *const arguments[] = {"x", NULL}, *const environment[] = {NULL};

static void show(const char *call, const char *pointer, long result)
{
    if (result >= 0)
        printf("%s_%s=ok\n", call, pointer);
    else
        printf("%s_%s=%ld\n", call, pointer, (long)-errno);
    if (result > 2)
        close((int)result);
}

static void try(const char *name, const char *path)
{
    struct stat found;

    show("openat", name, syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0));
    show("stat", name, syscall(SYS_stat, path, &found));
    /* Never a program: what exists here is /dev/null, and executing it is EACCES. */
    show("execve", name, syscall(SYS_execve, path, arguments, environment));
}

int main(void)
{
    /* Pages: usable, gone, usable, PROT_NONE, two usable, gone. */
    char *base = mmap(NULL, 7 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC};
    char big[64] = {0};
    const char *const bad_pointer[] = {(const char *)8, NULL};
    char *before_gone, *before_none, *two, *edge;

    if (base == MAP_FAILED || munmap(base + PAGE, PAGE) != 0 || munmap(base + 6 * PAGE, PAGE) != 0 ||
        mprotect(base + 3 * PAGE, PAGE, PROT_NONE) != 0)
        return 1;
    before_gone = base;
    before_none = base + 2 * PAGE;
    two = base + 4 * PAGE;

    try("null", NULL);
    try("low", (const char *)8);
    try("unmapped", base + PAGE);
    try("none", base + 3 * PAGE);
    try("kernel", (const char *)0xffffffff81000000);
    try("noncanonical", (const char *)0x8000000000000000);
    try("empty", "");

    /* A string that runs into memory that is not there. */
    memcpy(before_gone + PAGE - 9, "/dev/null", 9);
    try("into_unmapped", before_gone + PAGE - 9);
    memcpy(before_none + PAGE - 9, "/dev/null", 9);
    try("into_none", before_none + PAGE - 9);

    /* The same string with its NUL as the last byte of the page. */
    memcpy(before_gone + PAGE - 10, "/dev/null", 10);
    try("page_end", before_gone + PAGE - 10);
    memcpy(before_none + PAGE - 10, "/dev/null", 10);
    try("page_end_none", before_none + PAGE - 10);
    before_gone[PAGE - 1] = 0;
    try("last_byte_empty", before_gone + PAGE - 1);

    /* Across a page border that is no border of memory. */
    memcpy(two + PAGE - 4, "/dev/null", 10);
    try("across", two + PAGE - 4);

    /* PATH_MAX counts the NUL: 4095 characters fit, 4096 do not, wherever the NUL is. */
    memset(two, '/', 2 * PAGE);
    edge = two + PAGE - 4095;
    memcpy(two + PAGE - 8, "dev/null", 9);
    try("longest", edge);
    try("one_too_long", edge - 1);
    memset(two, '/', 2 * PAGE);
    try("no_nul", two);
    try("no_nul_to_page_end", two + PAGE);
    memset(two, 'n', 2 * PAGE);
    memset(two + 255, '/', 1);
    two[256 + 255 + 1] = 0;
    try("name_too_long", two + 256);

    /* Pointers inside other arguments. */
    show("execve", "arguments_low",
         syscall(SYS_execve, "/bin/true", (const char *const *)8, environment));
    show("execve", "argument_low", syscall(SYS_execve, "/bin/true", bad_pointer, environment));
    show("execve", "environment_low", syscall(SYS_execve, "/bin/true", arguments, bad_pointer));
    show("openat2", "how_null", syscall(SYS_openat2, AT_FDCWD, "/dev/null", NULL, sizeof how));
    show("openat2", "how_small", syscall(SYS_openat2, AT_FDCWD, "/dev/null", &how, 23));
    show("openat2", "how_none", syscall(SYS_openat2, AT_FDCWD, "/dev/null", &how, 0));
    memcpy(big, &how, sizeof how);
    show("openat2", "how_zero_tail", syscall(SYS_openat2, AT_FDCWD, "/dev/null", big, sizeof big));
    big[40] = 1;
    show("openat2", "how_tail", syscall(SYS_openat2, AT_FDCWD, "/dev/null", big, sizeof big));
    show("openat2", "how_huge", syscall(SYS_openat2, AT_FDCWD, "/dev/null", two, PAGE + 1));
    memcpy(before_gone + PAGE - 23, &how, 23);
    show("openat2", "how_into_unmapped",
         syscall(SYS_openat2, AT_FDCWD, "/dev/null", before_gone + PAGE - 23, sizeof how));
    return 0;
}
