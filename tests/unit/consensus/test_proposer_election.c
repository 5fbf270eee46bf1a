/* Rules of the proposer: who wins, from where, who is told, and when it steps down. */
#include "tests/unit/consensus/proposer_fixture.h"

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

UNIT_MAIN(
    "proposer_election",
    test_no_campaign_without_a_quorum_of_connections,
    test_a_log_that_follows_us_is_streamed_on_from_its_end,
    test_a_followed_term_that_cannot_be_closes_the_connection,
    test_donor_has_the_newest_term_then_the_longest_log,
    test_a_refusal_does_not_count_as_a_vote,
    test_a_vote_counts_once_however_often_it_is_given,
    test_a_candidate_that_sees_a_higher_term_backs_off_and_tops_it,
    test_a_campaign_without_answers_is_given_up,
    test_contradicting_votes_close_the_connection,
    test_a_vote_without_terms_counts_and_is_never_the_donor,
    test_replies_of_another_connection_or_generation_are_void,
    test_a_winner_that_sees_a_higher_term_is_deposed_for_good,
    test_a_hello_with_a_higher_term_deposes,
    test_a_refusal_of_a_suspect_before_any_vote_is_no_vote,
    test_a_suspect_and_a_shorter_log_are_no_quorum,
    test_a_suspect_counts_when_a_voter_has_what_it_lost,
    test_when_all_have_voted_what_nobody_has_was_never_committed,
    test_a_refusal_of_the_third_leaves_the_suspect_uncounted,
    test_two_whole_voters_need_no_suspect);
