/* Rules of the acceptor: what protects an acknowledged commit, one test a rule. */
#include "tests/unit/consensus/acceptor_fixture.h"

/* ---- votes ---- */

START_TEST(test_vote_is_promised_only_when_durable)
{
    given_log(64, START);
    when_vote(4, first);
    then_only(ACCEPTOR_PERSIST_STATE);
    ck_assert_uint_eq(actions.items[0].state->term, 4);
    when_persisted();
    then_only(ACCEPTOR_SEND_VOTE);
    ck_assert_uint_eq(actions.items[0].vote->granted, 1);
    ck_assert_uint_eq(actions.items[0].vote->term, 4);
    ck_assert_uint_eq(actions.items[0].to.connection, first.connection);
}
END_TEST

START_TEST(test_an_older_sequence_on_disk_promises_nothing)
{
    given_log(64, START);
    when_vote(4, first);
    when_vote(5, first);
    step((struct acceptor_event){
        .kind = ACCEPTOR_STATE_PERSISTED, .sequence = acceptor.state.sequence - 1});
    ck_assert_uint_eq(actions.count, 0);
}
END_TEST

START_TEST(test_one_vote_in_a_term)
{
    given_promised(64, START, 4, first);
    when_vote(4, second);
    then_only(ACCEPTOR_SEND_VOTE);
    ck_assert_uint_eq(actions.items[0].vote->granted, 0);
}
END_TEST

START_TEST(test_overtaken_vote_is_denied_and_the_newer_one_granted)
{
    given_log(64, START);
    when_vote(4, first);
    when_vote(5, second);
    const struct acceptor_action *denied = find(ACCEPTOR_SEND_VOTE);
    ck_assert_ptr_nonnull(denied);
    ck_assert_uint_eq(denied->to.connection, first.connection);
    ck_assert_uint_eq(denied->vote->granted, 0);
    ck_assert_uint_eq(denied->vote->term, 5);
    when_persisted();
    then_only(ACCEPTOR_SEND_VOTE);
    ck_assert_uint_eq(actions.items[0].to.connection, second.connection);
    ck_assert_uint_eq(actions.items[0].vote->granted, 1);
}
END_TEST

START_TEST(test_vote_of_another_generation_is_refused)
{
    given_log(64, START);
    struct vote_request vote = {.generation = GENERATION + 1, .term = 9};
    step((struct acceptor_event){.kind = ACCEPTOR_VOTE_REQUESTED, .from = first, .vote = &vote});
    then_refused(ERR_STALE);
    ck_assert_uint_eq(acceptor.state.term, 3);
}
END_TEST

START_TEST(test_vote_reports_what_is_on_disk_only)
{
    given_following(64, START);
    when_append(4, START + 64, 100, START + 64 + 96, START, first);
    when_vote(5, second);
    when_persisted();
    ck_assert_uint_eq(actions.items[0].vote->record_lsn, START + 64);
    ck_assert_uint_eq(actions.items[0].vote->flush_lsn, START + 64);
}
END_TEST

START_TEST(test_vote_clips_its_history_to_its_records)
{
    given_promised(64, START, 4, first);
    struct elected elected =
        elected_from(4, START + 1000, START + 64); /* we are behind its start */
    when_elected(&elected, first);
    when_persisted();
    when_vote(5, second);
    when_persisted();
    const struct vote_reply *vote = actions.items[0].vote;
    ck_assert_uint_eq(term_history_last_term(&vote->history), 3);
    ck_assert_uint_eq(term_history_last_term(&acceptor.state.history), 4);
}
END_TEST

START_TEST(test_a_term_start_at_the_end_of_the_log_is_reported)
{
    given_following(64, START);
    when_vote(5, second);
    when_persisted();
    ck_assert_uint_eq(term_history_last_term(&actions.items[0].vote->history), 4);
}
END_TEST

/* ---- appends ---- */

