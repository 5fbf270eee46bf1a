/* Rules of the proposer: who wins, from where, what is committed, who is told. */
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

static void step(struct proposer_event event)
{
    event.now_ms = now_ms;
    event.entropy = 5;
    proposer_step(&proposer, &event, &actions);
}

static void given_proposer(bool sync)
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

static void when_up(uint32_t peer, term_t hello_term)
{
    connections[peer] = connections[peer] == 0 ? 10 * ((uint64_t)peer + 1) : connections[peer] + 1;
    step((struct proposer_event){
        .kind = PROPOSER_PEER_UP,
        .peer = peer,
        .connection = connections[peer],
        .hello_term = hello_term});
}

static void when_down(uint32_t peer)
{
    step((struct proposer_event){
        .kind = PROPOSER_PEER_DOWN, .peer = peer, .connection = connections[peer]});
}

static struct vote_reply vote_of(lsn_t record_lsn, lsn_t commit_lsn)
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

static void when_vote(uint32_t peer, const struct vote_reply *vote)
{
    step((struct proposer_event){
        .kind = PROPOSER_VOTE_REPLY, .peer = peer, .connection = connections[peer], .vote = vote});
}

static void when_acked(uint32_t peer, lsn_t flush_lsn, lsn_t record_lsn, lsn_t commit_lsn)
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

static void when_local_wal(lsn_t end_lsn, lsn_t record_lsn)
{
    step((struct proposer_event){
        .kind = PROPOSER_LOCAL_WAL, .local = {.end_lsn = end_lsn, .record_lsn = record_lsn}});
}

static const struct proposer_action *find(enum proposer_action_kind kind, uint32_t peer)
{
    for (size_t i = 0; i < actions.count; i++) {
        if (actions.items[i].kind == kind && actions.items[i].peer == peer) {
            return &actions.items[i];
        }
    }
    return NULL;
}

/* Elected by 0 and 1, which hold the same empty log; both are streaming. */
static void given_streaming(bool sync)
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

/* ---- election ---- */

START_TEST(test_no_campaign_without_a_quorum_of_connections)
{
    given_proposer(false);
    when_up(0, 5);
    ck_assert_uint_eq(actions.count, 0);
    ck_assert_uint_eq(proposer_deadline_ms(&proposer), UINT64_MAX);
    when_up(2, 8);
    ck_assert_int_eq(proposer.phase, PROPOSER_CAMPAIGNING);
    ck_assert_uint_eq(proposer.term, 9); /* above everything that was seen */
    ck_assert_uint_eq(find(PROPOSER_SEND_VOTE_REQUEST, 0)->vote.term, 9);
    ck_assert_uint_eq(find(PROPOSER_SEND_VOTE_REQUEST, 2)->vote.term, 9);
}
END_TEST

START_TEST(test_a_log_that_follows_us_is_streamed_on_from_its_end)
{
    given_streaming(false);
    when_up(2, 0);
    struct vote_reply vote = vote_of(START + 64, START);
    vote.granted = 0;
    vote.history.count = 0; /* it ends before all that our history remembers */
    vote.followed_term = proposer.term;
    when_vote(2, &vote);
    ck_assert_uint_eq(find(PROPOSER_SEND_ELECTED, 2)->elected.stream_lsn, START + 64);
}
END_TEST

START_TEST(test_a_followed_term_that_cannot_be_closes_the_connection)
{
    given_proposer(false);
    when_up(0, 8);
    when_up(1, 8);
    struct vote_reply vote = vote_of(START, START);
    vote.followed_term = proposer.term; /* and grants it */
    when_vote(0, &vote);
    ck_assert_ptr_nonnull(find(PROPOSER_CLOSE, 0));
    struct vote_reply behind = vote_of(START, START);
    term_history_push(&behind.history, 5, START);
    behind.followed_term = 4; /* before it was clipped, its history ended earlier */
    when_vote(1, &behind);
    ck_assert_ptr_nonnull(find(PROPOSER_CLOSE, 1));
    ck_assert_int_eq(proposer.phase, PROPOSER_CAMPAIGNING);
}
END_TEST

START_TEST(test_donor_has_the_newest_term_then_the_longest_log)
{
    given_proposer(false);
    when_up(0, 2);
    when_up(1, 2);
    when_up(2, 2);
    struct vote_reply longer = vote_of(START + 500, START);
    struct vote_reply newer = vote_of(START + 300, START + 100);
    term_history_push(&longer.history, 1, START);
    term_history_push(&newer.history, 2, START + 200);
    when_vote(0, &longer);
    when_vote(1, &newer);
    ck_assert_int_eq(proposer.phase, PROPOSER_ELECTED);
    ck_assert_uint_eq(proposer.donor, 1);
    ck_assert_uint_eq(proposer.term_start_lsn, START + 300);
    ck_assert_uint_eq(proposer.commit_lsn, START + 100);
    ck_assert_uint_eq(term_history_last_term(&proposer.history), 3);
    ck_assert_uint_eq(find(PROPOSER_SEND_ELECTED, 0)->elected.stream_lsn, START);
    ck_assert_uint_eq(find(PROPOSER_SEND_ELECTED, 1)->elected.stream_lsn, START + 300);
}
END_TEST

