/* A real safekeeper: what it acknowledged it keeps, whatever is done to it. */
#include "tests/flow/safekeeper/rig.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/io/file.h"

static struct rig rig;
static struct errmsg msg;

static void given_timeline(void)
{
    rig_init(&rig);
    rig_start(&rig);
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 201);
}

static void restart(void)
{
    rig_kill(&rig);
    rig_start(&rig);
    rig_wait_storage(&rig, "ok");
}

/* The safekeeper's bytes against ours, from its files. */
static void assert_digest(lsn_t begin_lsn, lsn_t end_lsn, term_t term)
{
    char path[300], expected[12];
    const char *crc = NULL;
    struct doc *body = NULL;
    size_t size = (size_t)(end_lsn - begin_lsn);
    uint8_t *wal = mem_alloc(size + 1);
    fill_wal(wal, begin_lsn, size, term);
    (void)snprintf(expected, sizeof(expected), "%08x", crc32c(0, wal, size));
    (void)snprintf(
        path, sizeof(path), "/v1/tenants/%s/timelines/%s/digest?from=" LSN_FMT "&to=" LSN_FMT,
        tenant_id_text(rig_tenant).text, timeline_id_text(rig_timeline).text, LSN_ARGS(begin_lsn),
        LSN_ARGS(end_lsn));
    ck_assert_uint_eq(rig_http(&rig, "GET", path, NULL, &body), 200);
    ck_assert_ok(doc_get_str(body, "crc", &crc, &msg), &msg);
    ck_assert_str_eq(crc, expected);
    doc_unref(body);
    mem_free(wal);
}

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

/* ---- feeds ---- */

static void feed_start(struct client *feed, lsn_t begin_lsn)
{
    struct feed_start start = {.begin_lsn = begin_lsn};
    client_open(feed, &rig, HELLO_ROLE_FEED);
    CLIENT_SEND(feed, feed_start, &start, FRAME_FEED_START);
    client_flush(feed);
}

/* Read the feed up to `end_lsn`; its bytes are those of `term`, and none is beyond its commit_lsn.
 */
static void feed_read(struct client *feed, lsn_t begin_lsn, lsn_t end_lsn, term_t term)
{
    while (begin_lsn < end_lsn) {
        struct frame frame;
        ck_assert(client_receive(feed, &frame));
        struct reader in = reader_of(frame.payload);
        if (frame.type == FRAME_FEED_STATUS) {
            continue;
        }
        struct feed_wal piece;
        ck_assert_int_eq(frame.type, FRAME_FEED_WAL);
        ck_assert_int_eq(feed_wal_decode(&piece, &in), ERR_OK);
        ck_assert_uint_eq(piece.begin_lsn, begin_lsn);
        ck_assert_uint_le(piece.begin_lsn + piece.wal.size, piece.commit_lsn);
        uint8_t *wal = mem_alloc(piece.wal.size);
        fill_wal(wal, begin_lsn, piece.wal.size, term);
        ck_assert_int_eq(memcmp(wal, piece.wal.data, piece.wal.size), 0);
        mem_free(wal);
        begin_lsn += piece.wal.size;
    }
    ck_assert_uint_eq(begin_lsn, end_lsn);
}

START_TEST(test_feed_gets_exactly_what_is_committed)
{
    struct leader leader;
    struct client feed, late;
    given_timeline();
    leader_begin(&leader, &rig, 1);
    feed_start(&feed, RIG_START_LSN);
    leader_commit(&leader, 800);
    feed_read(&feed, RIG_START_LSN, leader.last.commit_lsn, 1);
    lsn_t read_lsn = leader.last.commit_lsn;
    for (unsigned i = 0; i < 40; i++) { /* over several segments */
        leader_send(&leader, WAL_APPEND_MAX, LSN_NONE);
    }
    ck_assert(leader_wait(&leader, leader.lsn));
    leader_commit(&leader, 80);
    feed_read(&feed, read_lsn, leader.last.commit_lsn, 1);
    /* A second one from the files: the memory does not reach so far back. */
    feed_start(&late, RIG_START_LSN + 88);
    feed_read(&late, RIG_START_LSN + 88, leader.last.commit_lsn, 1);
    client_close(&late);
    client_close(&feed);

    restart();
    lsn_t known_lsn = rig_lsn(&rig, "commit_lsn"); /* what was certified last, or persisted */
    ck_assert_uint_ge(known_lsn, read_lsn);
    feed_start(&late, RIG_START_LSN);
    feed_read(&late, RIG_START_LSN, known_lsn, 1);
    client_close(&late);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

/* Begins a feed whose pieces gather until somebody is in a hurry. */
static void given_gathering_feed(struct leader *leader, struct client *feed)
{
    rig_init(&rig);
    rig.extra[0] = "--feed_gather=1h";
    rig.extra[1] = "--feed_status_interval=1h";
    rig_start(&rig);
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 201);
    leader_begin(leader, &rig, 1);
    feed_start(feed, RIG_START_LSN);
    leader_commit(leader, 800);
    feed_read(feed, RIG_START_LSN, leader->last.commit_lsn, 1); /* the first goes at once */
}

