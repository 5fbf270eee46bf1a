/* A real safekeeper and the pageservers that watch its timelines: status, windows, ended feeds. */
#include <stdio.h>

#include "common/wire/status_proto.h"
#include "tests/flow/safekeeper/rig.h"

static struct rig rig;

static void given_timeline(void)
{
    rig_init(&rig);
    rig.extra[0] = "--feed_status_interval=50ms";
    rig_start(&rig);
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 201);
}

static struct hello hello_of(enum hello_role role)
{
    struct hello hello = client_hello(role);
    hello.protocol_max = PROTOCOL_VERSION_MAX;
    if (role == HELLO_ROLE_STATUS) {
        hello.tenant = (struct tenant_id){0};
        hello.timeline = (struct timeline_id){0};
        hello.pg_version = 0;
        hello.system_id = 0;
        hello.generation = 0;
    }
    return hello;
}

static void open_as(struct client *client, enum hello_role role)
{
    struct hello hello = hello_of(role);
    client_connect(client, &rig);
    ck_assert_int_eq(client_say_hello(client, &hello), ERR_OK);
}

static struct status_watch watch_of(uint64_t key, struct timeline_id id)
{
    return (struct status_watch){.key = key, .tenant = rig_tenant, .timeline = id, .generation = 1};
}

static void send_watches(struct client *client, struct buf *entries)
{
    struct status_list list = {.entries = buf_view(entries)};
    CLIENT_SEND(client, status_list, &list, FRAME_STATUS_WATCH);
    client_flush(client);
    buf_deinit(entries);
}

static void watch(struct client *client, struct status_watch entry)
{
    struct buf entries = {0};
    status_watch_append(&entries, &entry);
    send_watches(client, &entries);
}

/* The reports of the next frame that has some; the number of them. */
static size_t next_reports(struct client *client, struct status_report *to, size_t to_count)
{
    struct frame frame;
    struct status_list list;
    do {
        client_expect(client, FRAME_STATUS_REPORT, &frame);
        struct reader in = reader_of(frame.payload);
        ck_assert_int_eq(status_list_decode(&list, &in), ERR_OK);
    } while (list.entries.size == 0);
    size_t count = 0;
    struct status_report report;
    while (status_report_take(&list.entries, &report) == ERR_OK) {
        ck_assert_uint_lt(count, to_count);
        to[count++] = report;
    }
    return count;
}

static struct status_report next_report(struct client *client)
{
    struct status_report report;
    ck_assert_uint_eq(next_reports(client, &report, 1), 1);
    return report;
}

static struct timeline_id id_of(unsigned n)
{
    return (struct timeline_id){.bytes = {0xAB, (uint8_t)(n >> 8), (uint8_t)n}};
}

