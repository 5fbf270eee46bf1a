#include "pageserver/timeline/timeline.h"

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "pageserver/timeline/history.h"
#include "pageserver/timeline/shared_text.h"
#include "pageserver/timeline/tenant_private.h"

WIRE_DEFINE(timeline_row, TIMELINE_ROW_FIELDS)

struct parent_wait {
    struct timeline *timeline; /* that waits */
    struct lsn_wait wait;
};

void timeline_info_encode(const struct timeline_info *info, struct buf *to)
{
    struct timeline_row row = {
        .format = TIMELINE_ROW_FORMAT,
        .state = (uint8_t)info->state,
        .id = info->id,
        .parent = info->parent,
        .parent_number = info->parent_number,
        .pg_version = info->pg_version,
        .system_id = info->system_id,
        .start_lsn = info->start_lsn,
        .generation = info->generation,
        .membership_generation = info->membership_generation,
        .bootstrap_object = bytes_of_str(info->bootstrap_object),
        .safekeepers = bytes_of_str(info->safekeepers),
    };
    size_t size = timeline_row_size(&row);
    struct writer out = {.next = buf_extend(to, size), .left = size};
    timeline_row_encode(&row, &out);
}

static err_t copy_text(char to[TIMELINE_TEXT_MAX], struct bytes from, struct errmsg *msg)
{
    if (from.size >= TIMELINE_TEXT_MAX) {
        return err_set(msg, ERR_CORRUPT, "a text of %zu bytes", from.size);
    }
    if (from.size > 0) {
        memcpy(to, from.data, from.size);
    }
    to[from.size] = '\0';
    return ERR_OK;
}

err_t timeline_info_decode(
    uint32_t number,
    struct bytes bytes,
    struct timeline_texts *texts,
    struct timeline_info *ret_info,
    struct errmsg *msg)
{
    struct timeline_row row;
    struct reader in = reader_of(bytes);
    err_t err = timeline_row_decode(&row, &in);
    if (err != ERR_OK || row.format != TIMELINE_ROW_FORMAT || row.state < TIMELINE_IMPORTING ||
        row.state > TIMELINE_TOMBSTONE) {
        return err_set(msg, ERR_CORRUPT, "row of timeline number %" PRIu32 " is malformed", number);
    }
    struct timeline_info info = {
        .state = row.state,
        .id = row.id,
        .parent = row.parent,
        .number = number,
        .parent_number = row.parent_number,
        .pg_version = row.pg_version,
        .system_id = row.system_id,
        .start_lsn = row.start_lsn,
        .generation = row.generation,
        .membership_generation = row.membership_generation,
    };
    TRY(copy_text(texts->bootstrap_object, row.bootstrap_object, msg));
    TRY(copy_text(texts->safekeepers, row.safekeepers, msg));
    info.bootstrap_object = texts->bootstrap_object;
    info.safekeepers = texts->safekeepers;
    *ret_info = info;
    return ERR_OK;
}

/* A branch that left its own parent no later than this one leaves it has nothing for it. */
static bool adds_nothing(const struct timeline_info *info, const struct timeline *parent)
{
    return parent->parent != NULL && info->start_lsn <= parent->info.start_lsn;
}

/*
 * Own span first, then the parent's spans, each cut at the branch LSN; without the parent's own
 * when there is nothing in it.
 */
static struct page_path *make_path(const struct timeline_info *info, const struct timeline *parent)
{
    size_t skipped = parent != NULL && adds_nothing(info, parent) ? 1 : 0;
    size_t count = 1 + (parent == NULL ? 0 : parent->path->count - skipped);
    struct page_path *path =
        mem_zalloc(sizeof(struct page_path) + count * sizeof(struct page_span));
    path->count = count;
    path->spans[0] = (struct page_span){.timeline = info->number, .max_lsn = UINT64_MAX};
    for (size_t i = 1; i < count; i++) {
        path->spans[i] = parent->path->spans[i - 1 + skipped];
        path->spans[i].max_lsn = MIN_OF(path->spans[i].max_lsn, info->start_lsn);
    }
    return path;
}

static void on_parent_reached(struct lsn_wait *wait, err_t result)
{
    struct parent_wait *parent_wait = CONTAINER_OF(wait, struct parent_wait, wait);
    struct timeline *tl = parent_wait->timeline;
    tl->parent_wait = NULL;
    mem_free(parent_wait);
    if (result == ERR_OK) {
        tl->ancestors_ready = true;
        timeline_wake_waiters(tl);
    } else if (result == ERR_FAILED) {
        timeline_fail(tl, "the parent's ingest failed before it reached the branch LSN");
    }
    /* ERR_CANCELED: the timeline itself is going away. */
}

static void watch_parent(struct timeline *tl)
{
    if (tl->parent == NULL || timeline_has_lsn(tl->parent, tl->info.start_lsn)) {
        tl->ancestors_ready = true;
        return;
    }
    tl->parent_wait = MEM_NEW(struct parent_wait);
    tl->parent_wait->timeline = tl;
    lsn_wait_start(
        &tl->parent_wait->wait, tl->parent, tl->info.start_lsn, LSN_WAIT_FOREVER,
        on_parent_reached);
}

