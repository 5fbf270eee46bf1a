/* Rules of the acceptor: what protects an acknowledged commit, one test a rule. */
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

/* A log of term 3 from START on, `size` bytes of whole records, term 3 promised. */
static void given_log(size_t size, lsn_t commit_lsn)
{
    struct acceptor_state state;
    acceptor_state_init(&state, GENERATION, START);
    term_history_push(&state.history, 3, START);
    state.term = 3;
    state.commit_lsn = commit_lsn;
    ck_assert_ok(acceptor_init(&acceptor, &state, START + size, START + size, &msg), &msg);
}

static void step(struct acceptor_event event)
{
    acceptor_step(&acceptor, &event, &actions);
}

static void when_vote(term_t term, struct acceptor_peer from)
{
    struct vote_request vote = {.generation = GENERATION, .term = term, .proposer_id = 1};
    step((struct acceptor_event){.kind = ACCEPTOR_VOTE_REQUESTED, .from = from, .vote = &vote});
}

static void when_persisted(void)
{
    step((struct acceptor_event){
        .kind = ACCEPTOR_STATE_PERSISTED, .sequence = acceptor.state.sequence});
}

static void when_flushed(lsn_t lsn, uint64_t epoch)
{
    step(
        (struct acceptor_event){.kind = ACCEPTOR_WAL_FLUSHED, .wal = {.lsn = lsn, .epoch = epoch}});
}

static void when_truncated(void)
{
    step((struct acceptor_event){
        .kind = ACCEPTOR_WAL_TRUNCATED, .wal = {.epoch = acceptor.wal_epoch}});
}

static struct elected elected_from(term_t term, lsn_t term_start_lsn, lsn_t stream_lsn)
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

static void when_elected(const struct elected *elected, struct acceptor_peer from)
{
    step((struct acceptor_event){.kind = ACCEPTOR_ELECTED, .from = from, .elected = elected});
}

static void when_append(
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

/* Follows `first` in term 4 from the end of its log on. */
static void given_following(size_t size, lsn_t commit_lsn)
{
    given_log(size, commit_lsn);
    when_vote(4, first);
    when_persisted();
    struct elected elected = elected_from(4, START + size, START + size);
    when_elected(&elected, first);
    when_persisted();
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_FOLLOWING);
}

/* ---- then ---- */

static const struct acceptor_action *find(enum acceptor_action_kind kind)
{
    for (size_t i = 0; i < actions.count; i++) {
        if (actions.items[i].kind == kind) {
            return &actions.items[i];
        }
    }
    return NULL;
}

static void then_only(enum acceptor_action_kind kind)
{
    ck_assert_uint_eq(actions.count, 1);
    ck_assert_int_eq(actions.items[0].kind, kind);
}

static void then_refused(err_t err)
{
    then_only(ACCEPTOR_REFUSE);
    ck_assert_int_eq(actions.items[0].refuse.err, err);
}

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
    given_log(64, START);
    when_vote(4, first);
    when_persisted();
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
    given_log(64, START);
    when_vote(4, first);
    when_persisted();
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

/* ---- elected ---- */

START_TEST(test_streaming_begins_after_the_history_is_durable)
{
    given_log(64, START);
    when_vote(4, first);
    when_persisted();
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
    given_log(64, START + 32);
    when_vote(5, first);
    when_persisted();
    struct elected elected = elected_from(4, START + 48, START + 48); /* term 4 began at 48 */
    term_history_push(&elected.history, 5, START + 80);
    elected.term = 5;
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
    given_log(64, START);
    when_vote(5, first);
    when_persisted();
    struct elected elected = elected_from(4, START + 48, START + 48);
    term_history_push(&elected.history, 5, START + 80);
    elected.term = 5;
    when_elected(&elected, first);
    when_vote(6, second);
    when_truncated();
    ck_assert_uint_eq(actions.count, 0);
    ck_assert_uint_eq(term_history_last_term(&acceptor.state.history), 3);
}
END_TEST

START_TEST(test_one_truncation_at_a_time)
{
    given_log(64, START);
    when_vote(5, first);
    when_persisted();
    struct elected elected = elected_from(4, START + 48, START + 48);
    term_history_push(&elected.history, 5, START + 80);
    elected.term = 5;
    when_elected(&elected, first);
    ck_assert_ptr_nonnull(find(ACCEPTOR_TRUNCATE_WAL));
    when_vote(6, second);
    when_persisted();
    struct elected lower = elected_from(4, START + 32, START + 32);
    term_history_push(&lower.history, 6, START + 80);
    lower.term = 6;
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
    given_log(64, START + 64);
    when_vote(5, first);
    when_persisted();
    struct elected elected = elected_from(4, START + 32, START + 32); /* cannot have won honestly */
    term_history_push(&elected.history, 5, START + 32);
    elected.term = 5;
    when_elected(&elected, first);
    then_refused(ERR_INVALID);
    ck_assert_uint_eq(mark_hits("acceptor.elected.below_commit"), 1);
    ck_assert_uint_eq(acceptor.record_lsn, START + 64);
}
END_TEST

START_TEST(test_elected_of_an_older_term_learns_the_newer)
{
    given_log(64, START);
    when_vote(9, second);
    when_persisted();
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
    given_log(64, START);
    when_vote(4, first);
    when_persisted();
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

/* The log of term 3 ends at +`size`; records up to +`lost` may have been acknowledged. */
static void given_suspect(size_t size, size_t lost)
{
    struct acceptor_state state;
    acceptor_state_init(&state, GENERATION, START);
    term_history_push(&state.history, 3, START);
    state.term = 3;
    acceptor_state_suspect(&state, START + size, START + lost);
    ck_assert_ok(acceptor_init(&acceptor, &state, START + size, START + size, &msg), &msg);
}

/* Asked under the term that it knows, so that it answers at once. */
static lsn_t reported_suspicion(void)
{
    when_vote(acceptor.state.term, second);
    return actions.items[0].vote->suspect_lsn;
}

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
    given_log(104, START);
    when_peer_answers(START + 504);
    when_persisted();
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_CATCHING_UP);
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
    given_log(104, START);
    when_peer_answers(START + 504);
    when_persisted();
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
    given_log(100, START + 48);
    when_vote(4, first);
    when_persisted();
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
    given_log(100, START + 48);
    when_vote(4, first);
    when_persisted();
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
    "acceptor",
    test_vote_is_promised_only_when_durable,
    test_an_older_sequence_on_disk_promises_nothing,
    test_one_vote_in_a_term,
    test_overtaken_vote_is_denied_and_the_newer_one_granted,
    test_vote_of_another_generation_is_refused,
    test_vote_reports_what_is_on_disk_only,
    test_vote_clips_its_history_to_its_records,
    test_a_term_start_at_the_end_of_the_log_is_reported,
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
    test_a_second_suspicion_adds_to_the_first,
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
