/* Rules of the acceptor: whose log it follows, and what is never cut for that. */
#include "tests/unit/consensus/acceptor_fixture.h"

/* ---- elected ---- */

/* In `term`, which begins at `start_lsn`; term 4 came before, and left our log at `left_lsn`. */
static struct elected elected_after(lsn_t left_lsn, term_t term, lsn_t start_lsn)
{
    struct elected elected = elected_from(4, left_lsn, left_lsn);
    term_history_push(&elected.history, term, start_lsn);
    elected.term = term;
    return elected;
}

START_TEST(test_streaming_begins_after_the_history_is_durable)
{
    given_promised(64, START, 4, first);
    struct elected elected = elected_from(4, START + 64, START + 64);
    when_elected(&elected, first);
    then_only(ACCEPTOR_PERSIST_STATE);
    ck_assert_uint_eq(term_history_last_term(&actions.items[0].state->history), 4);
    when_append(4, START + 64, 16, START + 80, START, first);
    then_refused(ERR_INVALID);
    when_elected(&elected, first);
    when_persisted();
    then_only(ACCEPTOR_SEND_APPENDED);
    ck_assert_uint_eq(actions.items[0].appended.term, 4);
    ck_assert_uint_eq(actions.items[0].appended.record_lsn, START + 64);
}
END_TEST

START_TEST(test_divergent_tail_is_cut_durably_before_the_history_changes)
{
    given_promised(64, START + 32, 5, first);
    struct elected elected = elected_after(START + 48, 5, START + 80);
    when_elected(&elected, first);
    then_only(ACCEPTOR_TRUNCATE_WAL);
    ck_assert_uint_eq(actions.items[0].truncate.lsn, START + 48);
    ck_assert_uint_eq(acceptor.record_lsn, START + 48);
    when_truncated();
    then_only(ACCEPTOR_PERSIST_STATE);
    ck_assert_uint_eq(term_history_last_term(&actions.items[0].state->history), 5);
    when_persisted();
    then_only(ACCEPTOR_SEND_APPENDED);
    ck_assert_uint_eq(actions.items[0].appended.flush_lsn, START + 48);
}
END_TEST

START_TEST(test_a_vote_during_the_truncation_keeps_the_old_history)
{
    given_promised(64, START, 5, first);
    struct elected elected = elected_after(START + 48, 5, START + 80);
    when_elected(&elected, first);
    when_vote(6, second);
    when_truncated();
    ck_assert_uint_eq(actions.count, 0);
    ck_assert_uint_eq(term_history_last_term(&acceptor.state.history), 3);
}
END_TEST

START_TEST(test_one_truncation_at_a_time)
{
    given_promised(64, START, 5, first);
    struct elected elected = elected_after(START + 48, 5, START + 80);
    when_elected(&elected, first);
    ck_assert_ptr_nonnull(find(ACCEPTOR_TRUNCATE_WAL));
    when_vote(6, second);
    when_persisted();
    struct elected lower = elected_after(START + 32, 6, START + 80);
    when_elected(&lower, second);
    then_refused(ERR_BUSY);
    when_truncated();
    when_elected(&lower, second);
    ck_assert_uint_eq(find(ACCEPTOR_TRUNCATE_WAL)->truncate.lsn, START + 32);
}
END_TEST

START_TEST(test_bytes_behind_the_last_record_are_cut_by_the_next_term)
{
    struct acceptor_state state;
    acceptor_state_init(&state, GENERATION, START);
    ck_assert_ok(acceptor_init(&acceptor, &state, START + 70, START + 64, &msg), &msg);
    when_vote(1, first);
    when_persisted();
    struct elected elected = {
        .generation = GENERATION,
        .term = 1,
        .stream_lsn = START + 64,
        .history = {.count = 2, .items = {{0, START}, {1, START + 64}}}};
    when_elected(&elected, first);
    ck_assert_ptr_nonnull(find(ACCEPTOR_TRUNCATE_WAL));
    ck_assert_uint_eq(find(ACCEPTOR_TRUNCATE_WAL)->truncate.lsn, START + 64);
}
END_TEST

START_TEST(test_overtaken_elected_truncates_nothing)
{
    given_following(64, START);
    when_append(4, START + 64, 32, START + 96, START, first);
    when_flushed(START + 96, 0);
    ck_assert_uint_eq(actions.items[0].appended.record_lsn, START + 96);
    /* An older connection of the same proposer still says "from 64 on". */
    struct elected elected = elected_from(4, START + 64, START + 64);
    struct acceptor_peer old = {.proposer_id = first.proposer_id, .connection = 9};
    when_elected(&elected, old);
    then_refused(ERR_STALE);
    ck_assert_uint_eq(acceptor.record_lsn, START + 96);
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_FOLLOWING);
}
END_TEST