START_TEST(test_append_is_acknowledged_only_when_flushed)
{
    given_following(64, START);
    when_append(4, START + 64, 32, START + 96, START, first);
    then_only(ACCEPTOR_WRITE_WAL);
    ck_assert_uint_eq(actions.items[0].write.begin_lsn, START + 64);
    when_flushed(START + 96, 0);
    then_only(ACCEPTOR_SEND_APPENDED);
    ck_assert_uint_eq(actions.items[0].appended.flush_lsn, START + 96);
    ck_assert_uint_eq(actions.items[0].appended.record_lsn, START + 96);
}
END_TEST

START_TEST(test_a_sync_that_covers_nothing_new_says_nothing)
{
    given_following(64, START);
    when_append(4, START + 64, 32, START + 96, START, first);
    when_flushed(START + 96, 0);
    when_flushed(START + 96, 0);
    ck_assert_uint_eq(actions.count, 0);
}
END_TEST

START_TEST(test_writes_go_on_during_a_sync_and_each_sync_says_what_it_covers)
{
    given_following(64, START);
    when_append(4, START + 64, 32, START + 96, START, first);
    when_append(4, START + 96, 32, START + 128, START, first);
    when_flushed(START + 96, 0);
    ck_assert_uint_eq(actions.items[0].appended.record_lsn, START + 96);
    when_flushed(START + 128, 0);
    ck_assert_uint_eq(actions.items[0].appended.record_lsn, START + 128);
}
END_TEST

START_TEST(test_record_lsn_stands_at_the_last_whole_record)
{
    given_following(64, START);
    when_append(4, START + 64, 40, START + 96, START, first); /* 8 bytes of the next record */
    when_flushed(START + 104, 0);
    ck_assert_uint_eq(acceptor.flush_lsn, START + 104);
    ck_assert_uint_eq(acceptor.record_lsn, START + 96);
}
END_TEST

START_TEST(test_many_unflushed_records_are_remembered_coarsely)
{
    given_following(64, START);
    lsn_t lsn = START + 64;
    for (int i = 0; i < ACCEPTOR_ENDS_MAX + 10; i++, lsn += 16) {
        when_append(4, lsn, 16, lsn + 16, START, first);
    }
    ck_assert_uint_gt(mark_hits("acceptor.append.ends_coarsened"), 0);
    when_flushed(lsn - 16, 0);
    ck_assert_uint_le(acceptor.record_lsn, lsn - 16);
    when_flushed(lsn, 0);
    ck_assert_uint_eq(acceptor.record_lsn, lsn);
}
END_TEST

START_TEST(test_stale_append_writes_nothing_and_learns_the_term)
{
    given_following(64, START);
    when_vote(5, second);
    when_persisted();
    when_append(4, START + 64, 16, START + 80, START, first);
    then_only(ACCEPTOR_SEND_APPENDED);
    ck_assert_uint_eq(actions.items[0].appended.term, 5);
    ck_assert_uint_eq(acceptor.write_lsn, START + 64);
}
END_TEST

START_TEST(test_append_before_elected_is_refused)
{
    given_promised(64, START, 4, first);
    when_append(4, START + 64, 16, START + 80, START, first);
    then_refused(ERR_INVALID);
    when_append(5, START + 64, 16, START + 80, START, first); /* of a term nobody heard of */
    then_refused(ERR_INVALID);
    ck_assert_uint_eq(acceptor.write_lsn, START + 64);
}
END_TEST

START_TEST(test_gaps_and_rewrites_are_refused)
{
    given_following(64, START);
    when_append(4, START + 72, 16, START + 88, START, first);
    then_refused(ERR_INVALID);
    when_append(4, START + 56, 16, START + 72, START, first);
    then_refused(ERR_INVALID);
    ck_assert_uint_eq(acceptor.write_lsn, START + 64);
}
END_TEST

