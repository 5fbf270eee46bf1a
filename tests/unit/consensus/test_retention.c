/* Which WAL may go: what each of those who need it holds back, one test a rule. */
#include "safekeeper/consensus/retention.h"
#include "tests/unit/unit.h"

#define BEGIN ((lsn_t)0x1000)

/* 100,000 bytes, all of them in the object store, and on both of the other members. */
static struct retention_view given_view(void)
{
    return (struct retention_view){
        .begin_lsn = BEGIN,
        .commit_lsn = BEGIN + 100000,
        .consumer = {.generation = 3, .durable_lsn = BEGIN + 100000, .remote_lsn = BEGIN + 100000},
        .member_count = 2,
        .members =
            {{.id = 2, .answered = true, .record_lsn = BEGIN + 100000},
             {.id = 3, .answered = true, .record_lsn = BEGIN + 100000}},
        .keep_max = 80000,
    };
}

static void then_held(
    const struct retention_view *view, enum retention_holder holder, lsn_t horizon_lsn)
{
    struct retention_verdict verdict = retention_judge(view);
    ck_assert_uint_eq(verdict.horizon_lsn, horizon_lsn);
    ck_assert_int_eq(verdict.holder, holder);
}

START_TEST(test_what_everybody_has_may_go)
{
    struct retention_view view = given_view();
    then_held(&view, RETENTION_NONE, BEGIN + 100000);
}
END_TEST

START_TEST(test_what_only_a_pageservers_disk_has_stays)
{
    struct retention_view view = given_view();
    view.consumer.remote_lsn = BEGIN + 7000;
    then_held(&view, RETENTION_PAGESERVER, BEGIN + 7000);
    view.consumer.remote_lsn = LSN_NONE; /* it was heard, and has said nothing of the store */
    then_held(&view, RETENTION_PAGESERVER, BEGIN);
}
END_TEST

START_TEST(test_an_older_attachment_moves_nothing)
{
    struct retention_consumer consumer = {.generation = 3, .remote_lsn = BEGIN + 10};
    retention_take(
        &consumer, &(struct retention_consumer){.generation = 2, .remote_lsn = BEGIN + 9000});
    ck_assert_uint_eq(consumer.remote_lsn, BEGIN + 10);
    retention_take(&consumer, &(struct retention_consumer){.generation = 4});
    ck_assert_uint_eq(consumer.generation, 4);
    ck_assert_uint_eq(consumer.remote_lsn, LSN_NONE); /* the new one has confirmed nothing yet */
}
END_TEST

START_TEST(test_a_member_that_is_behind_holds_up_to_the_limit)
{
    struct retention_view view = given_view();
    view.members[1].record_lsn = BEGIN + 50000;
    then_held(&view, RETENTION_MEMBER, BEGIN + 50000);
    ck_assert_uint_eq(retention_judge(&view).member, 3);
    view.members[1].record_lsn = BEGIN + 1000; /* more than 80,000 behind */
    then_held(&view, RETENTION_MEMBER, BEGIN + 20000);
}
END_TEST

START_TEST(test_a_member_that_is_away_holds_up_to_the_limit)
{
    struct retention_view view = given_view();
    view.members[0].answered = false;
    then_held(&view, RETENTION_MEMBER, BEGIN + 20000);
    view.keep_max = 1000000;
    then_held(&view, RETENTION_MEMBER, BEGIN); /* nobody knows how far it is */
}
END_TEST

START_TEST(test_slots_and_the_minimum_hold)
{
    struct retention_view view = given_view();
    view.keep_min = 30000;
    then_held(&view, RETENTION_MINIMUM, BEGIN + 70000);
    view.slots_lsn = BEGIN + 60000;
    then_held(&view, RETENTION_SLOTS, BEGIN + 60000);
    view.keep_min = 1000000; /* more than there is */
    then_held(&view, RETENTION_MINIMUM, BEGIN);
}
END_TEST

UNIT_MAIN(
    "retention",
    test_what_everybody_has_may_go,
    test_what_only_a_pageservers_disk_has_stays,
    test_an_older_attachment_moves_nothing,
    test_a_member_that_is_behind_holds_up_to_the_limit,
    test_a_member_that_is_away_holds_up_to_the_limit,
    test_slots_and_the_minimum_hold);
