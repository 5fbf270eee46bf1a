/* A safekeeper whose WAL is damaged gets it back from the other one, with no compute anywhere. */
#include "tests/flow/safekeeper/rig.h"

#include <stdio.h>

#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/wire/status_proto.h"

static struct rig rigs[2];
static struct leader leaders[2];
static struct errmsg msg;
static bool is_forgetful; /* they keep no WAL for a member that is away */

static void timeline_path(const char *suffix, char *to, size_t size)
{
    (void)snprintf(
        to, size, "/v1/tenants/%s/timelines/%s%s", tenant_id_text(rig_tenant).text,
        timeline_id_text(rig_timeline).text, suffix);
}

/* Also tells one that runs where the other one listens now. */
static unsigned create_on(struct rig *rig)
{
    char path[200], body[900];
    timeline_path("", path, sizeof(path));
    (void)snprintf(
        body, sizeof(body),
        "{\"start_lsn\":\"" LSN_FMT "\",\"pg_version\":170011,\"system_id\":\"%" PRIu64
        "\",\"segment_size\":%u,\"membership\":{\"generation\":%d,\"members\":["
        "{\"id\":1,\"host\":\"127.0.0.1\",\"port\":%u,\"http_host\":\"127.0.0.1\",\"http_port\":1},"
        "{\"id\":2,\"host\":\"127.0.0.1\",\"port\":%u,\"http_host\":\"127.0.0.1\",\"http_port\":2}"
        "]}}",
        LSN_ARGS(RIG_START_LSN), (uint64_t)RIG_SYSTEM_ID, (uint32_t)(1 * MIB), RIG_GENERATION,
        rigs[0].port, rigs[1].port);
    return rig_http(rig, "PUT", path, body, NULL);
}

static void given_two(void)
{
    for (int i = 0; i < 2; i++) {
        rig_init(&rigs[i]);
        rigs[i].extra[0] = i == 0 ? "--node_id=1" : "--node_id=2";
        rigs[i].extra[1] = "--repair_retry=20ms";
        rigs[i].extra[2] = "--peer_check_interval=20ms";
        if (is_forgetful) {
            rigs[i].extra[3] = "--retention_interval=20ms";
            rigs[i].extra[4] = "--wal_keep_min=0";
            rigs[i].extra[5] = "--wal_keep_max=1";
        }
        rig_start(&rigs[i]);
    }
    for (int i = 0; i < 2; i++) {
        ck_assert_uint_eq(create_on(&rigs[i]), 201);
        leader_begin(&leaders[i], &rigs[i], 1);
    }
}

/* Each has the same bytes: those of term 1. */
static void when_both_commit(size_t size)
{
    for (int i = 0; i < 2; i++) {
        leader_commit(&leaders[i], size);
    }
}

static void when_leaders_leave(void)
{
    client_close(&leaders[0].client);
    client_close(&leaders[1].client);
}

static void assert_same_digest(lsn_t begin_lsn, lsn_t end_lsn)
{
    char path[300], name[100], crcs[2][12];
    (void)snprintf(
        name, sizeof(name), "/digest?from=" LSN_FMT "&to=" LSN_FMT, LSN_ARGS(begin_lsn),
        LSN_ARGS(end_lsn));
    timeline_path(name, path, sizeof(path));
    for (int i = 0; i < 2; i++) {
        struct doc *body = NULL;
        const char *crc = NULL;
        ck_assert_uint_eq(rig_http(&rigs[i], "GET", path, NULL, &body), 200);
        ck_assert_ok(doc_get_str(body, "crc", &crc, &msg), &msg);
        (void)snprintf(crcs[i], sizeof(crcs[i]), "%s", crc);
        doc_unref(body);
    }
    ck_assert_str_eq(crcs[0], crcs[1]);
}

static void deinit_two(void)
{
    rig_deinit(&rigs[0]);
    rig_deinit(&rigs[1]);
}

