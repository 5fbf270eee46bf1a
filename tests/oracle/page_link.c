#include "tests/oracle/page_link.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE (256 * KIB)

_Noreturn void page_link_fail(const char *what)
{
    (void)fprintf(stderr, "trouble: %s\n", what);
    exit(2);
}

void page_link_check(err_t err, const struct errmsg *msg)
{
    if (err != ERR_OK) {
        page_link_fail(msg->text);
    }
}

static void dial(struct page_link *link, const char *host, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1;
    link->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (link->fd < 0 || inet_pton(AF_INET, host, &address.sin_addr) != 1 ||
        connect(link->fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) {
        page_link_fail("cannot connect to the pageserver");
    }
}

void page_link_send(struct page_link *link)
{
    size_t sent = 0;
    while (sent < link->out.size) {
        ssize_t wrote = write(link->fd, link->out.data + sent, link->out.size - sent);
        if (wrote <= 0) {
            page_link_fail("connection lost while writing");
        }
        sent += (size_t)wrote;
    }
    buf_clear(&link->out);
}

struct frame page_link_receive(struct page_link *link)
{
    struct frame frame = {0};
    struct errmsg msg = {0};
    buf_consume(&link->in, link->taken);
    for (;;) {
        page_link_check(frame_parse(buf_view(&link->in), &frame, &link->taken, &msg), &msg);
        if (link->taken > 0) {
            return frame;
        }
        size_t before = link->in.size;
        uint8_t *to = buf_extend(&link->in, READ_SIZE);
        ssize_t got = read(link->fd, to, READ_SIZE);
        if (got <= 0) {
            page_link_fail("connection lost while reading");
        }
        link->in.size = before + (size_t)got;
    }
}

void page_link_open(
    struct page_link *link,
    const char *host,
    uint16_t port,
    const char *tenant,
    const char *timeline)
{
    struct errmsg msg = {0};
    struct hello hello = {
        .protocol_min = PROTOCOL_VERSION_MIN,
        .protocol_max = PROTOCOL_VERSION_MAX,
        .role = HELLO_ROLE_PAGES,
        .shard_count = 1,
        .connection_epoch = 1,
    };
    *link = (struct page_link){.fd = -1};
    page_link_check(tenant_id_parse(tenant, &hello.tenant, &msg), &msg);
    page_link_check(timeline_id_parse(timeline, &hello.timeline, &msg), &msg);
    dial(link, host, port);
    FRAME_APPEND_MESSAGE(&link->out, hello, &hello, .type = FRAME_HELLO, .request_id = 1);
    page_link_send(link);
    struct frame frame = page_link_receive(link);
    struct reader reader = reader_of(frame.payload);
    struct hello_reply reply = {0};
    if (frame.type != FRAME_HELLO_REPLY || hello_reply_decode(&reply, &reader) != ERR_OK) {
        page_link_fail("hello was refused");
    }
    link->channel = reply.channel;
}

void page_link_close(struct page_link *link)
{
    (void)close(link->fd);
    buf_deinit(&link->in);
    buf_deinit(&link->out);
}

void page_link_ask_pages(
    struct page_link *link, uint64_t id, struct page_key first, uint32_t count, lsn_t lsn)
{
    struct get_page request = {
        .spc = first.spc,
        .db = first.db,
        .rel = first.rel,
        .fork = first.fork,
        .block = first.block,
        .count = count,
        .lsn = lsn,
        .not_modified_since = lsn == LSN_HEAD ? 0 : lsn,
    };
    FRAME_APPEND_MESSAGE(
        &link->out, get_page, &request, .type = FRAME_GET_PAGE, .channel = link->channel,
        .request_id = id);
}

void page_link_ask_size(struct page_link *link, uint64_t id, struct page_key rel, lsn_t lsn)
{
    struct rel_size request = {
        .spc = rel.spc,
        .db = rel.db,
        .rel = rel.rel,
        .fork = rel.fork,
        .lsn = lsn,
        .not_modified_since = lsn == LSN_HEAD ? 0 : lsn,
    };
    FRAME_APPEND_MESSAGE(
        &link->out, rel_size, &request, .type = FRAME_REL_SIZE, .channel = link->channel,
        .request_id = id);
}
