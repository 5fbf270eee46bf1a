/* A real safekeeper: what it acknowledged it keeps, and what it refuses. */
#include "tests/flow/safekeeper/safekeeper_fixture.h"

#include <dirent.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/prng.h"
#include "common/io/file.h"

START_TEST(test_acknowledged_wal_survives_kill)
{
    struct leader leader, next;
    given_timeline();
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 1000);
    leader_send(&leader, 100000, LSN_NONE);
    leader_send(&leader, 3, LSN_NONE);
    ck_assert(leader_wait(&leader, leader.lsn));
    lsn_t end_lsn = leader.lsn;
    restart();

    leader_vote(&next, &rig, 2);
    ck_assert_uint_eq(next.vote.granted, 1);
    ck_assert_uint_eq(next.vote.flush_lsn, end_lsn);
    ck_assert_uint_eq(next.vote.record_lsn, end_lsn / 8 * 8);
    ck_assert_uint_ge(next.vote.commit_lsn, RIG_START_LSN);
    client_close(&leader.client);
    client_close(&next.client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_a_promise_survives_kill)
{
    struct leader leader;
    given_timeline();
    leader_vote(&leader, &rig, 9);
    ck_assert_uint_eq(leader.vote.granted, 1);
    client_close(&leader.client);
    restart();
    leader_vote(&leader, &rig, 9);
    ck_assert_uint_eq(leader.vote.granted, 0);
    ck_assert_uint_eq(leader.vote.term, 9);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_next_leader_cuts_what_was_not_committed)
{
    struct leader leader, next;
    given_timeline();
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 4000);
    lsn_t commit_lsn = leader.last.commit_lsn;
    leader_send(&leader, 50000, LSN_NONE);
    ck_assert(leader_wait(&leader, leader.lsn));

    leader_vote(&next, &rig, 2); /* its donor had only what is committed */
    next.vote.history =
        (struct term_history){.count = 2, .items = {{0, RIG_START_LSN}, {1, RIG_START_LSN}}};
    leader_elect(&next, commit_lsn);
    leader_commit(&next, 777 * 8);
    /* The old one is told of the newer term. */
    leader_send(&leader, 8, LSN_NONE);
    while (leader.last.term == 1) {
        leader.last.flush_lsn = LSN_NONE;
        ck_assert(leader_wait(&leader, 1));
    }
    ck_assert_uint_eq(leader.last.term, 2);

    restart();
    ck_assert_uint_eq(rig_lsn(&rig, "flush_lsn"), next.lsn);
    ck_assert_uint_eq(rig_lsn(&rig, "record_lsn"), next.lsn);
    client_close(&leader.client);
    client_close(&next.client);

    leader_begin(&leader, &rig, 3);
    leader_commit(&leader, 8);
    assert_digest(RIG_START_LSN, commit_lsn, 1);
    assert_digest(commit_lsn, next.lsn, 2);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_donor_is_read_by_its_term_only)
{
    struct leader leader, next;
    struct frame frame;
    given_timeline();
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 800);
    leader_send(&leader, 1600, LSN_NONE);
    ck_assert(leader_wait(&leader, leader.lsn));
    leader_vote(&next, &rig, 2);
    struct read_wal request = {
        .term = 2, .begin_lsn = leader.last.commit_lsn, .size = WAL_APPEND_MAX};
    CLIENT_SEND(&next.client, read_wal, &request, FRAME_READ_WAL);
    client_expect(&next.client, FRAME_READ_WAL_REPLY, &frame);
    struct reader in = reader_of(frame.payload);
    struct read_wal_reply reply;
    ck_assert_int_eq(read_wal_reply_decode(&reply, &in), ERR_OK);
    ck_assert_uint_eq(reply.begin_lsn + reply.wal.size, leader.last.record_lsn);
    ck_assert_uint_eq(frame.request_id, next.client.request_id);

    request.term = 1;
    CLIENT_SEND(&next.client, read_wal, &request, FRAME_READ_WAL);
    ck_assert_int_eq(client_expect_error(&next.client), ERR_STALE);
    request.term = 0;
    request.begin_lsn += 8;
    CLIENT_SEND(&next.client, read_wal, &request, FRAME_READ_WAL);
    ck_assert_int_eq(client_expect_error(&next.client), ERR_RANGE);
    client_close(&leader.client);
    client_close(&next.client);
    rig_deinit(&rig);
}
END_TEST

/* ---- what does not fit ---- */

