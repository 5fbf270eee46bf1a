/*
 * trial.h - run a schedule, where a broken ASSERT is a violation like any other.
 */
#pragma once

#include "tests/sim/world.h"

/* world_run(), but it comes back from an assertion too. What that was is on stderr. */
const char *trial_run(struct world *world, FILE *chart);
