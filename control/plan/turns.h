/*
 * turns.h - whose turn it is when there are more to do than fit in one round.
 *
 * Those come first who may go on for the longest time; who fails is due later the more often he has
 * failed. So however many fail for ever, each of the others has its turn: who has never failed
 * waits for nobody who has. A round begins with {0} and an offer of each; then `turns` is read in
 * its order. Pure: the time is an argument, on the clock of mono_ns_t.
 */
#pragma once

#include "control/model/model.h"

#define TURNS_MAX 64

/* {0}: nobody yet. */
struct turns {
    struct turn {
        row_id_t id;
        mono_ns_t since; /* it may have its turn since then */
    } turns[TURNS_MAX];  /* in their order */
    size_t count;
};

/*
 * Those who are offered first come first among equals; who is not due yet, or has its turn now, is
 * left out. Of more than TURNS_MAX those stay who come first. `id` is copied.
 */
void turns_offer(struct turns *turns, const char *id, const struct attempt *attempt, mono_ns_t now);

/* It has failed, and is due again after first_ms, next time after twice that, up to max_ms. */
void attempt_put_off(struct attempt *attempt, mono_ns_t now, uint64_t first_ms, uint64_t max_ms);