START_TEST(test_hello_is_refused_with_a_reason)
{
    struct {
        struct hello hello;
        err_t expected;
    } cases[8];
    given_timeline();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        cases[i].hello = client_hello(HELLO_ROLE_PROPOSER);
    }
    cases[0].hello.timeline.bytes[0]++;
    cases[0].expected = ERR_NOT_FOUND;
    cases[1].hello.tenant.bytes[0]++;
    cases[1].expected = ERR_NOT_FOUND;
    cases[2].hello.generation--;
    cases[2].expected = ERR_STALE;
    cases[3].hello.role = HELLO_ROLE_PAGES;
    cases[3].expected = ERR_UNSUPPORTED;
    cases[4].hello.system_id++;
    cases[4].expected = ERR_INVALID;
    cases[5].hello.pg_version = 160004;
    cases[5].expected = ERR_INVALID;
    cases[6].hello.protocol_min = cases[6].hello.protocol_max = PROTOCOL_VERSION_MAX + 1;
    cases[6].expected = ERR_UNSUPPORTED;
    cases[7].hello.shard_count = 2;
    cases[7].expected = ERR_UNSUPPORTED;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct client client;
        client_connect(&client, &rig);
        ck_assert_int_eq(client_say_hello(&client, &cases[i].hello), cases[i].expected);
        client_expect_end(&client);
        client_close(&client);
    }
    rig_deinit(&rig);
}
END_TEST

static struct membership_notice notice_of(generation_t generation)
{
    return (struct membership_notice){
        .generation = generation,
        .members = {
            .count = 2,
            .items = {
                {.id = 1, .is_old = true, .is_new = true, .host = "127.0.0.1", .port = 1},
                {.id = 2, .is_new = true, .host = "127.0.0.1", .port = 2}}}};
}

/* Who changes a membership may die before it has told everybody: a proposer brings the news. */
START_TEST(test_a_newer_membership_comes_with_a_proposer_too)
{
    struct client client;
    struct hello hello = client_hello(HELLO_ROLE_PROPOSER);
    given_timeline();
    hello.generation = RIG_GENERATION + 1;
    client_connect(&client, &rig);
    ck_assert_int_eq(client_say_hello(&client, &hello), ERR_OK);
    struct membership_notice notice = notice_of(RIG_GENERATION + 1);
    CLIENT_SEND(&client, membership_notice, &notice, FRAME_MEMBERSHIP);
    struct frame frame;
    client_expect(&client, FRAME_MEMBERSHIP, &frame);
    ck_assert_int_eq(client_expect_error(&client), ERR_STALE);
    client_expect_end(&client);
    client_close(&client);

    client_connect(&client, &rig); /* its generation is ours now, and stays it */
    ck_assert_int_eq(client_say_hello(&client, &hello), ERR_OK);
    struct vote_request vote = {.generation = RIG_GENERATION + 1, .term = 9, .proposer_id = 77};
    CLIENT_SEND(&client, vote_request, &vote, FRAME_VOTE_REQUEST);
    client_expect(&client, FRAME_VOTE_REPLY, &frame);
    client_close(&client);
    restart();
    hello.generation = RIG_GENERATION;
    client_connect(&client, &rig);
    ck_assert_int_eq(client_say_hello(&client, &hello), ERR_STALE);
    client_close(&client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_a_membership_that_is_none_or_no_news_is_refused)
{
    given_timeline();
    struct membership_notice cases[3] = {
        notice_of(RIG_GENERATION), notice_of(RIG_GENERATION - 1), notice_of(RIG_GENERATION + 1)};
    cases[2].members.items[1].id = 1; /* twice */
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct client client;
        client_open(&client, &rig, HELLO_ROLE_PROPOSER);
        CLIENT_SEND(&client, membership_notice, &cases[i], FRAME_MEMBERSHIP);
        ck_assert_int_eq(client_expect_error(&client), i < 2 ? ERR_STALE : ERR_INVALID);
        client_expect_end(&client);
        client_close(&client);
    }
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_refused_hello_leaves_the_other_channels_alone)
{
    struct client client;
    struct frame frame;
    given_timeline();
    client_open(&client, &rig, HELLO_ROLE_PEER);
    uint32_t channel = client.channel;
    struct hello hello = client_hello(HELLO_ROLE_PEER);
    hello.timeline.bytes[3] = 99;
    ck_assert_int_eq(client_say_hello(&client, &hello), ERR_NOT_FOUND);
    client.channel = channel;
    struct read_wal request = {.begin_lsn = RIG_START_LSN, .size = 100};
    CLIENT_SEND(&client, read_wal, &request, FRAME_READ_WAL);
    client_expect(&client, FRAME_READ_WAL_REPLY, &frame);
    client_close(&client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_append_that_leaves_a_gap_is_refused)
{
    struct leader leader;
    given_timeline();
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 800);
    lsn_t end_lsn = leader.lsn;
    leader.lsn += 8;
    leader_send(&leader, 100, LSN_NONE);
    ck_assert_int_eq(client_expect_error(&leader.client), ERR_INVALID);
    client_expect_end(&leader.client);
    client_close(&leader.client);
    ck_assert_uint_eq(rig_lsn(&rig, "write_lsn"), end_lsn);
    leader_begin(&leader, &rig, 2); /* a new connection heals */
    leader_commit(&leader, 80);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_append_before_elected_is_refused)
{
    struct leader leader;
    given_timeline();
    leader_vote(&leader, &rig, 1);
    leader.lsn = RIG_START_LSN;
    leader_send(&leader, 100, LSN_NONE);
    ck_assert_int_eq(client_expect_error(&leader.client), ERR_INVALID);
    client_expect_end(&leader.client);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_malformed_message_ends_the_connection)
{
    struct client client;
    given_timeline();
    client_open(&client, &rig, HELLO_ROLE_PROPOSER);
    struct frame frame = {
        .type = FRAME_APPEND,
        .version = 1,
        .channel = client.channel,
        .payload = bytes_of("too short", 9),
    };
    frame_append(&client.out, &frame);
    ck_assert_int_eq(client_expect_error(&client), ERR_CORRUPT);
    client_expect_end(&client);
    client_close(&client);

    client_open(&client, &rig, HELLO_ROLE_PROPOSER);
    frame = (struct frame){.type = FRAME_GET_PAGE, .version = 1, .channel = client.channel};
    frame_append(&client.out, &frame);
    ck_assert_int_eq(client_expect_error(&client), ERR_UNSUPPORTED);
    client_close(&client);

    client_connect(&client, &rig);
    frame = (struct frame){.type = FRAME_APPEND, .version = 1, .channel = 5};
    frame_append(&client.out, &frame);
    ck_assert_int_eq(client_expect_error(&client), ERR_NOT_FOUND);
    client_close(&client);
    rig_deinit(&rig);
}
END_TEST