START_TEST(test_a_refusal_does_not_count_as_a_vote)
{
    given_proposer(false);
    when_up(0, 0);
    when_up(1, 0);
    struct vote_reply vote = vote_of(START, START);
    when_vote(0, &vote);
    vote.granted = 0;
    when_vote(1, &vote);
    ck_assert_int_eq(proposer.phase, PROPOSER_COLLECTING); /* everybody answered: split */
    now_ms = proposer_deadline_ms(&proposer);
    step((struct proposer_event){.kind = PROPOSER_TICK});
    ck_assert_uint_eq(proposer.term, 2);
}
END_TEST

START_TEST(test_a_vote_counts_once_however_often_it_is_given)
{
    given_proposer(false);
    when_up(0, 0);
    when_up(1, 0);
    struct vote_reply vote = vote_of(START, START);
    when_vote(0, &vote);
    when_down(0);
    when_up(0, 1);
    when_vote(0, &vote);
    ck_assert_int_eq(proposer.phase, PROPOSER_CAMPAIGNING);
}
END_TEST

START_TEST(test_a_candidate_that_sees_a_higher_term_backs_off_and_tops_it)
{
    given_proposer(false);
    when_up(0, 0);
    when_up(1, 0);
    struct vote_reply vote = vote_of(START, START);
    vote.term = 6;
    vote.granted = 0;
    when_vote(0, &vote);
    ck_assert_int_eq(proposer.phase, PROPOSER_COLLECTING);
    ck_assert_uint_gt(proposer_deadline_ms(&proposer), now_ms);
    now_ms = proposer_deadline_ms(&proposer);
    step((struct proposer_event){.kind = PROPOSER_TICK});
    ck_assert_uint_eq(proposer.term, 7);
}
END_TEST

START_TEST(test_a_campaign_without_answers_is_given_up)
{
    given_proposer(false);
    when_up(0, 0);
    when_up(1, 0);
    now_ms = proposer_deadline_ms(&proposer);
    step((struct proposer_event){.kind = PROPOSER_TICK});
    ck_assert_int_eq(proposer.phase, PROPOSER_COLLECTING);
}
END_TEST

START_TEST(test_contradicting_votes_close_the_connection)
{
    given_proposer(false);
    when_up(0, 0);
    when_up(1, 0);
    struct vote_reply vote = vote_of(START, START + 8); /* committed behind its end */
    when_vote(0, &vote);
    ck_assert_ptr_nonnull(find(PROPOSER_CLOSE, 0));
    ck_assert(!proposer.peers[0].granted);
}
END_TEST

/*
 * A safekeeper that follows somebody whose history begins behind the end of its log: nobody knows
 * which term its last record is of.
 */
START_TEST(test_a_vote_without_terms_counts_and_is_never_the_donor)
{
    given_proposer(false);
    for (uint32_t i = 0; i < 3; i++) {
        when_up(i, 5);
    }
    struct vote_reply forgotten = vote_of(START + 16, START + 16);
    forgotten.history.count = 0;
    forgotten.record_lsn = forgotten.flush_lsn = START + 800;
    struct vote_reply whole = vote_of(START + 80, START + 16);
    term_history_push(&whole.history, 3, START + 8);
    when_vote(0, &forgotten);
    ck_assert_ptr_null(find(PROPOSER_CLOSE, 0));
    when_vote(1, &whole);
    ck_assert_int_eq(proposer.phase, PROPOSER_ELECTED);
    ck_assert_uint_eq(proposer.donor, 1);
    ck_assert_uint_eq(proposer.peers[0].stream_lsn, START + 16); /* what it knows committed */
}
END_TEST

START_TEST(test_replies_of_another_connection_or_generation_are_void)
{
    given_proposer(false);
    when_up(0, 0);
    when_up(1, 0);
    struct vote_reply vote = vote_of(START, START);
    step((struct proposer_event){
        .kind = PROPOSER_VOTE_REPLY, .peer = 0, .connection = 999, .vote = &vote});
    ck_assert(!proposer.peers[0].granted);
    vote.generation++;
    when_vote(0, &vote);
    ck_assert(!proposer.peers[0].granted);
    ck_assert_uint_gt(mark_hits("proposer.reply.generation"), 0);
}
END_TEST

/* ---- stepping down ---- */

