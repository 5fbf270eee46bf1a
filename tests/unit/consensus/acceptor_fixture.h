/*
 * acceptor_fixture.h - one acceptor, what happens to it (given, when), and what it wants done
 * (then), for tests.
 *
 * A log begins at START; its bytes are zeros, and only their sizes count. Each event replaces the
 * actions of the one before it. A test has a process of its own, so nothing is put back.
 */
#pragma once

#include "common/base/mark.h"
#include "safekeeper/consensus/acceptor.h"
#include "safekeeper/consensus/term_history.h"
#include "tests/unit/unit.h"

#define START      ((lsn_t)0x1000)
#define GENERATION 7

static struct acceptor acceptor;
static struct acceptor_actions actions;
static struct errmsg msg;
static uint8_t wal[4096];

static const struct acceptor_peer first = {.proposer_id = 1, .connection = 10};
static const struct acceptor_peer second = {.proposer_id = 2, .connection = 20};

/* ---- given ---- */

/* Term 3 promised, and its log from START on. */
static inline struct acceptor_state state_of_log(void)
{
    struct acceptor_state state;
    acceptor_state_init(&state, GENERATION, START);
    term_history_push(&state.history, 3, START);
    state.term = 3;
    return state;
}

/* `size` bytes of whole records. */
static inline void given_log(size_t size, lsn_t commit_lsn)
{
    struct acceptor_state state = state_of_log();
    state.commit_lsn = commit_lsn;
    ck_assert_ok(acceptor_init(&acceptor, &state, START + size, START + size, &msg), &msg);
}

/* The log ends at +`size`; records up to +`lost` may have been acknowledged. */
static inline void given_suspect(size_t size, size_t lost)
{
    struct acceptor_state state = state_of_log();
    acceptor_state_suspect(&state, START + size, START + lost);
    ck_assert_ok(acceptor_init(&acceptor, &state, START + size, START + size, &msg), &msg);
}

/* ---- when ---- */

static inline void step(struct acceptor_event event)
{
    acceptor_step(&acceptor, &event, &actions);
}

static inline void when_vote(term_t term, struct acceptor_peer from)
{
    struct vote_request vote = {.generation = GENERATION, .term = term, .proposer_id = 1};
    step((struct acceptor_event){.kind = ACCEPTOR_VOTE_REQUESTED, .from = from, .vote = &vote});
}

static inline void when_persisted(void)
{
    step((struct acceptor_event){
        .kind = ACCEPTOR_STATE_PERSISTED, .sequence = acceptor.state.sequence});
}

static inline void when_flushed(lsn_t lsn, uint64_t epoch)
{
    step(
        (struct acceptor_event){.kind = ACCEPTOR_WAL_FLUSHED, .wal = {.lsn = lsn, .epoch = epoch}});
}

static inline void when_truncated(void)
{
    step((struct acceptor_event){
        .kind = ACCEPTOR_WAL_TRUNCATED, .wal = {.epoch = acceptor.wal_epoch}});
}

static inline struct elected elected_from(term_t term, lsn_t term_start_lsn, lsn_t stream_lsn)
{
    struct elected elected = {
        .generation = GENERATION,
        .term = term,
        .stream_lsn = stream_lsn,
        .history = {.count = 2, .items = {{.term = 0, .lsn = START}, {.term = 3, .lsn = START}}},
    };
    term_history_push(&elected.history, term, term_start_lsn);
    return elected;
}

static inline void when_elected(const struct elected *elected, struct acceptor_peer from)
{
    step((struct acceptor_event){.kind = ACCEPTOR_ELECTED, .from = from, .elected = elected});
}

static inline void when_append(
    term_t term,
    lsn_t begin_lsn,
    size_t size,
    lsn_t record_lsn,
    lsn_t commit_lsn,
    struct acceptor_peer from)
{
    struct append append = {
        .generation = GENERATION,
        .term = term,
        .begin_lsn = begin_lsn,
        .record_lsn = record_lsn,
        .commit_lsn = commit_lsn,
        .wal = bytes_of(wal, size),
    };
    step((struct acceptor_event){
        .kind = ACCEPTOR_APPEND_REQUESTED, .from = from, .append = &append});
}

/* ---- given: what happened before ---- */

/* A log, and `term` promised to `to` since. */
static inline void given_promised(
    size_t size, lsn_t commit_lsn, term_t term, struct acceptor_peer to)
{
    given_log(size, commit_lsn);
    when_vote(term, to);
    when_persisted();
}

/* Follows `first` in term 4 from the end of its log on. */
static inline void given_following(size_t size, lsn_t commit_lsn)
{
    given_promised(size, commit_lsn, 4, first);
    struct elected elected = elected_from(4, START + size, START + size);
    when_elected(&elected, first);
    when_persisted();
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_FOLLOWING);
}

/* ---- then ---- */

static inline const struct acceptor_action *find(enum acceptor_action_kind kind)
{
    for (size_t i = 0; i < actions.count; i++) {
        if (actions.items[i].kind == kind) {
            return &actions.items[i];
        }
    }
    return NULL;
}

static inline void then_only(enum acceptor_action_kind kind)
{
    ck_assert_uint_eq(actions.count, 1);
    ck_assert_int_eq(actions.items[0].kind, kind);
}

static inline void then_refused(err_t err)
{
    then_only(ACCEPTOR_REFUSE);
    ck_assert_int_eq(actions.items[0].refuse.err, err);
}

/* Asked under the term that it knows, so that it answers at once. */
static inline lsn_t reported_suspicion(void)
{
    when_vote(acceptor.state.term, second);
    return actions.items[0].vote->suspect_lsn;
}