START_TEST(test_damage_that_a_start_finds_is_repaired)
{
    given_two();
    for (int i = 0; i < 20; i++) {
        when_both_commit(WAL_APPEND_MAX);
    }
    lsn_t end_lsn = leaders[0].last.commit_lsn;
    when_leaders_leave();
    rig_stop(&rigs[0]); /* its last group is proven */
    rig_flip(rig_path(&rigs[0], "wal/000000010000000000000030"), RIG_START_LSN % (1 * MIB) + 70);
    rig_flip(rig_path(&rigs[0], "wal/000000010000000000000031"), 5000);
    ck_assert_ok(file_remove(rig_path(&rigs[0], "wal/000000010000000000000032"), &msg), &msg);
    rig_start(&rigs[0]);
    rig_wait_storage(&rigs[0], "ok");
    ck_assert_uint_eq(rig_http(&rigs[0], "GET", "/readyz", NULL, NULL), 200);
    ck_assert_uint_ge(rig_lsn(&rigs[0], "flush_lsn"), end_lsn);
    assert_same_digest(RIG_START_LSN, rig_lsn(&rigs[0], "commit_lsn"));
    deinit_two();
}
END_TEST

/* No start needed: a reader stumbles over it, and later everything is well again. */
START_TEST(test_damage_that_a_reader_finds_is_repaired)
{
    given_two();
    for (int i = 0; i < 20; i++) {
        when_both_commit(WAL_APPEND_MAX);
    }
    lsn_t end_lsn = leaders[0].last.commit_lsn;
    when_leaders_leave();
    rig_flip(rig_path(&rigs[0], "wal/000000010000000000000031"), 5000);
    char path[300], name[100];
    (void)snprintf(
        name, sizeof(name), "/digest?from=" LSN_FMT "&to=" LSN_FMT, LSN_ARGS(RIG_START_LSN),
        LSN_ARGS(end_lsn));
    timeline_path(name, path, sizeof(path));
    ck_assert_uint_eq(rig_http(&rigs[0], "GET", path, NULL, NULL), 500);
    rig_wait_storage(&rigs[0], "ok");
    assert_same_digest(RIG_START_LSN, rig_lsn(&rigs[0], "commit_lsn"));
    leader_begin(&leaders[0], &rigs[0], 2); /* and it votes, and takes WAL */
    leader_commit(&leaders[0], 800);
    client_close(&leaders[0].client);
    deinit_two();
}
END_TEST

/* The other one is away first, then back: until then no vote, and it says so. */
START_TEST(test_repair_waits_for_a_member_that_has_it)
{
    given_two();
    when_both_commit(4000);
    when_both_commit(4000);
    lsn_t end_lsn = leaders[0].last.commit_lsn;
    when_leaders_leave();
    rig_stop(&rigs[1]);
    rig_stop(&rigs[0]);
    rig_flip(rig_path(&rigs[0], "wal/000000010000000000000030"), RIG_START_LSN % (1 * MIB) + 70);
    rig_start(&rigs[0]);
    const char *text = "";
    struct doc *status = NULL;
    do {
        doc_unref(status);
        status = rig_status(&rigs[0], rig_timeline);
        ck_assert_ok(doc_opt_str(status, "repair", &text, &msg), &msg);
    } while (strstr(text, "no member has") == NULL);
    doc_unref(status);
    struct hello hello = client_hello(HELLO_ROLE_PROPOSER);
    struct client client;
    client_connect(&client, &rigs[0]);
    err_t err = client_say_hello(&client, &hello);
    ck_assert(err == ERR_FAILED || err == ERR_NOT_FOUND); /* while it looks again */
    client_close(&client);
    char port[32];
    (void)snprintf(port, sizeof(port), "--listen_port=%u", rigs[1].port);
    rigs[1].extra[3] = port; /* the later one of two counts */
    rig_start(&rigs[1]);
    rig_wait_storage(&rigs[0], "ok");
    assert_same_digest(RIG_START_LSN, end_lsn);
    deinit_two();
}
END_TEST

/* Proven to have been durable here, committed nowhere: the node is there, and says what is gone. */
START_TEST(test_a_damaged_tail_that_nobody_has_is_said_in_the_vote)
{
    given_two();
    when_both_commit(4000);
    lsn_t commit_lsn = leaders[0].last.commit_lsn;
    leader_send(&leaders[0], 4000, LSN_NONE);
    ck_assert(leader_wait(&leaders[0], leaders[0].lsn));
    lsn_t acked_lsn = leaders[0].lsn / 8 * 8;
    when_leaders_leave();
    rig_stop(&rigs[0]); /* its last group is proven */
    rig_flip(rig_path(&rigs[0], "wal/000000010000000000000030"), acked_lsn % (1 * MIB) - 100);
    rig_start(&rigs[0]);
    rig_wait_storage(&rigs[0], "ok");
    leader_vote(&leaders[0], &rigs[0], 2);
    ck_assert(leaders[0].vote.granted);
    ck_assert_uint_eq(leaders[0].vote.record_lsn, commit_lsn);
    ck_assert_uint_eq(leaders[0].vote.suspect_lsn, acked_lsn);
    client_close(&leaders[0].client);
    deinit_two();
}
END_TEST

