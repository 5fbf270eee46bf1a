/*
 * prng.h - seeded pseudo-random numbers (PCG-XSH-RR, O'Neill 2014). Never for secrets.
 *
 * All randomness of a daemon comes from one seed, which is logged at start and can be set; secrets
 * and identities come from prng_secure().
 */
#pragma once

#include "common/base/types.h"

struct prng {
    uint64_t state;
};

void prng_init(struct prng *prng, uint64_t seed);
uint64_t prng_next(struct prng *prng);
uint64_t prng_below(struct prng *prng, uint64_t sides); /* 0 .. sides - 1; sides > 0 */

/* From the operating system; aborts when it has none. [any] */
void prng_secure(void *to, size_t size);
