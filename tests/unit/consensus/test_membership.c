/* Rules of a change of the membership: joint quorums, who learns of it how, when it may end. */
#include "common/base/mark.h"
#include "safekeeper/consensus/acceptor.h"
#include "safekeeper/consensus/change.h"
#include "safekeeper/consensus/proposer.h"
#include "safekeeper/consensus/term_history.h"
#include "tests/unit/unit.h"

#define START ((lsn_t)0x1000)

static struct errmsg msg;

/* Members 1, 2, 3 under generation 7. */
static const struct membership three = {.generation = 7, .count = 3, .members = {1, 2, 3}};

/* From `three` to 1, 2, 4. */
static struct membership joint_of_three(void)
{
    struct membership joint;
    const node_id_t next[] = {1, 2, 4};
    ck_assert_ok(change_begin(&three, next, 3, &joint, &msg), &msg);
    return joint;
}

/* ---- sets ---- */

START_TEST(test_a_joint_quorum_needs_a_majority_of_both_sets)
{
    struct membership joint;
    const node_id_t next[] = {3, 4, 5};
    ck_assert_ok(change_begin(&three, next, 3, &joint, &msg), &msg);
    ck_assert_uint_eq(joint.generation, 8);
    ck_assert_uint_eq(joint.count, 5);
    ck_assert(!membership_has_quorum(&joint, 0x03)); /* 1 2: the old set only */
    ck_assert(!membership_has_quorum(&joint, 0x18)); /* 4 5: the new set only */
    ck_assert(!membership_has_quorum(&joint, 0x0b)); /* 1 2 4 */
    ck_assert(membership_has_quorum(&joint, 0x0d));  /* 1 3 4 */
    ck_assert(membership_has_quorum(&joint, 0x1b));  /* 1 2 4 5 */
    lsn_t lsns[MEMBERS_MAX] = {500, 400, 300, 200, 100};
    ck_assert_uint_eq(membership_quorum_lsn(&joint, lsns), 200);
    lsns[3] = 0;
    ck_assert_uint_eq(membership_quorum_lsn(&joint, lsns), 100);
    lsns[4] = 0;
    ck_assert_uint_eq(membership_quorum_lsn(&joint, lsns), 0);
}
END_TEST

START_TEST(test_a_change_ends_with_the_new_set_or_with_the_old_one)
{
    struct membership joint = joint_of_three();
    struct membership done = change_finish(&joint, /* is_given_up */ false);
    const struct membership wanted = {.generation = 9, .count = 3, .members = {1, 2, 4}};
    ck_assert(membership_equal(&done, &wanted));
    struct membership old = change_finish(&joint, /* is_given_up */ true);
    const struct membership as_before = {.generation = 9, .count = 3, .members = {1, 2, 3}};
    ck_assert(membership_equal(&old, &as_before));
    ck_assert(!membership_is_joint(&done) && membership_is_joint(&joint));
}
END_TEST

START_TEST(test_a_change_that_is_none_or_too_big_does_not_begin)
{
    struct membership joint;
    const node_id_t same[] = {3, 1, 2}, twice[] = {1, 4, 4}, many[] = {4, 5, 6, 7, 8};
    ck_assert_int_eq(change_begin(&three, same, 3, &joint, &msg), ERR_INVALID);
    ck_assert_int_eq(change_begin(&three, twice, 3, &joint, &msg), ERR_INVALID);
    ck_assert_int_eq(change_begin(&three, many, 5, &joint, &msg), ERR_INVALID);
    ck_assert_int_eq(change_begin(&three, many, 0, &joint, &msg), ERR_INVALID);
    joint = three;
    joint.old_set = 0x7;
    ck_assert_int_eq(membership_check(&joint, &msg), ERR_INVALID); /* half of a joint one */
    joint.new_set = 0x8;
    ck_assert_int_eq(membership_check(&joint, &msg), ERR_INVALID); /* of whom? */
}
END_TEST