START_TEST(test_a_winner_that_sees_a_higher_term_is_deposed_for_good)
{
    given_streaming(false);
    struct append_reply appended = {.generation = GENERATION, .term = proposer.term + 1};
    step((struct proposer_event){
        .kind = PROPOSER_APPEND_REPLY,
        .peer = 1,
        .connection = connections[1],
        .appended = &appended});
    ck_assert_ptr_nonnull(find(PROPOSER_STEP_DOWN, 0));
    when_acked(0, START, START, START);
    ck_assert_uint_eq(actions.count, 0);
    ck_assert_uint_eq(proposer_deadline_ms(&proposer), UINT64_MAX);
}
END_TEST

START_TEST(test_a_hello_with_a_higher_term_deposes)
{
    given_streaming(false);
    when_up(2, 99);
    ck_assert_uint_eq(find(PROPOSER_STEP_DOWN, 0)->term, 99);
}
END_TEST

/* ---- repair ---- */

/* Elected by 0, the donor of 300 bytes, and by 1, which has none of them. */
static void given_repair(void)
{
    given_proposer(false);
    when_up(0, 0);
    when_up(1, 0);
    struct vote_reply full = vote_of(START + 300, START);
    struct vote_reply empty = vote_of(START, START);
    when_vote(0, &full);
    when_vote(1, &empty);
}

START_TEST(test_a_lagging_acceptor_is_repaired_from_the_donor_before_anything_is_ready)
{
    given_repair();
    when_acked(0, START + 300, START + 300, START);
    ck_assert(!proposer.ready);
    when_acked(1, START, START, START);
    const struct proposer_action *read = find(PROPOSER_SEND_READ_WAL, 0);
    ck_assert_ptr_nonnull(read);
    ck_assert_uint_eq(read->read.request.begin_lsn, START);
    ck_assert_uint_eq(read->read.request.size, 300);
    ck_assert_uint_eq(read->read.target, 1);

    static const uint8_t wal[300];
    struct read_wal_reply reply = {.begin_lsn = START, .wal = bytes_of(wal, sizeof(wal))};
    step((struct proposer_event){
        .kind = PROPOSER_READ_WAL_REPLY,
        .peer = 0,
        .connection = connections[0],
        .read = {.id = read->read.id, .reply = &reply}});
    const struct proposer_action *append = find(PROPOSER_SEND_APPEND, 1);
    ck_assert_uint_eq(append->append.begin_lsn, START);
    ck_assert_uint_eq(append->append.wal.size, 300);
    ck_assert_uint_eq(append->append.record_lsn, START + 300);
    when_acked(1, START + 300, START + 300, START);
    ck_assert_uint_eq(find(PROPOSER_READY, 0)->lsn, START + 300);
    ck_assert_uint_eq(find(PROPOSER_COMMITTED, 0)->lsn, START + 300);
}
END_TEST

/* Five records of an old term on a quorum are not committed before our term's start is. */
START_TEST(test_wal_of_older_terms_is_committed_only_with_the_term_start)
{
    given_repair();
    when_acked(0, START + 300, START + 300, START);
    when_acked(1, START, START, START);
    static const uint8_t wal[100];
    struct read_wal_reply reply = {.begin_lsn = START, .wal = bytes_of(wal, sizeof(wal))};
    step((struct proposer_event){
        .kind = PROPOSER_READ_WAL_REPLY,
        .peer = 0,
        .connection = connections[0],
        .read = {.id = proposer.peers[1].read_id, .reply = &reply, .record_lsn = START + 96}});
    when_acked(1, START + 100, START + 96, START);
    ck_assert_ptr_null(find(PROPOSER_COMMITTED, 0));
    ck_assert_uint_eq(proposer.commit_lsn, START);
}
END_TEST

START_TEST(test_a_read_that_fails_is_tried_again_later)
{
    given_repair();
    when_acked(1, START, START, START);
    step((struct proposer_event){
        .kind = PROPOSER_READ_WAL_FAILED,
        .peer = 0,
        .connection = connections[0],
        .read.id = proposer.peers[1].read_id});
    ck_assert_ptr_null(find(PROPOSER_SEND_READ_WAL, 0));
    now_ms = proposer_deadline_ms(&proposer);
    step((struct proposer_event){.kind = PROPOSER_TICK});
    ck_assert_ptr_nonnull(find(PROPOSER_SEND_READ_WAL, 0));
}
END_TEST

START_TEST(test_a_repair_without_its_donor_ends_in_a_new_campaign)
{
    given_proposer(false);
    when_up(0, 0);
    when_up(1, 0);
    when_up(2, 0);
    struct vote_reply full = vote_of(START + 300, START), empty = vote_of(START, START);
    when_vote(0, &full);
    when_vote(1, &empty);
    when_vote(2, &empty);
    when_down(0);
    when_acked(1, START, START, START);
    when_acked(2, START, START, START);
    ck_assert(!proposer.ready);
    now_ms += 1000;
    step((struct proposer_event){.kind = PROPOSER_TICK});
    ck_assert_int_eq(proposer.phase, PROPOSER_COLLECTING);
    now_ms = proposer_deadline_ms(&proposer);
    step((struct proposer_event){.kind = PROPOSER_TICK});
    ck_assert_uint_eq(proposer.term, 2);
}
END_TEST

