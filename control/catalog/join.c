#include "control/catalog/join.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "control/catalog/catalog_private.h"

err_t changelog_newest(struct objstore *store, uint64_t *ret_seq, struct errmsg *msg)
{
    uint64_t snapshot = 0;
    TRY(changelog_last(store, ret_seq, msg));
    err_t err = snapshot_find(store, UINT64_MAX, &snapshot, msg);
    *ret_seq = MAX_OF(*ret_seq, snapshot);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static void add_to_batch(void *context, struct bytes key, struct bytes value)
{
    batch_entry(context, key, value);
}

err_t changelog_replay(
    struct objstore *store, struct kv *kv, struct changelog_position *position, struct errmsg *msg)
{
    struct kv_batch *batch = kv_batch_create();
    err_t err;
    while ((err = changelog_read(store, position, add_to_batch, batch, msg)) == ERR_OK) {
        position_put(batch, *position);
        err = kv_write(kv, batch, KV_SYNCED, msg);
        if (err != ERR_OK) {
            break;
        }
        kv_batch_clear(batch);
    }
    kv_batch_destroy(batch);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

/* ---- from nothing ---- */

static err_t erase(struct kv *kv, struct errmsg *msg)
{
    struct kv_batch *batch = kv_batch_create();
    kv_batch_delete_range(
        batch, bytes_of_str(""), bytes_of_str("~")); /* names of kinds are before */
    err_t err = kv_write(kv, batch, KV_SYNCED, msg);
    kv_batch_destroy(batch);
    return err;
}

/* The newest snapshot that can be read. A damaged one is no loss while the one before is there. */
static err_t load_snapshot(
    struct objstore *store,
    struct kv *kv,
    struct changelog_position *ret_position,
    struct errmsg *msg)
{
    uint64_t seq = UINT64_MAX;
    *ret_position = (struct changelog_position){0};
    for (;;) {
        err_t err = snapshot_find(store, seq, &seq, msg);
        if (err == ERR_NOT_FOUND) {
            return ERR_OK; /* the log alone, from its first record */
        }
        if (err == ERR_OK) {
            err = snapshot_read(store, seq, kv, ret_position, msg);
        }
        if (err != ERR_CORRUPT && err != ERR_NOT_FOUND) {
            return err;
        }
        log_warn(NULL, "catalog: %s; trying the snapshot before it", msg->text);
        *ret_position = (struct changelog_position){0};
        TRY(erase(kv, msg));
    }
}

err_t changelog_load(
    struct objstore *store,
    struct kv *kv,
    struct changelog_position *ret_position,
    struct errmsg *msg)
{
    uint64_t newest = 0;
    TRY(changelog_newest(store, &newest, msg));
    if (newest == 0) {
        return err_set(msg, ERR_NOT_FOUND, "the object store has no catalog");
    }
    TRY(load_snapshot(store, kv, ret_position, msg));
    TRY(changelog_replay(store, kv, ret_position, msg));
    if (ret_position->seq < newest) {
        return err_set(
            msg, ERR_CORRUPT, "change %" PRIu64 " is not in the object store, but %" PRIu64 " is",
            ret_position->seq + 1, newest);
    }
    struct kv_batch *batch = kv_batch_create();
    position_put(batch, *ret_position);
    err_t err = kv_write(kv, batch, KV_SYNCED, msg);
    kv_batch_destroy(batch);
    return err;
}

/* ---- opening ---- */

static err_t is_empty(struct kv *kv, bool *ret_empty, struct errmsg *msg)
{
    struct kv_iter *iter = kv_iter_create(kv, false);
    kv_iter_seek(iter, bytes_of_str(""));
    *ret_empty = !kv_iter_valid(iter);
    err_t err = *ret_empty ? kv_iter_error(iter, msg) : ERR_OK;
    kv_iter_destroy(iter);
    return err;
}

static void add_entry(
    struct catalog_entry **entries, size_t *count, struct bytes key, struct bytes value)
{
    *entries = mem_realloc(*entries, (*count + 1) * sizeof **entries);
    struct catalog_entry *entry = &(*entries)[(*count)++];
    *entry = (struct catalog_entry){0};
    buf_append(&entry->key, key.data, key.size);
    buf_append(&entry->value, value.data, value.size);
}

/* A record of our own: whoever else has this log open finds its next number taken. */
static err_t record(
    struct catalog *catalog, const struct catalog_entry *entries, size_t count, struct errmsg *msg)
{
    struct buf text = {0};
    struct changelog_position next;
    changelog_encode(catalog->position, entries, count, &text, &next);
    err_t err = changelog_put(catalog, next.seq, &text, msg);
    buf_deinit(&text);
    if (err == ERR_OK) {
        struct kv_batch *batch = kv_batch_create();
        position_put(batch, next);
        err = kv_write(catalog->kv, batch, KV_SYNCED, msg);
        kv_batch_destroy(batch);
        catalog->position = next;
    }
    return err;
}

/* From here on it is ours; what another control still wrote meanwhile has taken our number. */
static err_t own(
    struct catalog *catalog, const struct catalog_entry *entries, size_t count, struct errmsg *msg)
{
    TRY(changelog_own(catalog->objects, &catalog->owner, msg));
    return record(catalog, entries, count, msg);
}

/* The disk has lived without a log: the first record has everything. */
static err_t begin_log(struct catalog *catalog, struct errmsg *msg)
{
    struct catalog_entry *entries = NULL;
    size_t count = 0;
    struct kv_iter *iter = kv_iter_create(catalog->kv, false);
    for (kv_iter_seek(iter, bytes_of_str("")); kv_iter_valid(iter); kv_iter_next(iter)) {
        add_entry(&entries, &count, kv_iter_key(iter), kv_iter_value(iter));
    }
    err_t err = kv_iter_error(iter, msg);
    kv_iter_destroy(iter);
    if (err == ERR_OK) {
        err = own(catalog, entries, count, msg);
    }
    for (size_t i = 0; i < count; i++) {
        catalog_entry_deinit(&entries[i]);
    }
    mem_free(entries);
    return err;
}

static err_t join_without_position(struct catalog *catalog, uint64_t newest, struct errmsg *msg)
{
    bool empty = false;
    TRY(is_empty(catalog->kv, &empty, msg));
    if (newest == 0) {
        return begin_log(catalog, msg);
    }
    if (empty) {
        return err_set(
            msg, ERR_NOT_FOUND,
            "this disk has no catalog, the object store has one of %" PRIu64
            " changes: `anabranch catalog rebuild` makes it from there",
            newest);
    }
    return err_set(
        msg, ERR_FAILED,
        "this disk's catalog was never in the object store, which has one of %" PRIu64
        " changes: is it another cluster's?",
        newest);
}

/* What this disk has is the past of what the store has. */
static err_t check_past(const struct catalog *catalog, uint64_t newest, struct errmsg *msg)
{
    const struct changelog_position *position = &catalog->position;
    struct hash128 hash;
    if (position->seq > newest) {
        return err_set(
            msg, ERR_FAILED,
            "the object store's catalog ends with change %" PRIu64 ", this disk has %" PRIu64
            ": the store is an older copy, or another one",
            newest, position->seq);
    }
    err_t err = changelog_hash(catalog->objects, position->seq, &hash, msg);
    if (err == ERR_OK && !hash128_equal(hash, position->hash)) {
        return err_set(
            msg, ERR_FAILED,
            "change %" PRIu64 " in the object store is not the one that this disk has: one of them "
            "is another cluster's, or went its own way after a copy was put back",
            position->seq);
    }
    return err == ERR_NOT_FOUND ? ERR_OK : err; /* a snapshot covers it */
}

/* The log does not reach back to this disk any more: from a snapshot, beside it, in its place. */
static err_t replace_disk(struct catalog *catalog, struct errmsg *msg)
{
    char fresh[PATH_SIZE], aside[PATH_SIZE];
    struct kv *kv = NULL;
    TRY(str_format(fresh, sizeof fresh, msg, "%.900s.new", catalog->path));
    TRY(str_format(
        aside, sizeof aside, msg, "%.900s.%" PRIu64 ".old", catalog->path, catalog->position.seq));
    log_warn(
        NULL, "catalog: this disk ends with change %" PRIu64 ", it is an old copy; kept as %s",
        catalog->position.seq, aside);
    TRY(dir_remove(fresh, msg));
    TRY(kv_open(fresh, &(struct kv_options){0}, &kv, msg));
    err_t err = changelog_load(catalog->objects, kv, &catalog->position, msg);
    kv_close(kv);
    TRY(err);
    kv_close(catalog->kv);
    catalog->kv = NULL;
    TRY(dir_remove(aside, msg));
    TRY(file_rename_durably(catalog->path, aside, msg));
    TRY(file_rename_durably(fresh, catalog->path, msg));
    return kv_open(catalog->path, &(struct kv_options){0}, &catalog->kv, msg);
}

static err_t follow(struct catalog *catalog, uint64_t newest, struct errmsg *msg)
{
    uint64_t had = catalog->position.seq;
    TRY(check_past(catalog, newest, msg));
    TRY(changelog_replay(catalog->objects, catalog->kv, &catalog->position, msg));
    if (catalog->position.seq < newest) {
        TRY(replace_disk(catalog, msg));
    }
    if (catalog->position.seq > had) {
        log_warn(
            NULL, "catalog: %" PRIu64 " changes were in the object store and not on this disk",
            catalog->position.seq - had);
    }
    return own(catalog, NULL, 0, msg);
}

err_t join_log(struct catalog *catalog, struct errmsg *msg)
{
    uint64_t newest = 0;
    TRY(position_get(catalog->kv, &catalog->position, msg));
    TRY(changelog_newest(catalog->objects, &newest, msg));
    return catalog->position.seq == 0 ? join_without_position(catalog, newest, msg)
                                      : follow(catalog, newest, msg);
}
