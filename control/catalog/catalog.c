#include "control/catalog/catalog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "control/catalog/catalog_private.h"

METRIC_HISTOGRAM(
    put_seconds, "control_catalog_log_seconds", "time of writing one commit to the object store");
METRIC_COUNTER(
    retries_total,
    "control_catalog_log_retries_total",
    "commits that the object store or the disk did not take at once");
METRIC_COUNTER(snapshots_total, "control_catalog_snapshots_total", "snapshots in the object store");
METRIC_GAUGE(log_seq, "control_catalog_log_seq", "number of the last commit in the log");

#define SNAPSHOT_AFTER   1000
#define PAUSE_FIRST_MS   50
#define PAUSE_LONGEST_MS 2000

err_t catalog_open(
    const struct catalog_options *options, struct catalog **ret_catalog, struct errmsg *msg)
{
    struct catalog *catalog = MEM_NEW(struct catalog);
    (void)pthread_mutex_init(&catalog->lock, NULL);
    catalog->snapshot_after =
        options->snapshot_after > 0 ? options->snapshot_after : SNAPSHOT_AFTER;
    err_t err = str_copy(catalog->path, sizeof catalog->path, options->path, msg);
    if (err == ERR_OK) {
        err = kv_open(options->path, &(struct kv_options){0}, &catalog->kv, msg);
    }
    if (err == ERR_OK && options->object_store != NULL && options->object_store[0] != '\0') {
        err = objstore_open(options->object_store, &catalog->objects, msg);
    }
    if (err == ERR_OK && catalog->objects != NULL) {
        err = join_log(catalog, msg);
        metric_set(&log_seq, (int64_t)catalog->position.seq);
    }
    if (err != ERR_OK) {
        catalog_close(catalog);
        return err_wrap(msg, err, "open catalog %s", options->path);
    }
    *ret_catalog = catalog;
    return ERR_OK;
}

void catalog_close(struct catalog *catalog)
{
    if (catalog != NULL) {
        if (catalog->objects != NULL) {
            objstore_close(catalog->objects);
        }
        if (catalog->kv != NULL) {
            kv_close(catalog->kv);
        }
        (void)pthread_mutex_destroy(&catalog->lock);
        mem_free(catalog);
    }
}

void catalog_cancel(struct catalog *catalog)
{
    atomic_store(&catalog->canceled, true);
    if (catalog->objects != NULL) {
        objstore_cancel(catalog->objects);
    }
}

/* ---- loading ---- */

struct loaded {
    union any_row **rows;
    size_t count, capacity;
};

static void loaded_add(struct loaded *loaded, enum row_kind kind, const union any_row *row)
{
    if (loaded->count == loaded->capacity) {
        loaded->capacity = loaded->capacity == 0 ? 64 : loaded->capacity * 2;
        loaded->rows = mem_realloc(loaded->rows, loaded->capacity * sizeof(void *));
    }
    loaded->rows[loaded->count++] = mem_dup(row, row_size(kind));
}

static void loaded_deinit(struct loaded *loaded, enum row_kind kind)
{
    for (size_t i = 0; i < loaded->count; i++) {
        row_unref(kind, loaded->rows[i]);
        mem_free(loaded->rows[i]);
    }
    mem_free(loaded->rows);
    *loaded = (struct loaded){0};
}

static int by_creation(const void *left, const void *right)
{
    const union any_row *a = *(union any_row *const *)left;
    const union any_row *b = *(union any_row *const *)right;
    return (a->head.seq > b->head.seq) - (a->head.seq < b->head.seq);
}

static err_t read_row(
    enum row_kind kind, struct bytes value, struct loaded *loaded, struct errmsg *msg)
{
    struct doc *doc = NULL;
    TRY(doc_parse(value, &doc, msg));
    union any_row row;
    err_t err = row_decode(kind, doc, &row, msg);
    doc_unref(doc);
    if (err == ERR_OK) {
        loaded_add(loaded, kind, &row); /* it has taken over the references */
    }
    return err;
}