/* ---- the judgement ---- */

static struct change_report report(term_t term, term_t log_term, lsn_t record_lsn)
{
    return (struct change_report){
        .answered = true,
        .generation = 8,
        .term = term,
        .log_term = log_term,
        .record_lsn = record_lsn};
}

START_TEST(test_a_change_waits_for_a_majority_of_the_old_set)
{
    struct membership joint = joint_of_three();
    struct change_report reports[MEMBERS_MAX] = {[0] = report(5, 5, 100), [3] = report(5, 5, 100)};
    ck_assert_int_eq(change_judge(&joint, reports).verdict, CHANGE_WAIT_OLD);
    reports[2] = report(5, 5, 100);
    reports[2].generation = 7; /* does not know yet, and still acknowledges to the old quorum */
    ck_assert_int_eq(change_judge(&joint, reports).verdict, CHANGE_WAIT_OLD);
    reports[2].generation = 8;
    ck_assert_int_eq(change_judge(&joint, reports).verdict, CHANGE_MAY_FINISH);
    reports[2].generation = 9;
    ck_assert_int_eq(change_judge(&joint, reports).verdict, CHANGE_SUPERSEDED);
}
END_TEST

START_TEST(test_the_new_set_must_have_the_log_and_the_promises_of_the_old_one)
{
    struct membership joint = joint_of_three();
    struct change_report reports[MEMBERS_MAX] = {
        [0] = report(6, 4, 900), [2] = report(5, 5, 300), [3] = report(6, 4, 900)};
    struct change_judgement judged = change_judge(&joint, reports);
    ck_assert_int_eq(judged.verdict, CHANGE_WAIT_NEW); /* a longer log of an older term is behind */
    ck_assert_uint_eq(judged.term, 6);
    ck_assert_uint_eq(judged.log_term, 5);
    ck_assert_uint_eq(judged.record_lsn, 300);
    ck_assert_uint_eq(judged.behind, 0xb);
    reports[0] = reports[3] = report(5, 5, 300);
    reports[2].term = 6;
    ck_assert_int_eq(
        change_judge(&joint, reports).verdict, CHANGE_WAIT_NEW); /* term 6 was promised */
    reports[0].term = 6;
    ck_assert_int_eq(change_judge(&joint, reports).verdict, CHANGE_WAIT_NEW); /* by one only */
    reports[3].term = 7;
    ck_assert_int_eq(change_judge(&joint, reports).verdict, CHANGE_MAY_FINISH);
    reports[3].record_lsn = 299;
    ck_assert_int_eq(change_judge(&joint, reports).verdict, CHANGE_WAIT_NEW);
}
END_TEST

START_TEST(test_what_a_member_may_have_lost_must_be_in_the_new_set)
{
    struct membership joint = joint_of_three();
    struct change_report reports[MEMBERS_MAX] = {
        [0] = report(5, 5, 100), [1] = report(5, 5, 100), [3] = report(5, 5, 100)};
    ck_assert_int_eq(change_judge(&joint, reports).verdict, CHANGE_MAY_FINISH);
    reports[1].suspect_term = 5;
    reports[1].suspect_lsn = 200;
    ck_assert_int_eq(change_judge(&joint, reports).verdict, CHANGE_WAIT_NEW);
    reports[0] = reports[3] = report(6, 6, 100); /* a later term was elected knowing of it */
    ck_assert_int_eq(change_judge(&joint, reports).verdict, CHANGE_MAY_FINISH);
}
END_TEST

/* Two of the old set are a majority of the new one; the newcomer must exist all the same. */
START_TEST(test_a_change_does_not_end_before_every_newcomer_has_answered)
{
    struct membership joint = joint_of_three();
    struct change_report reports[MEMBERS_MAX] = {[0] = report(5, 5, 100), [1] = report(5, 5, 100)};
    ck_assert_int_eq(change_judge(&joint, reports).verdict, CHANGE_WAIT_NEW);
    reports[3] = report(0, 0, 0);
    ck_assert_int_eq(change_judge(&joint, reports).verdict, CHANGE_MAY_FINISH);
}
END_TEST

