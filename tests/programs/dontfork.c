/*
 * dontfork ALLOWED DENIED ATTEMPTS: keeps the pins from being inherited, forks, and the child maps
 * writable memory of its own where the pins would be, filled so that whatever is read there names the
 * denied file. A supervisor that trusts its books opens it.
 */
#include "probe.h"

enum { FILL_AT_MOST = 64 << 20 };

struct result {
    long mapped, escapes, allowed, refused, other;
    int failure;
};

static void try(struct result *result, const char *allowed, long attempts)
{
    for (long i = 0; i < attempts; i++) {
        const char *byte = first_byte(allowed);
        if (*byte == 'D')
            result->escapes++;
        else if (*byte == 'A')
            result->allowed++;
        else if (*byte == '-')
            result->refused++;
        else
            result->other++;
    }
}

int main(int argc, char **argv)
{
    struct range pins[PINS_AT_MOST];
    struct result *result;
    pid_t self = getpid(), child;
    int count, advice = 0;

    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc != 4)
        return 2;
    result = mmap(NULL, sizeof *result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (result == MAP_FAILED || strcmp(first_byte(argv[1]), "A") != 0)
        return 1;
    count = find_pins(pins);
    for (int i = 0; i < count; i++)
        if (madvise((void *)pins[i].start, pins[i].end - pins[i].start, MADV_DONTFORK) != 0)
            advice = -errno;
    child = fork();
    if (child == 0) {
        die_with(self);
        for (int i = 0; i < count; i++) {
            size_t size = pins[i].end - pins[i].start;
            char *own = mmap((void *)pins[i].start, size, PROT_READ | PROT_WRITE | PROT_EXEC,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
            if (own == MAP_FAILED) {
                result->failure = errno;
                continue;
            }
            fill_with_path(own, size < FILL_AT_MOST ? size : FILL_AT_MOST, argv[2]);
            result->mapped++;
        }
        try(result, argv[1], atol(argv[3]));
        _exit(0);
    }
    if (child < 0)
        return 1;
    waitpid(child, NULL, 0);
    printf("pins=%d advice=%d mapped=%ld map_errno=%d\n", count, advice, result->mapped,
           result->failure);
    printf("escapes=%ld allowed=%ld refused=%ld other=%ld parent=%s\n", result->escapes,
           result->allowed, result->refused, result->other, first_byte(argv[1]));
    return 0;
}