static err_t read_kind(
    struct catalog *catalog, enum row_kind kind, struct loaded *loaded, struct errmsg *msg)
{
    struct buf prefix = {0};
    buf_printf(&prefix, "%s/", row_kind_name(kind));
    struct kv_iter *iter = kv_iter_create(catalog->kv, false);
    err_t err = ERR_OK;
    for (kv_iter_seek(iter, buf_view(&prefix)); kv_iter_valid(iter); kv_iter_next(iter)) {
        struct bytes key = kv_iter_key(iter);
        if (key.size < prefix.size || memcmp(key.data, prefix.data, prefix.size) != 0) {
            break;
        }
        err = read_row(kind, kv_iter_value(iter), loaded, msg);
        if (err != ERR_OK) {
            err = err_wrap(msg, err, "catalog row %.*s", (int)key.size, (const char *)key.data);
            break;
        }
    }
    if (err == ERR_OK && !kv_iter_valid(iter)) {
        err = kv_iter_error(iter, msg); /* a failed read also looks like the end */
    }
    kv_iter_destroy(iter);
    buf_deinit(&prefix);
    return err;
}

err_t catalog_load(
    struct catalog *catalog, catalog_visit_fn visit, void *context, struct errmsg *msg)
{
    err_t err = ERR_OK;
    for (enum row_kind kind = 0; kind < ROW_KIND_COUNT && err == ERR_OK; kind++) {
        struct loaded loaded = {0};
        err = read_kind(catalog, kind, &loaded, msg);
        if (err == ERR_OK && loaded.count > 1) {
            qsort(loaded.rows, loaded.count, sizeof(void *), by_creation);
        }
        for (size_t i = 0; i < loaded.count && err == ERR_OK; i++) {
            err = visit(context, kind, loaded.rows[i], msg);
        }
        loaded_deinit(&loaded, kind);
    }
    return err;
}

/* ---- committing ---- */

static void print_key(struct buf *to, enum row_kind kind, const union any_row *row)
{
    ASSERT(row->head.id[0] != '\0');
    bool is_of_project = kind == ROW_BRANCH || kind == ROW_ENDPOINT || kind == ROW_OPERATION;
    if (!is_of_project) {
        buf_printf(to, "%s/%s", row_kind_name(kind), row->head.id);
    } else {
        ASSERT(row->head.project_id[0] != '\0');
        buf_printf(to, "%s/%s/%s", row_kind_name(kind), row->head.project_id, row->head.id);
    }
}

void catalog_entry_put(struct catalog_entry *entry, enum row_kind kind, const union any_row *row)
{
    *entry = (struct catalog_entry){.replaces_version = row->head.version};
    print_key(&entry->key, kind, row);
    struct doc *doc = row_encode(kind, row);
    doc_set_int(doc, "version", (int64_t)(row->head.version + 1));
    doc_print(doc, false, &entry->value);
    doc_unref(doc);
}

void catalog_entry_delete(struct catalog_entry *entry, enum row_kind kind, const union any_row *row)
{
    *entry = (struct catalog_entry){.replaces_version = row->head.version};
    print_key(&entry->key, kind, row);
}

void catalog_entry_deinit(struct catalog_entry *entry)
{
    buf_deinit(&entry->key);
    buf_deinit(&entry->value);
}

static err_t stored_version(
    struct catalog *catalog, struct bytes key, uint64_t *ret_version, struct errmsg *msg)
{
    struct buf value = {0};
    struct doc *doc = NULL;
    uint64_t version = 0;
    err_t err = kv_get(catalog->kv, key, &value, msg);
    if (err == ERR_OK) {
        err = doc_parse(buf_view(&value), &doc, msg);
    }
    if (err == ERR_OK) {
        err = doc_get_u64(doc, "version", &version, msg);
    }
    if (err == ERR_OK || err == ERR_NOT_FOUND) { /* absent is version 0 */
        *ret_version = version;
        err = ERR_OK;
    }
    doc_unref(doc);
    buf_deinit(&value);
    return err;
}

void batch_entry(struct kv_batch *batch, struct bytes key, struct bytes value)
{
    if (value.size == 0) {
        kv_batch_delete(batch, key);
    } else {
        kv_batch_put(batch, key, value);
    }
}

static err_t check_versions(
    struct catalog *catalog, const struct catalog_entry *entries, size_t count, struct errmsg *msg)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t version = 0;
        struct bytes key = buf_view(&entries[i].key);
        TRY(stored_version(catalog, key, &version, msg));
        if (version != entries[i].replaces_version) {
            return err_set(
                msg, ERR_STALE,
                "catalog row %.*s is at version %" PRIu64 ", the change is for %" PRIu64,
                (int)key.size, (const char *)key.data, version, entries[i].replaces_version);
        }
    }
    return ERR_OK;
}

