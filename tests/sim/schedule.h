/*
 * schedule.h - virtual time: what happens next, by chance only where the seed says so.
 */
#pragma once

#include "tests/sim/world.h"

void schedule_add(struct world *world, uint64_t delay_us, struct sim_event event);
/* The same event once more, later: among those of that time it keeps its place. */
void schedule_again(struct world *world, uint64_t at_us, const struct sim_event *event);
struct sim_event schedule_next(struct world *world); /* and it is that time */

/* A line of the message chart, when somebody wants it. */
void schedule_chart(struct world *world, const char *format, ...) PRINTF_LIKE(2, 3);
