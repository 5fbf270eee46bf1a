/*
 * memory_guess.h - will a page be found in memory? A guess, from how often the last reads of the
 * same relation were.
 *
 * A read on the loop that finds nothing is done again by a worker, and costs more then than if the
 * worker had done it at once. An index is in memory where its table is not, so each relation is
 * guessed by itself; now and then one is tried against the guess, to notice when it is wrong.
 *
 * A table of fixed size without collisions being looked at: relations that share a place are
 * guessed together. Threads: loop only.
 */
#pragma once

#include "common/pg/page_key.h"

struct memory_guess;

struct memory_guess *memory_guess_create(void);
void memory_guess_destroy(struct memory_guess *guess); /* NULL is fine */
/* `timeline` is timeline_uid(). Relations that nothing is known of are worth a try. */
bool memory_guess_is_worth_a_try(
    struct memory_guess *guess, uint64_t timeline, struct page_key key);
/* One was tried. */
void memory_guess_note(
    struct memory_guess *guess, uint64_t timeline, struct page_key key, bool is_found);