/* What is asked again until it works: `send` may have done it already. */
struct attempt {
    struct catalog *catalog;
    const char *what;
    unsigned count;
};

static void set_trouble(struct catalog *catalog, const char *what, const char *cause)
{
    (void)pthread_mutex_lock(&catalog->lock);
    (void)snprintf(catalog->trouble, sizeof catalog->trouble, "%s%s", what, cause);
    (void)pthread_mutex_unlock(&catalog->lock);
}

void catalog_trouble(struct catalog *catalog, struct buf *to)
{
    (void)pthread_mutex_lock(&catalog->lock);
    if (catalog->trouble[0] != '\0') {
        buf_printf(to, "the catalog takes no changes: %s\n", catalog->trouble);
    }
    (void)pthread_mutex_unlock(&catalog->lock);
}

/* False: canceled. */
static bool attempt_again(struct attempt *attempt, const struct errmsg *cause)
{
    struct catalog *catalog = attempt->catalog;
    uint64_t pause_ms = MIN_OF((uint64_t)PAUSE_FIRST_MS << attempt->count, PAUSE_LONGEST_MS);
    attempt->count = MIN_OF(attempt->count + 1, 6U);
    metric_add(&retries_total, 1);
    set_trouble(catalog, attempt->what, cause->text);
    log_warn(NULL, "catalog: %s%s; asked again", attempt->what, cause->text);
    for (uint64_t waited = 0; waited < pause_ms && !atomic_load(&catalog->canceled);
         waited += PAUSE_FIRST_MS) {
        (void)nanosleep(&(struct timespec){.tv_nsec = PAUSE_FIRST_MS * NS_PER_MS}, NULL);
    }
    return !atomic_load(&catalog->canceled);
}

static err_t check_alone(const struct catalog *catalog, struct errmsg *msg)
{
    if (catalog->failed == ERR_STALE) {
        return err_set(msg, ERR_STALE, "another control writes this catalog: this one has to stop");
    }
    if (catalog->failed != ERR_OK) {
        return err_set(
            msg, ERR_FAILED,
            "an earlier change is in the log, but not on the disk: restart control");
    }
    return ERR_OK;
}

static err_t set_replaced(struct catalog *catalog, struct errmsg *msg)
{
    catalog->failed = ERR_STALE;
    err_t err = check_alone(catalog, msg);
    set_trouble(catalog, "", msg->text);
    return err;
}

/* Is the name that we have just given one that another control had, and that a snapshot freed? */
static err_t check_owner(struct catalog *catalog, struct attempt *attempt, struct errmsg *msg)
{
    bool anew = false;
    err_t err;
    while ((err = changelog_is_owned_anew(catalog->objects, catalog->owner, &anew, msg)) !=
           ERR_OK) {
        if (err == ERR_CANCELED || !attempt_again(attempt, msg)) {
            return err_set(msg, ERR_CANCELED, "canceled");
        }
    }
    return anew ? set_replaced(catalog, msg) : ERR_OK;
}

/*
 * After an error the object may be there or not: another change must not take its number, so this
 * one is sent until the store answers. A number that is taken, or a newer owner: somebody else
 * writes.
 */
err_t changelog_put(
    struct catalog *catalog, uint64_t seq, const struct buf *record, struct errmsg *msg)
{
    char name[LOG_NAME_SIZE];
    struct attempt attempt = {catalog, "", 0};
    mono_ns_t begin = clock_mono();
    changelog_name(seq, name);
    err_t err = objstore_put(catalog->objects, name, buf_view(record), msg);
    while (err != ERR_OK && err != ERR_EXISTS && err != ERR_INVALID && err != ERR_CANCELED) {
        if (!attempt_again(&attempt, msg)) {
            err = err_set(msg, ERR_CANCELED, "canceled");
            break;
        }
        err = objstore_put(catalog->objects, name, buf_view(record), msg);
    }
    if (err == ERR_OK) {
        err = check_owner(catalog, &attempt, msg);
    } else if (err == ERR_EXISTS) {
        err = set_replaced(catalog, msg);
    }
    metric_observe_ns(&put_seconds, clock_mono() - begin);
    return err == ERR_CANCELED ? err_wrap(msg, err, "change %" PRIu64 " may be made or not", seq)
                               : err;
}