static void wait_until_committed(struct rig *rig, lsn_t lsn)
{
    while (rig_lsn(rig, "commit_lsn") < lsn) { /* until the test's limit */
    }
}

/* ---- a log that is made anew ---- */

#define SIDECAR(number) "wal/0000000100000000000000" number ".crc"
#define SLOT(number)    (64 * (number))

static void cut_file(const char *path)
{
    int fd = -1;
    ck_assert_ok(file_open(&fd, path, FILE_WRITE, &msg), &msg);
    ck_assert_ok(file_resize(fd, path, 0, /* reserve */ false, &msg), &msg);
    file_close(&fd);
}

/* The ways in which a sidecar goes. Which bytes were there nobody can tell from what is left. */
static void damage_sidecars(int how)
{
    const struct rig *rig = &rigs[0];
    switch (how) {
    case 0: rig_flip(rig_path(rig, SIDECAR("30")), SLOT(3) + 20); break;
    case 1: ck_assert_ok(file_remove(rig_path(rig, SIDECAR("31")), &msg), &msg); break;
    case 2: rig_flip(rig_path(rig, SIDECAR("31")), 5); break; /* its header */
    case 3: cut_file(rig_path(rig, SIDECAR("32"))); break;    /* of the last segment */
    case 4:
        rig_flip(rig_path(rig, SIDECAR("32")), SLOT(2) + 1);
        rig_flip(rig_path(rig, SIDECAR("32")), SLOT(3) + 1);
        rig_flip(rig_path(rig, SIDECAR("32")), SLOT(4) + 1);
        break;
    default: ck_assert_ok(dir_remove(rig_path(rig, "wal"), &msg), &msg);
    }
}

START_TEST(test_a_damaged_sidecar_is_replaced_with_its_log)
{
    given_two();
    for (int i = 0; i < 20; i++) {
        when_both_commit(WAL_APPEND_MAX);
    }
    lsn_t end_lsn = leaders[0].last.commit_lsn;
    when_leaders_leave();
    rig_stop(&rigs[0]);
    damage_sidecars(_i);
    rig_start(&rigs[0]);
    rig_wait_storage(&rigs[0], "ok");
    ck_assert_uint_eq(rig_http(&rigs[0], "GET", "/readyz", NULL, NULL), 200);
    ck_assert_uint_eq(rig_lsn(&rigs[0], "commit_lsn"), end_lsn);
    assert_same_digest(RIG_START_LSN, end_lsn);
    rig_kill(&rigs[0]); /* it stays good, and is found so */
    rig_start(&rigs[0]);
    rig_wait_storage(&rigs[0], "ok");
    assert_same_digest(RIG_START_LSN, end_lsn);
    leader_begin(&leaders[0], &rigs[0], 2);
    ck_assert_uint_eq(leaders[0].vote.record_lsn, end_lsn);
    leader_commit(&leaders[0], 800);
    client_close(&leaders[0].client);
    deinit_two();
}
END_TEST

/* What was acknowledged behind the damage and is committed nowhere is not there: the vote says so.
 */
START_TEST(test_a_replaced_log_says_what_may_have_been_acknowledged)
{
    given_two();
    when_both_commit(4000);
    when_both_commit(4000);
    lsn_t commit_lsn = leaders[0].last.commit_lsn;
    leader_send(&leaders[0], 4000, LSN_NONE);
    ck_assert(leader_wait(&leaders[0], leaders[0].lsn));
    lsn_t acked_lsn = leaders[0].lsn;
    when_leaders_leave();
    rig_stop(&rigs[0]);
    rig_flip(rig_path(&rigs[0], SIDECAR("30")), SLOT(1) + 20);
    rig_start(&rigs[0]);
    rig_wait_storage(&rigs[0], "ok");
    for (unsigned i = 0; i < 2; i++) {
        leader_vote(&leaders[0], &rigs[0], 2 + i);
        ck_assert(leaders[0].vote.granted);
        ck_assert_uint_eq(leaders[0].vote.record_lsn, commit_lsn);
        ck_assert_uint_ge(leaders[0].vote.suspect_lsn, acked_lsn);
        client_close(&leaders[0].client);
        rig_kill(&rigs[0]);
        rig_start(&rigs[0]);
    }
    deinit_two();
}
END_TEST

