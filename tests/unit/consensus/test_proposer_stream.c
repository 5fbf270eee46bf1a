/* Rules of the proposer that was elected: what is sent, how far ahead, and what is committed. */
#include "tests/unit/consensus/proposer_fixture.h"

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

UNIT_MAIN(
    "proposer_stream",
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
    test_sync_is_done_when_a_quorum_knows_the_commit);