/* It is in the log: it has to get into the kv, now or at the next start. */
static err_t write_logged(struct catalog *catalog, struct kv_batch *batch, struct errmsg *msg)
{
    struct attempt attempt = {catalog, "", 0};
    err_t err = kv_write(catalog->kv, batch, KV_SYNCED, msg);
    while (err == ERR_FULL) {
        if (!attempt_again(&attempt, msg)) {
            err = ERR_CANCELED;
            break;
        }
        err = kv_write(catalog->kv, batch, KV_SYNCED, msg);
    }
    if (err != ERR_OK) {
        catalog->failed = ERR_FAILED;
    }
    return err;
}

err_t catalog_confirm(struct catalog *catalog, struct errmsg *msg)
{
    bool anew = false;
    if (catalog->objects == NULL) {
        return ERR_OK;
    }
    TRY(check_alone(catalog, msg));
    TRY(changelog_is_owned_anew(catalog->objects, catalog->owner, &anew, msg));
    return anew ? set_replaced(catalog, msg) : ERR_OK;
}

static err_t check_usable(struct catalog *catalog, struct errmsg *msg)
{
    TRY(check_alone(catalog, msg));
    struct kv_batch *nothing = kv_batch_create();
    err_t err = ERR_OK;
    if (kv_waits_for_room(catalog->kv)) { /* before it is in the log, a full disk is an answer */
        err = kv_write(catalog->kv, nothing, KV_SYNCED, msg);
    }
    kv_batch_destroy(nothing);
    return err;
}

static err_t log_and_write(
    struct catalog *catalog,
    const struct catalog_entry *entries,
    size_t count,
    struct kv_batch *batch,
    struct errmsg *msg)
{
    struct buf record = {0};
    struct changelog_position next;
    TRY(check_usable(catalog, msg));
    TRY(FAULT("catalog.before_log"));
    changelog_encode(catalog->position, entries, count, &record, &next);
    err_t err = changelog_put(catalog, next.seq, &record, msg);
    buf_deinit(&record);
    if (err == ERR_OK) {
        err_ignore(FAULT("catalog.after_log"), "it is there: only a death makes a difference");
        position_put(batch, next);
        err = write_logged(catalog, batch, msg);
    }
    if (err == ERR_OK) {
        catalog->position = next;
        metric_set(&log_seq, (int64_t)next.seq);
        atomic_fetch_add(&catalog->commits_since, 1);
        set_trouble(catalog, "", "");
    } else if (catalog->failed != ERR_OK) {
        set_trouble(catalog, "", msg->text);
    }
    return err;
}

err_t catalog_commit(
    struct catalog *catalog, const struct catalog_entry *entries, size_t count, struct errmsg *msg)
{
    TRY(check_versions(catalog, entries, count, msg));
    struct kv_batch *batch = kv_batch_create();
    for (size_t i = 0; i < count; i++) {
        batch_entry(batch, buf_view(&entries[i].key), buf_view(&entries[i].value));
    }
    err_t err = catalog->objects != NULL ? log_and_write(catalog, entries, count, batch, msg)
                                         : kv_write(catalog->kv, batch, KV_SYNCED, msg);
    kv_batch_destroy(batch);
    if (err == ERR_OK) {
        err_ignore(FAULT("catalog.after_write"), "it is made: only a death makes a difference");
    }
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "write the catalog");
}

/* ---- snapshots ---- */

bool catalog_wants_snapshot(const struct catalog *catalog)
{
    return catalog->objects != NULL &&
           atomic_load(&catalog->commits_since) >= catalog->snapshot_after;
}

/* The one before stays with its log: a snapshot that turns out to be damaged is not the only one.
 */
err_t catalog_snapshot(struct catalog *catalog, struct errmsg *msg)
{
    uint64_t before = 0;
    struct changelog_position position;
    atomic_store(&catalog->commits_since, 0);
    err_t err = snapshot_find(catalog->objects, UINT64_MAX, &before, msg);
    if (err != ERR_OK && err != ERR_NOT_FOUND) {
        return err;
    }
    TRY(snapshot_write(catalog->kv, catalog->objects, &catalog->canceled, &position, msg));
    metric_add(&snapshots_total, 1);
    return before == 0 ? ERR_OK : changelog_forget(catalog->objects, before, msg);
}
