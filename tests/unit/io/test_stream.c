/* Plain streams: who is given up, and who is waited for. */
#include <arpa/inet.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "common/io/stream.h"
#include "common/io/timer.h"
#include "tests/unit/unit.h"

#define MUCH (16 * MIB) /* more than two sockets take */

static struct loop *loop;
static struct errmsg msg;
static int listening;
static int closed, closed_wanted;

/* A stream, and the socket at its other end, which reads nothing. */
struct pair {
    struct stream_user user;
    int peer;
    int unread; /* bytes at the peer */
    bool is_closed;
    err_t reason;
};

static void on_bytes(struct stream_user *user, struct bytes bytes)
{
    (void)user;
    (void)bytes;
    ck_abort_msg("nobody sends");
}

static void on_closed(struct stream_user *user, err_t reason, bool ended, const struct errmsg *why)
{
    struct pair *pair = CONTAINER_OF(user, struct pair, user);
    (void)why;
    ck_assert(!ended);
    pair->is_closed = true;
    pair->reason = reason;
    if (++closed == closed_wanted) {
        loop_stop(loop);
    }
}

static const struct stream_callbacks callbacks = {.on_bytes = on_bytes, .on_closed = on_closed};

static void given_a_listener(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(listening, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(listening, 10), 0);
}

static void connect_pair(struct pair *pair, size_t sent, unsigned silence_max_ms)
{
    struct sockaddr_in address;
    socklen_t size = sizeof(address);
    const struct stream_options options = {.silence_max_ms = silence_max_ms};
    ck_assert_int_eq(getsockname(listening, (struct sockaddr *)&address, &size), 0);
    pair->user.callbacks = &callbacks;
    ck_assert_ok(
        stream_connect(loop, "127.0.0.1", ntohs(address.sin_port), &options, &pair->user, &msg),
        &msg);
    pair->peer = accept(listening, NULL, NULL); /* it was queued by the kernel */
    ck_assert_int_ge(pair->peer, 0);
    uint8_t *bytes = mem_zalloc(sent);
    stream_send(pair->user.stream, bytes_of(bytes, sent));
    mem_free(bytes);
}

/* As if its host were gone: nothing comes to it, so it acknowledges nothing. */
static void lose_peer(const struct pair *pair)
{
    struct sock_filter nothing = {.code = BPF_RET | BPF_K};
    struct sock_fprog program = {.len = 1, .filter = &nothing};
    ck_assert_int_eq(
        setsockopt(pair->peer, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), 0);
}

static struct pair lost, lost_full, idle, full;
static struct timer until_full;

/* Its window is full when it holds as much as it did a moment ago. */
static void lose_when_full(struct timer *timer)
{
    int before = lost_full.unread;
    ck_assert_int_eq(ioctl(lost_full.peer, FIONREAD, &lost_full.unread), 0);
    if (lost_full.unread > 0 && lost_full.unread == before) {
        lose_peer(&lost_full);
    } else {
        timer_start(loop, timer, 10);
    }
}

START_TEST(test_peer_that_answers_nothing_is_given_up_and_one_that_does_not_read_is_not)
{
    given_a_listener();
    connect_pair(&lost, 1, 400);
    lose_peer(&lost);
    connect_pair(&lost_full, MUCH, 400);
    connect_pair(&idle, 1, 100);
    connect_pair(&full, MUCH, 100); /* its window is probed more and more rarely */
    until_full.on_fire = lose_when_full;
    timer_start(loop, &until_full, 10);

    closed_wanted = 2;
    loop_run(loop);

    ck_assert_int_eq(lost.reason, ERR_TIMEOUT);
    ck_assert_int_eq(lost_full.reason, ERR_TIMEOUT);
    ck_assert(!idle.is_closed);
    ck_assert(!full.is_closed);

    closed_wanted = 4;
    stream_abort(idle.user.stream);
    stream_abort(full.user.stream);
    loop_run(loop);
    loop_destroy(loop);
    struct pair *const pairs[] = {&lost, &lost_full, &idle, &full};
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        (void)close(pairs[i]->peer);
    }
    (void)close(listening);
}
END_TEST

UNIT_MAIN("stream", test_peer_that_answers_nothing_is_given_up_and_one_that_does_not_read_is_not);
