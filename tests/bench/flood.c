/*
 * flood - one process, many connections, each with many GetPage requests in flight, until it is
 * ended.
 *
 *   flood HOST PORT TENANT TIMELINE SPC DB REL BLOCKS CONNECTIONS IN_FLIGHT SECONDS
 *
 * Prints one JSON line {"count":..}: how many pages it got.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "tests/bench/page_client.h"

#define CONNECTIONS_MAX 1024
#define READ_BYTES      (64 * KIB)

struct connection {
    int fd;
    struct page_target target;
    struct buf in, out;
};

static uint64_t count;
static struct prng prng;

/* Every reply is answered by the next request. */
static void go_on(struct connection *connection)
{
    uint8_t *to = buf_extend(&connection->in, READ_BYTES);
    ssize_t got = read(connection->fd, to, READ_BYTES);
    if (got <= 0) {
        fail("connection lost");
    }
    connection->in.size -= READ_BYTES - (size_t)got;
    for (;;) {
        struct frame frame;
        struct errmsg msg;
        size_t size = 0;
        if (frame_parse(buf_view(&connection->in), &frame, &size, &msg) != ERR_OK) {
            fail(msg.text);
        }
        if (size == 0) {
            break;
        }
        if (frame.type != FRAME_GET_PAGE_REPLY) {
            fail("a request was refused");
        }
        count++;
        ask(&connection->out, &connection->target, &prng, frame.request_id);
        buf_consume(&connection->in, size);
    }
    if (connection->out.size > 0) {
        send_all(connection->fd, &connection->out);
    }
}

int main(int argc, char **argv)
{
    static struct connection connections[CONNECTIONS_MAX];
    if (argc != 12) {
        fail("usage: flood HOST PORT TENANT TIMELINE SPC DB REL BLOCKS CONNECTIONS IN_FLIGHT "
             "SECONDS");
    }
    unsigned connection_count = (unsigned)strtoul(argv[9], NULL, 10);
    uint64_t in_flight = strtoull(argv[10], NULL, 10);
    mono_ns_t end = clock_mono() + strtoull(argv[11], NULL, 10) * NS_PER_S;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (connection_count == 0 || connection_count > CONNECTIONS_MAX || epoll < 0) {
        fail("CONNECTIONS: 1 to 1024");
    }
    prng_init(&prng, 2);
    for (unsigned i = 0; i < connection_count; i++) {
        struct connection *connection = &connections[i];
        connection->fd = dial(argv[1], (uint16_t)strtoul(argv[2], NULL, 10));
        connection->target = (struct page_target){
            .spc = (uint32_t)strtoul(argv[5], NULL, 10),
            .db = (uint32_t)strtoul(argv[6], NULL, 10),
            .rel = (uint32_t)strtoul(argv[7], NULL, 10),
            .blocks = (uint32_t)strtoul(argv[8], NULL, 10),
            .channel = say_hello(connection->fd, argv[3], argv[4]),
        };
        for (uint64_t id = 0; id < in_flight; id++) {
            ask(&connection->out, &connection->target, &prng, id);
        }
        send_all(connection->fd, &connection->out);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event) != 0) {
            fail("epoll");
        }
    }
    while (clock_mono() < end) {
        struct epoll_event events[64];
        int ready = epoll_wait(epoll, events, 64, 100);
        for (int i = 0; i < ready; i++) {
            go_on(events[i].data.ptr);
        }
    }
    printf("{\"count\":%" PRIu64 "}\n", count);
    return 0;
}