START_TEST(test_elected_below_commit_truncates_nothing)
{
    given_promised(64, START + 64, 5, first);
    struct elected elected = elected_after(START + 32, 5, START + 32);
    when_elected(&elected, first); /* it cannot have won honestly */
    then_refused(ERR_INVALID);
    ck_assert_uint_eq(mark_hits("acceptor.elected.below_commit"), 1);
    ck_assert_uint_eq(acceptor.record_lsn, START + 64);
}
END_TEST

START_TEST(test_elected_of_an_older_term_learns_the_newer)
{
    given_promised(64, START, 9, second);
    struct elected elected = elected_from(4, START + 64, START + 64);
    when_elected(&elected, first);
    then_only(ACCEPTOR_SEND_APPENDED);
    ck_assert_uint_eq(actions.items[0].appended.term, 9);
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_IDLE);
}
END_TEST

START_TEST(test_elected_that_we_did_not_vote_for_is_followed)
{
    given_log(64, START);
    struct elected elected = elected_from(8, START + 64, START + 64);
    when_elected(&elected, first);
    then_only(ACCEPTOR_PERSIST_STATE);
    ck_assert_uint_eq(actions.items[0].state->term, 8);
}
END_TEST

START_TEST(test_elected_with_a_foreign_history_is_refused)
{
    given_log(64, START);
    struct elected elected = elected_from(8, START + 64, START + 64);
    elected.term = 9;
    when_elected(&elected, first);
    then_refused(ERR_INVALID);
    elected = elected_from(8, START + 64, START + 64);
    elected.generation++;
    when_elected(&elected, first);
    then_refused(ERR_STALE);
    ck_assert_uint_eq(acceptor.state.term, 3);
}
END_TEST

START_TEST(test_the_same_winner_comes_back_without_writing_anything)
{
    given_following(64, START);
    struct acceptor_peer again = {.proposer_id = first.proposer_id, .connection = 11};
    struct elected elected = elected_from(4, START + 64, START + 64);
    when_elected(&elected, again);
    then_only(ACCEPTOR_SEND_APPENDED);
    ck_assert_uint_eq(actions.items[0].to.connection, 11);
    when_append(4, START + 64, 16, START + 80, START, first); /* the old connection is over */
    then_refused(ERR_INVALID);
}
END_TEST

/* Follows term 4, all of whose history begins behind the end of this log. */
static void given_under_repair(void)
{
    struct acceptor_state state;
    acceptor_state_init(&state, GENERATION, START);
    state.term = 4;
    state.history = (struct term_history){.count = 1, .items = {{.term = 4, .lsn = START + 512}}};
    ck_assert_ok(acceptor_init(&acceptor, &state, START + 64, START + 64, &msg), &msg);
}

START_TEST(test_what_was_acknowledged_to_a_term_is_kept_also_without_a_history)
{
    struct acceptor_peer leader = first;
    leader.protocol = PROTOCOL_FOLLOWED_TERM;
    given_under_repair();
    when_vote(4, leader);
    then_only(ACCEPTOR_SEND_VOTE);
    ck_assert_uint_eq(actions.items[0].vote->history.count, 0);
    ck_assert_uint_eq(actions.items[0].vote->followed_term, 4);
    struct elected elected = {
        .generation = GENERATION, .term = 4, .history = acceptor.state.history};
    elected.stream_lsn = START; /* its commit_lsn: what parts where no term is common */
    when_elected(&elected, leader);
    then_refused(ERR_STALE);
    elected.stream_lsn = START + 64;
    when_elected(&elected, leader);
    then_only(ACCEPTOR_SEND_APPENDED);
    ck_assert_uint_eq(acceptor.record_lsn, START + 64);
}
END_TEST

START_TEST(test_a_proposer_of_protocol_2_is_not_told_which_term_a_log_follows)
{
    struct acceptor_peer old = first;
    old.protocol = PROTOCOL_FOLLOWED_TERM - 1;
    given_under_repair();
    when_vote(4, old);
    ck_assert_uint_eq(actions.items[0].vote->followed_term, 0);
    struct elected elected = {
        .generation = GENERATION,
        .term = 4,
        .stream_lsn = START,
        .history = acceptor.state.history};
    when_elected(&elected, old); /* it cannot know better: it is not refused for ever */
    then_only(ACCEPTOR_TRUNCATE_WAL);
}
END_TEST

