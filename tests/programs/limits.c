/*
 * limits descriptors|memory|mappings FILE: uses up a resource, so that nothing can be put into its
 * address space, and then asks for a file's size. Built with -static, so that no loader makes a path
 * call first.
 */
#include "probe.h"

#include <sys/resource.h>

/* The start-up code of a static program would look for its own path: a path call before main(). */
const char *_dl_get_origin(void)
{
    return (const char *)-1;
}

static void limit(int resource, rlim_t most)
{
    struct rlimit limits = {most, most};

    setrlimit(resource, &limits);
}

/* Every second page gets another protection, so that none of them merge. */
static void use_up_mappings(void)
{
    size_t pages = 1 << 18;
    char *base = mmap(NULL, pages * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (base == MAP_FAILED)
        return;
    for (size_t page = 1; page < pages; page += 2)
        if (mprotect(base + page * 4096, 4096, PROT_NONE) != 0)
            break;
    /* A split needs two at once; this takes the last one. */
    for (int i = 0; i < 1024; i++)
        if (mmap(NULL, 4096, i & 1 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
            MAP_FAILED)
            return;
}

int main(int argc, char **argv)
{
    struct stat found;
    long result;

    if (argc != 3)
        return 2;
    if (strcmp(argv[1], "descriptors") == 0)
        limit(RLIMIT_NOFILE, 0);
    else if (strcmp(argv[1], "memory") == 0)
        limit(RLIMIT_AS, 4096);
    else if (strcmp(argv[1], "mappings") == 0)
        use_up_mappings();
    result = answer(stat(argv[2], &found));
    printf("stat=%ld size=%ld\n", result, result == 0 ? (long)found.st_size : -1);
    return 0;
}