START_TEST(test_impossible_appends_are_refused)
{
    given_following(64, START);
    when_append(4, START + 64, 16, START + 88, START, first); /* a record end behind its bytes */
    then_refused(ERR_INVALID);
    struct append append = {
        .generation = GENERATION,
        .term = 4,
        .begin_lsn = START + 64,
        .wal = bytes_of(wal, WAL_APPEND_MAX + 1)};
    step((struct acceptor_event){
        .kind = ACCEPTOR_APPEND_REQUESTED, .from = first, .append = &append});
    then_refused(ERR_INVALID);
    append.generation++;
    step((struct acceptor_event){
        .kind = ACCEPTOR_APPEND_REQUESTED, .from = first, .append = &append});
    then_refused(ERR_STALE);
}
END_TEST

START_TEST(test_a_flush_from_before_a_truncation_counts_for_nothing)
{
    given_following(64, START);
    when_append(4, START + 64, 32, START + 96, START, first);
    when_vote(5, second);
    when_persisted();
    struct elected elected = elected_from(5, START + 64, START + 64);
    elected.history.items[2] = (struct term_start){.term = 4, .lsn = START + 64};
    term_history_push(&elected.history, 5, START + 64);
    when_elected(&elected, second);
    ck_assert_ptr_nonnull(find(ACCEPTOR_TRUNCATE_WAL));
    when_flushed(START + 96, 0);
    ck_assert_uint_eq(actions.count, 0);
    ck_assert_uint_eq(acceptor.flush_lsn, START + 64);
}
END_TEST

/* ---- commit ---- */

START_TEST(test_commit_stays_within_what_is_on_disk)
{
    given_following(64, START);
    when_append(4, START + 64, 32, START + 96, START + 96, first);
    ck_assert_uint_eq(find(ACCEPTOR_RELEASE_COMMITTED)->commit_lsn, START + 64);
    when_flushed(START + 96, 0);
    ck_assert_uint_eq(find(ACCEPTOR_RELEASE_COMMITTED)->commit_lsn, START + 96);
    ck_assert_uint_eq(find(ACCEPTOR_SEND_APPENDED)->appended.commit_lsn, START + 96);
}
END_TEST

START_TEST(test_commit_never_goes_back)
{
    given_following(64, START + 64);
    when_append(4, START + 64, 0, START + 64, START + 32, first);
    ck_assert_ptr_null(find(ACCEPTOR_RELEASE_COMMITTED));
    ck_assert_uint_eq(acceptor.state.commit_lsn, START + 64);
}
END_TEST

START_TEST(test_a_heartbeat_is_answered_at_once)
{
    given_following(64, START);
    when_append(4, START + 64, 0, START + 64, START, first);
    then_only(ACCEPTOR_SEND_APPENDED);
}
END_TEST

START_TEST(test_news_of_a_commit_needs_no_answer)
{
    given_following(64, START + 64);
    when_append(4, START + 64, 32, START + 96, START + 64, first);
    when_flushed(START + 96, 0);
    when_append(4, START + 96, 0, START + 96, START + 96, first);
    then_only(ACCEPTOR_RELEASE_COMMITTED);
}
END_TEST

START_TEST(test_passing_the_term_start_is_persisted_and_answered)
{
    given_following(64, START);
    when_append(4, START + 64, 0, START + 64, START + 64, first);
    ck_assert_uint_eq(find(ACCEPTOR_SEND_APPENDED)->appended.commit_lsn, START + 64);
    const struct acceptor_action *persist = find(ACCEPTOR_PERSIST_STATE);
    ck_assert_ptr_nonnull(persist);
    ck_assert_uint_eq(persist->state->commit_lsn, START + 64);
}
END_TEST

START_TEST(test_persist_wanted_writes_only_when_commit_moved)
{
    given_following(64, START);
    when_append(4, START + 64, 32, START + 96, START + 64, first);
    when_persisted();
    step((struct acceptor_event){.kind = ACCEPTOR_PERSIST_WANTED});
    ck_assert_uint_eq(actions.count, 0);
    when_flushed(START + 96, 0);
    when_append(4, START + 96, 0, START + 96, START + 96, first);
    step((struct acceptor_event){.kind = ACCEPTOR_PERSIST_WANTED});
    then_only(ACCEPTOR_PERSIST_STATE);
}
END_TEST