/* ---- catching up with another safekeeper ---- */

static struct term_history peer_history; /* 0 and 3 from START, then 5 from +300 */

static void when_peer_answers(lsn_t commit_lsn)
{
    peer_history = (struct term_history){
        .count = 2, .items = {{.term = 0, .lsn = START}, {.term = 3, .lsn = START}}};
    term_history_push(&peer_history, 5, START + 304);
    term_history_clip(&peer_history, commit_lsn);
    step((struct acceptor_event){
        .kind = ACCEPTOR_PEER_ANSWERED,
        .peer = {.history = &peer_history, .commit_lsn = commit_lsn}});
}

static void when_peer_wal(lsn_t begin_lsn, size_t size)
{
    step((struct acceptor_event){
        .kind = ACCEPTOR_PEER_WAL,
        .peer_wal = {.begin_lsn = begin_lsn, .wal = bytes_of(wal, size)}});
}

static void given_catching_up(void)
{
    given_log(104, START);
    when_peer_answers(START + 504);
    when_persisted();
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_CATCHING_UP);
}

START_TEST(test_a_lagging_log_is_completed_from_a_peer)
{
    given_log(104, START);
    when_peer_answers(START + 504);
    ck_assert_ptr_nonnull(find(ACCEPTOR_PERSIST_STATE)); /* the history first */
    ck_assert_uint_eq(acceptor.state.term, 5);
    when_peer_wal(START + 104, 200);
    ck_assert_ptr_null(find(ACCEPTOR_WRITE_WAL)); /* too early */
    when_persisted();
    when_peer_wal(START + 104, 200);
    ck_assert_uint_eq(find(ACCEPTOR_WRITE_WAL)->write.begin_lsn, START + 104);
    when_flushed(START + 304, 0);
    ck_assert_uint_eq(acceptor.record_lsn, START + 104); /* nobody knows where its records end */
    when_peer_wal(START + 304, 200);
    when_flushed(START + 504, 0);
    ck_assert_uint_eq(acceptor.record_lsn, START + 504);
    ck_assert_uint_eq(find(ACCEPTOR_RELEASE_COMMITTED)->commit_lsn, START + 504);
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_IDLE);
}
END_TEST

/* Ours leaves the committed log at +304: what lies behind was never committed. */
START_TEST(test_a_divergent_tail_gives_way_to_what_a_peer_has_committed)
{
    given_log(400, START);
    when_peer_answers(START + 504);
    ck_assert_uint_eq(find(ACCEPTOR_TRUNCATE_WAL)->truncate.lsn, START + 304);
    ck_assert_ptr_null(find(ACCEPTOR_PERSIST_STATE)); /* not before the cut is durable */
    when_truncated();
    ck_assert_ptr_nonnull(find(ACCEPTOR_PERSIST_STATE));
    when_persisted();
    when_peer_wal(START + 304, 200);
    when_flushed(START + 504, 1);
    ck_assert_uint_eq(acceptor.state.commit_lsn, START + 504);
}
END_TEST

START_TEST(test_a_peer_that_is_not_ahead_brings_news_only)
{
    given_log(400, START);
    when_peer_answers(START + 208);
    ck_assert_ptr_null(find(ACCEPTOR_TRUNCATE_WAL));
    ck_assert_uint_eq(find(ACCEPTOR_RELEASE_COMMITTED)->commit_lsn, START + 208);
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_IDLE);
    ck_assert_uint_eq(acceptor.write_lsn, START + 400);
}
END_TEST

/* Two logs that disagree on what is committed: one of them is wrong, and nobody knows which. */
START_TEST(test_committed_wal_is_never_cut_for_a_peer)
{
    given_log(400, START + 400);
    when_peer_answers(START + 504);
    ck_assert_uint_eq(actions.count, 0);
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_IDLE);
}
END_TEST

START_TEST(test_a_vote_ends_catching_up)
{
    given_catching_up();
    when_vote(9, first);
    when_peer_wal(START + 104, 200);
    ck_assert_ptr_null(find(ACCEPTOR_WRITE_WAL));
    when_persisted();
    ck_assert(find(ACCEPTOR_SEND_VOTE)->vote->granted);
}
END_TEST

START_TEST(test_who_writes_for_a_leader_asks_no_peer)
{
    given_following(104, START);
    when_append(4, START + 104, 40, START + 144, START, first);
    when_peer_answers(START + 504);
    ck_assert_uint_eq(actions.count, 0);
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_FOLLOWING);
}
END_TEST

