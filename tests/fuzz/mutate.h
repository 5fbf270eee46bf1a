/*
 * mutate.h - small changes to fields and byte strings, for the mutators of the fuzz targets.
 *
 * Values that are nearly right find more than noise: off by one, limits of the formats, sizes and
 * counts that stand in the input itself (hints). Threads: one owner.
 */
#pragma once

#include "common/base/bytes.h"
#include "common/base/prng.h"
#include "tests/fuzz/fuzz.h"

#define HINTS_MAX 16

struct mutation {
    struct prng prng;
    /* Numbers that mean something in this input: its item count, where its page ends, ... */
    size_t hint_count;
    uint32_t hints[HINTS_MAX];
    /* Items of the page that the record names, likely: the ones that matter. */
    size_t item_count;
    uint16_t items[HINTS_MAX];
};

void mutation_init(struct mutation *mutation, unsigned seed);
void mutation_hint(struct mutation *mutation, uint32_t value);

/* 0 .. sides - 1, and one time in `sides`. */
size_t mutation_below(struct mutation *mutation, size_t sides);
bool mutation_one_in(struct mutation *mutation, size_t sides);

/* A number that a field may hold to somebody's surprise. */
uint32_t mutation_value(struct mutation *mutation);

/* Change the little-endian field of `width` bytes (1, 2, 4 or 8) at `at`. */
void mutate_field(struct mutation *mutation, uint8_t *at, size_t width);

/* Change one field somewhere; the first bytes are the likeliest. Nothing when there are none. */
void mutate_some_field(struct mutation *mutation, uint8_t *data, size_t size);

/*
 * Change a payload: a field of it, or its length (cut, extend, insert, repeat or leave out a
 * piece); up to `size_max` bytes.
 */
void mutate_payload(struct mutation *mutation, struct buf *payload, size_t size_max);