START_TEST(test_status_tells_where_a_timeline_stands_and_when_it_moves)
{
    struct leader leader;
    struct client clients[2];
    given_timeline();
    leader_begin(&leader, &rig, 1);
    for (unsigned i = 0; i < 2; i++) { /* two pageservers hear alike */
        open_as(&clients[i], HELLO_ROLE_STATUS);
        watch(&clients[i], watch_of(42 + i, rig_timeline));
        ck_assert_uint_eq(next_report(&clients[i]).key, 42 + i);
    }
    for (unsigned round = 0; round < 3; round++) {
        leader_commit(&leader, 800);
        for (unsigned i = 0; i < 2; i++) {
            struct status_report report;
            do { /* maybe of the election or of an earlier commit */
                report = next_report(&clients[i]);
                ck_assert_uint_eq(report.key, 42 + i);
                ck_assert_uint_eq(report.code, ERR_OK);
                ck_assert_uint_le(report.commit_lsn, leader.last.commit_lsn);
            } while (report.commit_lsn < leader.last.commit_lsn);
        }
    }
    client_close(&clients[0]);
    client_close(&clients[1]);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

/* A compute that was started right after its branch was made: the pageserver follows at once. */
START_TEST(test_status_tells_of_a_move_right_after_its_answer)
{
    struct leader leader;
    struct client client;
    rig_init(&rig);
    rig.extra[0] = "--feed_status_interval=1h"; /* no sign of life brings it */
    rig_start(&rig);
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 201);
    leader_begin(&leader, &rig, 1);
    open_as(&client, HELLO_ROLE_STATUS);
    watch(&client, watch_of(42, rig_timeline));
    ck_assert_uint_eq(next_report(&client).commit_lsn, RIG_START_LSN);
    leader_commit(&leader, 800);
    ck_assert_uint_gt(next_report(&client).commit_lsn, RIG_START_LSN);
    client_close(&client);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

/* What is not here can be watched once it is; what is deleted is not watched any more. */
START_TEST(test_status_of_what_is_not_here)
{
    struct client client;
    char path[200];
    given_timeline();
    open_as(&client, HELLO_ROLE_STATUS);
    watch(&client, watch_of(7, id_of(1)));
    ck_assert_uint_eq(next_report(&client).code, ERR_NOT_FOUND);
    ck_assert_uint_eq(rig_create_timeline(&rig, id_of(1), RIG_START_LSN), 201);
    watch(&client, watch_of(8, id_of(1)));
    struct status_report report = next_report(&client);
    ck_assert_uint_eq(report.key, 8);
    ck_assert_uint_eq(report.code, ERR_OK);
    ck_assert_uint_eq(report.commit_lsn, RIG_START_LSN);
    (void)snprintf(
        path, sizeof(path), "/v1/tenants/%s/timelines/%s?generation=%d",
        tenant_id_text(rig_tenant).text, timeline_id_text(id_of(1)).text, RIG_GENERATION);
    ck_assert_uint_lt(rig_http(&rig, "DELETE", path, NULL, NULL), 300);
    report = next_report(&client);
    ck_assert_uint_eq(report.key, 8);
    ck_assert_uint_eq(report.code, ERR_NOT_FOUND);
    client_close(&client);
    rig_deinit(&rig);
}
END_TEST

/* A hundred on one channel: one moves, one is told of, also after a restart. */
START_TEST(test_only_what_moves_is_told_of)
{
    enum { TIMELINES = 100 };
    struct client client;
    struct leader leader;
    given_timeline();
    for (unsigned i = 1; i < TIMELINES; i++) {
        ck_assert_uint_eq(rig_create_timeline(&rig, id_of(i), RIG_START_LSN), 201);
    }
    rig_kill(&rig);
    rig_start(&rig);
    open_as(&client, HELLO_ROLE_STATUS); /* they may still be opening */
    struct buf entries = {0};
    for (unsigned i = 0; i < TIMELINES; i++) {
        struct status_watch entry = watch_of(1000 + i, i == 0 ? rig_timeline : id_of(i));
        status_watch_append(&entries, &entry);
    }
    send_watches(&client, &entries);
    bool is_known[TIMELINES] = {0};
    for (size_t known = 0; known < TIMELINES;) {
        struct status_report reports[TIMELINES];
        size_t count = next_reports(&client, reports, TIMELINES);
        for (size_t i = 0; i < count; i++) {
            ck_assert_uint_eq(reports[i].code, ERR_OK);
            ck_assert_uint_eq(reports[i].commit_lsn, RIG_START_LSN);
            ck_assert(!is_known[reports[i].key - 1000]);
            is_known[reports[i].key - 1000] = true;
        }
        known += count;
    }
    rig_wait_storage(&rig, "ok");
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 80);
    struct status_report report;
    do {
        report = next_report(&client);
        ck_assert_uint_eq(report.key, 1000);
    } while (report.commit_lsn < leader.last.commit_lsn);
    client_close(&client);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_positions_of_a_watch_reach_the_proposer)
{
    struct leader leader;
    struct client client;
    given_timeline();
    leader_begin(&leader, &rig, 1);
    leader_commit(&leader, 800);
    open_as(&client, HELLO_ROLE_STATUS);
    struct status_watch entry = watch_of(1, rig_timeline);
    entry.received_lsn = RIG_START_LSN + 800;
    entry.durable_lsn = RIG_START_LSN + 400;
    entry.remote_lsn = RIG_START_LSN + 80;
    watch(&client, entry);
    (void)next_report(&client);
    entry.generation = 0; /* of an older attachment: it does not count */
    entry.remote_lsn = RIG_START_LSN + 800;
    watch(&client, entry);
    while (leader.last.received_lsn == LSN_NONE) { /* they travel on two connections */
        leader.last.flush_lsn = LSN_NONE;
        leader_send(&leader, 0, LSN_NONE);
        ck_assert(leader_wait(&leader, 1));
    }
    ck_assert_uint_eq(leader.last.durable_lsn, RIG_START_LSN + 400);
    ck_assert_uint_eq(leader.last.remote_lsn, RIG_START_LSN + 80);
    client_close(&client);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_status_is_refused_to_who_speaks_protocol_1)
{
    struct client client;
    given_timeline();
    struct hello hello = hello_of(HELLO_ROLE_STATUS);
    hello.protocol_max = 1;
    client_connect(&client, &rig);
    ck_assert_int_eq(client_say_hello(&client, &hello), ERR_UNSUPPORTED);
    client_expect_end(&client);
    client_close(&client);
    rig_deinit(&rig);
}
END_TEST

