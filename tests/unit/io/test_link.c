/* Framed links over loopback: order, back-pressure, damage, silence, and every way to close. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/io/listener.h"
#include "common/io/timer.h"
#include "common/wire/hello_proto.h"
#include "tests/unit/unit.h"

static struct loop *loop;
static struct listener *listener;
static struct errmsg msg;

/* One end of a connection, with everything that happened to it. */
struct end {
    struct link_user user;
    struct link *accepted; /* server: until user.link is set */
    int opened, closed, frames, drained;
    uint64_t last_id;
    size_t bytes;
    err_t reason;
    struct errmsg reason_msg;
    void (*on_frame)(struct end *end, const struct frame *frame);
    void (*on_closed)(struct end *end);
    void (*on_open)(struct end *end);
};

static struct end client, server;
static int closed_wanted;

static void end_opened(struct link_user *user)
{
    struct end *end = CONTAINER_OF(user, struct end, user);
    end->opened++;
    if (end->on_open != NULL) {
        end->on_open(end);
    }
}

static void end_frame(struct link_user *user, const struct frame *frame)
{
    struct end *end = CONTAINER_OF(user, struct end, user);
    end->frames++;
    end->last_id = frame->request_id;
    end->bytes += frame->payload.size;
    if (end->on_frame != NULL) {
        end->on_frame(end, frame);
    }
}

static void end_drained(struct link_user *user)
{
    CONTAINER_OF(user, struct end, user)->drained++;
}

static void end_closed(struct link_user *user, err_t reason, const struct errmsg *why)
{
    struct end *end = CONTAINER_OF(user, struct end, user);
    ck_assert_ptr_null(user->link);
    end->closed++;
    end->reason = reason;
    end->reason_msg = *why;
    if (end->on_closed != NULL) {
        end->on_closed(end);
    }
    if (client.closed + server.closed == closed_wanted) {
        loop_stop(loop);
    }
}

static const struct link_callbacks callbacks = {
    .on_open = end_opened,
    .on_frame = end_frame,
    .on_drained = end_drained,
    .on_closed = end_closed,
};

static bool refuse_next, pause_next;

static struct link_user *accept_server(struct listener_user *user, struct link *link)
{
    (void)user;
    ck_assert_ptr_nonnull(link);
    if (refuse_next) {
        return NULL;
    }
    if (pause_next) {
        link_pause(link);
    }
    server.user.callbacks = &callbacks;
    return &server.user;
}
static struct listener_user listener_user = {.on_accept = accept_server};

static void open_both(const struct link_options *options)
{
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    ck_assert_ok(
        listener_open(loop, "127.0.0.1", 0, 10, options, &listener_user, &listener, &msg), &msg);
    closed_wanted = 2;
}

static void connect_client(const struct link_options *options)
{
    client.user.callbacks = &callbacks;
    ck_assert_ok(
        link_connect(loop, "127.0.0.1", listener_port(listener), options, &client.user, &msg),
        &msg);
    ck_assert_ptr_nonnull(client.user.link);
}

static void close_all(void)
{
    listener_close(listener);
    loop_destroy(loop);
}

static void send_numbers(struct end *end)
{
    static uint8_t payload[300000];
    for (uint64_t i = 1; i <= 100; i++) {
        struct frame frame = {
            .type = FRAME_APPEND,
            .request_id = i,
            .payload = bytes_of(payload, (size_t)(i * 3000)),
        };
        link_send(end->user.link, &frame);
    }
}

static void echo(struct end *end, const struct frame *frame)
{
    ck_assert_uint_eq(frame->request_id, (uint64_t)end->frames); /* in order */
    link_send(end->user.link, frame);
}

static void close_after_hundred(struct end *end, const struct frame *frame)
{
    ck_assert_uint_eq(frame->request_id, (uint64_t)end->frames);
    if (end->frames == 100) {
        link_close(end->user.link);
        link_close(end->user.link);       /* repeated calls are fine */
        link_send(end->user.link, frame); /* and sending goes nowhere */
    }
}