/* ---- reading, failure, start ---- */

START_TEST(test_a_donor_is_read_until_it_promises_a_newer_term)
{
    lsn_t lsn = LSN_NONE;
    given_log(64, START + 32);
    ck_assert_int_eq(acceptor_readable_lsn(&acceptor, 3, &lsn), ERR_OK);
    ck_assert_uint_eq(lsn, START + 64);
    ck_assert_int_eq(acceptor_readable_lsn(&acceptor, 0, &lsn), ERR_OK);
    ck_assert_uint_eq(lsn, START + 32);
    when_vote(4, first);
    ck_assert_int_eq(acceptor_readable_lsn(&acceptor, 3, &lsn), ERR_STALE);
}
END_TEST

START_TEST(test_after_a_storage_failure_everything_is_refused)
{
    lsn_t lsn = LSN_NONE;
    given_following(64, START);
    when_append(4, START + 64, 32, START + 96, START, first);
    step((struct acceptor_event){.kind = ACCEPTOR_STORAGE_FAILED});
    when_flushed(START + 96, 0); /* not to be believed */
    ck_assert_uint_eq(actions.count, 0);
    when_append(4, START + 96, 16, START + 112, START, first);
    then_refused(ERR_FAILED);
    when_vote(9, second);
    then_refused(ERR_FAILED);
    ck_assert_int_eq(acceptor_readable_lsn(&acceptor, 4, &lsn), ERR_FAILED);
}
END_TEST

START_TEST(test_a_vote_that_was_pending_is_not_granted_after_a_failure)
{
    given_log(64, START);
    when_vote(4, first);
    step((struct acceptor_event){.kind = ACCEPTOR_STORAGE_FAILED});
    when_persisted();
    ck_assert_uint_eq(actions.count, 0);
}
END_TEST

START_TEST(test_a_log_shorter_than_its_commit_does_not_open)
{
    struct acceptor_state state;
    acceptor_state_init(&state, GENERATION, START);
    state.commit_lsn = START + 64;
    err_t err = acceptor_init(&acceptor, &state, START + 32, START + 32, &msg);
    ck_assert_int_eq(err, ERR_CORRUPT);
}
END_TEST

START_TEST(test_a_state_that_contradicts_itself_does_not_open)
{
    struct acceptor_state state;
    acceptor_state_init(&state, GENERATION, START);
    term_history_push(&state.history, 5, START); /* term 5 written, term 0 promised */
    err_t err = acceptor_init(&acceptor, &state, START, START, &msg);
    ck_assert_int_eq(err, ERR_CORRUPT);
    acceptor_state_init(&state, GENERATION, START);
    state.history.count = 0;
    err = acceptor_init(&acceptor, &state, START, START, &msg);
    ck_assert_int_eq(err, ERR_CORRUPT);
}
END_TEST

/* ---- suspicion ---- */

START_TEST(test_vote_says_what_may_be_lost)
{
    given_suspect(100, 300);
    when_vote(4, first);
    when_persisted();
    const struct vote_reply *vote = actions.items[0].vote;
    ck_assert(vote->granted);
    ck_assert_uint_eq(vote->record_lsn, START + 100);
    ck_assert_uint_eq(vote->suspect_lsn, START + 300);
    ck_assert_uint_eq(vote->suspect_term, 3);
}
END_TEST

START_TEST(test_suspicion_ends_when_everything_is_written_again)
{
    given_suspect(104, 304);
    struct elected elected = elected_from(9, START + 104, START + 104);
    elected.term = 3; /* its leader still lives */
    elected.history.count = 2;
    when_elected(&elected, first);
    when_append(3, START + 104, 100, START + 204, START, first);
    when_flushed(START + 204, 0);
    ck_assert_uint_eq(reported_suspicion(), START + 304); /* only a part of it is back */
    when_append(3, START + 204, 104, START + 304, START, first);
    when_flushed(START + 308, 0);
    ck_assert_uint_eq(reported_suspicion(), LSN_NONE);
    ck_assert_uint_eq(acceptor.state.suspect_lsn, LSN_NONE);
}
END_TEST

