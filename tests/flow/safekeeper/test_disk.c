/* A real safekeeper: its disk is full, fails, or is damaged; it is killed while it writes. */
#include "tests/flow/safekeeper/safekeeper_fixture.h"

#include <unistd.h>

#include "common/base/prng.h"
#include "common/io/file.h"

START_TEST(test_crash_at_every_failpoint_of_the_write_path)
{
    static const char *const faults[] = {
        "wal_store.before_write",    "wal_store.before_sync",    "wal_store.after_sync",
        "wal_sidecar.before_write",  "wal_sidecar.before_sync",  "wal_sidecar.after_sync",
        "control_file.before_write", "control_file.before_sync", "control_file.after_sync",
    };
    given_timeline();
    lsn_t acked_lsn = RIG_START_LSN;
    term_t term = 1;
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        struct leader leader;
        char spec[80];
        leader_begin(&leader, &rig, term);
        ck_assert_uint_ge(leader.lsn, acked_lsn);
        leader_commit(&leader, 5000 * 8);
        acked_lsn = leader.lsn;
        (void)snprintf(spec, sizeof(spec), "%s=crash", faults[i]);
        rig_arm(&rig, spec);
        if (strncmp(faults[i], "control", 7) == 0) {
            struct vote_request vote = {
                .generation = RIG_GENERATION, .term = ++term, .proposer_id = 77};
            CLIENT_SEND(&leader.client, vote_request, &vote, FRAME_VOTE_REQUEST);
            client_flush(&leader.client);
        } else {
            leader_send(&leader, 400, LSN_NONE);
        }
        rig_wait_crash(&rig);
        client_close(&leader.client);
        rig_start(&rig);
        rig_wait_storage(&rig, "ok");
        ck_assert_uint_ge(rig_lsn(&rig, "flush_lsn"), acked_lsn);
        ck_assert_uint_ge(rig_lsn(&rig, "record_lsn"), acked_lsn);
        term++;
    }
    rig_deinit(&rig);
}
END_TEST

/*
 * Streams of random appends, cut by kill -9 at no particular moment, many times. Every byte that
 * was acknowledged to a leader is there at the end, under the term that wrote it.
 * SAFEKEEPER_KILLS=N: so many.
 */
