/*
 * working_set.h - which blocks a compute had in its cache, kept for the next one: a hint.
 *
 * What the bytes mean is the compute's business (docs/protocol/page.md). One list a timeline, in
 * its row's neighbourhood in the store, so it is uploaded and restored with it. A branch that has
 * none of its own yet is given its nearest ancestor's.
 *
 * Threads: loop only, except the job, which touches the store and the fields it fills.
 */
#pragma once

#include "common/io/executor.h"
#include "common/wire/page_proto.h"
#include "pageserver/timeline/timeline.h"

#define WORKING_SET_LEVELS 16 /* ancestors that are looked at */

struct working_set;
typedef void (*working_set_done_fn)(struct working_set *set, err_t result);

/* Embed it in your own request. Yours again once `done` has been called. */
struct working_set {
    bool is_put;
    uint32_t size_max; /* of an answer: a larger one counts as none */
    struct buf list;   /* to be kept; or the answer, empty when there is none */
    struct errmsg msg;

    /* private */
    struct timeline *timeline;
    working_set_done_fn done;
    uint32_t numbers[WORKING_SET_LEVELS]; /* of the timeline, its parent, and so on */
    size_t number_count;
    struct job job;
};

/* `done` is called once, never from inside start. ERR_NOT_FOUND: the timeline was deleted. */
void working_set_start(
    struct working_set *set,
    struct executor *executor,
    struct timeline *tl,
    working_set_done_fn done);
void working_set_deinit(struct working_set *set);
