/*
 * shrink.h - make a tape that violates something as small as it goes: delta debugging on its
 * streams, with zeros as the smallest answer. A smaller tape counts when it is violated in the same
 * way, whatever the numbers in the message.
 */
#pragma once

#include "tests/sim/world.h"

/* Changes `tape`. Answers how often it tried; 0: the tape is safe. */
uint64_t shrink_tape(struct world *world, struct tape *tape, uint64_t trials_max);