/* ---- an acceptor ---- */

static struct acceptor acceptor;
static struct acceptor_actions acts;
static const struct acceptor_peer leader = {.proposer_id = 1, .connection = 10};

static void accept_event(struct acceptor_event event)
{
    acceptor_step(&acceptor, &event, &acts);
}

static void when_told(generation_t generation, term_t term)
{
    accept_event((struct acceptor_event){
        .kind = ACCEPTOR_MEMBERSHIP_CHANGED,
        .membership = {.generation = generation, .term = term}});
}

static void when_persisted(void)
{
    accept_event((struct acceptor_event){
        .kind = ACCEPTOR_STATE_PERSISTED, .sequence = acceptor.state.sequence});
}

static void when_asked(generation_t generation, term_t term)
{
    struct vote_request vote = {.generation = generation, .term = term, .proposer_id = 1};
    accept_event(
        (struct acceptor_event){.kind = ACCEPTOR_VOTE_REQUESTED, .from = leader, .vote = &vote});
}

static void when_elected(generation_t generation, term_t term)
{
    struct elected elected = {
        .generation = generation,
        .term = term,
        .stream_lsn = START,
        .history = {.count = 1, .items = {{.term = 0, .lsn = START}}},
    };
    term_history_push(&elected.history, term, START);
    accept_event(
        (struct acceptor_event){.kind = ACCEPTOR_ELECTED, .from = leader, .elected = &elected});
}

/* Follows `leader` in term 4 of generation 7, with an empty log. */
static void given_following(void)
{
    struct acceptor_state state;
    acceptor_state_init(&state, 7, START);
    ck_assert_ok(acceptor_init(&acceptor, &state, START, START, &msg), &msg);
    when_asked(7, 4);
    when_persisted();
    when_elected(7, 4);
    when_persisted();
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_FOLLOWING);
}

START_TEST(test_a_new_membership_ends_what_the_old_one_led)
{
    given_following();
    when_told(8, 0);
    ck_assert_uint_eq(acts.count, 2);
    ck_assert_int_eq(acts.items[0].kind, ACCEPTOR_REFUSE);
    ck_assert_int_eq(acts.items[0].refuse.err, ERR_STALE);
    ck_assert_uint_eq(acts.items[0].refuse.generation, 7);
    ck_assert_int_eq(acts.items[1].kind, ACCEPTOR_PERSIST_STATE);
    ck_assert_uint_eq(acts.items[1].state->generation, 8);
    struct append append = {.generation = 7, .term = 4, .begin_lsn = START, .record_lsn = START};
    accept_event((struct acceptor_event){
        .kind = ACCEPTOR_APPEND_REQUESTED, .from = leader, .append = &append});
    ck_assert_int_eq(acts.items[0].kind, ACCEPTOR_REFUSE);
    ck_assert_uint_eq(acts.items[0].refuse.generation, 7); /* the message's; ours is in the state */
}
END_TEST

START_TEST(test_wal_that_reaches_the_disk_after_the_change_is_not_acknowledged)
{
    static const uint8_t wal[64];
    given_following();
    struct append append = {
        .generation = 7,
        .term = 4,
        .begin_lsn = START,
        .record_lsn = START + 64,
        .wal = bytes_of(wal, sizeof(wal))};
    accept_event((struct acceptor_event){
        .kind = ACCEPTOR_APPEND_REQUESTED, .from = leader, .append = &append});
    when_told(8, 0);
    accept_event((struct acceptor_event){
        .kind = ACCEPTOR_WAL_FLUSHED, .wal = {.lsn = START + 64, .epoch = acceptor.wal_epoch}});
    ck_assert_uint_eq(acts.count, 0);
    ck_assert_uint_eq(acceptor.record_lsn, START + 64); /* but it is there, and reported */
}
END_TEST