START_TEST(test_kill_at_random_moments)
{
    enum { KILLS_MAX = 10000 };
    static lsn_t begin_lsns[KILLS_MAX + 2];
    const char *many = getenv("SAFEKEEPER_KILLS");
    size_t kills = many != NULL ? strtoul(many, NULL, 10) : 12;
    struct prng prng;
    struct leader leader;
    given_timeline();
    prng_init(&prng, 7);
    lsn_t acked_lsn = RIG_START_LSN;
    kills = MIN_OF(kills, (size_t)KILLS_MAX);
    for (size_t kill = 0; kill < kills; kill++) {
        leader_begin(&leader, &rig, kill + 1);
        begin_lsns[kill] = leader.lsn;
        ck_assert_uint_ge(leader.lsn + 8, acked_lsn); /* a record end, at most 7 bytes before */
        ck_assert_uint_ge(leader.vote.flush_lsn, acked_lsn);
        size_t appends = 1 + prng_below(&prng, 60);
        for (size_t i = 0; i < appends; i++) {
            static const size_t sizes[] = {8, 300, 9000, WAL_APPEND_MAX};
            size_t size = 1 + prng_below(&prng, sizes[prng_below(&prng, ARRAY_LEN(sizes))]);
            leader_send(&leader, size, leader.last.record_lsn);
            if (prng_below(&prng, 4) == 0) {
                ck_assert(leader_wait(&leader, leader.lsn));
            }
        }
        acked_lsn = leader.last.flush_lsn;
        client_close(&leader.client);
        restart();
        ck_assert_uint_ge(rig_lsn(&rig, "flush_lsn"), acked_lsn);
    }
    leader_begin(&leader, &rig, kills + 1);
    begin_lsns[kills] = leader.lsn;
    leader_commit(&leader, 8);
    begin_lsns[kills + 1] = leader.last.commit_lsn;
    client_close(&leader.client);
    for (size_t kill = 0; kill <= kills; kill++) {
        assert_digest(begin_lsns[kill], begin_lsns[kill + 1], kill + 1);
    }
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_full_disk_is_back_pressure)
{
    struct leader leader;
    given_timeline_with("--pending_wal_max=256kB", "--full_disk_retry=5ms");
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 800);
    lsn_t acked_lsn = leader.lsn;
    rig_arm(&rig, _i == 0 ? "wal_store.before_write=full" : "wal_sidecar.before_write=full");
    for (unsigned i = 0; i < 16; i++) { /* more than it queues: the rest stays in the sockets */
        leader_send(&leader, WAL_APPEND_MAX, LSN_NONE);
    }
    rig_wait_storage(&rig, "full");
    ck_assert_uint_eq(rig_lsn(&rig, "flush_lsn"), acked_lsn);
    ck_assert_uint_eq(rig_http(&rig, "GET", "/readyz", NULL, NULL), 200);
    rig_arm(&rig, "");
    ck_assert(leader_wait(&leader, leader.lsn));
    leader_commit(&leader, 8);
    rig_wait_storage(&rig, "ok");
    assert_digest(RIG_START_LSN, leader.last.commit_lsn, 1);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_next_leader_while_the_disk_is_full)
{
    struct leader leader, next;
    given_timeline_with("--full_disk_retry=5ms", NULL);
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 800);
    lsn_t acked_lsn = leader.lsn;
    rig_arm(&rig, "wal_store.before_write=full");
    leader_send(&leader, 5000, LSN_NONE);
    rig_wait_storage(&rig, "full");
    leader_vote(&next, &rig, 2);
    ck_assert_uint_eq(next.vote.flush_lsn, acked_lsn);
    leader_elect(&next, acked_lsn); /* what could not be written is given up */
    rig_arm(&rig, "");
    leader_commit(&next, 400);
    assert_digest(RIG_START_LSN, acked_lsn, 1);
    assert_digest(acked_lsn, next.last.commit_lsn, 2);
    client_close(&leader.client);
    client_close(&next.client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_failed_sync_takes_the_timeline_out_of_service)
{
    static const char *const faults[] = {
        "wal_store.before_sync=failed*1", "wal_sidecar.before_sync=failed*1"};
    struct leader leader, other;
    struct timeline_id other_timeline = {.bytes = {0x33}};
    given_timeline();
    ck_assert_uint_eq(rig_create_timeline(&rig, other_timeline, RIG_START_LSN), 201);
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 800);
    lsn_t acked_lsn = leader.lsn;
    rig_arm(&rig, faults[_i]);
    leader_send(&leader, 5000, LSN_NONE);
    ck_assert_int_eq(client_expect_error(&leader.client), ERR_FAILED);
    client_expect_end(&leader.client);
    client_close(&leader.client);
    rig_wait_storage(&rig, "failed");
    ck_assert_uint_eq(rig_http(&rig, "GET", "/readyz", NULL, NULL), 503);
    struct hello hello = client_hello(HELLO_ROLE_PROPOSER);
    client_connect(&other.client, &rig);
    ck_assert_int_eq(client_say_hello(&other.client, &hello), ERR_FAILED);
    client_close(&other.client);
    hello.timeline = other_timeline; /* the others go on */
    client_connect(&other.client, &rig);
    ck_assert_int_eq(client_say_hello(&other.client, &hello), ERR_OK);
    client_close(&other.client);

    if (_i == 0) {
        restart(); /* opened and verified again */
    } else {
        char path[200];
        (void)snprintf(
            path, sizeof(path), "/v1/tenants/%s/timelines/%s/reopen",
            tenant_id_text(rig_tenant).text, timeline_id_text(rig_timeline).text);
        rig_arm(&rig, "wal_store.before_open=full*2"); /* ends by itself */
        ck_assert_uint_eq(rig_http(&rig, "POST", path, NULL, NULL), 200);
        rig_wait_storage(&rig, "ok");
        ck_assert_uint_eq(rig_http(&rig, "GET", "/readyz", NULL, NULL), 200);
    }
    ck_assert_uint_ge(rig_lsn(&rig, "flush_lsn"), acked_lsn);
    leader_begin(&leader, &rig, 2);
    leader_commit(&leader, 80);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_damaged_wal_is_not_a_shorter_log)
{
    struct leader leader;
    struct client client;
    given_timeline();
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 8000);
    leader_commit(&leader, 8000);
    client_close(&leader.client);
    rig_kill(&rig);
    rig_flip(rig_path(&rig, "wal/000000010000000000000030"), RIG_START_LSN % (1 * MIB) + 4000);
    rig_start(&rig);
    rig_wait_storage(&rig, "failed");
    struct hello hello = client_hello(HELLO_ROLE_PROPOSER);
    client_connect(&client, &rig);
    ck_assert_int_eq(client_say_hello(&client, &hello), ERR_FAILED);
    client_close(&client);
    ck_assert_uint_eq(rig_http(&rig, "GET", "/readyz", NULL, NULL), 503);
    rig_deinit(&rig);
}
END_TEST

/* Torn or lost, nobody can tell: the vote says so, over restarts, until a leader has decided. */
START_TEST(test_damaged_last_group_is_said_in_the_vote)
{
    struct leader leader;
    given_timeline_with("--certify_delay=0", NULL);
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 4000);
    lsn_t commit_lsn = rig_lsn(&rig, "commit_lsn");
    leader_send(&leader, 4000, LSN_NONE);
    ck_assert(leader_wait(&leader, leader.lsn));
    lsn_t acked_lsn = leader.lsn / 8 * 8;
    client_close(&leader.client);
    rig_kill(&rig);
    rig_flip(rig_path(&rig, "wal/000000010000000000000030"), leader.lsn % (1 * MIB) - 100);
    rig_start(&rig);
    rig_wait_storage(&rig, "ok");
    for (term_t term = 2; term < 4; term++) {
        leader_vote(&leader, &rig, term);
        ck_assert_uint_eq(leader.vote.granted, 1);
        ck_assert_uint_eq(leader.vote.record_lsn, commit_lsn);
        ck_assert_uint_eq(leader.vote.suspect_lsn, acked_lsn);
        ck_assert_uint_eq(leader.vote.suspect_term, 1);
        client_close(&leader.client);
        restart();
    }
    leader_begin(&leader, &rig, 4);
    leader_commit(&leader, 80);
    client_close(&leader.client);
    restart();
    leader_vote(&leader, &rig, 5);
    ck_assert_uint_eq(leader.vote.suspect_lsn, LSN_NONE);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

