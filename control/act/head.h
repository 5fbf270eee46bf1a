/*
 * head.h - where a branch may start: the head of a branch's history, and the LSN of a time.
 *
 * The head is asked of the safekeepers after the request came, so that every row whose COMMIT has
 * returned lies before it. Its value is the highest commit_lsn that a majority reports, or, when
 * the news of a commit has not reached them yet, the position that a majority holds in one term.
 * Threads: loop only. One struct a question; embed it.
 */
#pragma once

#include "control/act/nodes.h"
#include "control/model/model.h"

struct head_query {
    /* Once, never from inside head_query_start. */
    void (*done)(struct head_query *query, err_t result);
    lsn_t head;                  /* result */
    lsn_t time_lsn;              /* result, when a time was asked for */
    struct errmsg msg;           /* why not */
    struct timeline_id timeline; /* that was asked for: the branch may have another one by now */

    /* private */
    struct loop *loop;
    struct nodes *nodes;
    struct tenant_id tenant;
    uint64_t pageserver;
    lsn_t start_lsn;
    wall_us_t time; /* 0: only the head */
    size_t members, outstanding, round;
    mono_ns_t began;
    struct head_answer {
        struct node_call call;
        struct head_query *query;
        bool running, answered;
        term_t tail_term;
        lsn_t record_lsn, commit_lsn;
    } answers[SAFEKEEPERS_MAX];
    struct node_call page_call;
    struct timer timer;
};

/*
 * Positions of one round. The head that they prove, or LSN_NONE when fewer than a majority
 * answered. `ret_settled`: nothing that was acknowledged before the round can lie behind it.
 */
struct head_position {
    bool answered;
    term_t tail_term; /* of the last term in its history */
    lsn_t record_lsn, commit_lsn;
};
lsn_t head_of(const struct head_position *positions, size_t count, bool *ret_settled);

/* `time` 0: only the head. */
void head_query_start(
    struct head_query *query,
    struct loop *loop,
    struct nodes *nodes,
    const struct branch *branch,
    wall_us_t time);
