/*
 * What a pageserver makes of what safekeepers say: two of them, made up, on listeners of the same
 * loop. Nothing waits for a time, but for something to be said.
 */
#include "pageserver/ingest/feeds.h"

#include "common/base/mem.h"
#include "common/io/listener.h"
#include "common/wire/hello_proto.h"
#include "pageserver/ingest/wal_receiver.h"
#include "tests/unit/timeline/tenant_fixture.h"

#define KEEPERS     2
#define QUEUE_BYTES ((size_t)4096)

struct keeper {
    struct listener *listener;
    struct listener_user listener_user;
    struct link_user user; /* of the newest connection */
    uint32_t last_channel, status_channel, feed_channel;
    /* what it says */
    lsn_t commit_lsn;
    err_t code;         /* of every watch */
    bool refuses_feeds; /* with ERR_RANGE */
    bool is_silent;     /* accepts feeds, sends nothing */
    /* what it heard */
    unsigned connects, watches, unwatches, feeds, stops, windows;
    uint64_t last_key, known_key;
    lsn_t begin_lsn, window_lsn, sent_lsn;
    lsn_t remote_lsn;
};

static struct keeper keepers[KEEPERS];
static struct feeds *feeds;
static struct feed_watch watches[3];
static unsigned reports;
static bool (*condition)(void);
static struct timer poll_timer;

static void on_poll(struct timer *timer)
{
    if (condition()) {
        loop_stop(fixture.loop);
    } else {
        timer_start(fixture.loop, timer, 2);
    }
}

/* The test's own limit ends it when that never comes. */
static void run_until(bool (*wanted)(void))
{
    condition = wanted;
    poll_timer.on_fire = on_poll;
    timer_start(fixture.loop, &poll_timer, 0);
    loop_run(fixture.loop);
}

/* -- safekeepers -- */

static void report(struct keeper *keeper, uint64_t key)
{
    struct buf entries = {0};
    struct status_report one = {.key = key, .code = keeper->code, .commit_lsn = keeper->commit_lsn};
    status_report_append(&entries, &one);
    struct status_list list = {.entries = buf_view(&entries)};
    LINK_SEND(
        keeper->user.link, status_list, &list, .type = FRAME_STATUS_REPORT,
        .channel = keeper->status_channel);
    buf_deinit(&entries);
}

static void on_hello(struct keeper *keeper, const struct frame *frame)
{
    struct hello hello;
    struct reader in = reader_of(frame->payload);
    ck_assert_int_eq(hello_decode(&hello, &in), ERR_OK);
    ck_assert_uint_ge(hello.protocol_min, 2);
    if (hello.role == HELLO_ROLE_FEED && keeper->refuses_feeds) {
        keeper->feeds++;
        struct errmsg why;
        err_t err = err_set(&why, ERR_RANGE, "not here");
        link_send_error(keeper->user.link, 0, frame->request_id, err, &why);
        return;
    }
    uint32_t channel = ++keeper->last_channel;
    if (hello.role == HELLO_ROLE_FEED) {
        keeper->feeds++;
        keeper->feed_channel = channel;
    } else {
        ck_assert_int_eq(hello.role, HELLO_ROLE_STATUS);
        keeper->status_channel = channel;
    }
    struct hello_reply reply = {.protocol = 2, .channel = channel};
    LINK_SEND(
        keeper->user.link, hello_reply, &reply, .type = FRAME_HELLO_REPLY, .channel = channel,
        .request_id = frame->request_id);
}

static void on_watches(struct keeper *keeper, const struct frame *frame)
{
    struct status_list list;
    struct status_watch watch;
    struct reader in = reader_of(frame->payload);
    ck_assert_int_eq(status_list_decode(&list, &in), ERR_OK);
    while (status_watch_take(&list.entries, &watch) == ERR_OK) {
        bool is_known = watch.key == keeper->known_key;
        keeper->watches++;
        keeper->last_key = watch.key;
        keeper->remote_lsn = watch.remote_lsn;
        keeper->known_key = keeper->code == ERR_OK ? watch.key : UINT64_MAX;
        if (!is_known) { /* as a safekeeper: only the first watch is answered */
            report(keeper, watch.key);
        }
    }
}