START_TEST(test_a_vote_that_was_pending_is_not_granted_under_another_membership)
{
    given_following();
    when_asked(7, 5);
    when_told(8, 0);
    ck_assert_int_eq(acts.items[0].kind, ACCEPTOR_REFUSE);
    when_persisted();
    ck_assert_uint_eq(acts.count, 0);
    ck_assert_uint_eq(acceptor.state.term, 5); /* promised it is */
}
END_TEST

START_TEST(test_an_older_membership_changes_nothing)
{
    given_following();
    when_told(6, 99);
    ck_assert_uint_eq(acts.count, 0);
    when_told(7, 4);
    ck_assert_uint_eq(acts.count, 0);
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_FOLLOWING);
    when_told(7, 5); /* the same one, and a promise */
    ck_assert_int_eq(acts.items[0].kind, ACCEPTOR_PERSIST_STATE);
    ck_assert_uint_eq(acts.items[0].state->term, 5);
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_IDLE);
}
END_TEST

START_TEST(test_a_promise_to_the_changer_denies_a_pending_vote)
{
    given_following();
    when_asked(7, 5);
    when_told(7, 6);
    ck_assert_int_eq(acts.items[0].kind, ACCEPTOR_SEND_VOTE);
    ck_assert_uint_eq(acts.items[0].vote->granted, 0);
    when_persisted();
    ck_assert_uint_eq(acts.count, 0);
}
END_TEST

START_TEST(test_the_same_leader_goes_on_in_its_term_under_the_new_membership)
{
    given_following();
    when_told(8, 0);
    when_asked(8, 4); /* "where are you?" */
    ck_assert_int_eq(acts.items[0].kind, ACCEPTOR_SEND_VOTE);
    ck_assert_uint_eq(acts.items[0].vote->generation, 8);
    when_elected(8, 4);
    ck_assert_uint_eq(acts.count, 0); /* not before the new generation is on disk */
    when_persisted();
    ck_assert_int_eq(acts.items[0].kind, ACCEPTOR_SEND_APPENDED);
    ck_assert_uint_eq(acts.items[0].appended.generation, 8);
}
END_TEST

/* What was read from the other members had no leader that could be refused. */
START_TEST(test_a_new_membership_ends_a_catch_up_too)
{
    static struct term_history history = {
        .count = 2, .items = {{.term = 0, .lsn = START}, {.term = 3, .lsn = START}}};
    struct acceptor_state state;
    acceptor_state_init(&state, 7, START);
    ck_assert_ok(acceptor_init(&acceptor, &state, START, START, &msg), &msg);
    accept_event((struct acceptor_event){
        .kind = ACCEPTOR_PEER_ANSWERED, .peer = {.history = &history, .commit_lsn = START + 64}});
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_ADOPTING);
    when_told(8, 0);
    ck_assert_uint_eq(acts.count, 1);
    ck_assert_int_eq(acts.items[0].kind, ACCEPTOR_PERSIST_STATE);
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_IDLE);
    when_persisted();
    ck_assert_int_eq(acceptor.phase, ACCEPTOR_IDLE);
}
END_TEST

START_TEST(test_a_report_is_about_what_is_on_disk)
{
    struct change_report said;
    given_following();
    ck_assert(acceptor_report(&acceptor, &said));
    ck_assert_uint_eq(said.generation, 7);
    ck_assert_uint_eq(said.term, 4);
    ck_assert_uint_eq(said.log_term, 4);
    ck_assert_uint_eq(said.record_lsn, START);
    when_told(8, 9);
    ck_assert(!acceptor_report(&acceptor, &said));
    when_persisted();
    ck_assert(acceptor_report(&acceptor, &said));
    ck_assert_uint_eq(said.generation, 8);
    ck_assert_uint_eq(said.term, 9);
}
END_TEST

