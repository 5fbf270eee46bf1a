/* A real safekeeper: committed WAL to pageservers, and what they say of themselves. */
#include "tests/flow/safekeeper/safekeeper_fixture.h"

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
    leader_commit_much(&leader, 40, 80); /* over several segments */
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
    given_timeline_with("--feed_gather=1h", "--feed_status_interval=1h");
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
    leader_commit_much(&leader, 64, 8);
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

static const struct unit_options options = {.timeout_s = 60};

UNIT_MAIN_WITH(
    options,
    "feeds",
    test_feed_gets_exactly_what_is_committed,
    test_commits_gather_for_a_feed_until_it_hurries,
    test_much_wal_does_not_gather,
    test_many_feeds_share_a_connection,
    test_feedback_reaches_the_proposer_and_the_status,
    test_feed_from_before_the_start_is_refused);
