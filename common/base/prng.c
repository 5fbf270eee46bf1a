#include "common/base/prng.h"

#include <sys/random.h>

#include "common/base/assert.h"

static uint32_t step(struct prng *prng)
{
    uint64_t old = prng->state;
    prng->state = old * 6364136223846793005u + 1442695040888963407u;
    uint32_t shifted = (uint32_t)(((old >> 18) ^ old) >> 27);
    uint32_t rotate = (uint32_t)(old >> 59);
    return shifted >> rotate | shifted << (-rotate & 31);
}

void prng_init(struct prng *prng, uint64_t seed)
{
    prng->state = seed + 1442695040888963407u;
    (void)step(prng);
    prng->state += seed;
    (void)step(prng);
}

uint64_t prng_next(struct prng *prng)
{
    uint64_t high = step(prng);
    return high << 32 | step(prng);
}

uint64_t prng_below(struct prng *prng, uint64_t sides)
{
    ASSERT(sides > 0);
    return prng_next(prng) % sides;
}

void prng_secure(void *to, size_t size)
{
    uint8_t *next = to;
    while (size > 0) {
        ssize_t got = getrandom(next, size, 0);
        if (got <= 0) {
            fatal("getrandom: %m");
        }
        next += got;
        size -= (size_t)got;
    }
}
