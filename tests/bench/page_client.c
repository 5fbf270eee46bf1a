#include "tests/bench/page_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/wire/hello_proto.h"

_Noreturn void fail(const char *what)
{
    (void)fprintf(stderr, "page client: %s\n", what);
    exit(1);
}

static void check(err_t err, const struct errmsg *msg)
{
    if (err != ERR_OK) {
        fail(msg->text);
    }
}

int dial(const char *host, uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1;
    if (fd < 0 || inet_pton(AF_INET, host, &address.sin_addr) != 1 ||
        connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) {
        fail("cannot connect");
    }
    return fd;
}

void send_all(int fd, struct buf *out)
{
    size_t sent = 0;
    while (sent < out->size) {
        ssize_t wrote = write(fd, out->data + sent, out->size - sent);
        if (wrote <= 0) {
            fail("connection lost while writing");
        }
        sent += (size_t)wrote;
    }
    buf_clear(out);
}

void stamp_arrivals(int fd)
{
    int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) != 0) {
        fail("no time stamps on this socket");
    }
}

/* As read(); the stamp is that of the last packet of what was read. */
static ssize_t read_stamped(int fd, void *to, size_t size, uint64_t *ret_arrived_ns)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[256];
    } control;
    struct iovec piece = {.iov_base = to, .iov_len = size};
    struct msghdr message = {
        .msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };
    ssize_t got = recvmsg(fd, &message, 0);
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); got > 0 && header != NULL;
         header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec at;
            memcpy(&at, CMSG_DATA(header), sizeof(at));
            *ret_arrived_ns = (uint64_t)at.tv_sec * NS_PER_S + (uint64_t)at.tv_nsec;
        }
    }
    return got;
}

struct frame receive_stamped(int fd, struct buf *in, size_t *ret_size, uint64_t *ret_arrived_ns)
{
    struct frame frame = {0};
    struct errmsg msg = {0};
    for (;;) {
        check(frame_parse(buf_view(in), &frame, ret_size, &msg), &msg);
        if (*ret_size > 0) {
            return frame;
        }
        size_t before = in->size;
        uint8_t *to = buf_extend(in, 64 * KIB);
        ssize_t got = read_stamped(fd, to, 64 * KIB, ret_arrived_ns);
        if (got <= 0) {
            fail("connection lost while reading");
        }
        in->size = before + (size_t)got;
    }
}

struct frame receive(int fd, struct buf *in, size_t *ret_size)
{
    uint64_t arrived_ns = 0;
    return receive_stamped(fd, in, ret_size, &arrived_ns);
}

uint32_t say_hello(int fd, const char *tenant, const char *timeline)
{
    struct errmsg msg = {0};
    struct hello hello = {
        .protocol_min = PROTOCOL_VERSION_MIN,
        .protocol_max = PROTOCOL_VERSION_MAX,
        .role = HELLO_ROLE_PAGES,
        .shard_count = 1,
        .connection_epoch = 1,
    };
    check(tenant_id_parse(tenant, &hello.tenant, &msg), &msg);
    check(timeline_id_parse(timeline, &hello.timeline, &msg), &msg);
    struct buf out = {0};
    FRAME_APPEND_MESSAGE(&out, hello, &hello, .type = FRAME_HELLO, .request_id = 1);
    send_all(fd, &out);
    struct buf in = {0};
    size_t size = 0;
    struct frame frame = receive(fd, &in, &size);
    struct reader reader = reader_of(frame.payload);
    struct hello_reply reply = {0};
    if (frame.type != FRAME_HELLO_REPLY || hello_reply_decode(&reply, &reader) != ERR_OK) {
        fail("hello was refused");
    }
    buf_deinit(&in);
    buf_deinit(&out);
    return reply.channel;
}

void ask(struct buf *out, const struct page_target *target, struct prng *prng, uint64_t id)
{
    struct get_page request = {
        .spc = target->spc,
        .db = target->db,
        .rel = target->rel,
        .block = (uint32_t)prng_below(prng, target->blocks),
        .count = 1,
        .lsn = LSN_HEAD,
    };
    FRAME_APPEND_MESSAGE(
        out, get_page, &request, .type = FRAME_GET_PAGE, .channel = target->channel,
        .request_id = id);
}
