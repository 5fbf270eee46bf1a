#include "control/catalog/changelog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/prng.h"

#define DELETE_BATCH 500

void changelog_name(uint64_t seq, char ret_name[LOG_NAME_SIZE])
{
    (void)snprintf(ret_name, LOG_NAME_SIZE, LOG_PREFIX "%016" PRIx64, seq);
}

void changelog_set_hash(struct doc *doc, const char *key, struct hash128 hash)
{
    char text[2 * sizeof hash.bytes + 1];
    format_hex(hash.bytes, sizeof hash.bytes, text);
    doc_set_str(doc, key, text);
}

err_t changelog_get_hash(
    const struct doc *doc, const char *key, struct hash128 *ret_hash, struct errmsg *msg)
{
    const char *text = NULL;
    TRY(doc_get_str(doc, key, &text, msg));
    return parse_hex(text, ret_hash->bytes, sizeof ret_hash->bytes, msg);
}

/* ---- writing ---- */

static struct doc *value_of(const struct catalog_entry *entry)
{
    struct doc *value = NULL;
    if (entry->value.size == 0) {
        return doc_null();
    }
    struct errmsg msg;
    if (doc_parse(buf_view(&entry->value), &value, &msg) != ERR_OK) {
        fatal("a row of the catalog is not JSON: %s", msg.text); /* we have printed it */
    }
    return value;
}

void changelog_encode(
    struct changelog_position position,
    const struct catalog_entry *entries,
    size_t count,
    struct buf *ret_record,
    struct changelog_position *ret_next)
{
    char key[256];
    struct doc *list = doc_array();
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(
            key, sizeof key, "%.*s", (int)entries[i].key.size, (const char *)entries[i].key.data);
        struct doc *entry = doc_set_str(doc_object(), "key", key);
        doc_push(list, doc_set(entry, "value", value_of(&entries[i])));
    }
    struct doc *record = doc_object();
    doc_set_int(record, "seq", (int64_t)(position.seq + 1));
    changelog_set_hash(record, "previous", position.hash);
    doc_set_time(record, "written_at", clock_wall());
    doc_set(record, "entries", list);
    doc_print(record, false, ret_record);
    doc_unref(record);
    *ret_next = (struct changelog_position){
        .seq = position.seq + 1,
        .hash = hash128(buf_view(ret_record)),
    };
}

/* ---- reading ---- */

static err_t check_place(
    const struct doc *record, const struct changelog_position *position, struct errmsg *msg)
{
    uint64_t seq = 0;
    struct hash128 previous;
    TRY(doc_get_u64(record, "seq", &seq, msg));
    TRY(changelog_get_hash(record, "previous", &previous, msg));
    if (seq != position->seq + 1) {
        return err_set(msg, ERR_CORRUPT, "it says that it is number %" PRIu64, seq);
    }
    if (!hash128_equal(previous, position->hash)) {
        return err_set(
            msg, ERR_CORRUPT, "it follows another change %" PRIu64 " than the one that is here",
            position->seq);
    }
    return ERR_OK;
}

static err_t visit_entries(
    const struct doc *record, changelog_entry_fn visit, void *context, struct errmsg *msg)
{
    struct doc *entries = NULL;
    TRY(doc_get_array(record, "entries", &entries, msg));
    for (size_t i = 0; i < doc_count(entries); i++) {
        const char *key = NULL;
        TRY(doc_get_str(doc_at(entries, i), "key", &key, msg));
        struct doc *value = doc_get(doc_at(entries, i), "value");
        struct buf text = {0};
        if (value != NULL && !doc_is_null(value)) {
            doc_print(value, false, &text);
        }
        visit(context, bytes_of_str(key), buf_view(&text));
        buf_deinit(&text);
    }
    return ERR_OK;
}

err_t changelog_read(
    struct objstore *store,
    struct changelog_position *position,
    changelog_entry_fn visit,
    void *context,
    struct errmsg *msg)
{
    char name[LOG_NAME_SIZE];
    struct buf text = {0};
    struct doc *record = NULL;
    changelog_name(position->seq + 1, name);
    err_t err = objstore_get(store, name, LOG_RECORD_MAX, &text, msg);
    if (err == ERR_NOT_FOUND) {
        return err;
    }
    if (err == ERR_OK && doc_parse(buf_view(&text), &record, msg) != ERR_OK) {
        err = ERR_CORRUPT;
    }
    if (err == ERR_OK) {
        err = check_place(record, position, msg);
    }
    if (err == ERR_OK) {
        err = visit_entries(record, visit, context, msg);
    }
    if (err == ERR_OK) {
        position->seq++;
        position->hash = hash128(buf_view(&text));
    } else {
        err = err_wrap(msg, err == ERR_INVALID ? ERR_CORRUPT : err, "object %s", name);
    }
    doc_unref(record);
    buf_deinit(&text);
    return err;
}