/* ---- a proposer ---- */

static struct proposer proposer;
static struct proposer_actions does;
static uint64_t connection;

static void propose_event(struct proposer_event event)
{
    event.now_ms = 1;
    event.entropy = 5;
    proposer_step(&proposer, &event, &does);
}

static const struct proposer_action *find(enum proposer_action_kind kind, uint32_t peer)
{
    for (size_t i = 0; i < does.count; i++) {
        if (does.items[i].kind == kind && does.items[i].peer == peer) {
            return &does.items[i];
        }
    }
    return NULL;
}

/* Connects, is asked, answers; `ret` is the number of the connection. */
static uint64_t when_answers(uint32_t peer, generation_t generation, bool granted, lsn_t record_lsn)
{
    propose_event((struct proposer_event){
        .kind = PROPOSER_PEER_UP, .peer = peer, .connection = ++connection});
    uint64_t number = connection;
    if (proposer.peers[peer].phase != PEER_ASKED) {
        return number;
    }
    struct vote_reply vote = {
        .generation = generation,
        .term = proposer.term,
        .granted = granted,
        .flush_lsn = record_lsn,
        .record_lsn = record_lsn,
        .commit_lsn = START,
        .start_lsn = START,
        .history = {.count = 1, .items = {{.term = 0, .lsn = START}}},
    };
    if (!granted && record_lsn > START) {
        term_history_push(&vote.history, proposer.term, START);
    }
    propose_event((struct proposer_event){
        .kind = PROPOSER_VOTE_REPLY, .peer = peer, .connection = number, .vote = &vote});
    return number;
}

static void when_acked(uint32_t peer, uint64_t number, generation_t generation, lsn_t lsn)
{
    struct append_reply appended = {
        .generation = generation,
        .term = proposer.term,
        .flush_lsn = lsn,
        .record_lsn = lsn,
        .commit_lsn = START,
    };
    propose_event((struct proposer_event){
        .kind = PROPOSER_APPEND_REPLY, .peer = peer, .connection = number, .appended = &appended});
}

static uint64_t links[MEMBERS_MAX];

/* Elected by members 1 and 2 of generation 7; a record ends at START + 96 and both have it. */
static void given_leading(void)
{
    struct proposer_options options = {
        .membership = three,
        .proposer_id = 42,
        .election_timeout_ms = 1000,
        .backoff_max_ms = 100,
        .heartbeat_ms = 200,
        .window_max = 1000,
        .inflight_max = 600,
    };
    proposer_init(&proposer, &options);
    for (uint32_t i = 0; i < 2; i++) {
        links[i] = when_answers(i, 7, true, START);
    }
    for (uint32_t i = 0; i < 2; i++) {
        struct vote_reply vote = {
            .generation = 7,
            .term = proposer.term,
            .granted = 1,
            .flush_lsn = START,
            .record_lsn = START,
            .commit_lsn = START,
            .start_lsn = START,
            .history = {.count = 1, .items = {{.term = 0, .lsn = START}}},
        };
        propose_event((struct proposer_event){
            .kind = PROPOSER_VOTE_REPLY, .peer = i, .connection = links[i], .vote = &vote});
    }
    for (uint32_t i = 0; i < 2; i++) {
        when_acked(i, links[i], 7, START);
    }
    ck_assert(proposer.ready);
    propose_event((struct proposer_event){
        .kind = PROPOSER_LOCAL_WAL, .local = {.end_lsn = START + 96, .record_lsn = START + 96}});
    when_acked(0, links[0], 7, START + 96);
    ck_assert_uint_eq(proposer.commit_lsn, START);
}

static void when_changed(const struct membership *membership)
{
    propose_event(
        (struct proposer_event){.kind = PROPOSER_MEMBERSHIP_CHANGED, .membership = membership});
}