START_TEST(test_malformed_watches_end_the_connection)
{
    struct client client;
    struct buf entries = {0};
    given_timeline();
    open_as(&client, HELLO_ROLE_STATUS);
    buf_append(&entries, "not a whole watch", 17);
    send_watches(&client, &entries);
    ck_assert_int_eq(client_expect_error(&client), ERR_CORRUPT);
    client_expect_end(&client);
    client_close(&client);
    rig_deinit(&rig);
}
END_TEST

/* ---- feeds that share a connection ---- */

static uint32_t begin_feed(struct client *client, lsn_t window_lsn)
{
    struct hello hello = hello_of(HELLO_ROLE_FEED);
    ck_assert_int_eq(client_say_hello(client, &hello), ERR_OK);
    struct feed_window window = {.end_lsn = window_lsn};
    struct feed_start start = {.begin_lsn = RIG_START_LSN};
    CLIENT_SEND(client, feed_window, &window, FRAME_FEED_WINDOW);
    CLIENT_SEND(client, feed_start, &start, FRAME_FEED_START);
    client_flush(client);
    return client->channel;
}

/* Read WAL of two channels until both have come to their ends, and not beyond. */
static void read_both(
    struct client *client, const uint32_t channels[2], lsn_t next_lsn[2], const lsn_t end_lsn[2])
{
    struct frame frame;
    while (next_lsn[0] < end_lsn[0] || next_lsn[1] < end_lsn[1]) {
        struct feed_wal piece;
        ck_assert(client_receive(client, &frame));
        struct reader in = reader_of(frame.payload);
        if (frame.type != FRAME_FEED_WAL) {
            ck_assert_int_eq(frame.type, FRAME_FEED_STATUS);
            continue;
        }
        ck_assert_int_eq(feed_wal_decode(&piece, &in), ERR_OK);
        unsigned which = frame.channel == channels[0] ? 0 : 1;
        ck_assert_uint_eq(frame.channel, channels[which]);
        ck_assert_uint_eq(piece.begin_lsn, next_lsn[which]);
        next_lsn[which] += piece.wal.size;
        ck_assert_uint_le(next_lsn[which], end_lsn[which]);
    }
}