START_TEST(test_commits_gather_for_a_feed_until_it_hurries)
{
    struct leader leader;
    struct client feed;
    struct frame frame;
    given_gathering_feed(&leader, &feed);
    lsn_t read_lsn = leader.last.commit_lsn;
    leader_commit(&leader, 80);
    leader_commit(&leader, 160);
    struct feed_window window = {.end_lsn = UINT64_MAX};
    CLIENT_SEND(&feed, feed_window, &window, FRAME_FEED_WINDOW);
    client_flush(&feed);
    do {
        ck_assert(client_receive(&feed, &frame));
    } while (frame.type == FRAME_FEED_STATUS);
    struct reader in = reader_of(frame.payload);
    struct feed_wal piece;
    ck_assert_int_eq(feed_wal_decode(&piece, &in), ERR_OK);
    ck_assert_uint_eq(piece.begin_lsn, read_lsn);
    ck_assert_uint_eq(piece.begin_lsn + piece.wal.size, leader.last.commit_lsn); /* in one */

    read_lsn = leader.last.commit_lsn;
    leader_commit(&leader, 80); /* somebody may wait for this one */
    feed_read(&feed, read_lsn, leader.last.commit_lsn, 1);
    client_close(&feed);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_much_wal_does_not_gather)
{
    struct leader leader;
    struct client feed;
    given_gathering_feed(&leader, &feed);
    lsn_t read_lsn = leader.last.commit_lsn;
    leader_commit(&leader, 100000);
    feed_read(&feed, read_lsn, leader.last.commit_lsn, 1);
    client_close(&feed);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

/* Twelve feeds on one connection that nobody reads for a while: it is slowed down, not lost. */
START_TEST(test_many_feeds_share_a_connection)
{
    enum { FEEDS = 12 };
    struct leader leader;
    struct client client;
    struct frame frame;
    lsn_t next_lsn[FEEDS + 1];
    given_timeline();
    leader_begin(&leader, &rig, 1);
    for (unsigned i = 0; i < 64; i++) {
        leader_send(&leader, WAL_APPEND_MAX, LSN_NONE);
    }
    ck_assert(leader_wait(&leader, leader.lsn));
    leader_commit(&leader, 8);
    client_connect(&client, &rig);
    struct hello hello = client_hello(HELLO_ROLE_FEED);
    for (unsigned i = 0; i < FEEDS; i++) {
        ck_assert_int_eq(client_say_hello(&client, &hello), ERR_OK);
        ck_assert_uint_eq(client.channel, i + 1);
    }
    for (unsigned i = 1; i <= FEEDS; i++) {
        struct feed_start start = {.begin_lsn = RIG_START_LSN};
        client.channel = i;
        next_lsn[i] = RIG_START_LSN;
        CLIENT_SEND(&client, feed_start, &start, FRAME_FEED_START);
    }
    for (unsigned done = 0; done < FEEDS;) {
        ck_assert(client_receive(&client, &frame));
        if (frame.type == FRAME_FEED_STATUS) {
            continue;
        }
        struct feed_wal piece;
        struct reader in = reader_of(frame.payload);
        ck_assert_int_eq(frame.type, FRAME_FEED_WAL);
        ck_assert_int_eq(feed_wal_decode(&piece, &in), ERR_OK);
        ck_assert_uint_eq(piece.begin_lsn, next_lsn[frame.channel]);
        next_lsn[frame.channel] += piece.wal.size;
        done += next_lsn[frame.channel] == leader.last.commit_lsn;
    }
    client_close(&client);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_feedback_reaches_the_proposer_and_the_status)
{
    struct leader leader;
    struct client feed;
    given_timeline();
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 800);
    feed_start(&feed, RIG_START_LSN);
    feed_read(&feed, RIG_START_LSN, leader.last.commit_lsn, 1);
    struct feed_feedback feedback = {
        .generation = 1,
        .received_lsn = RIG_START_LSN + 800,
        .durable_lsn = RIG_START_LSN + 400,
        .remote_lsn = RIG_START_LSN + 80,
    };
    CLIENT_SEND(&feed, feed_feedback, &feedback, FRAME_FEED_FEEDBACK);
    client_flush(&feed);
    while (leader.last.received_lsn == LSN_NONE) { /* they travel on two connections */
        leader.last.flush_lsn = LSN_NONE;
        leader_send(&leader, 0, LSN_NONE);
        ck_assert(leader_wait(&leader, 1));
    }
    ck_assert_uint_eq(leader.last.durable_lsn, RIG_START_LSN + 400);
    struct doc *status = rig_status(&rig, rig_timeline);
    lsn_t remote_lsn = LSN_NONE;
    ck_assert_uint_eq(doc_count(doc_get(status, "feeds")), 1);
    ck_assert_ok(
        doc_get_lsn(doc_at(doc_get(status, "feeds"), 0), "remote_lsn", &remote_lsn, &msg), &msg);
    ck_assert_uint_eq(remote_lsn, RIG_START_LSN + 80);
    doc_unref(status);
    client_close(&feed);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_feed_from_before_the_start_is_refused)
{
    struct client feed;
    given_timeline();
    feed_start(&feed, RIG_START_LSN - 8);
    ck_assert_int_eq(client_expect_error(&feed), ERR_RANGE);
    client_expect_end(&feed);
    client_close(&feed);
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

/* ---- the disk ---- */

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
    rig_init(&rig);
    rig.extra[0] = "--pending_wal_max=256kB";
    rig.extra[1] = "--full_disk_retry=5ms";
    rig_start(&rig);
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 201);
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
    rig_init(&rig);
    rig.extra[0] = "--full_disk_retry=5ms";
    rig_start(&rig);
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 201);
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
    rig_init(&rig);
    rig.extra[0] = "--certify_delay=0";
    rig_start(&rig);
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 201);
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
    for (unsigned i = 0; i < 24; i++) { /* more than the memory keeps */
        leader_send(&leader, WAL_APPEND_MAX, LSN_NONE);
    }
    ck_assert(leader_wait(&leader, leader.lsn));
    leader_commit(&leader, 8);
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

