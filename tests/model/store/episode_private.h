/*
 * episode_private.h - an episode from the inside:
 *
 *   episode.c        the list of operations, and the parent: children until the list is played
 *   episode_child.c  one child: what came back, the operations, flushes, restarts and crashes
 *   episode_data.c   writing and reading: records as a decoder makes them, answers compared
 *   episode_tree.c   branches, leases, cutoffs, compactions, erased timelines
 *
 * Each operation does one thing to the store and to the model, in the child; what the store answers
 * otherwise than the model ends the child, and with it the episode.
 */
#pragma once

#include "common/base/err.h"
#include "common/base/str.h"
#include "tests/model/store/episode.h"

/* What outlives a crash of the child: shared with the parent, and with the next child. */
struct episode {
    struct model model;
    const struct op *ops;
    size_t op_count, next;
    bool trace, crashing; /* it is meant to die now */
    bool is_unfinished;   /* the operation before `next` had not returned when the child died */
    uint64_t checks, beside;
    struct errmsg why;
    char folder[PATH_SIZE];
};

/* -- episode.c -- */

extern struct episode *episode;
extern struct model *model; /* the one in it */

/* The store is wrong, and this says how. */
void episode_differ(const char *format, ...) PRINTF_LIKE(1, 2) __attribute__((noreturn));

/* -- episode_child.c -- */

extern bool episode_is_repeating; /* the operation that the child before this one died in */

void episode_run_child(void) __attribute__((noreturn)); /* the life of one child */

/* -- episode_data.c -- */

bool episode_is_live(size_t timeline); /* users see it */
int episode_pick_timeline(uint32_t number);
/* Any LSN up to the head; often the head, the cutoff, or what something holds. */
lsn_t episode_pick_any_lsn(int timeline, uint32_t number);

/* Feed the record that ends at `lsn` to the store. */
void episode_ingest(int timeline, size_t first_event, lsn_t lsn);
/* What `number` means of the open reader's timeline, at an LSN that may be read. */
void episode_compare(int timeline, uint32_t number, lsn_t lsn);

void episode_write(const struct op *op);
void episode_read(const struct op *op);
void episode_list(const struct op *op);
void episode_time(const struct op *op);
void episode_image(const struct op *op);

/* -- episode_tree.c -- */

void episode_branch(const struct op *op);
void episode_erase(const struct op *op);
void episode_lease(const struct op *op);
void episode_lease_drop(const struct op *op);
void episode_cutoffs(const struct op *op);
void episode_compact(const struct op *op);
/* The store's cutoffs are the model's. */
void episode_check_cutoffs(void);
