/*
 * Timelines of a real safekeeper at rest: a row each, which keeps every promise and every position,
 * and is woken by whoever needs more than that.
 */
#include <stdio.h>

#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/wire/status_proto.h"
#include "tests/flow/safekeeper/rig.h"

static struct rig rig;
static struct errmsg msg;

static void given_safekeeper(void)
{
    rig_init(&rig);
    rig.extra[0] = "--rest_timeout=1ms";
    rig.extra[1] = "--idle_timeout=1ms";
    rig.extra[2] = "--feed_status_interval=20ms";
    rig_start(&rig);
}

static void given_timeline(void)
{
    given_safekeeper();
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 201);
}

static uint64_t status_number(const char *name)
{
    struct doc *body = NULL;
    uint64_t value = 0;
    ck_assert_uint_eq(rig_http(&rig, "GET", "/v1/status", NULL, &body), 200);
    ck_assert_ok(doc_get_u64(body, name, &value, &msg), &msg);
    doc_unref(body);
    return value;
}

static void wait_until_resting(uint64_t count)
{
    while (status_number("resting") != count) { /* until the test's limit */
    }
}

static struct timeline_id id_of(unsigned n)
{
    return (struct timeline_id){.bytes = {0xAB, (uint8_t)(n >> 8), (uint8_t)n}};
}

static void timeline_path(struct timeline_id id, const char *rest, char *to, size_t size)
{
    (void)snprintf(
        to, size, "/v1/tenants/%s/timelines/%s%s", tenant_id_text(rig_tenant).text,
        timeline_id_text(id).text, rest);
}

/* ---- promises and positions ---- */