/* One that takes no more does not keep the other one waiting. */
START_TEST(test_a_window_holds_one_feed_of_a_connection)
{
    struct leader leader;
    struct client client;
    given_timeline();
    leader_begin(&leader, &rig, 1);
    leader_commit_much(&leader, 64, 8);
    client_connect(&client, &rig);
    lsn_t end_lsn[2] = {RIG_START_LSN + 300000, leader.last.commit_lsn};
    lsn_t next_lsn[2] = {RIG_START_LSN, RIG_START_LSN};
    uint32_t channels[2];
    channels[0] = begin_feed(&client, end_lsn[0]);
    struct frame frame; /* what hello reads does not know of WAL: take the first feed's first */
    while (next_lsn[0] < end_lsn[0]) {
        struct feed_wal piece;
        ck_assert(client_receive(&client, &frame));
        struct reader in = reader_of(frame.payload);
        if (frame.type == FRAME_FEED_WAL) {
            ck_assert_int_eq(feed_wal_decode(&piece, &in), ERR_OK);
            next_lsn[0] += piece.wal.size;
        }
    }
    ck_assert_uint_eq(next_lsn[0], end_lsn[0]);
    struct feed_window closed = {.end_lsn = 0};
    client.channel = channels[0];
    CLIENT_SEND(&client, feed_window, &closed, FRAME_FEED_WINDOW); /* nothing comes back */
    struct hello hello = hello_of(HELLO_ROLE_FEED);
    client.channel = 0;
    CLIENT_SEND(&client, hello, &hello, FRAME_HELLO);
    do { /* signs of life of the first may come before it */
        ck_assert(client_receive(&client, &frame));
    } while (frame.type == FRAME_FEED_STATUS);
    ck_assert_int_eq(frame.type, FRAME_HELLO_REPLY);
    channels[1] = client.channel = frame.channel;
    struct feed_start start = {.begin_lsn = RIG_START_LSN};
    CLIENT_SEND(&client, feed_start, &start, FRAME_FEED_START);
    read_both(&client, channels, next_lsn, end_lsn);
    end_lsn[0] = leader.last.commit_lsn;
    struct feed_window window = {.end_lsn = end_lsn[0]};
    client.channel = channels[0];
    CLIENT_SEND(&client, feed_window, &window, FRAME_FEED_WINDOW);
    read_both(&client, channels, next_lsn, end_lsn);
    client_close(&client);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

/* Its number is not the next one's: what was on its way reaches nobody. */
START_TEST(test_a_stopped_feed_says_nothing_more)
{
    struct client client;
    struct frame frame;
    given_timeline();
    open_as(&client, HELLO_ROLE_STATUS);
    uint32_t status = client.channel;
    uint32_t previous = 0;
    for (unsigned round = 0; round < 3; round++) {
        struct hello hello = hello_of(HELLO_ROLE_FEED);
        client.channel = 0;
        CLIENT_SEND(&client, hello, &hello, FRAME_HELLO);
        do {
            ck_assert(client_receive(&client, &frame));
        } while (frame.type == FRAME_STATUS_REPORT);
        ck_assert_int_eq(frame.type, FRAME_HELLO_REPLY);
        ck_assert_uint_ne(frame.channel, previous);
        ck_assert_uint_ne(frame.channel, status);
        previous = client.channel = frame.channel;
        struct feed_start start = {.begin_lsn = RIG_START_LSN};
        CLIENT_SEND(&client, feed_start, &start, FRAME_FEED_START);
        struct frame stop = {.type = FRAME_FEED_STOP, .channel = client.channel};
        frame_append(&client.out, &stop);
        CLIENT_SEND(&client, feed_start, &start, FRAME_FEED_START); /* too late: ignored */
        do {
            ck_assert(client_receive(&client, &frame));
        } while (frame.channel != previous || frame.type == FRAME_FEED_STATUS);
        ck_assert_int_eq(frame.type, FRAME_FEED_STOP);
    }
    do { /* the connection lives on, and nothing comes on the channel */
        ck_assert(client_receive(&client, &frame));
        ck_assert_uint_eq(frame.channel, status);
    } while (frame.type != FRAME_STATUS_REPORT);
    client_close(&client);
    rig_deinit(&rig);
}
END_TEST

static const struct unit_options options = {.timeout_s = 60};

UNIT_MAIN_WITH(
    options,
    "safekeeper status",
    test_status_tells_where_a_timeline_stands_and_when_it_moves,
    test_status_tells_of_a_move_right_after_its_answer,
    test_status_of_what_is_not_here,
    test_only_what_moves_is_told_of,
    test_positions_of_a_watch_reach_the_proposer,
    test_status_is_refused_to_who_speaks_protocol_1,
    test_malformed_watches_end_the_connection,
    test_a_window_holds_one_feed_of_a_connection,
    test_a_stopped_feed_says_nothing_more);
