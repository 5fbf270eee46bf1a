/*
 * proposer_fixture.h - one proposer and its three acceptors, what happens to it (given, when), and
 * what it wants done (then), for tests.
 *
 * A log begins at START; no bytes, only positions. Each event replaces the actions of the one
 * before it, and happens at `now_ms`, which a test moves. A test has a process of its own, so
 * nothing is put back.
 */
#pragma once

#include "common/base/mark.h"
#include "safekeeper/consensus/proposer.h"
#include "safekeeper/consensus/term_history.h"
#include "tests/unit/unit.h"

#define START      ((lsn_t)0x1000)
#define GENERATION 7

static struct proposer proposer;
static struct proposer_actions actions;
static uint64_t now_ms;

/* ---- given and when ---- */

static inline void step(struct proposer_event event)
{
    event.now_ms = now_ms;
    event.entropy = 5;
    proposer_step(&proposer, &event, &actions);
}

static inline void given_proposer(bool sync)
{
    struct proposer_options options = {
        .membership = {.generation = GENERATION, .count = 3, .members = {1, 2, 3}},
        .proposer_id = 42,
        .sync = sync,
        .election_timeout_ms = 1000,
        .backoff_max_ms = 100,
        .heartbeat_ms = 200,
        .window_max = 1000,
        .inflight_max = 600,
    };
    now_ms = 1;
    proposer_init(&proposer, &options);
}

/* The connection of peer i is number 10 * (i + 1), then one more with each new one. */
static uint64_t connections[3];

static inline void when_up(uint32_t peer, term_t hello_term)
{
    connections[peer] = connections[peer] == 0 ? 10 * ((uint64_t)peer + 1) : connections[peer] + 1;
    step((struct proposer_event){
        .kind = PROPOSER_PEER_UP,
        .peer = peer,
        .connection = connections[peer],
        .hello_term = hello_term});
}

static inline void when_down(uint32_t peer)
{
    step((struct proposer_event){
        .kind = PROPOSER_PEER_DOWN, .peer = peer, .connection = connections[peer]});
}

static inline struct vote_reply vote_of(lsn_t record_lsn, lsn_t commit_lsn)
{
    return (struct vote_reply){
        .generation = GENERATION,
        .term = proposer.term,
        .granted = 1,
        .flush_lsn = record_lsn,
        .record_lsn = record_lsn,
        .commit_lsn = commit_lsn,
        .start_lsn = START,
        .history = {.count = 1, .items = {{.term = 0, .lsn = START}}},
    };
}

static inline void when_vote(uint32_t peer, const struct vote_reply *vote)
{
    step((struct proposer_event){
        .kind = PROPOSER_VOTE_REPLY, .peer = peer, .connection = connections[peer], .vote = vote});
}

static inline void when_acked(uint32_t peer, lsn_t flush_lsn, lsn_t record_lsn, lsn_t commit_lsn)
{
    struct append_reply appended = {
        .generation = GENERATION,
        .term = proposer.term,
        .flush_lsn = flush_lsn,
        .record_lsn = record_lsn,
        .commit_lsn = commit_lsn,
    };
    step((struct proposer_event){
        .kind = PROPOSER_APPEND_REPLY,
        .peer = peer,
        .connection = connections[peer],
        .appended = &appended});
}

static inline void when_local_wal(lsn_t end_lsn, lsn_t record_lsn)
{
    step((struct proposer_event){
        .kind = PROPOSER_LOCAL_WAL, .local = {.end_lsn = end_lsn, .record_lsn = record_lsn}});
}

static inline const struct proposer_action *find(enum proposer_action_kind kind, uint32_t peer)
{
    for (size_t i = 0; i < actions.count; i++) {
        if (actions.items[i].kind == kind && actions.items[i].peer == peer) {
            return &actions.items[i];
        }
    }
    return NULL;
}

/* Elected by 0 and 1, which hold the same empty log; both are streaming. */
static inline void given_streaming(bool sync)
{
    given_proposer(sync);
    when_up(0, 0);
    when_up(1, 0);
    struct vote_reply vote = vote_of(START, START);
    when_vote(0, &vote);
    when_vote(1, &vote);
    when_acked(0, START, START, START);
    when_acked(1, START, START, START);
    ck_assert(proposer.ready);
}
