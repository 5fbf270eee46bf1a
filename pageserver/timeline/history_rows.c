/*
 * history_rows.c - what of a history is on disk: the retention, and rows of cutoffs and leases.
 */
#include "pageserver/timeline/history_private.h"

#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/wire/codec.h"

#define LEASE_ROW_FORMAT 1
#define LEASE_ROW_FIELDS(X)                                                                        \
    X(u16, format)                                                                                 \
    X(u32, timeline)                                                                               \
    X(u64, lsn)                                                                                    \
    X(u64, expires_us)                                                                             \
    X(bytes, name)
WIRE_DECLARE(lease_row, LEASE_ROW_FIELDS);
WIRE_DEFINE(lease_row, LEASE_ROW_FIELDS)

#define RETENTION_ROW_FORMAT 1
#define RETENTION_ROW_FIELDS(X)                                                                    \
    X(u16, format)                                                                                 \
    X(u64, seconds)                                                                                \
    X(u64, wal_bytes)
WIRE_DECLARE(retention_row, RETENTION_ROW_FIELDS);
WIRE_DEFINE(retention_row, RETENTION_ROW_FIELDS)

/* -- loaded at the start -- */

static err_t load_retention(struct history *history, struct page_store *store, struct errmsg *msg)
{
    struct buf bytes = {0};
    err_t err = page_store_meta_get(store, META_RETENTION, 0, &bytes, msg);
    if (err == ERR_OK) {
        struct retention_row row;
        struct reader in = reader_of(buf_view(&bytes));
        err = retention_row_decode(&row, &in);
        if (err != ERR_OK || row.format != RETENTION_ROW_FORMAT) {
            err = err_set(msg, ERR_CORRUPT, "row of the retention is malformed");
        } else {
            history->retention =
                (struct history_retention){.seconds = row.seconds, .wal_bytes = row.wal_bytes};
        }
    }
    buf_deinit(&bytes);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static err_t load_cutoff(uint32_t id, struct bytes value, void *context, struct errmsg *msg)
{
    struct history *history = context;
    struct reader in = reader_of(value);
    lsn_t lsn = get_u64(&in);
    if (in.bad || in.left > 0) {
        return err_set(msg, ERR_CORRUPT, "cutoff of timeline number %" PRIu32 " is malformed", id);
    }
    history->loaded =
        mem_realloc(history->loaded, (history->loaded_count + 1) * sizeof(history->loaded[0]));
    history->loaded[history->loaded_count++] = (struct cutoff_row){.timeline = id, .lsn = lsn};
    return ERR_OK;
}

static err_t load_lease(uint32_t id, struct bytes value, void *context, struct errmsg *msg)
{
    struct history *history = context;
    struct lease_row row;
    struct reader in = reader_of(value);
    err_t err = lease_row_decode(&row, &in);
    if (err != ERR_OK || row.format != LEASE_ROW_FORMAT || row.name.size >= LEASE_NAME_SIZE) {
        return err_set(msg, ERR_CORRUPT, "row of lease %" PRIu32 " is malformed", id);
    }
    struct history_lease lease = {
        .number = id, .timeline = row.timeline, .lsn = row.lsn, .expires_us = row.expires_us};
    memcpy(lease.name, row.name.data, row.name.size);
    history_append_lease(history, &lease);
    history->next_lease = MAX_OF(history->next_lease, id + 1);
    return ERR_OK;
}

err_t history_load(struct history *history, struct page_store *store, struct errmsg *msg)
{
    ASSERT(!history->is_started);
    TRY(load_retention(history, store, msg));
    TRY(page_store_meta_list(store, META_CUTOFF, load_cutoff, history, msg));
    return page_store_meta_list(store, META_LEASE, load_lease, history, msg);
}

/* -- written -- */

err_t history_set_retention(
    struct history *history,
    struct page_store *store,
    struct history_retention retention,
    struct errmsg *msg)
{
    struct retention_row row = {
        .format = RETENTION_ROW_FORMAT,
        .seconds = retention.seconds,
        .wal_bytes = retention.wal_bytes,
    };
    uint8_t bytes[64];
    struct writer out = {.next = bytes, .left = sizeof(bytes)};
    retention_row_encode(&row, &out);
    struct meta_change change = {
        .kind = META_RETENTION, .value = bytes_of(bytes, retention_row_size(&row))};
    TRY(page_store_meta_write(store, &change, 1, msg));
    history_lock(history);
    history->retention = retention;
    history_unlock(history);
    return ERR_OK;
}

err_t history_write_lease(
    struct page_store *store, const struct history_lease *lease, struct errmsg *msg)
{
    struct lease_row row = {
        .format = LEASE_ROW_FORMAT,
        .timeline = lease->timeline,
        .lsn = lease->lsn,
        .expires_us = lease->expires_us,
        .name = bytes_of_str(lease->name),
    };
    struct buf bytes = {0};
    size_t size = lease_row_size(&row);
    struct writer out = {.next = buf_extend(&bytes, size), .left = size};
    lease_row_encode(&row, &out);
    struct meta_change change = {
        .kind = META_LEASE, .id = lease->number, .value = buf_view(&bytes)};
    err_t err = page_store_meta_write(store, &change, 1, msg);
    buf_deinit(&bytes);
    return err;
}

err_t history_write_settled(
    struct page_store *store, const struct meta_change *changes, size_t count, struct errmsg *msg)
{
    if (count == 0) {
        return ERR_OK;
    }
    TRY(page_store_meta_write(store, changes, count, msg));
    return page_store_meta_settle(store, msg);
}

/* -- erased with their timeline -- */

struct row_changes {
    struct meta_change *items;
    size_t count;
    uint32_t timeline;
};

static void add_change(struct row_changes *changes, struct meta_change change)
{
    changes->items = mem_realloc(changes->items, (changes->count + 1) * sizeof(changes->items[0]));
    changes->items[changes->count++] = change;
}

static err_t add_if_of_timeline(uint32_t id, struct bytes value, void *context, struct errmsg *msg)
{
    struct row_changes *changes = context;
    struct lease_row row;
    struct reader in = reader_of(value);
    if (lease_row_decode(&row, &in) != ERR_OK) {
        return err_set(msg, ERR_CORRUPT, "row of lease %" PRIu32 " is malformed", id);
    }
    if (row.timeline == changes->timeline) {
        add_change(changes, (struct meta_change){.kind = META_LEASE, .id = id});
    }
    return ERR_OK;
}

err_t history_erase_rows(
    struct history *history, struct page_store *store, uint32_t timeline, struct errmsg *msg)
{
    (void)history;
    struct row_changes changes = {.timeline = timeline};
    add_change(&changes, (struct meta_change){.kind = META_CUTOFF, .id = timeline});
    err_t err = page_store_meta_list(store, META_LEASE, add_if_of_timeline, &changes, msg);
    if (err == ERR_OK) {
        err = page_store_meta_write(store, changes.items, changes.count, msg);
    }
    mem_free(changes.items);
    return err;
}