START_TEST(test_frames_arrive_whole_and_in_order)
{
    open_both(NULL);
    client.on_open = send_numbers;
    client.on_frame = close_after_hundred;
    server.on_frame = echo;
    connect_client(NULL);
    loop_run(loop);
    ck_assert_int_eq(server.frames, 100);
    ck_assert_int_eq(client.frames, 100);
    ck_assert_int_eq(client.reason, ERR_OK);
    ck_assert_int_eq(server.reason, ERR_IO);
    ck_assert_int_eq(client.closed, 1);
    ck_assert_int_eq(server.closed, 1);
    close_all();
}
END_TEST

static void error_and_close(struct end *end, const struct frame *frame)
{
    struct errmsg why;
    err_t err = err_set(&why, ERR_STALE, "a newer term has begun");
    link_send_error(end->user.link, 7, frame->request_id, err, &why);
    link_close(end->user.link);
}

static void expect_error(struct end *end, const struct frame *frame)
{
    (void)end;
    struct reader in = reader_of(frame->payload);
    struct error_reply reply;
    ck_assert_int_eq(frame->type, FRAME_ERROR);
    ck_assert_uint_eq(frame->channel, 7);
    ck_assert_int_eq(error_reply_decode(&reply, &in), ERR_OK);
    ck_assert_int_eq((int)reply.code, ERR_STALE);
    ck_assert(bytes_equal(reply.message, bytes_of_str("a newer term has begun")));
}

START_TEST(test_error_sent_before_close_arrives_although_more_was_in_flight)
{
    open_both(NULL);
    client.on_open = send_numbers; /* megabytes that the server never reads */
    client.on_frame = expect_error;
    server.on_frame = error_and_close;
    connect_client(NULL);
    loop_run(loop);
    ck_assert_int_eq(server.frames, 1);
    ck_assert_int_eq(client.frames, 1);
    ck_assert_int_eq(server.reason, ERR_OK);
    close_all();
}
END_TEST

static void abort_now(struct end *end, const struct frame *frame)
{
    (void)frame;
    link_abort(end->user.link);
}

START_TEST(test_abort_inside_a_frame_ends_at_once)
{
    open_both(NULL);
    client.on_open = send_numbers;
    server.on_frame = abort_now;
    connect_client(NULL);
    loop_run(loop);
    ck_assert_int_eq(server.frames, 1);
    ck_assert_int_eq(server.reason, ERR_OK);
    ck_assert_int_eq(client.reason, ERR_IO);
    close_all();
}
END_TEST

START_TEST(test_refused_connection_is_reported_once_and_later)
{
    open_both(NULL);
    uint16_t port = listener_port(listener);
    listener_close(listener);
    closed_wanted = 1;
    client.user.callbacks = &callbacks;
    /* The listener's socket closes at the end of the turn: connect behind that. */
    loop_stop(loop);
    loop_run(loop);
    ck_assert_ok(link_connect(loop, "127.0.0.1", port, NULL, &client.user, &msg), &msg);
    ck_assert_int_eq(client.closed, 0);
    loop_run(loop);
    ck_assert_int_eq(client.opened, 0);
    ck_assert_int_eq(client.closed, 1);
    ck_assert_int_eq(client.reason, ERR_IO);
    ck_assert_ptr_nonnull(strstr(client.reason_msg.text, "connection refused"));
    loop_destroy(loop);
}
END_TEST

START_TEST(test_malformed_host_is_refused_at_once)
{
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    client.user.callbacks = &callbacks;
    ck_assert_int_eq(link_connect(loop, "not a host", 1, NULL, &client.user, &msg), ERR_INVALID);
    ck_assert_int_eq(link_connect(loop, "", 1, NULL, &client.user, &msg), ERR_INVALID);
    ck_assert_int_eq(link_connect(loop, "127.0.0.1", 0, NULL, &client.user, &msg), ERR_INVALID);
    ck_assert_ptr_null(client.user.link);
    loop_destroy(loop);
}
END_TEST

