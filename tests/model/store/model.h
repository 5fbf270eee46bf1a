/*
 * model.h - what a tenant's store must hold, said the simple way: one list of everything that was
 * ever written, and a read is a walk over it from the end.
 *
 * The list is also the WAL: after a crash the store is fed from it again. No pointers inside, so
 * that it can lie in memory that several processes share. Nothing is ever removed from the list; a
 * read is compared only where the store promises an answer.
 */
#pragma once

#include "common/pg/page_key.h"

enum {
    MODEL_RELS = 3,
    MODEL_BLOCKS = 5, /* of one relation, at most */
    MODEL_SLRU_PAGES = 2,
    MODEL_STATES = 2,
    MODEL_TIMELINES = 64,
    MODEL_HOLDS = 8,
    MODEL_EVENTS = 20000,
};

/* What has versions, numbered. */
enum {
    MODEL_SIZE_0 = MODEL_RELS * MODEL_BLOCKS,
    MODEL_SLRU_0 = MODEL_SIZE_0 + MODEL_RELS,
    MODEL_STATE_0 = MODEL_SLRU_0 + MODEL_SLRU_PAGES,
    MODEL_COMMIT = MODEL_STATE_0 + MODEL_STATES,
    MODEL_KEYS,
};

#define MODEL_LSN_STEP    16u /* a record begins so far below its end */
#define MODEL_SIZE_EXISTS (1ull << 32)

struct model_event {
    lsn_t lsn;
    uint64_t value; /* payload; of a size: exists and blocks; of a commit: its time */
    uint8_t timeline, key, tag;
};

struct model_timeline {
    int parent;      /* -1: a root */
    uint32_t number; /* in the store */
    lsn_t start;     /* where it leaves its parent */
    lsn_t head;      /* end of its last record */
    lsn_t durable;   /* a flush that began there has succeeded */
    lsn_t cutoff;    /* history from here on is promised */
    bool is_gone, is_tombstone;
};

/* An LSN that stays readable below the cutoff. */
struct model_hold {
    bool is_used, is_branch; /* a branch that is being made: it ends with the process */
    uint8_t timeline;
    lsn_t lsn;
};

struct model {
    size_t event_count, timeline_count;
    lsn_t next_lsn;
    struct model_timeline timelines[MODEL_TIMELINES];
    struct model_hold holds[MODEL_HOLDS]; /* the first is of a branch, the others are leases */
    struct model_event events[MODEL_EVENTS];
};

void model_init(struct model *model);
struct page_key model_key(int key); /* not of MODEL_COMMIT, whose key is its time */

/* The timeline in whose WAL the LSN lies. */
int model_owner(const struct model *model, int timeline, lsn_t lsn);
bool model_is_in_window(const struct model *model, int timeline, lsn_t lsn);
bool model_may_read(const struct model *model, int timeline, lsn_t lsn);
/* Children, or a branch that is being made. */
bool model_is_needed(const struct model *model, int timeline);

/* Add one version to the record that ends at `lsn`. */
void model_put(struct model *model, int timeline, int key, lsn_t lsn, uint8_t tag, uint64_t value);

/* The newest version that `timeline` sees at `lsn`; NULL: none. */
const struct model_event *model_newest(const struct model *model, int timeline, int key, lsn_t lsn);

/* Page content, reduced to a number: an image sets it, a record mixes something in. */
struct model_page {
    lsn_t lsn; /* of the newest version; 0: there is none */
    int timeline;
    uint64_t content;
};
struct model_page model_read(const struct model *model, int timeline, int key, lsn_t lsn);
uint64_t model_mix(uint64_t content, uint64_t value);

/* Blocks of relation `rel`; -1: it does not exist. */
int model_blocks(const struct model *model, int timeline, int rel, lsn_t lsn);

/* Start LSN of the first commit in LSN order with a time > `time`; 0: none. */
lsn_t model_commit_after(const struct model *model, int timeline, uint64_t time, lsn_t lsn);
uint64_t model_newest_commit(const struct model *model, int timeline, lsn_t lsn); /* 0: none */