/* One commit group: its first half is committed, and nobody else was ever sent the other one. */
START_TEST(test_a_damaged_group_that_was_committed_in_part_is_replaced)
{
    given_two();
    when_both_commit(4000);
    leader_send(&leaders[0], 8000, LSN_NONE);
    ck_assert(leader_wait(&leaders[0], leaders[0].lsn));
    leader_commit(&leaders[1], 4000);
    lsn_t commit_lsn = leaders[1].last.commit_lsn;
    leader_send(&leaders[0], 0, commit_lsn);
    leader_send(&leaders[0], 0, commit_lsn);
    when_leaders_leave();
    while (rig_lsn(&rigs[0], "commit_lsn") < commit_lsn) { /* until the test's limit */
    }
    rig_stop(&rigs[0]);
    rig_flip(rig_path(&rigs[0], "wal/000000010000000000000030"), commit_lsn % (1 * MIB) + 70);
    rig_start(&rigs[0]);
    rig_wait_storage(&rigs[0], "ok");
    leader_vote(&leaders[0], &rigs[0], 2);
    ck_assert_uint_eq(leaders[0].vote.record_lsn, commit_lsn);
    ck_assert_uint_ge(leaders[0].vote.suspect_lsn, commit_lsn + 4000 - 8);
    client_close(&leaders[0].client);
    assert_same_digest(RIG_START_LSN, commit_lsn);
    deinit_two();
}
END_TEST

/* A pageserver that has everything in the object store. */
static void watch_remote(struct client *client, const struct rig *rig, lsn_t remote_lsn)
{
    struct hello hello = client_hello(HELLO_ROLE_STATUS);
    struct buf entries = {0};
    struct frame frame;
    hello.protocol_max = PROTOCOL_VERSION_MAX;
    hello.tenant = (struct tenant_id){0};
    hello.timeline = (struct timeline_id){0};
    hello.pg_version = 0;
    hello.system_id = 0;
    hello.generation = 0;
    client_connect(client, rig);
    ck_assert_int_eq(client_say_hello(client, &hello), ERR_OK);
    struct status_watch watch = {
        .tenant = rig_tenant,
        .timeline = rig_timeline,
        .generation = 1,
        .remote_lsn = remote_lsn,
    };
    status_watch_append(&entries, &watch);
    struct status_list list = {.entries = buf_view(&entries)};
    CLIENT_SEND(client, status_list, &list, FRAME_STATUS_WATCH);
    client_flush(client);
    client_expect(client, FRAME_STATUS_REPORT, &frame);
    buf_deinit(&entries);
}

static lsn_t begin_of(struct rig *rig)
{
    lsn_t begin_lsn = LSN_NONE;
    struct doc *status = rig_status(rig, rig_timeline);
    ck_assert_ok(doc_get_lsn(doc_get(status, "retention"), "begin_lsn", &begin_lsn, &msg), &msg);
    doc_unref(status);
    return begin_lsn;
}

/* While it was away the other one has forgotten what is damaged here: nobody needs it. */
START_TEST(test_damage_below_the_begin_of_the_others_is_forgotten)
{
    struct client watcher;
    is_forgetful = true;
    given_two();
    for (int i = 0; i < 20; i++) {
        when_both_commit(WAL_APPEND_MAX);
    }
    lsn_t end_lsn = leaders[0].last.commit_lsn;
    client_close(&leaders[0].client);
    rig_stop(&rigs[0]);
    rig_flip(rig_path(&rigs[0], "wal/000000010000000000000030"), RIG_START_LSN % (1 * MIB) + 70);
    watch_remote(&watcher, &rigs[1], end_lsn);
    while (begin_of(&rigs[1]) / MIB <= 0x30) { /* until the test's limit */
    }
    rig_start(&rigs[0]);
    rig_wait_storage(&rigs[0], "ok");
    ck_assert_uint_ge(begin_of(&rigs[0]) / MIB, 0x31);
    assert_same_digest(begin_of(&rigs[1]), end_lsn);
    client_close(&watcher);
    client_close(&leaders[1].client);
    deinit_two();
    is_forgetful = false;
}
END_TEST