START_TEST(test_a_promise_survives_rest)
{
    struct leader leader;
    given_timeline();
    leader_vote(&leader, &rig, 9);
    ck_assert_uint_eq(leader.vote.granted, 1);
    client_close(&leader.client);
    wait_until_resting(1);
    leader_vote(&leader, &rig, 9);
    ck_assert_uint_eq(leader.vote.granted, 0);
    ck_assert_uint_eq(leader.vote.term, 9);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

/* Of two leaders, with a rest after each write; the file is read back after a restart, too. */
START_TEST(test_a_log_goes_on_where_it_rested)
{
    struct leader leader;
    lsn_t end_lsn = RIG_START_LSN;
    given_timeline();
    for (unsigned round = 1; round <= 6; round++) {
        leader_begin(&leader, &rig, round);
        ck_assert_uint_eq(leader.lsn, end_lsn);
        ck_assert_uint_eq(leader.vote.history.count, round);
        for (unsigned i = 0; i < 3; i++) { /* segments of 1 MiB */
            leader_commit(&leader, (size_t)100 * 1024);
        }
        end_lsn = leader.last.commit_lsn;
        client_close(&leader.client);
        wait_until_resting(1);
        if (round % 3 == 0) {
            rig_kill(&rig);
            rig_start(&rig);
            wait_until_resting(1); /* opened in the background */
        }
    }
    ck_assert_uint_eq(rig_lsn(&rig, "flush_lsn"), end_lsn);
    ck_assert_uint_eq(rig_lsn(&rig, "commit_lsn"), end_lsn);
    ck_assert_uint_eq(rig_http(&rig, "GET", "/readyz", NULL, NULL), 200);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_what_is_not_committed_survives_rest)
{
    struct leader leader;
    given_timeline();
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 800);
    leader_send(&leader, 5000, LSN_NONE);
    ck_assert(leader_wait(&leader, leader.lsn));
    lsn_t end_lsn = leader.lsn;
    client_close(&leader.client);
    wait_until_resting(1);
    leader_vote(&leader, &rig, 2);
    ck_assert_uint_eq(leader.vote.record_lsn, end_lsn);
    ck_assert_uint_lt(leader.vote.commit_lsn, end_lsn);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_a_suspicion_survives_rest)
{
    struct leader leader;
    given_timeline();
    rig_stop(&rig);
    rig.extra[3] = "--certify_delay=0ms";
    rig.extra[1] = "--idle_timeout=1h"; /* the last group stays unproven */
    rig_start(&rig);
    leader_begin(&leader, &rig, 1);
    leader_send(&leader, 5000, LSN_NONE);
    ck_assert(leader_wait(&leader, leader.lsn));
    lsn_t end_lsn = leader.lsn;
    client_close(&leader.client);
    rig_kill(&rig);
    rig_flip(rig_path(&rig, "wal/000000010000000000000030"), RIG_START_LSN % MIB + 1000);
    rig.extra[1] = "--idle_timeout=1ms";
    rig_start(&rig);
    wait_until_resting(1);
    for (int round = 0; round < 2; round++) {
        leader_vote(&leader, &rig, 2 + (term_t)round);
        ck_assert_uint_eq(leader.vote.suspect_lsn, end_lsn);
        client_close(&leader.client);
        wait_until_resting(1);
    }
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_a_membership_is_changed_at_rest)
{
    char path[200], body[300];
    struct doc *answer = NULL, *membership = NULL;
    uint64_t generation = 0;
    given_timeline();
    wait_until_resting(1);
    timeline_path(rig_timeline, "/membership", path, sizeof(path));
    (void)snprintf(
        body, sizeof(body),
        "{\"membership\":{\"generation\":%d,\"members\":[{\"id\":1,\"host\":\"127.0.0.1\","
        "\"port\":1,\"http_host\":\"127.0.0.1\",\"http_port\":2}]}}",
        RIG_GENERATION + 1);
    ck_assert_uint_eq(rig_http(&rig, "PUT", path, body, NULL), 200);
    wait_until_resting(1);
    answer = rig_status(&rig, rig_timeline);
    ck_assert_ok(doc_get_object(answer, "membership", &membership, &msg), &msg);
    ck_assert_ok(doc_get_u64(membership, "generation", &generation, &msg), &msg);
    ck_assert_uint_eq(generation, RIG_GENERATION + 1);
    doc_unref(answer);
    wait_until_resting(1);
    timeline_path(rig_timeline, "?generation=3", path, sizeof(path)); /* of the one before */
    ck_assert_uint_eq(rig_http(&rig, "DELETE", path, NULL, NULL), 409);
    timeline_path(rig_timeline, "?generation=4", path, sizeof(path));
    ck_assert_uint_eq(rig_http(&rig, "DELETE", path, NULL, NULL), 200);
    ck_assert_uint_eq(status_number("timelines"), 0);
    ck_assert_uint_eq(status_number("resting"), 0);
    rig_deinit(&rig);
}
END_TEST

/* ---- who is not woken, and who does not rest ---- */

static struct hello status_hello(void)
{
    struct hello hello = client_hello(HELLO_ROLE_STATUS);
    hello.protocol_max = PROTOCOL_VERSION_MAX;
    hello.tenant = (struct tenant_id){0};
    hello.timeline = (struct timeline_id){0};
    hello.pg_version = 0;
    hello.system_id = 0;
    hello.generation = 0;
    return hello;
}

static void watch_many(struct client *client, unsigned count, lsn_t remote_lsn)
{
    struct hello hello = status_hello();
    struct buf entries = {0};
    client_connect(client, &rig);
    ck_assert_int_eq(client_say_hello(client, &hello), ERR_OK);
    for (unsigned i = 0; i < count; i++) {
        struct status_watch watch = {
            .key = i,
            .tenant = rig_tenant,
            .timeline = id_of(i),
            .generation = 1,
            .remote_lsn = remote_lsn,
        };
        status_watch_append(&entries, &watch);
    }
    struct status_list list = {.entries = buf_view(&entries)};
    CLIENT_SEND(client, status_list, &list, FRAME_STATUS_WATCH);
    client_flush(client);
    buf_deinit(&entries);
}