START_TEST(test_names_are_resolved)
{
    open_both(NULL);
    client.user.callbacks = &callbacks;
    client.on_open = send_numbers;
    client.on_frame = close_after_hundred;
    server.on_frame = echo;
    ck_assert_ok(
        link_connect(loop, "localhost", listener_port(listener), NULL, &client.user, &msg), &msg);
    loop_run(loop);
    ck_assert_int_eq(client.closed, 1);
    close_all();
}
END_TEST

START_TEST(test_close_while_connecting_reports_closed_once)
{
    open_both(NULL);
    closed_wanted = 1;
    connect_client(NULL);
    link_close(client.user.link);
    ck_assert_int_eq(client.closed, 0); /* never from inside */
    loop_run(loop);
    ck_assert_int_eq(client.closed, 1);
    ck_assert_int_eq(client.reason, ERR_OK);
    close_all();
}
END_TEST

START_TEST(test_silent_peer_times_out)
{
    struct link_options options = {.idle_timeout_ms = 30};
    open_both(&options);
    connect_client(NULL); /* says nothing */
    loop_run(loop);
    ck_assert_int_eq(server.reason, ERR_TIMEOUT);
    ck_assert_ptr_nonnull(strstr(server.reason_msg.text, "silent"));
    close_all();
}
END_TEST

/* Back-pressure: the server pauses after every frame and goes on from a timer. */
static struct timer resume_timer;

static void resume_server(struct timer *timer)
{
    (void)timer;
    if (server.user.link != NULL) {
        link_resume(server.user.link);
    }
}

static void pause_each(struct end *end, const struct frame *frame)
{
    ck_assert_uint_eq(frame->request_id, (uint64_t)end->frames);
    link_pause(end->user.link);
    if (end->frames == 100) {
        link_close(client.user.link);
        link_resume(end->user.link);
        return;
    }
    timer_start(loop, &resume_timer, 0);
}

START_TEST(test_paused_link_delivers_nothing_until_resumed)
{
    open_both(NULL);
    resume_timer.on_fire = resume_server;
    client.on_open = send_numbers;
    server.on_frame = pause_each;
    connect_client(NULL);
    loop_run(loop);
    ck_assert_int_eq(server.frames, 100);
    close_all();
}
END_TEST

static void send_three(struct end *end)
{
    for (uint64_t i = 1; i <= 3; i++) {
        link_send(end->user.link, &(struct frame){.type = FRAME_APPEND, .request_id = i});
    }
}

/* One turn: the server goes on with frames that it has already, the client has something to say. */
static void resume_and_send(struct timer *timer)
{
    (void)timer;
    link_resume(server.user.link);
    link_send(client.user.link, &(struct frame){.type = FRAME_APPEND, .request_id = 4});
}

static void pause_then_look(struct end *end, const struct frame *frame)
{
    if (frame->request_id == 1) {
        link_pause(end->user.link);
        timer_start(loop, &resume_timer, 0);
    } else if (frame->request_id == 2) {
        ck_assert_uint_eq(link_send_buffer(client.user.link)->size, 0); /* it was written */
    } else if (frame->request_id == 4) {
        link_close(end->user.link);
    }
}

START_TEST(test_what_is_ready_is_written_before_resumed_links_go_on)
{
    open_both(NULL);
    resume_timer.on_fire = resume_and_send;
    client.on_open = send_three;
    server.on_frame = pause_then_look;
    connect_client(NULL);
    loop_run(loop);
    ck_assert_int_eq(server.frames, 4);
    close_all();
}
END_TEST

static void fill_queue(struct end *end)
{
    static uint8_t payload[900000];
    for (int i = 0; i < 20; i++) {
        struct frame frame = {
            .type = FRAME_FEED_WAL, .payload = bytes_of(payload, sizeof(payload))};
        link_send(end->user.link, &frame);
    }
    ck_assert(link_is_congested(end->user.link));
}

static void close_after_twenty(struct end *end, const struct frame *frame)
{
    (void)frame;
    if (end->frames == 20) {
        link_close(end->user.link);
    }
}