/* ---- streaming ---- */

START_TEST(test_wal_is_committed_by_the_second_acceptor_and_told_at_once)
{
    given_streaming(false);
    when_local_wal(START + 100, START + 96);
    ck_assert_uint_eq(find(PROPOSER_SEND_APPEND, 0)->append.wal.size, 100);
    ck_assert_uint_eq(find(PROPOSER_SEND_APPEND, 1)->append.record_lsn, START + 96);
    when_acked(0, START + 100, START + 96, START);
    ck_assert_ptr_null(find(PROPOSER_COMMITTED, 0));
    when_acked(1, START + 100, START + 96, START);
    ck_assert_uint_eq(find(PROPOSER_COMMITTED, 0)->lsn, START + 96);
    const struct proposer_action *news = find(PROPOSER_SEND_APPEND, 0);
    ck_assert_uint_eq(news->append.wal.size, 0);
    ck_assert_uint_eq(news->append.commit_lsn, START + 96);
    ck_assert_int_eq(actions.items[0].kind, PROPOSER_COMMITTED); /* Postgres hears of it first */
}
END_TEST

START_TEST(test_commit_rides_on_wal_that_is_on_its_way)
{
    given_streaming(false);
    when_local_wal(START + 100, START + 96);
    when_acked(0, START + 100, START + 96, START);
    when_local_wal(START + 200, START + 192);
    when_acked(1, START + 100, START + 96, START);
    ck_assert_uint_eq(find(PROPOSER_COMMITTED, 0)->lsn, START + 96);
    ck_assert_ptr_null(find(PROPOSER_SEND_APPEND, 0)); /* has WAL in flight: hears with its ack */
    when_acked(0, START + 200, START + 192, START);
    ck_assert_uint_eq(find(PROPOSER_SEND_APPEND, 0)->append.commit_lsn, START + 96);
}
END_TEST

START_TEST(test_bytes_in_flight_are_bounded)
{
    given_streaming(false);
    when_local_wal(START + 600, START + 600);
    when_local_wal(START + 700, START + 700);
    ck_assert_ptr_null(find(PROPOSER_SEND_APPEND, 0));
    when_acked(0, START + 600, START + 600, START);
    ck_assert_uint_eq(find(PROPOSER_SEND_APPEND, 0)->append.begin_lsn, START + 600);
}
END_TEST

START_TEST(test_uncommitted_wal_stops_postgres)
{
    given_streaming(false);
    ck_assert(proposer_wants_wal(&proposer));
    when_local_wal(START + 1000, START + 1000);
    ck_assert(!proposer_wants_wal(&proposer));
    when_acked(0, START + 600, START + 600, START);
    when_acked(1, START + 600, START + 600, START);
    ck_assert(proposer_wants_wal(&proposer));
}
END_TEST

START_TEST(test_a_record_larger_than_the_window_is_taken_to_its_end)
{
    given_streaming(false);
    proposer.options.inflight_max = 8000;
    when_local_wal(START + 800, START + 96);
    when_local_wal(START + 1600, START + 96);
    ck_assert(!proposer_wants_wal(&proposer)); /* what ended can be committed, and is waited for */
    when_acked(0, START + 1600, START + 96, START);
    when_acked(1, START + 1600, START + 96, START);
    ck_assert_uint_eq(proposer.commit_lsn, START + 96);
    for (lsn_t lsn = START + 2400; lsn < START + 8000; lsn += 800) {
        ck_assert(proposer_wants_wal(&proposer));
        when_local_wal(lsn, START + 96);
    }
    when_local_wal(START + 8000, START + 8000);
    ck_assert(!proposer_wants_wal(&proposer));
    ck_assert_uint_eq(proposer.window_begin_lsn, START + 96);
    when_acked(0, START + 8000, START + 8000, START + 96);
    when_acked(1, START + 8000, START + 8000, START + 96);
    ck_assert_uint_eq(proposer.commit_lsn, START + 8000);
    ck_assert(proposer_wants_wal(&proposer));
}
END_TEST

START_TEST(test_a_slow_acceptor_holds_nobody_and_reads_from_a_peer)
{
    given_streaming(false);
    when_up(2, 0);
    struct vote_reply vote = vote_of(START, START);
    when_vote(2, &vote);
    when_acked(2, START, START, START);
    for (lsn_t lsn = START + 200; lsn <= START + 2000; lsn += 200) {
        when_local_wal(lsn, lsn);
        when_acked(0, lsn, lsn, START);
        when_acked(1, lsn, lsn, START);
        ck_assert(proposer_wants_wal(&proposer));
    }
    ck_assert_uint_le(proposer.window_end_lsn - proposer.window_begin_lsn, 1000);
    when_acked(2, START + 600, START + 600, START);
    ck_assert(find(PROPOSER_SEND_READ_WAL, 0) != NULL || find(PROPOSER_SEND_READ_WAL, 1) != NULL);
}
END_TEST