/* Not WAL that anybody could read: ingest waits for the first page to be whole. */
static void send_wal(struct keeper *keeper)
{
    static const uint8_t zeros[1000];
    lsn_t end_lsn = MIN_OF(keeper->commit_lsn, keeper->window_lsn);
    while (!keeper->is_silent && keeper->sent_lsn < end_lsn) {
        size_t size = (size_t)MIN_OF(end_lsn - keeper->sent_lsn, (lsn_t)sizeof(zeros));
        struct feed_wal wal = {
            .begin_lsn = keeper->sent_lsn,
            .commit_lsn = keeper->commit_lsn,
            .wal = bytes_of(zeros, size),
        };
        LINK_SEND(
            keeper->user.link, feed_wal, &wal, .type = FRAME_FEED_WAL,
            .channel = keeper->feed_channel);
        keeper->sent_lsn += size;
    }
}

static void on_frame(struct link_user *user, const struct frame *frame)
{
    struct keeper *keeper = CONTAINER_OF(user, struct keeper, user);
    struct reader in = reader_of(frame->payload);
    struct feed_start start;
    struct feed_window window;
    switch (frame->type) {
    case FRAME_HELLO: on_hello(keeper, frame); break;
    case FRAME_STATUS_WATCH: on_watches(keeper, frame); break;
    case FRAME_STATUS_UNWATCH: keeper->unwatches++; break;
    case FRAME_FEED_WINDOW:
        ck_assert_int_eq(feed_window_decode(&window, &in), ERR_OK);
        keeper->window_lsn = window.end_lsn;
        keeper->windows++;
        if (keeper->begin_lsn != LSN_NONE) {
            send_wal(keeper);
        }
        break;
    case FRAME_FEED_START:
        ck_assert_int_eq(feed_start_decode(&start, &in), ERR_OK);
        keeper->begin_lsn = keeper->sent_lsn = start.begin_lsn;
        send_wal(keeper);
        break;
    case FRAME_FEED_STOP:
        keeper->stops++;
        keeper->begin_lsn = LSN_NONE;
        break;
    case FRAME_FEED_FEEDBACK: break;
    default: ck_abort_msg("%s", frame_type_name(frame->type));
    }
}

static void on_closed(struct link_user *user, err_t reason, const struct errmsg *why)
{
    (void)user;
    (void)reason;
    (void)why;
}

static struct link_user *on_accept(struct listener_user *user, struct link *link)
{
    static const struct link_callbacks callbacks = {.on_frame = on_frame, .on_closed = on_closed};
    struct keeper *keeper = CONTAINER_OF(user, struct keeper, listener_user);
    keeper->connects++;
    keeper->last_channel = 0;
    keeper->known_key = UINT64_MAX; /* none */
    keeper->begin_lsn = LSN_NONE;
    keeper->user = (struct link_user){.callbacks = &callbacks, .link = link};
    return &keeper->user;
}

/* -- the pageserver -- */

static void on_report(struct feed_watch *watch)
{
    (void)watch;
    reports++;
}

static void begin(void)
{
    static char text[128];
    fixture_begin();
    ck_assert_int_eq(attach(1, 1), ERR_OK);
    size_t used = 0;
    for (unsigned i = 0; i < KEEPERS; i++) {
        struct link_options options = {0};
        keepers[i].listener_user.on_accept = on_accept;
        keepers[i].commit_lsn = MAX_OF(keepers[i].commit_lsn, START_LSN);
        ck_assert_ok(
            listener_open(
                fixture.loop, "127.0.0.1", 0, 10, &options, &keepers[i].listener_user,
                &keepers[i].listener, &msg),
            &msg);
        used += (size_t)snprintf(
            text + used, sizeof(text) - used, "%s%u@127.0.0.1:%u", i > 0 ? "," : "", i + 1,
            listener_port(keepers[i].listener));
    }
    struct timeline_info info = info_of(1, 0, START_LSN);
    info.safekeepers = text;
    ck_assert_int_eq(put_info(&info), ERR_OK);
    import_root(1);
    feeds = feeds_create(&(struct feeds_options){
        .loop = fixture.loop, .node_id = 9, .token = "", .silence_max_ms = 60000});
    watches[0].on_report = on_report;
    feed_watch_start(&watches[0], feeds, find(1));
}

