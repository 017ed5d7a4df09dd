/*
 * dontfork ALLOWED DENIED ATTEMPTS: keeps the pins from being inherited, forks, and the child maps
 * writable memory of its own where the pins would be, filled so that whatever is read there names the
 * denied file. A supervisor that trusts its books opens it.
 */
#include "fake.h"

struct result {
    long mapped, escapes, allowed, refused, other;
    int failure;
};

static void work(struct result *result, const struct range *pins, int count, char **argv)
{
    for (int i = 0; i < count; i++) {
        int failure = fake_pin(pins[i].start, pins[i].end - pins[i].start, argv[2]);
        if (failure != 0)
            result->failure = failure;
        else
            result->mapped++;
    }
    for (long i = 0; i < atol(argv[3]); i++)
        switch (open_through_fake(argv[1])) {
        case 'D': result->escapes++; break;
        case 'A': result->allowed++; break;
        case '-': result->refused++; break;
        default: result->other++;
        }
}

int main(int argc, char **argv)
{
    struct range pins[PINS_AT_MOST];
    struct result *result;
    pid_t self = getpid(), child;
    int count, status, advice = 0;

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
        work(result, pins, count, argv);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return 1;
    printf("pins=%d advice=%d mapped=%ld failure=%d killed=%d\n", count, advice, result->mapped,
           result->failure, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    printf("escapes=%ld allowed=%ld refused=%ld other=%ld parent=%s\n", result->escapes,
           result->allowed, result->refused, result->other, first_byte(argv[1]));
    return 0;
}