START_TEST(test_a_reconnected_acceptor_is_asked_for_its_position_and_goes_on)
{
    given_streaming(false);
    when_local_wal(START + 100, START + 96);
    when_acked(0, START + 100, START + 96, START);
    when_down(0);
    when_up(0, proposer.term);
    ck_assert_uint_eq(find(PROPOSER_SEND_VOTE_REQUEST, 0)->vote.term, proposer.term);
    struct vote_reply vote = vote_of(START + 96, START);
    vote.granted = 0;
    vote.flush_lsn = START + 100;
    vote.history = proposer.history;
    when_vote(0, &vote);
    ck_assert_uint_eq(find(PROPOSER_SEND_ELECTED, 0)->elected.stream_lsn, START + 96);
    when_acked(0, START + 96, START + 96, START);
    ck_assert_uint_eq(find(PROPOSER_SEND_APPEND, 0)->append.begin_lsn, START + 96);
    when_acked(1, START + 100, START + 96, START);
    ck_assert_uint_eq(proposer.commit_lsn, START + 96);
}
END_TEST

START_TEST(test_acks_of_an_old_connection_or_term_count_for_nothing)
{
    given_streaming(false);
    when_local_wal(START + 100, START + 96);
    struct append_reply appended = {
        .generation = GENERATION,
        .term = proposer.term,
        .flush_lsn = START + 100,
        .record_lsn = START + 96};
    struct proposer_event event = {
        .kind = PROPOSER_APPEND_REPLY, .peer = 0, .connection = 999, .appended = &appended};
    step(event);
    ck_assert_uint_eq(proposer.peers[0].record_lsn, START);
    appended.term--;
    event.connection = connections[0];
    step(event);
    ck_assert_uint_eq(proposer.peers[0].record_lsn, START);
}
END_TEST

START_TEST(test_an_acceptor_that_acknowledges_what_was_never_sent_is_closed)
{
    given_streaming(false);
    when_acked(0, START + 8, START + 8, START);
    ck_assert_ptr_nonnull(find(PROPOSER_CLOSE, 0));
    ck_assert_uint_eq(proposer.commit_lsn, START);
}
END_TEST

START_TEST(test_an_acceptor_that_lost_acknowledged_wal_is_closed)
{
    given_streaming(false);
    when_local_wal(START + 100, START + 96);
    when_acked(0, START + 100, START + 96, START);
    when_acked(0, START + 64, START + 64, START);
    ck_assert_ptr_nonnull(find(PROPOSER_CLOSE, 0));
}
END_TEST

/* Two acceptors crash after 100 of 112 bytes; the last 12 bytes of the record are zeros. */
START_TEST(test_a_record_that_acceptors_know_first_is_committed_when_it_is_sent)
{
    given_streaming(false);
    when_local_wal(START + 100, START + 96);
    for (uint32_t peer = 0; peer < 2; peer++) {
        when_down(peer);
        when_up(peer, proposer.term);
        struct vote_reply vote = vote_of(START + 112, START);
        vote.granted = 0;
        vote.history = proposer.history;
        when_vote(peer, &vote);
        when_acked(peer, START + 112, START + 112, START);
    }
    ck_assert_uint_eq(proposer.commit_lsn, START + 96);
    ck_assert(proposer_wants_wal(&proposer));
    when_local_wal(START + 112, START + 112);
    ck_assert_uint_eq(find(PROPOSER_COMMITTED, 0)->lsn, START + 112);
}
END_TEST

START_TEST(test_a_quiet_acceptor_gets_heartbeats)
{
    given_streaming(false);
    now_ms = proposer_deadline_ms(&proposer);
    step((struct proposer_event){.kind = PROPOSER_TICK});
    ck_assert_uint_eq(find(PROPOSER_SEND_APPEND, 0)->append.wal.size, 0);
    ck_assert_uint_gt(proposer_deadline_ms(&proposer), now_ms);
}
END_TEST

START_TEST(test_an_acceptor_that_does_not_answer_elected_is_connected_again)
{
    given_streaming(false);
    when_up(2, 0);
    struct vote_reply vote = vote_of(START, START);
    when_vote(2, &vote);
    now_ms += 1000;
    step((struct proposer_event){.kind = PROPOSER_TICK});
    ck_assert_ptr_nonnull(find(PROPOSER_CLOSE, 2));
}
END_TEST

