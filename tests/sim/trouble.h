/*
 * trouble.h - what befalls processes and bytes without a crash: a process that stands still for a
 * while, clocks that run wrong, frames that arrive in pieces, damaged, or not at all.
 *
 * Each has a stream of its own on the tape, its kind and degree first, so that tapes from before it
 * was there mean what they meant.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct world;
struct sim_event;

/* What this schedule has of it; 0: nothing. */
struct trouble {
    uint64_t pause_us;     /* at most between two pauses of somebody */
    uint64_t pause_max_us; /* of one */
    uint64_t split_one_in, damage_one_in, silence_one_in; /* frames */
    uint64_t jump_us;                                     /* at most between two jumps of a clock */
    bool freezes; /* only a majority is healed, the others stay away */
};

/* How wrong the clock of a walproposer is. Safekeepers have none. */
struct clock_error {
    uint64_t offset_ms; /* grows when it jumps */
    uint64_t rate;      /* its milliseconds in 1000 true ones */
};

void trouble_freeze(struct world *world); /* when healing begins */
/* One of the others may have lost what it acknowledged: then everybody is needed after all. */
bool trouble_thaws(struct world *world);
void trouble_begin(struct world *world); /* after climate_draw() */

/* Its process stands still: the event has been put off until it goes on, in the same order. */
bool trouble_puts_off(struct world *world, const struct sim_event *event);

void trouble_on_pause(struct world *world);
void trouble_on_jump(struct world *world);

uint64_t trouble_clock_ms(const struct world *world, uint32_t compute);
/* When that clock will show `clock_ms`, or a little before. */
uint64_t trouble_true_us(const struct world *world, uint32_t compute, uint64_t clock_ms);