/* Each is told of once, at its start. */
static void expect_reports(struct client *client, unsigned count)
{
    bool *told = MEM_ARRAY(bool, count);
    for (unsigned left = count; left > 0;) {
        struct frame frame;
        struct status_list list;
        struct status_report report;
        client_expect(client, FRAME_STATUS_REPORT, &frame);
        struct reader in = reader_of(frame.payload);
        ck_assert_int_eq(status_list_decode(&list, &in), ERR_OK);
        while (status_report_take(&list.entries, &report) == ERR_OK) {
            ck_assert_uint_lt(report.key, count);
            ck_assert_uint_eq(report.code, ERR_OK);
            ck_assert_uint_eq(report.commit_lsn, RIG_START_LSN);
            ck_assert(!told[report.key]);
            told[report.key] = true;
            left--;
        }
    }
    mem_free(told);
}

static void create_many(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        ck_assert_uint_eq(rig_create_timeline(&rig, id_of(i), RIG_START_LSN), 201);
    }
    wait_until_resting(count);
}

START_TEST(test_status_of_timelines_at_rest_comes_from_their_rows)
{
    enum { COUNT = 100 };
    struct client client;
    struct leader leader;
    given_safekeeper();
    create_many(COUNT);
    watch_many(&client, COUNT, RIG_START_LSN + 8);
    expect_reports(&client, COUNT);
    ck_assert_uint_eq(status_number("resting"), COUNT);
    /* What the pageserver said is known to who wakes one up. */
    leader_begin_on(&leader, &rig, id_of(7), 1);
    leader_commit(&leader, 800);
    ck_assert_uint_eq(leader.last.remote_lsn, RIG_START_LSN + 8);
    ck_assert_uint_eq(status_number("resting"), COUNT - 1);
    client_close(&leader.client);
    wait_until_resting(COUNT);
    client_close(&client);
    rig_deinit(&rig);
}
END_TEST

/* Who watches after a start hears of each when it has been read, and need not ask again. */
START_TEST(test_status_of_timelines_that_are_still_unopened)
{
    enum { COUNT = 50 };
    struct client client;
    given_safekeeper();
    create_many(COUNT);
    rig_kill(&rig);
    rig.extra[3] = "--faults=wal_store.before_open=pause:10";
    rig_start(&rig);
    watch_many(&client, COUNT, 0);
    expect_reports(&client, COUNT);
    wait_until_resting(COUNT);
    client_close(&client);
    rig_stop(&rig);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_who_reads_or_writes_keeps_it_awake)
{
    struct client feed, proposer;
    struct feed_start start = {.begin_lsn = RIG_START_LSN};
    given_timeline();
    ck_assert_uint_eq(rig_create_timeline(&rig, id_of(1), RIG_START_LSN), 201);
    wait_until_resting(2);
    client_open(&proposer, &rig, HELLO_ROLE_PROPOSER);
    ck_assert_uint_eq(rig_create_timeline(&rig, id_of(2), RIG_START_LSN), 201);
    wait_until_resting(2); /* the newest one, after all of them were looked at */
    client_close(&proposer);
    wait_until_resting(3);
    client_open(&feed, &rig, HELLO_ROLE_FEED);
    CLIENT_SEND(&feed, feed_start, &start, FRAME_FEED_START);
    client_flush(&feed);
    ck_assert_uint_eq(rig_create_timeline(&rig, id_of(3), RIG_START_LSN), 201);
    wait_until_resting(3);
    client_close(&feed);
    wait_until_resting(4);
    rig_deinit(&rig);
}
END_TEST