static uint64_t next_uid(void)
{
    static uint64_t last_uid;
    return ++last_uid;
}

struct timeline *timeline_create(
    struct tenant *tenant,
    const struct timeline_info *info,
    struct timeline *parent,
    struct ingest_position position)
{
    struct timeline *tl = MEM_NEW(struct timeline);
    tl->references = 1;
    tl->tenant = tenant;
    tl->tenant_id = tenant_id(tenant);
    tl->loop = tenant_loop(tenant);
    tl->info = *info;
    tl->info.bootstrap_object = shared_text_ref(info->bootstrap_object);
    tl->info.safekeepers = shared_text_ref(info->safekeepers);
    tl->parent = parent == NULL ? NULL : timeline_ref(parent);
    tl->path = make_path(info, parent);
    tl->uid = next_uid();
    tl->root_start_lsn = parent == NULL ? info->start_lsn : parent->root_start_lsn;
    tl->position = position;
    tl->durable_lsn = position.lsn;
    tl->slot_wal_keep_max = tenant->tenants->options.slot_wal_keep_max;
    list_init(&tl->waiters);
    watch_parent(tl);
    return tl;
}

struct timeline *timeline_ref(struct timeline *tl)
{
    ASSERT(tl->references > 0);
    tl->references++;
    return tl;
}

void timeline_unref(struct timeline *tl)
{
    if (tl == NULL || --tl->references > 0) {
        return;
    }
    ASSERT(list_is_empty(&tl->waiters)); /* each waiter holds a reference */
    ASSERT(tl->readers == 0);
    if (tl->parent_wait != NULL) {
        lsn_wait_cancel(&tl->parent_wait->wait); /* frees it */
    }
    shared_text_unref(tl->info.bootstrap_object);
    shared_text_unref(tl->info.safekeepers);
    mem_free(tl->failure);
    timeline_unref(tl->parent);
    rel_size_cache_deinit(&tl->sizes);
    mem_free(tl->path);
    mem_free(tl);
}

const struct timeline_info *timeline_info(const struct timeline *tl)
{
    return &tl->info;
}

void timeline_update_info(struct timeline *tl, const struct timeline_info *info)
{
    ASSERT(info->number == tl->info.number);
    ASSERT(info->start_lsn == tl->info.start_lsn);
    struct timeline_info old = tl->info;
    tl->info = *info;
    tl->info.bootstrap_object = shared_text_ref(info->bootstrap_object);
    tl->info.safekeepers = shared_text_ref(info->safekeepers);
    shared_text_unref(old.bootstrap_object);
    shared_text_unref(old.safekeepers);
    timeline_wake_waiters(tl);
}

void timeline_set_state(struct timeline *tl, enum timeline_state state)
{
    tl->info.state = state;
    timeline_wake_waiters(tl);
}

void timeline_set_user(struct timeline *tl, struct timeline_user *user)
{
    tl->user = user;
}

struct timeline_user *timeline_user(const struct timeline *tl)
{
    return tl->user;
}

const struct log *timeline_log(const struct timeline *tl)
{
    static _Thread_local struct log log;
    log_name(
        &log, "timeline %s of tenant %s", timeline_id_text(tl->info.id).text,
        tenant_id_text(tl->tenant_id).text);
    return &log;
}

struct tenant *timeline_tenant(const struct timeline *tl)
{
    return tl->tenant;
}

struct timeline *timeline_parent(const struct timeline *tl)
{
    return tl->parent;
}

uint32_t timeline_number(const struct timeline *tl)
{
    return tl->info.number;
}

uint64_t timeline_uid(const struct timeline *tl)
{
    return tl->uid;
}

void timeline_forget_pages(struct timeline *tl)
{
    tl->uid = next_uid();
}

struct page_store *timeline_store(const struct timeline *tl)
{
    return tenant_store(tl->tenant);
}

const struct page_path *timeline_path(const struct timeline *tl)
{
    return tl->path;
}

lsn_t timeline_root_start_lsn(const struct timeline *tl)
{
    return tl->root_start_lsn;
}

void timeline_set_history(
    struct timeline *tl, struct history *history, struct history_timeline *of_timeline)
{
    tl->history = history;
    tl->in_history = of_timeline;
}

struct history_timeline *timeline_history(const struct timeline *tl)
{
    return tl->in_history;
}

err_t timeline_check_lsn(const struct timeline *tl, lsn_t lsn, struct errmsg *msg)
{
    if (lsn < tl->root_start_lsn) {
        return err_set(
            msg, ERR_RANGE, "LSN " LSN_FMT " is below the begin of history " LSN_FMT, LSN_ARGS(lsn),
            LSN_ARGS(tl->root_start_lsn));
    }
    return tl->in_history == NULL ? ERR_OK : history_check(tl->history, tl->in_history, lsn, msg);
}