err_t changelog_hash(
    struct objstore *store, uint64_t seq, struct hash128 *ret_hash, struct errmsg *msg)
{
    char name[LOG_NAME_SIZE];
    struct objstore_info info;
    changelog_name(seq, name);
    TRY(objstore_head(store, name, &info, msg));
    *ret_hash = info.hash;
    return ERR_OK;
}

/* ---- what is there ---- */

struct finding {
    size_t prefix_size;
    uint64_t last;
};

static err_t take_last(const struct objstore_entry *entry, void *context, struct errmsg *msg)
{
    (void)msg;
    struct finding *finding = context;
    char *end = NULL;
    uint64_t number = strtoull(entry->name + finding->prefix_size, &end, 16);
    finding->last = *end == '\0' ? MAX_OF(finding->last, number) : finding->last;
    return ERR_OK;
}

static err_t last_below(
    struct objstore *store, const char *prefix, uint64_t *ret_number, struct errmsg *msg)
{
    struct finding finding = {.prefix_size = strlen(prefix)};
    err_t err =
        objstore_list(store, &(struct objstore_query){.prefix = prefix}, take_last, &finding, msg);
    *ret_number = finding.last;
    return err;
}

err_t changelog_last(struct objstore *store, uint64_t *ret_seq, struct errmsg *msg)
{
    return last_below(store, LOG_PREFIX, ret_seq, msg);
}

/* ---- whose it is ---- */

static void owner_name(uint64_t number, char ret_name[LOG_NAME_SIZE])
{
    (void)snprintf(ret_name, LOG_NAME_SIZE, OWNER_PREFIX "%016" PRIx64, number);
}

err_t changelog_own(struct objstore *store, uint64_t *ret_number, struct errmsg *msg)
{
    char name[LOG_NAME_SIZE];
    uint8_t random[16];
    char random_text[2 * sizeof random + 1];
    struct buf text = {0};
    TRY(last_below(store, OWNER_PREFIX, ret_number, msg));
    owner_name(++*ret_number, name);
    prng_secure(random, sizeof random); /* two of the same moment are not the same content */
    format_hex(random, sizeof random, random_text);
    struct doc *doc = doc_set_time(doc_object(), "opened_at", clock_wall());
    doc_set_str(doc, "by", random_text);
    doc_print(doc, false, &text);
    doc_unref(doc);
    err_t err = objstore_put(store, name, buf_view(&text), msg);
    buf_deinit(&text);
    return err == ERR_EXISTS
               ? err_set(msg, ERR_BUSY, "another control opens this catalog at the same time")
               : err;
}

err_t changelog_is_owned_anew(
    struct objstore *store, uint64_t number, bool *ret_anew, struct errmsg *msg)
{
    char name[LOG_NAME_SIZE];
    owner_name(number + 1, name);
    return objstore_exists(store, name, ret_anew, msg);
}

struct forgetting {
    struct objstore *store;
    uint64_t before;
    size_t prefix_size;
    bool inclusive; /* the record with this number goes too */
    const char *names[DELETE_BATCH];
    size_t count;
};

static err_t forget_batch(struct forgetting *forgetting, struct errmsg *msg)
{
    if (forgetting->count == 0) {
        return ERR_OK;
    }
    err_t err = objstore_delete_many(forgetting->store, forgetting->names, forgetting->count, msg);
    for (size_t i = 0; i < forgetting->count; i++) {
        mem_free((void *)forgetting->names[i]);
    }
    forgetting->count = 0;
    return err;
}

static err_t forget_one(const struct objstore_entry *entry, void *context, struct errmsg *msg)
{
    struct forgetting *forgetting = context;
    uint64_t seq = strtoull(entry->name + forgetting->prefix_size, NULL, 16);
    if (seq > forgetting->before || (seq == forgetting->before && !forgetting->inclusive)) {
        return ERR_OK;
    }
    forgetting->names[forgetting->count++] = mem_strdup(entry->name);
    return forgetting->count < DELETE_BATCH ? ERR_OK : forget_batch(forgetting, msg);
}

static err_t forget_below(
    struct objstore *store, const char *prefix, uint64_t before, bool inclusive, struct errmsg *msg)
{
    struct forgetting forgetting = {
        .store = store,
        .before = before,
        .prefix_size = strlen(prefix),
        .inclusive = inclusive,
    };
    err_t err = objstore_list(
        store, &(struct objstore_query){.prefix = prefix}, forget_one, &forgetting, msg);
    err_t last = forget_batch(&forgetting, msg);
    return err != ERR_OK ? err : last;
}

err_t changelog_forget(struct objstore *store, uint64_t before, struct errmsg *msg)
{
    TRY(forget_below(store, LOG_PREFIX, before, true, msg));
    return forget_below(store, SNAPSHOT_PREFIX, before, false, msg);
}