static bool is_stopped(void)
{
    return feeds_are_stopped(feeds);
}

static void end(void)
{
    for (size_t i = 0; i < ARRAY_LEN(watches); i++) {
        feed_watch_stop(&watches[i]);
    }
    feeds_stop(feeds);
    run_until(is_stopped);
    feeds_destroy(feeds);
    for (unsigned i = 0; i < KEEPERS; i++) {
        listener_close(keepers[i].listener);
    }
    fixture_end();
}

static bool can_use(const struct feed_watch *watch)
{
    return feed_watch_can_use(watch, 0) && feed_watch_can_use(watch, 1);
}

static bool all_reported(void)
{
    return can_use(&watches[0]);
}

static bool has_report(void)
{
    return reports > 0;
}

START_TEST(test_reports_say_whether_there_is_wal)
{
    begin();
    ck_assert_uint_eq(feed_watch_commit_lsn(&watches[0]), LSN_NONE);
    run_until(all_reported);
    ck_assert_uint_eq(reports, 2);
    ck_assert(!feed_watch_has_wal(&watches[0]));
    keepers[1].commit_lsn = START_LSN + 8;
    report(&keepers[1], keepers[1].last_key);
    reports = 0;
    run_until(has_report);
    ck_assert(feed_watch_has_wal(&watches[0]));
    ck_assert_uint_eq(timeline_commit_lsn(find(1)), START_LSN + 8);
    ck_assert_uint_eq(keepers[0].connects, 1);
    end();
}
END_TEST

static bool second_has_answered(void)
{
    return keepers[1].watches >= 3;
}

/* Control makes it on the safekeepers after it is here. */
START_TEST(test_what_a_safekeeper_does_not_have_is_asked_for_again)
{
    keepers[1].code = ERR_NOT_FOUND;
    begin();
    run_until(second_has_answered);
    ck_assert(!feed_watch_can_use(&watches[0], 1));
    ck_assert_uint_le(keepers[0].watches, 1); /* who has it is left alone */
    keepers[1].code = ERR_OK;
    run_until(all_reported);
    end();
}
END_TEST

static bool first_is_unwatched(void)
{
    return keepers[0].unwatches == 1;
}

static bool second_reported(void)
{
    return can_use(&watches[1]);
}

static bool third_reported(void)
{
    return can_use(&watches[2]);
}

static bool second_moved(void)
{
    return timeline_commit_lsn(watches[1].timeline) >= START_LSN + 8;
}

static void watch_branch(unsigned index, uint8_t id)
{
    struct timeline_info info = info_of(id, 1, START_LSN);
    info.safekeepers = timeline_info(find(1))->safekeepers;
    ck_assert_int_eq(put_info(&info), ERR_OK);
    feed_watch_start(&watches[index], feeds, find(id));
}

/* The next one in its slot has another key. */
START_TEST(test_late_report_of_a_timeline_that_is_gone_is_nobodys)
{
    begin();
    run_until(all_reported);
    uint64_t old_key = keepers[0].last_key;
    watch_branch(2, 3); /* the connections stay */
    run_until(third_reported);
    feed_watch_stop(&watches[0]);
    run_until(first_is_unwatched);
    watch_branch(1, 2);
    ck_assert_uint_eq(watches[1].slot, 0);
    run_until(second_reported);
    ck_assert_uint_ne(keepers[0].last_key, old_key);
    keepers[0].commit_lsn = START_LSN + 800;
    report(&keepers[0], old_key);
    keepers[0].commit_lsn = START_LSN + 8;
    report(&keepers[0], keepers[0].last_key);
    run_until(second_moved);
    ck_assert_uint_eq(timeline_commit_lsn(find(2)), START_LSN + 8);
    ck_assert_uint_eq(keepers[0].connects, 1);
    end();
}
END_TEST

