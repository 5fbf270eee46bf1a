/*
 * trouble.h - what befalls processes and bytes without a crash: a process that stands still for a
 * while, clocks that run wrong, disks that are full for a while, frames that arrive in pieces,
 * together, damaged, of another version, or not at all, and messages that contradict themselves.
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
    bool freezes;             /* only a majority is healed, the others stay away */
    uint64_t together_one_in; /* frames that arrive with the one before, in one read */
    uint64_t unknown_one_in;  /* messages in place of which one of a newer version comes */
    uint64_t nonsense_one_in; /* messages that contradict themselves: whoever sends it is broken */
    uint64_t version_one_in;  /* starts of a walproposer of another version */
    uint64_t full_us;         /* at most between two moments at which a disk becomes full */
    uint64_t full_max_us;     /* of one */
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

/*
 * A full disk: a commit group waits and is repeated until there is space, a group that is to be
 * cut off is given up; the control file has its space, mostly. Nothing of it is a failure.
 */
void trouble_on_full(struct world *world);
bool trouble_is_full(const struct world *world, uint32_t node);

/* The message that is sent now is to contradict itself: it must be refused. */
bool trouble_is_nonsense(struct world *world);

uint64_t trouble_clock_ms(const struct world *world, uint32_t compute);
/* When that clock will show `clock_ms`, or a little before. */
uint64_t trouble_true_us(const struct world *world, uint32_t compute, uint64_t clock_ms);