START_TEST(test_full_send_queue_says_when_it_drained)
{
    struct link_options options = {.send_queue_max = 8 * MIB};
    open_both(NULL);
    client.on_open = fill_queue;
    server.on_frame = close_after_twenty;
    connect_client(&options);
    loop_run(loop);
    ck_assert_int_eq(server.frames, 20);
    ck_assert_uint_eq(server.bytes, 20u * 900000);
    ck_assert_int_eq(client.drained, 1);
    close_all();
}
END_TEST

static void overfill(struct end *end)
{
    static uint8_t payload[900000];
    for (int i = 0; i < 10; i++) {
        struct frame frame = {
            .type = FRAME_FEED_WAL, .payload = bytes_of(payload, sizeof(payload))};
        link_send(end->user.link, &frame);
    }
}

START_TEST(test_sender_without_restraint_loses_the_link_not_the_memory)
{
    struct link_options options = {.send_queue_max = 1 * MIB};
    open_both(NULL);
    client.on_open = overfill;
    connect_client(&options);
    loop_run(loop);
    ck_assert_int_eq(client.reason, ERR_FULL);
    close_all();
}
END_TEST

static struct timer sender;
static int sent;

static void send_another(struct timer *timer)
{
    static uint8_t payload[900000];
    struct frame frame = {.type = FRAME_FEED_WAL, .payload = bytes_of(payload, sizeof(payload))};
    if (client.user.link == NULL) {
        return;
    }
    if (sent++ == 100) {
        link_abort(client.user.link);
        return;
    }
    link_send(client.user.link, &frame);
    timer_start(loop, timer, 0);
}

static void overfill_turn_by_turn(struct end *end)
{
    (void)end;
    sender.on_fire = send_another;
    timer_start(loop, &sender, 0);
}

/* What the socket did not take at once is under way all the time: that is no reason to wait. */
START_TEST(test_sender_to_a_peer_that_reads_nothing_loses_the_link_not_the_memory)
{
    struct link_options options = {.send_queue_max = 1 * MIB};
    pause_next = true;
    open_both(NULL);
    client.on_open = overfill_turn_by_turn;
    closed_wanted = 1;
    connect_client(&options);
    loop_run(loop);
    ck_assert_int_eq(client.reason, ERR_FULL);
    close_all();
}
END_TEST

/* A peer that is not one of us: a plain socket. */