err_t timeline_hold_lsn(
    const struct timeline *tl, lsn_t lsn, struct history_hold *hold, struct errmsg *msg)
{
    TRY(timeline_check_lsn(tl, lsn, msg));
    return tl->in_history == NULL ? ERR_OK
                                  : history_hold(tl->history, tl->in_history, lsn, hold, msg);
}

void timeline_release_lsn(const struct timeline *tl, struct history_hold *hold)
{
    if (tl->history != NULL) {
        history_release(tl->history, hold);
    }
}

lsn_t timeline_last_lsn(const struct timeline *tl)
{
    return tl->position.lsn;
}

lsn_t timeline_prev_record_lsn(const struct timeline *tl)
{
    return tl->position.prev_record_lsn;
}

lsn_t timeline_durable_lsn(const struct timeline *tl)
{
    return tl->durable_lsn;
}

lsn_t timeline_remote_lsn(const struct timeline *tl)
{
    return tl->remote_lsn;
}

void timeline_set_remote_lsn(struct timeline *tl, lsn_t lsn)
{
    ASSERT(lsn <= tl->durable_lsn);
    tl->remote_lsn = MAX_OF(tl->remote_lsn, lsn);
}

lsn_t timeline_slots_lsn(const struct timeline *tl)
{
    return tl->slots_lsn;
}

void timeline_set_slots_lsn(struct timeline *tl, lsn_t lsn)
{
    tl->slots_lsn = lsn;
}

lsn_t timeline_unneeded_lsn(const struct timeline *tl)
{
    if (tl->slots_lsn == LSN_NONE || tl->slots_lsn >= tl->remote_lsn) {
        return tl->remote_lsn;
    }
    uint64_t keep_max = tl->slot_wal_keep_max;
    bool is_too_far = keep_max != 0 && tl->remote_lsn - tl->slots_lsn > keep_max;
    return is_too_far ? tl->remote_lsn - keep_max : tl->slots_lsn;
}

lsn_t timeline_commit_lsn(const struct timeline *tl)
{
    return tl->commit_lsn;
}

void timeline_saw_commit_lsn(struct timeline *tl, lsn_t lsn)
{
    tl->commit_lsn = MAX_OF(tl->commit_lsn, lsn);
}

void timeline_advance(struct timeline *tl, struct ingest_position position)
{
    ASSERT(position.lsn >= tl->position.lsn);
    tl->position = position;
    timeline_saw_commit_lsn(tl, position.lsn);
    tenant_note_advanced(tl->tenant, tl);
    timeline_wake_waiters(tl);
}

void timeline_flush_begins(struct timeline *tl)
{
    tl->flushing_lsn = tl->position.lsn;
}

void timeline_flush_succeeded(struct timeline *tl)
{
    tl->durable_lsn = MAX_OF(tl->durable_lsn, tl->flushing_lsn);
}

void timeline_fail(struct timeline *tl, const char *why)
{
    if (tl->failure == NULL) {
        tl->failure = mem_strdup(why[0] == '\0' ? "unknown" : why);
        log_error(
            timeline_log(tl), "ingest stopped at " LSN_FMT ": %s", LSN_ARGS(tl->position.lsn), why);
        timeline_wake_waiters(tl);
    }
}

const char *timeline_failure(const struct timeline *tl)
{
    return tl->failure;
}

bool timeline_is_ready(const struct timeline *tl)
{
    return tl->ancestors_ready &&
           (tl->info.state == TIMELINE_ACTIVE || tl->info.state == TIMELINE_TOMBSTONE);
}

err_t timeline_read_begin(struct timeline *tl, struct errmsg *msg)
{
    if (tl->info.state == TIMELINE_DELETING || tl->info.state == TIMELINE_TOMBSTONE) {
        return err_set(
            msg, ERR_NOT_FOUND, "timeline %s was deleted", timeline_id_text(tl->info.id).text);
    }
    timeline_work_begin(tl);
    return ERR_OK;
}

void timeline_work_begin(struct timeline *tl)
{
    ASSERT(tl->info.state != TIMELINE_DELETING);
    timeline_ref(tl)->readers++;
}

void timeline_read_end(struct timeline *tl)
{
    ASSERT(tl->readers > 0);
    tl->readers--;
    timeline_unref(tl);
}

bool timeline_has_readers(const struct timeline *tl)
{
    return tl->readers > 0;
}

void timeline_rest(struct timeline *tl)
{
    rel_size_cache_clear(&tl->sizes);
}

bool timeline_cached_size(
    const struct timeline *tl, struct page_key rel, struct fork_size *ret_size)
{
    return rel_size_cache_get(&tl->sizes, rel, ret_size);
}

void timeline_cache_size(
    struct timeline *tl, struct page_key rel, struct fork_size size, lsn_t as_of)
{
    if (as_of == tl->position.lsn) {
        rel_size_cache_put(&tl->sizes, rel, size);
    }
}

void timeline_size_changed(struct timeline *tl, struct page_key rel, struct fork_size size)
{
    rel_size_cache_put(&tl->sizes, rel, size);
}
