/*
 * wal_window.h - the newest WAL of our Postgres, [begin_lsn, end_lsn), in bounded memory.
 *
 * A ring whose memory is mapped twice in a row, so that any part of it is one piece. The proposer
 * core says how much is needed (window_begin_lsn) and when to stop reading (proposer_wants_wal): of
 * a record that is larger than the window all of it, and for the time of that the ring grows.
 */
#pragma once

#include "common/base/bytes.h"

struct wal_window {
    uint8_t *memory; /* capacity bytes, twice */
    size_t capacity, capacity_min;
    lsn_t begin_lsn, end_lsn;
};

NODISCARD err_t wal_window_init(struct wal_window *window, size_t capacity_min, struct errmsg *msg);
void wal_window_deinit(struct wal_window *window);

void wal_window_reset(struct wal_window *window, lsn_t lsn); /* empty, at `lsn` */
size_t wal_window_room(const struct wal_window *window);
/* ERR_FULL: no memory, or more than a ring may ever be. */
NODISCARD err_t wal_window_make_room(struct wal_window *window, size_t room, struct errmsg *msg);
void wal_window_append(struct wal_window *window, struct bytes wal); /* at most room */
void wal_window_trim(struct wal_window *window, lsn_t begin_lsn);    /* within the window */

/* A view that lives until the next append or trim. */
struct bytes wal_window_view(const struct wal_window *window, lsn_t lsn, size_t size);