/* At each step a crash leaves a log that is made anew, or the new one. */
START_TEST(test_a_crash_while_the_log_is_replaced_loses_nothing)
{
    static const char *const points[] = {
        "wal_rebuild.before_append", "control_file.after_sync", "wal_rebuild.before_swap",
        "wal_rebuild.in_swap",       "wal_rebuild.after_swap",
    };
    char spec[100], path[300], name[100];
    given_two();
    for (int i = 0; i < 20; i++) {
        when_both_commit(WAL_APPEND_MAX);
    }
    lsn_t end_lsn = leaders[0].last.commit_lsn;
    when_leaders_leave();
    (void)snprintf(spec, sizeof(spec), "%s=crash", points[_i]);
    rig_arm(&rigs[0], spec);
    rig_flip(rig_path(&rigs[0], SIDECAR("31")), SLOT(3) + 20);
    (void)snprintf(
        name, sizeof(name), "/digest?from=" LSN_FMT "&to=" LSN_FMT, LSN_ARGS(RIG_START_LSN),
        LSN_ARGS(end_lsn));
    timeline_path(name, path, sizeof(path));
    (void)rig_http(&rigs[0], "GET", path, NULL, NULL); /* it reads the sidecar */
    rig_wait_crash(&rigs[0]);
    rig_start(&rigs[0]);
    rig_wait_storage(&rigs[0], "ok");
    wait_until_committed(&rigs[0], end_lsn); /* it may have heard of less */
    assert_same_digest(RIG_START_LSN, end_lsn);
    ck_assert(!file_exists(rig_path(&rigs[0], "wal.new")));
    ck_assert(!file_exists(rig_path(&rigs[0], "wal.old")));
    deinit_two();
}
END_TEST

/* A promise was lost with the control file: nobody can repair that, and it is said. */
START_TEST(test_a_lost_control_file_is_for_the_membership)
{
    given_two();
    when_both_commit(4000);
    when_leaders_leave();
    rig_kill(&rigs[0]);
    rig_flip(rig_path(&rigs[0], "control.0"), 94);
    rig_flip(rig_path(&rigs[0], "control.1"), 95);
    rig_start(&rigs[0]);
    rig_wait_storage(&rigs[0], "failed");
    struct doc *status = rig_status(&rigs[0], rig_timeline);
    const char *text = "";
    ck_assert_ok(doc_get_str(status, "repair", &text, &msg), &msg);
    ck_assert_ptr_nonnull(strstr(text, "newer generation"));
    doc_unref(status);
    deinit_two();
}
END_TEST

/* The leader has left both; one of them has heard of much less. */
START_TEST(test_who_fell_behind_catches_up_without_a_leader)
{
    given_two();
    when_both_commit(4000);
    client_close(&leaders[0].client);
    for (int i = 0; i < 30; i++) {
        leader_commit(&leaders[1], WAL_APPEND_MAX);
    }
    lsn_t end_lsn = leaders[1].last.commit_lsn;
    client_close(&leaders[1].client);
    wait_until_committed(&rigs[0], end_lsn);
    assert_same_digest(RIG_START_LSN, end_lsn);
    rig_kill(&rigs[0]);
    rig_start(&rigs[0]);
    rig_wait_storage(&rigs[0], "ok");
    ck_assert_uint_eq(rig_lsn(&rigs[0], "flush_lsn"), end_lsn);
    leader_vote(&leaders[0], &rigs[0], 2);
    ck_assert(leaders[0].vote.granted);
    ck_assert_uint_eq(leaders[0].vote.record_lsn, end_lsn);
    client_close(&leaders[0].client);
    deinit_two();
}
END_TEST