/* Its connection was thought to be gone: it has to ask again, and nothing is mixed. */
START_TEST(test_a_leader_that_was_left_cannot_append)
{
    given_following(104, START);
    when_peer_answers(START + 504);
    when_truncated();
    when_persisted();
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_CATCHING_UP);
    when_append(5, START + 104, 40, START + 144, START, first);
    ck_assert_ptr_nonnull(find(ACCEPTOR_REFUSE));
    ck_assert_ptr_null(find(ACCEPTOR_WRITE_WAL));
}
END_TEST

START_TEST(test_catching_up_begins_anew_when_its_source_is_gone)
{
    given_catching_up();
    when_peer_wal(START + 104, 200);
    when_peer_answers(START + 504);
    ck_assert_uint_eq(actions.count, 0); /* its bytes are on their way to the disk */
    when_flushed(START + 304, 0);
    when_peer_answers(START + 504);
    ck_assert_uint_eq(find(ACCEPTOR_TRUNCATE_WAL)->truncate.lsn, START + 104);
}
END_TEST

START_TEST(test_committed_wal_of_a_peer_ends_a_suspicion)
{
    given_suspect(104, 504);
    when_peer_answers(START + 504);
    when_persisted();
    when_peer_wal(START + 104, 400);
    when_flushed(START + 504, 0);
    ck_assert_uint_eq(reported_suspicion(), LSN_NONE);
}
END_TEST

/* ---- forgetting, and beginning anew ---- */

static void when_unneeded(lsn_t lsn)
{
    step((struct acceptor_event){.kind = ACCEPTOR_WAL_UNNEEDED, .unneeded_lsn = lsn});
}

static void when_elected_anew(lsn_t term_start_lsn, lsn_t begin_lsn, struct acceptor_peer from)
{
    struct elected elected = elected_from(4, term_start_lsn, begin_lsn);
    step((struct acceptor_event){
        .kind = ACCEPTOR_ELECTED, .from = from, .elected = &elected, .begins_anew = true});
}

START_TEST(test_wal_goes_after_it_is_on_disk_where_the_log_begins)
{
    given_following(800, START + 400);
    when_unneeded(START + 304);
    ck_assert_ptr_nonnull(find(ACCEPTOR_PERSIST_STATE));
    ck_assert_ptr_null(find(ACCEPTOR_REMOVE_WAL));
    ck_assert_uint_eq(find(ACCEPTOR_PERSIST_STATE)->state->begin_lsn, START + 304);
    when_persisted();
    ck_assert_uint_eq(find(ACCEPTOR_REMOVE_WAL)->remove_lsn, START + 304);
    struct vote_reply reply;
    acceptor_describe(&acceptor, &reply);
    ck_assert_uint_eq(reply.start_lsn, START + 304); /* so the others know what can be read */
    ck_assert_uint_eq(acceptor.state.start_lsn, START);
}
END_TEST

START_TEST(test_what_is_not_committed_is_never_unneeded)
{
    given_following(800, START + 400);
    when_unneeded(START + 408);
    ck_assert_uint_eq(actions.count, 0);
    when_unneeded(START); /* it begins there already */
    ck_assert_uint_eq(actions.count, 0);
}
END_TEST

/* In this order: the state that takes the old log away, the files, the state that lets WAL in. */
START_TEST(test_a_log_that_nobody_can_complete_begins_anew)
{
    given_promised(100, START + 48, 4, first);
    when_elected_anew(START + 900, START + 504, first);
    const struct acceptor_state *state = find(ACCEPTOR_PERSIST_STATE)->state;
    ck_assert(state->is_begun_anew);
    ck_assert_uint_eq(state->begin_lsn, START + 504);
    ck_assert_uint_eq(state->commit_lsn, START + 504);
    ck_assert_uint_eq(term_history_last_term(&state->history), 4);
    ck_assert_ptr_null(find(ACCEPTOR_EMPTY_WAL));
    when_persisted();
    ck_assert_uint_eq(find(ACCEPTOR_EMPTY_WAL)->truncate.lsn, START + 504);
    ck_assert_ptr_null(find(ACCEPTOR_SEND_APPENDED));
    when_truncated();
    ck_assert(!find(ACCEPTOR_PERSIST_STATE)->state->is_begun_anew);
    ck_assert_ptr_null(find(ACCEPTOR_SEND_APPENDED)); /* a start now would still empty it */
    when_persisted();
    ck_assert_uint_eq(find(ACCEPTOR_SEND_APPENDED)->appended.record_lsn, START + 504);
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_FOLLOWING);
}
END_TEST