START_TEST(test_much_wal_goes_out_in_several_steps)
{
    given_proposer(false);
    proposer.options.window_max = proposer.options.inflight_max = 8 * MIB;
    when_up(0, 0);
    when_up(1, 0);
    struct vote_reply vote = vote_of(START, START);
    when_vote(0, &vote);
    when_vote(1, &vote);
    when_acked(0, START, START, START);
    when_acked(1, START, START, START);
    lsn_t end_lsn = START + 20 * WAL_APPEND_MAX;
    when_local_wal(end_lsn, end_lsn);
    ck_assert(actions.more);
    for (int steps = 0; actions.more; steps++) {
        ck_assert_int_lt(steps, 10);
        step((struct proposer_event){.kind = PROPOSER_CONTINUE});
    }
    ck_assert_uint_eq(proposer.peers[0].sent_lsn, end_lsn);
    ck_assert_uint_eq(proposer.peers[1].sent_lsn, end_lsn);
}
END_TEST

START_TEST(test_impossible_answers_close_the_connection)
{
    given_streaming(false);
    when_acked(0, START, START + 8, START); /* a record behind its own end */
    ck_assert_ptr_nonnull(find(PROPOSER_CLOSE, 0));
    when_up(2, 0);
    struct vote_reply vote = vote_of(START, START);
    vote.history.count = 2;
    vote.history.items[1] = vote.history.items[0]; /* a term twice */
    when_vote(2, &vote);
    ck_assert_ptr_nonnull(find(PROPOSER_CLOSE, 2));
    when_down(2);
    when_up(2, 0);
    vote = vote_of(START, START);
    when_vote(2, &vote);
    when_acked(2, START + 8, START + 8, START); /* was told to begin at START */
    ck_assert_ptr_nonnull(find(PROPOSER_CLOSE, 2));
}
END_TEST

START_TEST(test_a_connection_that_replaces_another_starts_from_the_beginning)
{
    given_streaming(false);
    when_up(0, proposer.term); /* nobody said that the old one is gone */
    ck_assert_int_eq(proposer.peers[0].phase, PEER_ASKED);
    ck_assert_ptr_nonnull(find(PROPOSER_SEND_VOTE_REQUEST, 0));
}
END_TEST

START_TEST(test_sync_is_done_when_a_quorum_knows_the_commit)
{
    given_streaming(true);
    ck_assert(proposer.synced); /* an empty log was committed before */
    given_proposer(true);
    when_up(0, 0);
    when_up(1, 0);
    struct vote_reply vote = vote_of(START + 96, START);
    when_vote(0, &vote);
    when_vote(1, &vote);
    when_acked(0, START + 96, START + 96, START);
    when_acked(1, START + 96, START + 96, START);
    ck_assert_ptr_nonnull(find(PROPOSER_READY, 0));
    ck_assert_ptr_null(find(PROPOSER_SYNCED, 0));
    when_acked(0, START + 96, START + 96, START + 96);
    when_acked(1, START + 96, START + 96, START + 96);
    ck_assert_uint_eq(find(PROPOSER_SYNCED, 0)->lsn, START + 96);
    ck_assert(!proposer_wants_wal(&proposer));
}
END_TEST

/* ---- who may have lost what it acknowledged ---- */

static struct vote_reply suspect_vote(lsn_t record_lsn, term_t last_term, lsn_t suspect_lsn)
{
    struct vote_reply vote = vote_of(record_lsn, START);
    term_history_push(&vote.history, last_term, START);
    vote.suspect_lsn = suspect_lsn;
    vote.suspect_term = last_term;
    return vote;
}

static struct vote_reply whole_vote(lsn_t record_lsn, term_t last_term)
{
    struct vote_reply vote = vote_of(record_lsn, START);
    term_history_push(&vote.history, last_term, START);
    return vote;
}

static void given_campaign(void)
{
    given_proposer(false);
    for (uint32_t i = 0; i < 3; i++) {
        when_up(i, 5);
    }
}

START_TEST(test_a_refusal_of_a_suspect_before_any_vote_is_no_vote)
{
    given_proposer(false);
    when_up(0, 3);
    when_up(1, 3);
    struct vote_reply suspect = suspect_vote(START + 104, 3, START + 304);
    suspect.granted = 0;
    when_vote(0, &suspect); /* there is no donor yet that could have what it lost */
    ck_assert_int_eq(proposer.phase, PROPOSER_CAMPAIGNING);
    ck_assert_uint_eq(actions.count, 0);
}
END_TEST

START_TEST(test_a_suspect_and_a_shorter_log_are_no_quorum)
{
    given_campaign();
    struct vote_reply suspect = suspect_vote(START + 104, 3, START + 304);
    struct vote_reply shorter = whole_vote(START + 200, 3);
    when_vote(0, &suspect);
    when_vote(1, &shorter);
    ck_assert_int_eq(proposer.phase, PROPOSER_CAMPAIGNING); /* the third may have the rest */
    struct vote_reply third = whole_vote(START + 304, 3);
    when_vote(2, &third);
    ck_assert_int_eq(proposer.phase, PROPOSER_ELECTED);
    ck_assert_uint_eq(proposer.term_start_lsn, START + 304);
}
END_TEST

