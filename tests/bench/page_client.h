/*
 * page_client.h - the client's end of the page protocol, blocking: what the benchmarks share. Any
 * failure ends the program with a message.
 */
#pragma once

#include "common/base/prng.h"
#include "common/wire/page_proto.h"

struct page_target {
    uint32_t spc, db, rel, blocks;
    uint32_t channel;
};

_Noreturn void fail(const char *what);
int dial(const char *host, uint16_t port);
void send_all(int fd, struct buf *out); /* and clear it */
/* One frame; `in` keeps what came behind it, the caller consumes `*ret_size`. */
struct frame receive(int fd, struct buf *in, size_t *ret_size);
/*
 * The same, and when the kernel had the frame's end for us, in ns of CLOCK_REALTIME: however late
 * we ran then. The socket's stamp_arrivals() was called.
 */
struct frame receive_stamped(int fd, struct buf *in, size_t *ret_size, uint64_t *ret_arrived_ns);
void stamp_arrivals(int fd);
uint32_t say_hello(int fd, const char *tenant, const char *timeline); /* the channel */
/* A request for one page, at random, of the newest state. */
void ask(struct buf *out, const struct page_target *target, struct prng *prng, uint64_t id);
