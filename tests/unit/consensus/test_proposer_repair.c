/* Rules of the proposer: a log that lacks something gets it from the donor, or begins anew. */
#include "tests/unit/consensus/proposer_fixture.h"

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
    "proposer_repair",
    test_a_lagging_acceptor_is_repaired_from_the_donor_before_anything_is_ready,
    test_wal_of_older_terms_is_committed_only_with_the_term_start,
    test_a_read_that_fails_is_tried_again_later,
    test_a_repair_without_its_donor_ends_in_a_new_campaign,
    test_an_acceptor_that_says_what_it_lost_is_repaired_by_its_leader,
    test_a_log_before_everything_that_is_kept_is_told_to_begin_anew,
    test_a_log_is_completed_by_whoever_keeps_enough,
    test_a_source_that_has_forgotten_meanwhile_is_asked_where_it_begins);
