/*
 * safekeeper_fixture.h - one safekeeper, a process of its own, with one timeline whose WAL begins
 * at RIG_START_LSN, for tests. Its WAL is what fill_wal() says, so that each side can be checked.
 * Who has begun ends with rig_deinit(&rig).
 */
#pragma once

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "tests/flow/safekeeper/rig.h"

static struct rig rig;
static struct errmsg msg;

/* With up to two options of its own, "--name=value"; NULL: none. */
static inline void given_timeline_with(const char *option, const char *other)
{
    rig_init(&rig);
    rig.extra[0] = option;
    rig.extra[1] = other;
    rig_start(&rig);
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 201);
}

static inline void given_timeline(void)
{
    given_timeline_with(NULL, NULL);
}

/* Killed, and back with its storage in order. */
static inline void restart(void)
{
    rig_kill(&rig);
    rig_start(&rig);
    rig_wait_storage(&rig, "ok");
}

/* The safekeeper's bytes against ours, from its files. */
static inline void assert_digest(lsn_t begin_lsn, lsn_t end_lsn, term_t term)
{
    char path[300], expected[12];
    const char *crc = NULL;
    struct doc *body = NULL;
    size_t size = (size_t)(end_lsn - begin_lsn);
    uint8_t *wal = mem_alloc(size + 1);
    fill_wal(wal, begin_lsn, size, term);
    (void)snprintf(expected, sizeof(expected), "%08x", crc32c(0, wal, size));
    (void)snprintf(
        path, sizeof(path), "/v1/tenants/%s/timelines/%s/digest?from=" LSN_FMT "&to=" LSN_FMT,
        tenant_id_text(rig_tenant).text, timeline_id_text(rig_timeline).text, LSN_ARGS(begin_lsn),
        LSN_ARGS(end_lsn));
    ck_assert_uint_eq(rig_http(&rig, "GET", path, NULL, &body), 200);
    ck_assert_ok(doc_get_str(body, "crc", &crc, &msg), &msg);
    ck_assert_str_eq(crc, expected);
    doc_unref(body);
    mem_free(wal);
}

/* A connection of its own, without a window: all that is committed comes. */
static inline void feed_start(struct client *feed, lsn_t begin_lsn)
{
    struct feed_start start = {.begin_lsn = begin_lsn};
    client_open(feed, &rig, HELLO_ROLE_FEED);
    CLIENT_SEND(feed, feed_start, &start, FRAME_FEED_START);
    client_flush(feed);
}

/* Up to `end_lsn` exactly; the bytes are those of `term`, and none is beyond its commit_lsn. */
static inline void feed_read(struct client *feed, lsn_t begin_lsn, lsn_t end_lsn, term_t term)
{
    while (begin_lsn < end_lsn) {
        struct frame frame;
        ck_assert(client_receive(feed, &frame));
        struct reader in = reader_of(frame.payload);
        if (frame.type == FRAME_FEED_STATUS) {
            continue;
        }
        struct feed_wal piece;
        ck_assert_int_eq(frame.type, FRAME_FEED_WAL);
        ck_assert_int_eq(feed_wal_decode(&piece, &in), ERR_OK);
        ck_assert_uint_eq(piece.begin_lsn, begin_lsn);
        ck_assert_uint_le(piece.begin_lsn + piece.wal.size, piece.commit_lsn);
        uint8_t *wal = mem_alloc(piece.wal.size);
        fill_wal(wal, begin_lsn, piece.wal.size, term);
        ck_assert_int_eq(memcmp(wal, piece.wal.data, piece.wal.size), 0);
        mem_free(wal);
        begin_lsn += piece.wal.size;
    }
    ck_assert_uint_eq(begin_lsn, end_lsn);
}