START_TEST(test_a_suspect_counts_when_a_voter_has_what_it_lost)
{
    struct vote_reply suspect, whole[2];
    for (int i = 0; i < 2; i++) {
        given_campaign();
        suspect = suspect_vote(START + 104, 3, START + 304);
        whole[0] = whole_vote(START + 304, 3);
        whole[1] = whole_vote(START + 8, 4); /* a newer term began behind everything committed */
        when_vote(0, &suspect);
        when_vote(1, &whole[i]);
        ck_assert_int_eq(proposer.phase, PROPOSER_ELECTED);
        ck_assert_uint_eq(proposer.donor, 1);
    }
}
END_TEST

START_TEST(test_when_all_have_voted_what_nobody_has_was_never_committed)
{
    given_campaign();
    struct vote_reply suspect = suspect_vote(START + 104, 3, START + 304);
    struct vote_reply shorter = whole_vote(START + 200, 3);
    when_vote(0, &suspect);
    when_vote(1, &shorter);
    when_vote(2, &shorter);
    ck_assert_int_eq(proposer.phase, PROPOSER_ELECTED);
    ck_assert_uint_eq(proposer.term_start_lsn, START + 200);
}
END_TEST

/* It tells where it is, but what it has cannot be taken from it under this term. */
START_TEST(test_a_refusal_of_the_third_leaves_the_suspect_uncounted)
{
    given_campaign();
    struct vote_reply suspect = suspect_vote(START + 104, 3, START + 304);
    struct vote_reply shorter = whole_vote(START + 200, 3);
    struct vote_reply refusal = whole_vote(START + 304, 3);
    refusal.granted = 0;
    when_vote(0, &suspect);
    when_vote(1, &shorter);
    when_vote(2, &refusal);
    ck_assert_int_eq(proposer.phase, PROPOSER_COLLECTING);
}
END_TEST

START_TEST(test_two_whole_voters_need_no_suspect)
{
    given_campaign();
    struct vote_reply suspect = suspect_vote(START + 104, 3, START + 304);
    struct vote_reply shorter = whole_vote(START + 200, 3);
    when_vote(0, &suspect);
    when_vote(1, &shorter);
    when_vote(2, &shorter);
    ck_assert_int_eq(proposer.phase, PROPOSER_ELECTED);
}
END_TEST

/* Its leader takes back what it thought that this one has, and streams it again. */
START_TEST(test_an_acceptor_that_says_what_it_lost_is_repaired_by_its_leader)
{
    given_streaming(false);
    when_local_wal(START + 304, START + 304);
    when_acked(0, START + 304, START + 304, START);
    when_down(0);
    when_up(0, proposer.term);
    struct vote_reply vote = vote_of(START + 104, START);
    term_history_push(&vote.history, proposer.term, START);
    vote.granted = 0;
    vote.suspect_lsn = START + 304;
    vote.suspect_term = proposer.term;
    when_vote(0, &vote);
    ck_assert_uint_eq(find(PROPOSER_SEND_ELECTED, 0)->elected.stream_lsn, START + 104);
    when_acked(0, START + 104, START + 104, START);
    ck_assert_ptr_null(find(PROPOSER_CLOSE, 0));
    ck_assert_int_eq(proposer.peers[0].phase, PEER_STREAMING);
    ck_assert_uint_eq(find(PROPOSER_SEND_APPEND, 0)->append.begin_lsn, START + 104);
}
END_TEST

/* ---- what the others have forgotten ---- */

static const struct proposer_action *find_read(uint32_t source)
{
    return find(PROPOSER_SEND_READ_WAL, source);
}

/* 0 and 1 lead to START + 800 and keep nothing before START + 500; 2 ends at START + 100. */
static void given_forgotten(void)
{
    given_proposer(false);
    when_up(0, 0);
    when_up(1, 0);
    struct vote_reply vote = vote_of(START + 800, START + 600);
    vote.start_lsn = START + 500;
    when_vote(0, &vote);
    when_vote(1, &vote);
    ck_assert_int_eq(proposer.phase, PROPOSER_ELECTED);
    when_up(2, 0);
    vote = vote_of(START + 100, START + 100);
    when_vote(2, &vote);
}

START_TEST(test_a_log_before_everything_that_is_kept_is_told_to_begin_anew)
{
    given_forgotten();
    ck_assert(find(PROPOSER_SEND_ELECTED, 2)->elected.begins_anew);
    ck_assert_uint_eq(find(PROPOSER_SEND_ELECTED, 2)->elected.stream_lsn, START + 500);
    when_acked(2, START + 500, START + 500, START + 500);
    ck_assert_ptr_nonnull(find_read(0)); /* from there on it is completed */
    ck_assert_uint_eq(find_read(0)->read.request.begin_lsn, START + 500);
}
END_TEST

