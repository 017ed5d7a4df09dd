/* Numbers at random, the same ones each time that `state` starts with the same: xorshift64*. */
#ifndef RANDOM_H
#define RANDOM_H

#include <stdint.h>

/* Not zero; each thread has its own. */
static _Thread_local uint64_t state;

static uint64_t any(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1du;
}

static uint64_t below(uint64_t limit)
{
    return (any() >> 11) % limit;
}

#endif