/* Its tail was acknowledged to a leader that never had a quorum; the other one has what won. */
START_TEST(test_a_tail_that_lost_is_replaced_by_what_is_committed)
{
    struct leader winner;
    given_two();
    when_both_commit(4000);
    lsn_t common_lsn = leaders[0].last.commit_lsn;
    wait_until_committed(&rigs[1], common_lsn);
    leader_send(&leaders[0], 9000, LSN_NONE);
    ck_assert(leader_wait(&leaders[0], leaders[0].lsn));
    client_close(&leaders[1].client);
    leader_begin(&winner, &rigs[1], 2);
    leader_commit(&winner, 20000);
    lsn_t end_lsn = winner.last.commit_lsn;
    client_close(&winner.client);
    client_close(&leaders[0].client);
    wait_until_committed(&rigs[0], end_lsn);
    assert_same_digest(RIG_START_LSN, end_lsn);
    leader_vote(&leaders[0], &rigs[0], 3);
    ck_assert_uint_eq(leaders[0].vote.record_lsn, end_lsn);
    ck_assert_uint_eq(leaders[0].vote.history.items[leaders[0].vote.history.count - 1].term, 2);
    client_close(&leaders[0].client);
    deinit_two();
}
END_TEST

static uint8_t byte_at(const char *path, uint64_t at)
{
    uint8_t byte = 0;
    int fd = -1;
    ck_assert_ok(file_open(&fd, path, FILE_READ, &msg), &msg);
    ck_assert_ok(file_read_at(fd, path, &byte, 1, at, &msg), &msg);
    file_close(&fd);
    return byte;
}

/* Nobody reads it, and nothing is restarted. */
START_TEST(test_a_bit_that_flips_at_rest_is_found_and_put_back)
{
    char path[PATH_SIZE];
    given_two();
    for (int i = 0; i < 20; i++) {
        when_both_commit(WAL_APPEND_MAX);
    }
    (void)snprintf(path, sizeof(path), "%s", rig_path(&rigs[0], "wal/000000010000000000000031"));
    uint8_t before = byte_at(path, 5000);
    rig_flip(path, 5000);
    ck_assert_uint_ne(byte_at(path, 5000), before);
    when_leaders_leave();
    while (byte_at(path, 5000) != before) { /* until the test's limit */
    }
    rig_wait_storage(&rigs[0], "ok");
    deinit_two();
}
END_TEST

START_TEST(test_members_that_differ_in_what_is_committed_say_so)
{
    given_two();
    leaders[0].use_fixed_bytes = true; /* under the same term: this cannot be, and is said */
    when_both_commit(4000);
    when_leaders_leave();
    const char *text = "";
    struct doc *status = NULL;
    do {
        doc_unref(status);
        status = rig_status(&rigs[0], rig_timeline);
        ck_assert_ok(doc_opt_str(status, "repair", &text, &msg), &msg);
    } while (strstr(text, "has other WAL committed") == NULL);
    doc_unref(status);
    deinit_two();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("repair");
    TCase *tcase = tcase_create("repair");
    tcase_set_timeout(tcase, UNIT_TIMEOUT_S);
    tcase_add_test(tcase, test_damage_that_a_start_finds_is_repaired);
    tcase_add_test(tcase, test_damage_that_a_reader_finds_is_repaired);
    tcase_add_test(tcase, test_repair_waits_for_a_member_that_has_it);
    tcase_add_test(tcase, test_a_damaged_tail_that_nobody_has_is_said_in_the_vote);
    tcase_add_loop_test(tcase, test_a_damaged_sidecar_is_replaced_with_its_log, 0, 6);
    tcase_add_test(tcase, test_a_replaced_log_says_what_may_have_been_acknowledged);
    tcase_add_test(tcase, test_a_damaged_group_that_was_committed_in_part_is_replaced);
    tcase_add_test(tcase, test_damage_below_the_begin_of_the_others_is_forgotten);
    tcase_add_loop_test(tcase, test_a_crash_while_the_log_is_replaced_loses_nothing, 0, 5);
    tcase_add_test(tcase, test_a_lost_control_file_is_for_the_membership);
    tcase_add_test(tcase, test_who_fell_behind_catches_up_without_a_leader);
    tcase_add_test(tcase, test_a_tail_that_lost_is_replaced_by_what_is_committed);
    tcase_add_test(tcase, test_a_bit_that_flips_at_rest_is_found_and_put_back);
    tcase_add_test(tcase, test_members_that_differ_in_what_is_committed_say_so);
    suite_add_tcase(suite, tcase);
    return unit_run_suite(suite);
}