START_TEST(test_a_leader_keeps_its_term_and_asks_everybody_again)
{
    struct membership joint = joint_of_three();
    given_leading();
    term_t term = proposer.term;
    when_changed(&joint);
    ck_assert_int_eq(proposer.phase, PROPOSER_ELECTED);
    ck_assert_uint_eq(proposer.term, term);
    ck_assert(proposer.ready);
    uint64_t number = when_answers(3, 8, false, START);
    ck_assert_uint_eq(proposer.term, term);
    ck_assert_uint_eq(find(PROPOSER_SEND_ELECTED, 3)->elected.generation, 8);
    when_acked(3, number, 8, START);
    ck_assert_uint_eq(find(PROPOSER_SEND_APPEND, 3)->append.generation, 8);
    ck_assert_uint_eq(find(PROPOSER_SEND_APPEND, 3)->append.wal.size, 96);
}
END_TEST

START_TEST(test_what_the_old_membership_acknowledged_counts_no_more)
{
    struct membership joint = joint_of_three();
    given_leading();
    when_changed(&joint); /* member 1 has the record under generation 7 */
    uint64_t number = when_answers(1, 8, false, START + 96);
    when_acked(1, number, 8, START + 96);
    ck_assert_uint_eq(proposer.commit_lsn, START);
    when_acked(0, links[0], 7, START + 96); /* late, and of a connection that is gone */
    ck_assert_uint_eq(proposer.commit_lsn, START);
    number = when_answers(0, 8, false, START + 96);
    when_acked(0, number, 8, START + 96);
    ck_assert_uint_eq(proposer.commit_lsn, START + 96); /* 1 and 2 are a majority of both sets */
}
END_TEST

START_TEST(test_a_campaign_begins_anew_under_the_new_membership)
{
    struct membership joint = joint_of_three();
    struct proposer_options options = {
        .membership = three,
        .proposer_id = 42,
        .election_timeout_ms = 1000,
        .backoff_max_ms = 100,
        .heartbeat_ms = 200,
        .window_max = 1000,
        .inflight_max = 600,
    };
    proposer_init(&proposer, &options);
    when_changed(&three); /* no news */
    ck_assert_uint_gt(mark_hits("proposer.membership.known"), 0);
    (void)when_answers(0, 7, true, START);
    (void)when_answers(1, 7, true, START);
    ck_assert_int_eq(proposer.phase, PROPOSER_CAMPAIGNING);
    when_changed(&joint);
    ck_assert_int_eq(proposer.phase, PROPOSER_COLLECTING);
    ck_assert_uint_eq(proposer.options.membership.generation, 8);
    ck_assert_uint_eq(proposer.peers[0].connection, 0);
}
END_TEST

UNIT_MAIN(
    "membership",
    test_a_joint_quorum_needs_a_majority_of_both_sets,
    test_a_change_ends_with_the_new_set_or_with_the_old_one,
    test_a_change_that_is_none_or_too_big_does_not_begin,
    test_a_change_waits_for_a_majority_of_the_old_set,
    test_the_new_set_must_have_the_log_and_the_promises_of_the_old_one,
    test_what_a_member_may_have_lost_must_be_in_the_new_set,
    test_a_change_does_not_end_before_every_newcomer_has_answered,
    test_a_new_membership_ends_what_the_old_one_led,
    test_wal_that_reaches_the_disk_after_the_change_is_not_acknowledged,
    test_a_vote_that_was_pending_is_not_granted_under_another_membership,
    test_an_older_membership_changes_nothing,
    test_a_promise_to_the_changer_denies_a_pending_vote,
    test_the_same_leader_goes_on_in_its_term_under_the_new_membership,
    test_a_new_membership_ends_a_catch_up_too,
    test_a_report_is_about_what_is_on_disk,
    test_a_leader_keeps_its_term_and_asks_everybody_again,
    test_what_the_old_membership_acknowledged_counts_no_more,
    test_a_campaign_begins_anew_under_the_new_membership);
