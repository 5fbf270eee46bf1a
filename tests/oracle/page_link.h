/*
 * page_link.h - a blocking client of a pageserver's framed port, with many requests in flight.
 *
 * Requests are gathered by page_link_ask_... and leave with page_link_send. Whatever breaks the
 * connection or the protocol ends the program with exit code 2. One thread.
 */
#pragma once

#include "common/pg/page_key.h"
#include "common/wire/hello_proto.h"
#include "common/wire/page_proto.h"

struct page_link {
    int fd;
    uint32_t channel;
    struct buf in, out;
    size_t taken; /* bytes of `in` that the last reply took */
};

/* Exit code 2, with what went wrong. */
_Noreturn void page_link_fail(const char *what);
void page_link_check(err_t err, const struct errmsg *msg);

void page_link_open(
    struct page_link *link,
    const char *host,
    uint16_t port,
    const char *tenant,
    const char *timeline);
void page_link_close(struct page_link *link);

/* `lsn` may be LSN_HEAD; any other is waited for. */
void page_link_ask_pages(
    struct page_link *link, uint64_t id, struct page_key first, uint32_t count, lsn_t lsn);
void page_link_ask_size(struct page_link *link, uint64_t id, struct page_key rel, lsn_t lsn);
void page_link_send(struct page_link *link);

/* The next reply, to any request in flight; valid until the next call. */
struct frame page_link_receive(struct page_link *link);