static int plain_connect(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(listener_port(listener)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void send_plain(int fd, struct bytes data)
{
    ck_assert_int_eq(send(fd, data.data, data.size, MSG_NOSIGNAL), (ssize_t)data.size);
}

START_TEST(test_garbage_closes_the_link_as_corrupt)
{
    open_both(NULL);
    closed_wanted = 1;
    int fd = plain_connect();
    send_plain(fd, bytes_of_str("GET / HTTP/1.1\r\n\r\n"));
    loop_run(loop);
    ck_assert_int_eq(server.reason, ERR_CORRUPT);
    ck_assert_int_eq(server.frames, 0);
    (void)close(fd);
    close_all();
}
END_TEST

START_TEST(test_flipped_bit_closes_the_link_behind_the_good_frames)
{
    open_both(NULL);
    closed_wanted = 1;
    struct buf out = {0};
    for (uint64_t i = 1; i <= 3; i++) {
        struct frame frame = {
            .type = FRAME_APPEND, .request_id = i, .payload = bytes_of_str("commit")};
        frame_append(&out, &frame);
    }
    out.data[out.size - 1] ^= 1;
    int fd = plain_connect();
    send_plain(fd, buf_view(&out));
    loop_run(loop);
    ck_assert_int_eq(server.frames, 2);
    ck_assert_int_eq(server.reason, ERR_CORRUPT);
    ck_assert_ptr_nonnull(strstr(server.reason_msg.text, "checksum"));
    (void)close(fd);
    buf_deinit(&out);
    close_all();
}
END_TEST

START_TEST(test_huge_announced_size_is_refused_before_memory_is_taken)
{
    open_both(NULL);
    closed_wanted = 1;
    struct buf out = {0};
    frame_append(&out, &(struct frame){.type = FRAME_APPEND});
    memset(out.data + 4, 0xFF, 4); /* the payload's size */
    int fd = plain_connect();
    send_plain(fd, buf_view(&out));
    loop_run(loop);
    ck_assert_int_eq(server.reason, ERR_CORRUPT);
    (void)close(fd);
    buf_deinit(&out);
    close_all();
}
END_TEST

START_TEST(test_end_in_the_middle_of_a_frame_says_so)
{
    open_both(NULL);
    closed_wanted = 1;
    struct buf out = {0};
    frame_append(
        &out, &(struct frame){.type = FRAME_APPEND, .payload = bytes_of_str("half of this")});
    int fd = plain_connect();
    send_plain(fd, bytes_of(out.data, out.size - 5));
    (void)close(fd);
    loop_run(loop);
    ck_assert_int_eq(server.reason, ERR_IO);
    ck_assert_ptr_nonnull(strstr(server.reason_msg.text, "middle of a frame"));
    buf_deinit(&out);
    close_all();
}
END_TEST

/* A frame sent one byte a turn of the loop. */
static struct timer trickle_timer;
static struct buf trickle;
static size_t trickled;
static int trickle_fd;

static void send_next_byte(struct timer *timer)
{
    if (trickled < trickle.size) {
        send_plain(trickle_fd, bytes_of(trickle.data + trickled++, 1));
        timer_start(loop, timer, 0);
    }
}

static void stop_loop(struct end *end, const struct frame *frame)
{
    (void)end;
    ck_assert(bytes_equal(frame->payload, bytes_of_str("one byte at a time")));
    loop_stop(loop);
}

START_TEST(test_frame_in_single_bytes_is_put_together)
{
    open_both(NULL);
    server.on_frame = stop_loop;
    frame_append(
        &trickle,
        &(struct frame){.type = FRAME_APPEND, .payload = bytes_of_str("one byte at a time")});
    trickle_fd = plain_connect();
    trickle_timer.on_fire = send_next_byte;
    timer_start(loop, &trickle_timer, 0);
    loop_run(loop);
    ck_assert_int_eq(server.frames, 1);
    (void)close(trickle_fd);
    buf_deinit(&trickle);
    close_all();
}
END_TEST

START_TEST(test_refused_and_excess_connections_are_closed)
{
    open_both(NULL);
    refuse_next = true;
    closed_wanted = 1;
    connect_client(NULL);
    loop_run(loop);
    ck_assert_int_eq(client.reason, ERR_IO);
    close_all();
}
END_TEST

START_TEST(test_destroying_the_loop_closes_what_is_left)
{
    open_both(NULL);
    connect_client(NULL);
    closed_wanted = 2;
    loop_stop(loop);
    loop_run(loop);
    loop_destroy(loop); /* listener and link are still open */
    ck_assert_int_eq(client.closed, 1);
}
END_TEST

UNIT_MAIN(
    "link",
    test_frames_arrive_whole_and_in_order,
    test_error_sent_before_close_arrives_although_more_was_in_flight,
    test_abort_inside_a_frame_ends_at_once,
    test_refused_connection_is_reported_once_and_later,
    test_malformed_host_is_refused_at_once,
    test_names_are_resolved,
    test_close_while_connecting_reports_closed_once,
    test_silent_peer_times_out,
    test_paused_link_delivers_nothing_until_resumed,
    test_what_is_ready_is_written_before_resumed_links_go_on,
    test_full_send_queue_says_when_it_drained,
    test_sender_without_restraint_loses_the_link_not_the_memory,
    test_sender_to_a_peer_that_reads_nothing_loses_the_link_not_the_memory,
    test_garbage_closes_the_link_as_corrupt,
    test_flipped_bit_closes_the_link_behind_the_good_frames,
    test_huge_announced_size_is_refused_before_memory_is_taken,
    test_end_in_the_middle_of_a_frame_says_so,
    test_frame_in_single_bytes_is_put_together,
    test_refused_and_excess_connections_are_closed,
    test_destroying_the_loop_closes_what_is_left);