static bool first_has_connected_again(void)
{
    return keepers[0].connects == 2 && all_reported();
}

START_TEST(test_after_a_lost_connection_everything_is_watched_again)
{
    begin();
    run_until(all_reported);
    unsigned before = keepers[0].watches;
    link_abort(keepers[0].user.link);
    run_until(first_has_connected_again);
    ck_assert_uint_gt(keepers[0].watches, before);
    ck_assert_uint_eq(keepers[1].connects, 1);
    end();
}
END_TEST

static bool position_has_come(void)
{
    return keepers[0].remote_lsn == START_LSN && keepers[1].remote_lsn == START_LSN;
}

START_TEST(test_positions_go_to_all_members)
{
    begin();
    run_until(all_reported);
    timeline_set_remote_lsn(find(1), START_LSN);
    feed_watch_moved(&watches[0]);
    run_until(position_has_come);
    end();
}
END_TEST

/* -- the receiver -- */

static struct wal_ingest_user ingest_user;
static struct wal_receiver_user receiver_user;
static struct wal_ingest *ingest;
static struct wal_receiver *receiver;
static bool is_idle, is_ingest_stopped;

static void on_pages(struct wal_ingest_user *user, const struct page_key *keys, size_t count)
{
    (void)user;
    (void)keys;
    (void)count;
}

static void on_nothing(struct wal_ingest_user *user)
{
    (void)user;
}

static void on_ingest_stopped(struct wal_ingest_user *user)
{
    (void)user;
    is_ingest_stopped = true;
}

static void on_idle(struct wal_receiver_user *user)
{
    (void)user;
    is_idle = true;
}

static void on_report_consider(struct feed_watch *watch)
{
    (void)watch;
    wal_receiver_consider(receiver);
}

static bool ingest_is_stopped(void)
{
    return is_ingest_stopped;
}

static void begin_receiver(uint64_t idle_ms)
{
    ingest_user = (struct wal_ingest_user){
        .on_changed = on_pages,
        .on_advanced = on_nothing,
        .on_room = on_nothing,
        .on_restart = on_nothing,
        .on_stopped = on_ingest_stopped,
    };
    ingest = wal_ingest_create(&(struct wal_ingest_options){
        .loop = fixture.loop,
        .executor = fixture.executor,
        .timeline = find(1),
        .user = &ingest_user,
        .queue_bytes_max = QUEUE_BYTES,
        .record_size_max = MIB,
        .records_bytes_max = MIB,
    });
    receiver_user.on_idle = on_idle;
    receiver = wal_receiver_create(&(struct wal_receiver_options){
        .loop = fixture.loop,
        .timeline = find(1),
        .watch = &watches[0],
        .ingest = ingest,
        .user = &receiver_user,
        .queue_bytes_max = QUEUE_BYTES,
        .idle_ms = idle_ms,
    });
    watches[0].on_report = on_report_consider;
}

static void end_receiver(void)
{
    watches[0].on_report = NULL;
    wal_receiver_destroy(receiver);
    wal_ingest_stop(ingest);
    run_until(ingest_is_stopped);
    wal_ingest_destroy(ingest);
    end();
}

static bool first_streams(void)
{
    return keepers[0].begin_lsn != LSN_NONE;
}

static bool second_streams(void)
{
    return keepers[1].begin_lsn != LSN_NONE;
}

static void begin_with_wal(lsn_t first, lsn_t second)
{
    keepers[0].is_silent = keepers[1].is_silent = true;
    keepers[0].commit_lsn = START_LSN + first;
    keepers[1].commit_lsn = START_LSN + second;
    begin();
    run_until(all_reported);
}