/* A newer term began behind everything committed; only from its start on the log is complete. */
START_TEST(test_suspicion_ends_at_the_start_of_a_newer_term)
{
    given_suspect(104, 504);
    struct elected elected = elected_from(5, START + 304, START + 104);
    when_elected(&elected, first);
    when_persisted();
    when_append(5, START + 104, 104, START + 208, START, first);
    when_flushed(START + 208, 0);
    ck_assert_uint_eq(reported_suspicion(), START + 504);
    when_append(5, START + 208, 96, START + 304, START, first);
    when_flushed(START + 304, 0);
    ck_assert_uint_eq(reported_suspicion(), LSN_NONE);
}
END_TEST

START_TEST(test_suspicion_ends_when_a_newer_term_begins_where_the_log_ends)
{
    given_suspect(104, 504);
    struct elected elected = elected_from(5, START + 104, START + 104);
    when_elected(&elected, first);
    when_persisted();
    ck_assert_uint_eq(reported_suspicion(), LSN_NONE);
}
END_TEST

START_TEST(test_a_second_suspicion_adds_to_the_first)
{
    struct acceptor_state state;
    acceptor_state_init(&state, GENERATION, START);
    acceptor_state_suspect(&state, START + 104, START + 504);
    term_history_push(&state.history, 3, START + 200);
    acceptor_state_suspect(&state, START + 128, START + 304);
    ck_assert_uint_eq(state.suspect_lsn, START + 504);
    ck_assert_uint_eq(state.suspect_term, 3);
}
END_TEST

UNIT_MAIN(
    "acceptor",
    test_vote_is_promised_only_when_durable,
    test_an_older_sequence_on_disk_promises_nothing,
    test_one_vote_in_a_term,
    test_overtaken_vote_is_denied_and_the_newer_one_granted,
    test_vote_of_another_generation_is_refused,
    test_vote_reports_what_is_on_disk_only,
    test_vote_clips_its_history_to_its_records,
    test_a_term_start_at_the_end_of_the_log_is_reported,
    test_append_is_acknowledged_only_when_flushed,
    test_a_sync_that_covers_nothing_new_says_nothing,
    test_writes_go_on_during_a_sync_and_each_sync_says_what_it_covers,
    test_record_lsn_stands_at_the_last_whole_record,
    test_many_unflushed_records_are_remembered_coarsely,
    test_stale_append_writes_nothing_and_learns_the_term,
    test_append_before_elected_is_refused,
    test_gaps_and_rewrites_are_refused,
    test_impossible_appends_are_refused,
    test_a_flush_from_before_a_truncation_counts_for_nothing,
    test_commit_stays_within_what_is_on_disk,
    test_commit_never_goes_back,
    test_a_heartbeat_is_answered_at_once,
    test_news_of_a_commit_needs_no_answer,
    test_passing_the_term_start_is_persisted_and_answered,
    test_persist_wanted_writes_only_when_commit_moved,
    test_a_donor_is_read_until_it_promises_a_newer_term,
    test_after_a_storage_failure_everything_is_refused,
    test_a_vote_that_was_pending_is_not_granted_after_a_failure,
    test_a_log_shorter_than_its_commit_does_not_open,
    test_a_state_that_contradicts_itself_does_not_open,
    test_vote_says_what_may_be_lost,
    test_suspicion_ends_when_everything_is_written_again,
    test_suspicion_ends_at_the_start_of_a_newer_term,
    test_suspicion_ends_when_a_newer_term_begins_where_the_log_ends,
    test_a_second_suspicion_adds_to_the_first);