/* Random bytes, and valid frames with one bit wrong, cut anywhere. */
START_TEST(test_garbage_on_the_port)
{
    struct prng prng;
    struct leader leader;
    given_timeline();
    prng_init(&prng, 1);
    leader_begin(&leader, &rig, 1);
    for (unsigned i = 0; i < 300; i++) {
        struct client client;
        struct hello hello = client_hello((enum hello_role)(2 + i % 3));
        client_connect(&client, &rig);
        if (i % 3 == 0) {
            uint8_t noise[300];
            for (size_t k = 0; k < sizeof(noise); k++) {
                noise[k] = (uint8_t)prng_next(&prng);
            }
            client_send_bytes(&client, bytes_of(noise, 1 + prng_below(&prng, sizeof(noise))));
        } else {
            CLIENT_SEND(&client, hello, &hello, FRAME_HELLO);
            client.channel = 1;
            struct append append = {.term = 1, .begin_lsn = RIG_START_LSN};
            CLIENT_SEND(&client, append, &append, 16 + prng_below(&prng, 24));
            client.out.data[prng_below(&prng, client.out.size)] ^=
                (uint8_t)(1u << prng_below(&prng, 8));
            size_t cut = i % 3 == 1 ? client.out.size : prng_below(&prng, client.out.size);
            client_send_bytes(&client, bytes_of(client.out.data, cut));
        }
        (void)shutdown(client.fd, SHUT_WR);
        buf_clear(&client.out);
        uint8_t rest[512];
        while (recv(client.fd, rest, sizeof(rest), 0) > 0) {
        }
        client_close(&client);
    }
    leader_commit(&leader, 4000); /* nobody else was harmed */
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

/* ---- timelines ---- */

START_TEST(test_deleted_timeline_stays_deleted)
{
    struct leader leader;
    char path[200];
    given_timeline();
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 800);
    (void)snprintf(
        path, sizeof(path), "/v1/tenants/%s/timelines/%s?generation=%d",
        tenant_id_text(rig_tenant).text, timeline_id_text(rig_timeline).text, RIG_GENERATION);
    ck_assert_uint_eq(rig_http(&rig, "DELETE", path, NULL, NULL), 200);
    ck_assert_int_eq(client_expect_error(&leader.client), ERR_CANCELED);
    client_expect_end(&leader.client);
    client_close(&leader.client);
    ck_assert(!file_exists(rig_path(&rig, "control.0")));
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 410);
    rig_kill(&rig);
    rig_start(&rig);
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 410);
    ck_assert_uint_eq(rig_http(&rig, "DELETE", path, NULL, NULL), 200);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_creation_is_idempotent_and_survives_kill)
{
    given_timeline();
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 200);
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN + 8), 409);
    restart();
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 200);
    rig_arm(&rig, "control_file.before_sync=full*1");
    struct timeline_id other = {.bytes = {0x44}};
    ck_assert_uint_ge(rig_create_timeline(&rig, other, RIG_START_LSN), 500);
    ck_assert_uint_eq(rig_create_timeline(&rig, other, RIG_START_LSN), 201);
    rig_deinit(&rig);
}
END_TEST