START_TEST(test_a_log_is_completed_by_whoever_keeps_enough)
{
    given_proposer(false);
    when_up(0, 0);
    when_up(1, 0);
    struct vote_reply vote = vote_of(START + 800, START + 600);
    when_vote(0, &vote); /* keeps everything */
    vote.start_lsn = START + 500;
    when_vote(1, &vote);
    when_up(2, 0);
    vote = vote_of(START + 100, START + 100);
    when_vote(2, &vote);
    ck_assert(!find(PROPOSER_SEND_ELECTED, 2)->elected.begins_anew);
    when_acked(1, START + 800, START + 800, START + 600); /* streams, and is no source for it */
    when_acked(2, START + 100, START + 100, START + 100);
    ck_assert_ptr_nonnull(find_read(0));
    ck_assert_ptr_null(find_read(1));
}
END_TEST

START_TEST(test_a_source_that_has_forgotten_meanwhile_is_asked_where_it_begins)
{
    given_proposer(false);
    when_up(0, 0);
    when_up(1, 0);
    struct vote_reply vote = vote_of(START + 800, START + 600);
    when_vote(0, &vote);
    when_vote(1, &vote);
    when_up(2, 0);
    vote = vote_of(START + 100, START + 100);
    when_vote(2, &vote);
    when_acked(2, START + 100, START + 100, START + 100);
    uint64_t id = find_read(0)->read.id;
    step((struct proposer_event){
        .kind = PROPOSER_READ_WAL_FAILED,
        .peer = 0,
        .connection = connections[0],
        .read = {.id = id, .err = ERR_RANGE}});
    ck_assert_ptr_nonnull(find(PROPOSER_CLOSE, 0));
    when_down(0);
    when_up(0, proposer.term);
    vote = vote_of(START + 800, START + 600);
    vote.granted = 0;
    vote.start_lsn = START + 500;
    when_vote(0, &vote);
    now_ms += 1000;
    when_acked(0, START + 800, START + 800, START + 600);
    ck_assert_ptr_nonnull(find(PROPOSER_CLOSE, 2)); /* its next answer lets it begin anew */
}
END_TEST

UNIT_MAIN(
    "proposer",
    test_no_campaign_without_a_quorum_of_connections,
    test_donor_has_the_newest_term_then_the_longest_log,
    test_a_log_that_follows_us_is_streamed_on_from_its_end,
    test_a_followed_term_that_cannot_be_closes_the_connection,
    test_a_refusal_does_not_count_as_a_vote,
    test_a_vote_counts_once_however_often_it_is_given,
    test_a_candidate_that_sees_a_higher_term_backs_off_and_tops_it,
    test_a_campaign_without_answers_is_given_up,
    test_contradicting_votes_close_the_connection,
    test_a_vote_without_terms_counts_and_is_never_the_donor,
    test_replies_of_another_connection_or_generation_are_void,
    test_a_winner_that_sees_a_higher_term_is_deposed_for_good,
    test_a_hello_with_a_higher_term_deposes,
    test_a_lagging_acceptor_is_repaired_from_the_donor_before_anything_is_ready,
    test_wal_of_older_terms_is_committed_only_with_the_term_start,
    test_a_read_that_fails_is_tried_again_later,
    test_a_repair_without_its_donor_ends_in_a_new_campaign,
    test_wal_is_committed_by_the_second_acceptor_and_told_at_once,
    test_commit_rides_on_wal_that_is_on_its_way,
    test_bytes_in_flight_are_bounded,
    test_uncommitted_wal_stops_postgres,
    test_a_record_larger_than_the_window_is_taken_to_its_end,
    test_a_slow_acceptor_holds_nobody_and_reads_from_a_peer,
    test_a_reconnected_acceptor_is_asked_for_its_position_and_goes_on,
    test_acks_of_an_old_connection_or_term_count_for_nothing,
    test_an_acceptor_that_acknowledges_what_was_never_sent_is_closed,
    test_an_acceptor_that_lost_acknowledged_wal_is_closed,
    test_a_record_that_acceptors_know_first_is_committed_when_it_is_sent,
    test_a_quiet_acceptor_gets_heartbeats,
    test_an_acceptor_that_does_not_answer_elected_is_connected_again,
    test_much_wal_goes_out_in_several_steps,
    test_impossible_answers_close_the_connection,
    test_a_connection_that_replaces_another_starts_from_the_beginning,
    test_sync_is_done_when_a_quorum_knows_the_commit,
    test_a_refusal_of_a_suspect_before_any_vote_is_no_vote,
    test_a_suspect_and_a_shorter_log_are_no_quorum,
    test_a_suspect_counts_when_a_voter_has_what_it_lost,
    test_when_all_have_voted_what_nobody_has_was_never_committed,
    test_a_refusal_of_the_third_leaves_the_suspect_uncounted,
    test_two_whole_voters_need_no_suspect,
    test_an_acceptor_that_says_what_it_lost_is_repaired_by_its_leader,
    test_a_log_before_everything_that_is_kept_is_told_to_begin_anew,
    test_a_log_is_completed_by_whoever_keeps_enough,
    test_a_source_that_has_forgotten_meanwhile_is_asked_where_it_begins);