int main(void)
{
    Suite *suite = suite_create("safekeeper");
    TCase *tcase = tcase_create("safekeeper");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_acknowledged_wal_survives_kill);
    tcase_add_test(tcase, test_a_promise_survives_kill);
    tcase_add_test(tcase, test_next_leader_cuts_what_was_not_committed);
    tcase_add_test(tcase, test_feed_gets_exactly_what_is_committed);
    tcase_add_test(tcase, test_commits_gather_for_a_feed_until_it_hurries);
    tcase_add_test(tcase, test_much_wal_does_not_gather);
    tcase_add_test(tcase, test_many_feeds_share_a_connection);
    tcase_add_test(tcase, test_feedback_reaches_the_proposer_and_the_status);
    tcase_add_test(tcase, test_feed_from_before_the_start_is_refused);
    tcase_add_test(tcase, test_donor_is_read_by_its_term_only);
    tcase_add_test(tcase, test_hello_is_refused_with_a_reason);
    tcase_add_test(tcase, test_a_newer_membership_comes_with_a_proposer_too);
    tcase_add_test(tcase, test_a_membership_that_is_none_or_no_news_is_refused);
    tcase_add_test(tcase, test_refused_hello_leaves_the_other_channels_alone);
    tcase_add_test(tcase, test_append_that_leaves_a_gap_is_refused);
    tcase_add_test(tcase, test_append_before_elected_is_refused);
    tcase_add_test(tcase, test_malformed_message_ends_the_connection);
    tcase_add_test(tcase, test_garbage_on_the_port);
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
    tcase_add_test(tcase, test_deleted_timeline_stays_deleted);
    tcase_add_test(tcase, test_creation_is_idempotent_and_survives_kill);
    tcase_add_test(tcase, test_idle_timelines_hold_no_files);
    tcase_add_test(tcase, test_clean_stop_keeps_commit_lsn);
    tcase_add_test(tcase, test_lost_disk_is_another_incarnation);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