/* A write that nothing follows is proven soon: from then on its damage is damage. */
START_TEST(test_a_quiet_write_is_proven)
{
    struct leader leader;
    char path[300], sidecar[310];
    given_timeline();
    leader_begin(&leader, &rig, 1);
    leader_send(&leader, 4000, LSN_NONE);
    ck_assert(leader_wait(&leader, leader.lsn));
    (void)snprintf(path, sizeof(path), "%s", rig_path(&rig, "wal/000000010000000000000030"));
    (void)snprintf(sidecar, sizeof(sidecar), "%s.crc", path);
    uint8_t record[64] = {0};
    int fd = -1;
    ck_assert_ok(file_open(&fd, sidecar, FILE_READ, &msg), &msg);
    while (record[0] == 0) { /* until the test's limit: slot 2 follows the group's */
        ck_assert_ok(file_read_at(fd, sidecar, record, sizeof(record), 2 * 64, &msg), &msg);
    }
    file_close(&fd);
    client_close(&leader.client);
    rig_kill(&rig);
    rig_flip(path, leader.lsn % (1 * MIB) - 100);
    rig_start(&rig);
    rig_wait_storage(&rig, "failed");
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_damage_is_found_by_a_feed)
{
    struct leader leader;
    struct client feed;
    struct frame frame;
    given_timeline();
    leader_begin(&leader, &rig, 1);
    leader_commit_much(&leader, 24, 8); /* more than the memory keeps */
    rig_flip(
        rig_path(&rig, "wal/000000010000000000000031"), 5000); /* the feed gets as far as this */
    feed_start(&feed, RIG_START_LSN);
    lsn_t got_lsn = RIG_START_LSN;
    do {
        ck_assert(client_receive(&feed, &frame));
        struct feed_wal piece;
        struct reader in = reader_of(frame.payload);
        if (frame.type == FRAME_FEED_WAL) {
            ck_assert_int_eq(feed_wal_decode(&piece, &in), ERR_OK);
            got_lsn += piece.wal.size;
        }
    } while (frame.type != FRAME_ERROR);
    ck_assert_uint_lt(got_lsn, 0x3100000 + 5000);
    client_expect_end(&feed);
    client_close(&feed);
    rig_wait_storage(&rig, "failed");
    ck_assert_int_eq(client_expect_error(&leader.client), ERR_FAILED);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_damaged_promise_is_not_forgotten)
{
    struct leader leader;
    given_timeline();
    leader_vote(&leader, &rig, 5);
    client_close(&leader.client);
    rig_kill(&rig);
    rig_flip(rig_path(&rig, _i == 0 ? "control.0" : "control.1"), 90);
    rig_start(&rig);
    rig_wait_storage(&rig, "ok");
    leader_vote(&leader, &rig, 5);
    ck_assert_uint_eq(leader.vote.granted, 0);
    ck_assert_uint_eq(leader.vote.term, 5);
    client_close(&leader.client);
    rig_kill(&rig);
    rig_flip(rig_path(&rig, _i == 0 ? "control.1" : "control.0"), 94); /* the first one is whole */
    rig_start(&rig);
    rig_wait_storage(&rig, "ok");
    rig_kill(&rig);
    rig_flip(rig_path(&rig, "control.0"), 94);
    rig_flip(rig_path(&rig, "control.1"), 95);
    rig_start(&rig);
    rig_wait_storage(&rig, "failed");
    rig_deinit(&rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("disk");
    TCase *tcase = tcase_create("disk");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_crash_at_every_failpoint_of_the_write_path);
    tcase_add_test(tcase, test_kill_at_random_moments);
    tcase_add_loop_test(tcase, test_full_disk_is_back_pressure, 0, 2);
    tcase_add_test(tcase, test_next_leader_while_the_disk_is_full);
    tcase_add_loop_test(tcase, test_failed_sync_takes_the_timeline_out_of_service, 0, 2);
    tcase_add_test(tcase, test_damaged_wal_is_not_a_shorter_log);
    tcase_add_test(tcase, test_damaged_last_group_is_said_in_the_vote);
    tcase_add_test(tcase, test_a_quiet_write_is_proven);
    tcase_add_test(tcase, test_damage_is_found_by_a_feed);
    tcase_add_loop_test(tcase, test_damaged_promise_is_not_forgotten, 0, 2);
    suite_add_tcase(suite, tcase);
    return unit_run_suite(suite);
}