/* What somebody must repair stays visible. */
START_TEST(test_what_has_failed_does_not_rest)
{
    char path[300];
    struct leader leader;
    given_timeline();
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 8000);
    client_close(&leader.client);
    wait_until_resting(1);
    rig_flip(rig_path(&rig, "wal/000000010000000000000030"), RIG_START_LSN % MIB + 1000);
    (void)snprintf(
        path, sizeof(path), "/v1/tenants/%s/timelines/%s/digest?from=" LSN_FMT "&to=" LSN_FMT,
        tenant_id_text(rig_tenant).text, timeline_id_text(rig_timeline).text,
        LSN_ARGS(RIG_START_LSN), LSN_ARGS(RIG_START_LSN + 8000));
    ck_assert_uint_ge(rig_http(&rig, "GET", path, NULL, NULL), 500);
    ck_assert_uint_eq(rig_create_timeline(&rig, id_of(1), RIG_START_LSN), 201);
    wait_until_resting(1);
    ck_assert_uint_eq(rig_http(&rig, "GET", "/readyz", NULL, NULL), 503);
    rig_wait_storage(&rig, "failed");
    rig_deinit(&rig);
}
END_TEST

/* ---- the list ---- */

static size_t list_timelines(const char *query, char *ret_digest, size_t size, bool *ret_unchanged)
{
    char path[100];
    struct doc *body = NULL;
    const char *digest = NULL;
    (void)snprintf(path, sizeof(path), "/v1/tenants%s", query);
    ck_assert_uint_eq(rig_http(&rig, "GET", path, NULL, &body), 200);
    ck_assert_ok(doc_get_str(body, "digest", &digest, &msg), &msg);
    (void)snprintf(ret_digest, size, "%s", digest);
    *ret_unchanged = doc_get(body, "unchanged") != NULL;
    size_t count = doc_count(doc_get(body, "timelines"));
    doc_unref(body);
    return count;
}

START_TEST(test_the_list_is_sent_again_when_it_has_changed)
{
    char digest[20], again[20], query[60];
    bool is_unchanged = false;
    given_safekeeper();
    create_many(20);
    ck_assert_uint_eq(list_timelines("", digest, sizeof(digest), &is_unchanged), 20);
    ck_assert(!is_unchanged);
    ck_assert_uint_eq(status_number("resting"), 20); /* a look is no use */
    (void)snprintf(query, sizeof(query), "?known=%s&brief=true", digest);
    ck_assert_uint_eq(list_timelines(query, again, sizeof(again), &is_unchanged), 0);
    ck_assert(is_unchanged);
    rig_kill(&rig);
    rig_start(&rig);
    ck_assert_uint_eq(list_timelines(query, again, sizeof(again), &is_unchanged), 0);
    ck_assert(is_unchanged); /* of another process, too */
    ck_assert_uint_eq(rig_create_timeline(&rig, id_of(20), RIG_START_LSN), 201);
    ck_assert_uint_eq(list_timelines(query, again, sizeof(again), &is_unchanged), 21);
    ck_assert(!is_unchanged);
    ck_assert_str_ne(digest, again);
    rig_deinit(&rig);
}
END_TEST

/* Or who created a timeline there, and asks whether the empty list has changed, would never know.
 */
START_TEST(test_the_empty_list_of_another_disk_is_another_one)
{
    char digest[20], again[20], query[60];
    bool is_unchanged = false;
    given_safekeeper();
    ck_assert_uint_eq(list_timelines("", digest, sizeof(digest), &is_unchanged), 0);
    rig_kill(&rig);
    ck_assert_ok(dir_remove(rig.dir, &msg), &msg);
    rig_start(&rig);
    (void)snprintf(query, sizeof(query), "?known=%s", digest);
    ck_assert_uint_eq(list_timelines(query, again, sizeof(again), &is_unchanged), 0);
    ck_assert(!is_unchanged);
    rig_deinit(&rig);
}
END_TEST

UNIT_MAIN(
    "safekeeper at rest",
    test_a_promise_survives_rest,
    test_a_log_goes_on_where_it_rested,
    test_what_is_not_committed_survives_rest,
    test_a_suspicion_survives_rest,
    test_a_membership_is_changed_at_rest,
    test_status_of_timelines_at_rest_comes_from_their_rows,
    test_status_of_timelines_that_are_still_unopened,
    test_who_reads_or_writes_keeps_it_awake,
    test_what_has_failed_does_not_rest,
    test_the_list_is_sent_again_when_it_has_changed,
    test_the_empty_list_of_another_disk_is_another_one);