/* A message that was overtaken: the log has been completed on another connection since. */
START_TEST(test_a_log_that_reaches_there_does_not_begin_anew)
{
    given_following(800, START + 400);
    when_elected_anew(START + 800, START + 504, second);
    ck_assert_int_eq(find(ACCEPTOR_REFUSE)->refuse.err, ERR_STALE);
    ck_assert_uint_eq(acceptor.record_lsn, START + 800);
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_FOLLOWING);
}
END_TEST

/* Two histories that share no term: the logs are known to be the same up to what is committed. */
START_TEST(test_a_new_begin_never_drops_committed_wal)
{
    given_log(800, START + 600);
    struct elected elected = elected_from(4, START + 900, START + 504);
    elected.history = (struct term_history){.count = 1, .items = {{.term = 4, .lsn = START + 100}}};
    step((struct acceptor_event){
        .kind = ACCEPTOR_ELECTED, .from = first, .elected = &elected, .begins_anew = true});
    ck_assert_ptr_nonnull(find(ACCEPTOR_REFUSE));
    ck_assert_uint_eq(acceptor.record_lsn, START + 800);
}
END_TEST

START_TEST(test_a_vote_after_a_new_begin_waits_for_the_disk)
{
    given_promised(100, START + 48, 4, first);
    when_elected_anew(START + 900, START + 504, first);
    when_vote(5, second); /* before anything of it is on disk */
    ck_assert_ptr_null(find(ACCEPTOR_SEND_VOTE));
    when_persisted();
    ck_assert(find(ACCEPTOR_SEND_VOTE)->vote->granted);
    ck_assert_uint_eq(find(ACCEPTOR_SEND_VOTE)->vote->record_lsn, START + 504);
    ck_assert_ptr_nonnull(find(ACCEPTOR_EMPTY_WAL)); /* it goes on all the same */
    when_truncated();
    ck_assert(!acceptor.state.is_begun_anew);
}
END_TEST

START_TEST(test_a_peer_that_has_forgotten_lets_a_log_begin_anew)
{
    given_log(100, START + 48);
    struct term_history history = {.count = 2, .items = {{.term = 0, .lsn = START}, {3, START}}};
    step((struct acceptor_event){
        .kind = ACCEPTOR_PEER_ANSWERED,
        .peer = {.history = &history, .commit_lsn = START + 900, .begin_lsn = START + 504}});
    when_persisted();
    ck_assert_uint_eq(find(ACCEPTOR_EMPTY_WAL)->truncate.lsn, START + 504);
    when_truncated();
    when_persisted();
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_CATCHING_UP);
    ck_assert_uint_eq(acceptor.write_lsn, START + 504);
    ck_assert_uint_eq(acceptor.catch_up_lsn, START + 900);
}
END_TEST

UNIT_MAIN(
    "acceptor_follow",
    test_streaming_begins_after_the_history_is_durable,
    test_divergent_tail_is_cut_durably_before_the_history_changes,
    test_a_vote_during_the_truncation_keeps_the_old_history,
    test_one_truncation_at_a_time,
    test_bytes_behind_the_last_record_are_cut_by_the_next_term,
    test_overtaken_elected_truncates_nothing,
    test_elected_below_commit_truncates_nothing,
    test_elected_of_an_older_term_learns_the_newer,
    test_elected_that_we_did_not_vote_for_is_followed,
    test_elected_with_a_foreign_history_is_refused,
    test_the_same_winner_comes_back_without_writing_anything,
    test_what_was_acknowledged_to_a_term_is_kept_also_without_a_history,
    test_a_proposer_of_protocol_2_is_not_told_which_term_a_log_follows,
    test_a_lagging_log_is_completed_from_a_peer,
    test_a_divergent_tail_gives_way_to_what_a_peer_has_committed,
    test_a_peer_that_is_not_ahead_brings_news_only,
    test_committed_wal_is_never_cut_for_a_peer,
    test_a_vote_ends_catching_up,
    test_who_writes_for_a_leader_asks_no_peer,
    test_a_leader_that_was_left_cannot_append,
    test_catching_up_begins_anew_when_its_source_is_gone,
    test_committed_wal_of_a_peer_ends_a_suspicion,
    test_wal_goes_after_it_is_on_disk_where_the_log_begins,
    test_what_is_not_committed_is_never_unneeded,
    test_a_log_that_nobody_can_complete_begins_anew,
    test_a_log_that_reaches_there_does_not_begin_anew,
    test_a_new_begin_never_drops_committed_wal,
    test_a_vote_after_a_new_begin_waits_for_the_disk,
    test_a_peer_that_has_forgotten_lets_a_log_begin_anew);