static size_t open_files(void)
{
    char path[64];
    size_t count = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/fd", rig.pid);
    DIR *dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    return count;
}

START_TEST(test_idle_timelines_hold_no_files)
{
    enum { COUNT = 60 };
    rig_init(&rig);
    rig.extra[0] = "--idle_timeout=20ms";
    rig.extra[1] = "--feed_status_interval=20ms";
    rig_start(&rig);
    size_t before = open_files();
    for (unsigned i = 0; i < COUNT; i++) {
        struct timeline_id id = {.bytes = {0x55, (uint8_t)i}};
        ck_assert_uint_eq(rig_create_timeline(&rig, id, RIG_START_LSN), 201);
    }
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 201);
    struct leader leader;
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 800);
    client_close(&leader.client);
    while (open_files() > before) { /* until the test's limit */
    }
    struct client feed; /* one that reads from files, and stays */
    feed_start(&feed, RIG_START_LSN);
    feed_read(&feed, RIG_START_LSN, leader.last.commit_lsn, 1);
    while (open_files() > before + 1) {
    }
    client_close(&feed);
    leader_begin(&leader, &rig, 2); /* and it wakes up again */
    leader_commit(&leader, 800);
    assert_digest(RIG_START_LSN, RIG_START_LSN + 800, 1);
    client_close(&leader.client);
    restart();
    ck_assert_uint_eq(rig_lsn(&rig, "flush_lsn"), RIG_START_LSN + 1600);
    ck_assert_uint_ge(rig_lsn(&rig, "commit_lsn"), RIG_START_LSN + 800);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_clean_stop_keeps_commit_lsn)
{
    struct leader leader;
    given_timeline();
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 800);
    lsn_t commit_lsn = leader.last.commit_lsn;
    client_close(&leader.client);
    rig_stop(&rig);
    rig_start(&rig);
    rig_wait_storage(&rig, "ok");
    ck_assert_uint_eq(rig_lsn(&rig, "commit_lsn"), commit_lsn);
    rig_deinit(&rig);
}
END_TEST

static void incarnation(char *to)
{
    struct doc *body = NULL;
    const char *text = NULL;
    ck_assert_uint_eq(rig_http(&rig, "GET", "/v1/status", NULL, &body), 200);
    ck_assert_ok(doc_get_str(body, "incarnation", &text, &msg), &msg);
    ck_assert_uint_eq(strlen(text), 32);
    memcpy(to, text, 33);
    doc_unref(body);
}

START_TEST(test_lost_disk_is_another_incarnation)
{
    char first[33], again[33], other[33];
    given_timeline();
    incarnation(first);
    restart();
    incarnation(again);
    ck_assert_str_eq(first, again);
    rig_kill(&rig);
    ck_assert_ok(dir_remove(rig.dir, &msg), &msg);
    rig_start(&rig);
    incarnation(other);
    ck_assert_str_ne(first, other);
    rig_deinit(&rig);
}
END_TEST

static const struct unit_options options = {.timeout_s = 60};

UNIT_MAIN_WITH(
    options,
    "safekeeper",
    test_acknowledged_wal_survives_kill,
    test_a_promise_survives_kill,
    test_next_leader_cuts_what_was_not_committed,
    test_donor_is_read_by_its_term_only,
    test_hello_is_refused_with_a_reason,
    test_a_newer_membership_comes_with_a_proposer_too,
    test_a_membership_that_is_none_or_no_news_is_refused,
    test_refused_hello_leaves_the_other_channels_alone,
    test_append_that_leaves_a_gap_is_refused,
    test_append_before_elected_is_refused,
    test_malformed_message_ends_the_connection,
    test_garbage_on_the_port,
    test_deleted_timeline_stays_deleted,
    test_creation_is_idempotent_and_survives_kill,
    test_idle_timelines_hold_no_files,
    test_clean_stop_keeps_commit_lsn,
    test_lost_disk_is_another_incarnation);