START_TEST(test_the_one_that_reports_most_is_streamed_from)
{
    begin_with_wal(8, 800);
    begin_receiver(60000);
    run_until(second_streams);
    ck_assert_uint_eq(keepers[1].begin_lsn, START_LSN);
    ck_assert_uint_eq(keepers[0].feeds, 0);
    ck_assert_uint_eq(keepers[1].window_lsn, START_LSN + QUEUE_BYTES);
    char text[64];
    ck_assert(wal_receiver_describe(receiver, text, sizeof(text)));
    ck_assert_str_eq(text, "sk 2");
    end_receiver();
}
END_TEST

static bool is_hurried(void)
{
    return keepers[1].windows == 2;
}

static bool wal_has_come(void)
{
    return wal_ingest_next_lsn(ingest) == START_LSN + 800;
}

static bool is_hurried_again(void)
{
    return keepers[1].windows == 3;
}

START_TEST(test_a_reader_that_waits_hurries_the_safekeeper_once_until_wal_comes)
{
    begin_with_wal(8, 800);
    begin_receiver(60000);
    run_until(second_streams);
    ck_assert_uint_eq(keepers[1].windows, 1);
    wal_receiver_hurry(receiver);
    wal_receiver_hurry(receiver);
    run_until(is_hurried);
    ck_assert_uint_eq(keepers[1].window_lsn, START_LSN + QUEUE_BYTES); /* what it was */
    keepers[1].is_silent = false;
    send_wal(&keepers[1]);
    run_until(wal_has_come);
    ck_assert_uint_eq(keepers[1].windows, 2);
    wal_receiver_hurry(receiver);
    run_until(is_hurried_again);
    end_receiver();
}
END_TEST

START_TEST(test_who_refuses_is_left_for_another_one)
{
    keepers[1].refuses_feeds = true;
    begin_with_wal(8, 800);
    begin_receiver(60000);
    run_until(first_streams);
    ck_assert_uint_eq(keepers[1].feeds, 1);
    end_receiver();
}
END_TEST

START_TEST(test_who_is_lost_is_left_at_once)
{
    begin_with_wal(8, 800);
    begin_receiver(60000);
    run_until(second_streams);
    link_abort(keepers[1].user.link);
    run_until(first_streams);
    end_receiver();
}
END_TEST

/* It accepted the feed and says nothing, while readers wait and the other one has WAL as well. */
START_TEST(test_who_stays_behind_is_left)
{
    begin_with_wal(8, 800);
    begin_receiver(60000);
    run_until(second_streams);
    run_until(first_streams);
    ck_assert_uint_eq(keepers[1].stops, 1);
    end_receiver();
}
END_TEST

static bool has_become_idle(void)
{
    return is_idle;
}

static bool second_was_stopped(void)
{
    return keepers[1].stops == 1;
}

START_TEST(test_without_news_the_feed_is_given_back)
{
    begin_with_wal(0, 8);
    begin_receiver(1);
    run_until(second_streams);
    ck_assert(!is_idle);
    keepers[1].commit_lsn = START_LSN; /* after a restart it may know less for a moment */
    report(&keepers[1], keepers[1].last_key);
    run_until(has_become_idle);
    run_until(second_was_stopped);
    ck_assert(!feed_watch_has_wal(&watches[0]));
    end_receiver();
}
END_TEST

UNIT_MAIN(
    "feeds",
    test_reports_say_whether_there_is_wal,
    test_what_a_safekeeper_does_not_have_is_asked_for_again,
    test_late_report_of_a_timeline_that_is_gone_is_nobodys,
    test_after_a_lost_connection_everything_is_watched_again,
    test_positions_go_to_all_members,
    test_the_one_that_reports_most_is_streamed_from,
    test_a_reader_that_waits_hurries_the_safekeeper_once_until_wal_comes,
    test_who_refuses_is_left_for_another_one,
    test_who_is_lost_is_left_at_once,
    test_who_stays_behind_is_left,
    test_without_news_the_feed_is_given_back);
