#include "pageserver/timeline/tenant.h"

#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "pageserver/timeline/tenant_private.h"

METRIC_GAUGE(tenant_count, "pageserver_tenants", "tenants that are attached");
METRIC_COUNTER(
    flushes_throttled,
    "pageserver_store_flushes_throttled_total",
    "flushes put off because compaction was behind");
METRIC_GAUGE(timeline_count, "pageserver_timelines", "timelines, without those being deleted");

#define BUCKETS_MIN   16
#define TICK_MS       100
#define TENANT_FORMAT 1
#define TIMELINES_MAX 250000 /* of one tenant */
#define TENANTS_MAX   10000

#define TENANT_ROW_FIELDS(X)                                                                       \
    X(u16, format)                                                                                 \
    X(tenant, id)                                                                                  \
    X(u32, generation)
WIRE_DECLARE(tenant_row, TENANT_ROW_FIELDS);
WIRE_DEFINE(tenant_row, TENANT_ROW_FIELDS)

static bool is_on_its_way(struct tenant *tenant, const struct timeline *tl);
static void bury_unneeded(struct tenant *tenant);

/* Versions of a deleted timeline, until they are erased. */
struct erasure {
    struct tenant *tenant;
    struct timeline *timeline; /* NULL after a restart: nobody can be reading */
    uint32_t number;
    struct timer timer;
    struct job job;
    struct list_link link;
};

/* -- finding things -- */

struct loop *tenant_loop(const struct tenant *tenant)
{
    return tenant->tenants->options.loop;
}

struct tenant_id tenant_id(const struct tenant *tenant)
{
    return tenant->id;
}

generation_t tenant_generation(const struct tenant *tenant)
{
    return tenant->generation;
}

struct page_store *tenant_store(const struct tenant *tenant)
{
    return tenant->store;
}

void tenant_hold(struct tenant *tenant)
{
    tenant->holds++;
}

void tenant_release(struct tenant *tenant)
{
    ASSERT(tenant->holds > 0);
    tenant->holds--;
}

void tenant_set_user(struct tenant *tenant, struct tenant_user *user)
{
    tenant->user = user;
}

struct tenant_user *tenant_user(const struct tenant *tenant)
{
    return tenant->user;
}

const char *tenant_failure(const struct tenant *tenant)
{
    return tenant->failure[0] == '\0' ? NULL : tenant->failure;
}

struct tenant *tenants_find(struct tenants *tenants, struct tenant_id id)
{
    LIST_FOR_EACH(&tenants->list, link)
    {
        struct tenant *tenant = CONTAINER_OF(link, struct tenant, link);
        if (tenant_id_equal(tenant->id, id) && !tenant->deleting) {
            return tenant;
        }
    }
    return NULL;
}

struct tenant *tenants_first(struct tenants *tenants)
{
    struct list_link *first = list_first(&tenants->list);
    return first == NULL ? NULL : CONTAINER_OF(first, struct tenant, link);
}

struct tenant *tenants_next(struct tenants *tenants, struct tenant *tenant)
{
    struct list_link *next = tenant->link.next;
    return next == &tenants->list.head ? NULL : CONTAINER_OF(next, struct tenant, link);
}

static struct timeline *timeline_of(struct list_link *link)
{
    return CONTAINER_OF(link, struct timeline, member_link);
}

/* Ids are random bits, or what a caller of the API chose: hashed all the same. */
static struct timeline **bucket_of(const struct tenant *tenant, struct timeline_id id)
{
    return &tenant->buckets[hash64(id.bytes, sizeof(id.bytes), 0) & (tenant->bucket_count - 1)];
}

struct timeline *tenant_find_member(struct tenant *tenant, struct timeline_id id)
{
    struct timeline *tl = *bucket_of(tenant, id);
    while (tl != NULL && !timeline_id_equal(tl->info.id, id)) {
        tl = tl->next_in_bucket;
    }
    return tl;
}

struct timeline *tenant_find_timeline(struct tenant *tenant, struct timeline_id id)
{
    struct timeline *tl = tenant_find_member(tenant, id);
    return tl == NULL || tl->info.state == TIMELINE_TOMBSTONE ? NULL : tl;
}

/* From `link` on, the first that is not only there for its children. */
static struct timeline *visible_from(struct tenant *tenant, struct list_link *link)
{
    while (link != &tenant->members.head && timeline_of(link)->info.state == TIMELINE_TOMBSTONE) {
        link = link->next;
    }
    return link == &tenant->members.head ? NULL : timeline_of(link);
}

static struct timeline *member_at(struct tenant *tenant, struct list_link *link)
{
    return link == &tenant->members.head ? NULL : timeline_of(link);
}

struct timeline *tenant_first_member(struct tenant *tenant)
{
    return member_at(tenant, tenant->members.head.next);
}

struct timeline *tenant_next_member(struct tenant *tenant, struct timeline *tl)
{
    ASSERT(tl->member_link.next != NULL);
    return member_at(tenant, tl->member_link.next);
}

struct timeline *tenant_first_timeline(struct tenant *tenant)
{
    return visible_from(tenant, tenant->members.head.next);
}

struct timeline *tenant_next_timeline(struct tenant *tenant, struct timeline *tl)
{
    ASSERT(tl->member_link.next != NULL); /* it is a member */
    return visible_from(tenant, tl->member_link.next);
}

static void grow_buckets(struct tenant *tenant)
{
    size_t old_count = tenant->bucket_count;
    struct timeline **old = tenant->buckets;
    tenant->bucket_count *= 2;
    tenant->buckets = MEM_ARRAY(struct timeline *, tenant->bucket_count);
    for (size_t i = 0; i < old_count; i++) {
        for (struct timeline *tl = old[i], *next; tl != NULL; tl = next) {
            struct timeline **bucket = bucket_of(tenant, tl->info.id);
            next = tl->next_in_bucket;
            tl->next_in_bucket = *bucket;
            *bucket = tl;
        }
    }
    mem_free(old);
}

static void add_member(struct tenant *tenant, struct timeline *tl)
{
    if (tenant->member_count == tenant->bucket_count) {
        grow_buckets(tenant);
    }
    struct timeline **bucket = bucket_of(tenant, tl->info.id);
    tl->next_in_bucket = *bucket;
    *bucket = tl;
    list_push_back(&tenant->members, &tl->member_link);
    tenant->member_count++;
    if (tl->parent != NULL) {
        tl->parent->child_count++;
    }
    metric_add(&timeline_count, 1);
}

/* The reference of the list is the caller's now. */
static void remove_member(struct tenant *tenant, struct timeline *tl)
{
    struct timeline **link = bucket_of(tenant, tl->info.id);
    while (*link != tl) {
        link = &(*link)->next_in_bucket;
    }
    *link = tl->next_in_bucket;
    list_remove(&tl->member_link);
    tenant->member_count--;
    if (tl->parent != NULL) {
        tl->parent->child_count--;
    }
    metric_add(&timeline_count, -1);
}

/* -- requests -- */

void tenant_request_finish(struct tenant_request *request, err_t result)
{
    list_remove(&request->link);
    buf_deinit(&request->row);
    if (request->tenant != NULL && list_link_is_in(&request->hold.link)) {
        history_release(request->tenant->history, &request->hold);
    }
    request->done(request, result); /* the request is the caller's again */
}

static void on_answer_timer(struct timer *timer)
{
    struct tenant_request *request = CONTAINER_OF(timer, struct tenant_request, timer);
    tenant_request_finish(request, request->result);
}

/* An answer that needs no work still comes from the loop, never from inside start. */
void tenant_request_answer(struct tenant_request *request, err_t result)
{
    request->result = result;
    request->timer = (struct timer){.on_fire = on_answer_timer};
    timer_start(request->tenants->options.loop, &request->timer, 0);
}

void tenant_request_begin(
    struct tenant_request *request, struct tenants *tenants, struct tenant *tenant)
{
    request->tenants = tenants;
    request->tenant = tenant;
    request->msg.text[0] = '\0';
    request->created = false;
    request->timeline = NULL;
    request->loaded = NULL;
    request->row = (struct buf){0};
    request->hold = (struct history_hold){0};
    request->link = (struct list_link){0};
    list_push_back(tenant == NULL ? &tenants->requests : &tenant->requests, &request->link);
}

/* -- erasing -- */

static void on_erased(struct job *job)
{
    struct erasure *erasure = CONTAINER_OF(job, struct erasure, job);
    struct tenant *tenant = erasure->tenant;
    tenant->erasing--;
    if (job->result != ERR_OK) {
        /* The row still says "deleting": the next start tries again, and so do we. */
        log_warn(
            &tenant->log, "erasing timeline number %" PRIu32 ": %s; will retry", erasure->number,
            job->msg.text);
        timer_start(tenant_loop(tenant), &erasure->timer, 5000);
        return;
    }
    log_info(&tenant->log, "erased timeline number %" PRIu32, erasure->number);
    list_remove(&erasure->link);
    timeline_unref(erasure->timeline);
    mem_free(erasure);
}

static err_t erase(struct job *job)
{
    struct erasure *erasure = CONTAINER_OF(job, struct erasure, job);
    struct meta_change change = {.kind = META_TIMELINE, .id = erasure->number};
    struct tenant *tenant = erasure->tenant;
    TRY(page_store_meta_settle(tenant->store, &job->msg)); /* the row that says "deleting" */
    TRY(page_store_erase(tenant->store, erasure->number, &job->msg));
    TRY(history_erase_rows(tenant->history, tenant->store, erasure->number, &job->msg));
    return page_store_meta_write(erasure->tenant->store, &change, 1, &job->msg);
}

/* A child that is going as well goes first: its history leads to this one's. */
static bool has_child_in_history(const struct tenant *tenant, const struct timeline *tl)
{
    LIST_FOR_EACH(&tenant->erasures, link)
    {
        const struct timeline *other = CONTAINER_OF(link, struct erasure, link)->timeline;
        if (other != NULL && other->parent == tl && other->in_history != NULL) {
            return true;
        }
    }
    return false;
}

/*
 * Reads that began before the deletion finish first: half an erased history looks like zeros. So
 * does a flush, which may be writing the timeline's layer; none begins until the erasure has ended.
 */
static void on_erasure_timer(struct timer *timer)
{
    struct erasure *erasure = CONTAINER_OF(timer, struct erasure, timer);
    bool has_readers =
        erasure->timeline != NULL && (timeline_has_readers(erasure->timeline) ||
                                      has_child_in_history(erasure->tenant, erasure->timeline));
    if (has_readers || erasure->tenant->flushing) {
        timer_start(tenant_loop(erasure->tenant), timer, 10);
        return;
    }
    if (erasure->timeline != NULL) {
        tenant_forget_timeline(erasure->tenant, erasure->timeline);
    }
    erasure->job = (struct job){.run = erase, .done = on_erased};
    erasure->tenant->erasing++;
    lane_submit(&erasure->tenant->lane, &erasure->job);
}

static void start_erasing(struct tenant *tenant, uint32_t number, struct timeline *tl)
{
    struct erasure *erasure = MEM_NEW(struct erasure);
    erasure->tenant = tenant;
    erasure->number = number;
    erasure->timeline = tl;
    erasure->timer.on_fire = on_erasure_timer;
    list_push_back(&tenant->erasures, &erasure->link);
    timer_start(tenant_loop(tenant), &erasure->timer, 0);
}

/* -- opening -- */

static void tenant_destroy(struct tenant *tenant)
{
    ASSERT(list_is_empty(&tenant->members));
    page_store_close(tenant->store);
    history_destroy(tenant->history); /* compactions asked it until now */
    mem_free(tenant->buckets);
    mem_free(tenant);
}

/* The store asks the history what its compactions must keep. */
static err_t open_store(
    struct tenants *tenants,
    const char *path,
    struct history **ret_history,
    struct page_store **ret_store,
    struct errmsg *msg)
{
    struct history *history = history_create(tenants->options.retention);
    struct page_store_options options = tenants->options.store;
    options.gc = history_gc_source(history);
    err_t err = page_store_open(path, &options, ret_store, msg);
    if (err == ERR_OK) {
        err = history_load(history, *ret_store, msg);
        if (err != ERR_OK) {
            page_store_close(*ret_store);
        }
    }
    if (err != ERR_OK) {
        history_destroy(history);
        return err;
    }
    *ret_history = history;
    return ERR_OK;
}

static struct tenant *tenant_create(
    struct tenants *tenants, struct tenant_id id, struct history *history, struct page_store *store)
{
    struct tenant *tenant = MEM_NEW(struct tenant);
    tenant->tenants = tenants;
    tenant->id = id;
    tenant->store = store;
    tenant->history = history;
    tenant->next_number = 1;
    log_name(&tenant->log, "tenant %s", tenant_id_text(id).text);
    lane_init(&tenant->lane, tenants->options.executor);
    tenant->bucket_count = BUCKETS_MIN;
    tenant->buckets = MEM_ARRAY(struct timeline *, tenant->bucket_count);
    list_init(&tenant->members);
    list_init(&tenant->requests);
    list_init(&tenant->erasures);
    return tenant;
}

static void tenants_add(struct tenants *tenants, struct tenant *tenant)
{
    list_push_back(&tenants->list, &tenant->link);
    tenants->count++;
    metric_add(&tenant_count, 1);
}

static err_t read_u32(
    struct page_store *store, enum meta_kind kind, uint32_t *value, struct errmsg *msg)
{
    struct buf row = {0};
    err_t err = page_store_meta_get(store, kind, 0, &row, msg);
    if (err == ERR_OK) {
        struct reader in = reader_of(buf_view(&row));
        uint32_t number = get_u32(&in);
        if (in.bad || in.left > 0) {
            err = err_set(msg, ERR_CORRUPT, "counter of timeline numbers is malformed");
        } else {
            *value = number;
        }
    }
    buf_deinit(&row);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

/* The rows of a store, and how far each timeline's WAL is in it: read before anything is made. */
struct loaded_timeline {
    struct timeline_info info;
    struct ingest_position position; /* LSN 0: none */
};

struct loaded_timelines {
    struct loaded_timeline *items;
    size_t count;
    uint32_t next_number;
};

static void loaded_destroy(struct loaded_timelines *loaded)
{
    if (loaded != NULL) {
        mem_free(loaded->items);
        mem_free(loaded);
    }
}

static err_t load_row(uint32_t id, struct bytes value, void *context, struct errmsg *msg)
{
    struct loaded_timelines *loaded = context;
    struct timeline_info info;
    TRY(timeline_info_decode(id, value, &info, msg));
    loaded->items = mem_realloc(loaded->items, (loaded->count + 1) * sizeof(loaded->items[0]));
    loaded->items[loaded->count++] = (struct loaded_timeline){.info = info};
    return ERR_OK;
}

static err_t load_position(
    struct page_store *store, struct loaded_timeline *item, struct errmsg *msg)
{
    bool is_root = timeline_id_is_none(item->info.parent);
    if (item->info.state != TIMELINE_ACTIVE && item->info.state != TIMELINE_TOMBSTONE) {
        return ERR_OK;
    }
    err_t err = page_store_position(store, item->info.number, &item->position, msg);
    return err == ERR_NOT_FOUND && !is_root ? ERR_OK : err;
}

/* Blocking: at start or on a worker. */
static err_t load_timelines(
    struct page_store *store, struct loaded_timelines **ret_loaded, struct errmsg *msg)
{
    struct loaded_timelines *loaded = MEM_NEW(struct loaded_timelines);
    loaded->next_number = 1;
    err_t err = read_u32(store, META_NEXT_NUMBER, &loaded->next_number, msg);
    if (err == ERR_OK) {
        err = page_store_meta_list(store, META_TIMELINE, load_row, loaded, msg);
    }
    for (size_t i = 0; i < loaded->count && err == ERR_OK; i++) {
        err = load_position(store, &loaded->items[i], msg);
    }
    if (err != ERR_OK) {
        loaded_destroy(loaded);
        return err;
    }
    *ret_loaded = loaded;
    return ERR_OK;
}

/* Parents have smaller numbers than their children, so the order of numbers is a good one. */
static err_t make_timeline(
    struct tenant *tenant, const struct loaded_timeline *item, struct errmsg *msg)
{
    const struct timeline_info *info = &item->info;
    if (info->state == TIMELINE_DELETING) {
        start_erasing(tenant, info->number, NULL);
        return ERR_OK;
    }
    struct timeline *parent = NULL;
    struct ingest_position position = item->position;
    if (!timeline_id_is_none(info->parent)) {
        parent = tenant_find_member(tenant, info->parent);
        if (parent == NULL) {
            return err_set(
                msg, ERR_CORRUPT, "timeline %s: its parent %s is missing",
                timeline_id_text(info->id).text, timeline_id_text(info->parent).text);
        }
        position.lsn = MAX_OF(position.lsn, info->start_lsn);
    }
    struct timeline *tl =
        timeline_create(tenant, tenant->store, &tenant->log, info, parent, position);
    add_member(tenant, tl);
    tenant_know_timeline(tenant, tl);
    tenant->next_number = MAX_OF(tenant->next_number, info->number + 1);
    return ERR_OK;
}

static err_t make_timelines(
    struct tenant *tenant, const struct loaded_timelines *loaded, struct errmsg *msg)
{
    tenant->next_number = MAX_OF(tenant->next_number, loaded->next_number);
    for (size_t i = 0; i < loaded->count; i++) {
        TRY(make_timeline(tenant, &loaded->items[i], msg));
    }
    return ERR_OK;
}

static err_t load_tenant_row(struct tenant *tenant, struct errmsg *msg)
{
    struct buf row_bytes = {0};
    struct tenant_row row = {0};
    err_t err = page_store_meta_get(tenant->store, META_TENANT, 0, &row_bytes, msg);
    if (err == ERR_NOT_FOUND) {
        err = ERR_OK; /* it died before its first row: attached again with generation 0 */
    } else if (err == ERR_OK) {
        struct reader in = reader_of(buf_view(&row_bytes));
        err = tenant_row_decode(&row, &in);
        if (err != ERR_OK || row.format != TENANT_FORMAT || !tenant_id_equal(row.id, tenant->id)) {
            err = err_set(msg, ERR_CORRUPT, "row of the tenant is malformed");
        }
        tenant->generation = row.generation;
    }
    buf_deinit(&row_bytes);
    return err;
}

static void drop_erasures(struct tenant *tenant)
{
    struct list_link *first;
    while ((first = list_pop_front(&tenant->erasures)) != NULL) {
        struct erasure *erasure = CONTAINER_OF(first, struct erasure, link);
        timer_stop(&erasure->timer);
        timeline_unref(erasure->timeline);
        mem_free(erasure);
    }
}

static void drop_members(struct tenant *tenant)
{
    /* Children come after their parents: from the back. */
    while (!list_is_empty(&tenant->members)) {
        struct timeline *tl = timeline_of(tenant->members.head.prev);
        remove_member(tenant, tl);
        timeline_unref(tl);
    }
}

static err_t store_path(
    struct tenants *tenants,
    struct tenant_id id,
    const char *suffix,
    char to[PATH_SIZE],
    struct errmsg *msg)
{
    return str_format(
        to, PATH_SIZE, msg, "%s/%s%s", tenants->folder, tenant_id_text(id).text, suffix);
}

/* The tenant is complete: whoever serves it hears of it and of its timelines. */
static void show_tenant(struct tenants *tenants, struct tenant *tenant)
{
    struct tenants_user *user = tenants->options.user;
    history_start(tenant->history, tenant->next_number);
    tenants_add(tenants, tenant);
    if (user->on_tenant != NULL) {
        user->on_tenant(user, tenant);
    }
    LIST_FOR_EACH(&tenant->members, link)
    {
        struct timeline *tl = timeline_of(link);
        if (tl->info.state != TIMELINE_TOMBSTONE || is_on_its_way(tenant, tl)) {
            user->on_timeline(user, tl);
        }
    }
    bury_unneeded(tenant);
}

void tenant_folder(const struct tenant *tenant, char to[PATH_SIZE])
{
    err_t err = store_path(tenant->tenants, tenant->id, "", to, NULL);
    ASSERT(err == ERR_OK); /* the store was opened there */
}

static err_t open_tenant(struct tenants *tenants, struct tenant_id id, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct history *history = NULL;
    struct page_store *store = NULL;
    TRY(store_path(tenants, id, "", path, msg));
    TRY(open_store(tenants, path, &history, &store, msg));
    struct tenant *tenant = tenant_create(tenants, id, history, store);
    err_t err = load_tenant_row(tenant, msg);
    struct loaded_timelines *loaded = NULL;
    if (err == ERR_OK) {
        err = load_timelines(store, &loaded, msg);
    }
    if (err == ERR_OK) {
        err = make_timelines(tenant, loaded, msg);
    }
    loaded_destroy(loaded);
    if (err != ERR_OK) {
        drop_erasures(tenant);
        drop_members(tenant);
        tenant_destroy(tenant);
        return err_wrap(msg, err, "tenant %s", tenant_id_text(id).text);
    }
    show_tenant(tenants, tenant);
    return ERR_OK;
}

/* Half of a restore or of an upload: of no use to this process. */
static bool is_leftover(const char *name)
{
    return str_ends_with(name, ".downloading") || str_ends_with(name, ".checkpoint");
}

/* "TENANT.deleted" */
static bool is_doomed(const char *name, struct tenant_id *ret_id)
{
    char id[ID_TEXT_SIZE];
    return str_ends_with(name, DOOMED_SUFFIX) &&
           strlen(name) == 2 * ID_SIZE + strlen(DOOMED_SUFFIX) &&
           snprintf(id, sizeof(id), "%.*s", 2 * ID_SIZE, name) > 0 &&
           tenant_id_parse(id, ret_id, NULL) == ERR_OK;
}

static err_t open_entry(const char *name, void *context, struct errmsg *msg)
{
    struct tenants *tenants = context;
    struct tenant_id id;
    if (is_leftover(name)) {
        char path[PATH_SIZE];
        TRY(str_format(path, sizeof(path), msg, "%s/%s", tenants->folder, name));
        return dir_remove(path, msg);
    }
    if (is_doomed(name, &id)) {
        doomed_tenants_add(&tenants->doomed, id);
        return ERR_OK;
    }
    if (tenant_id_parse(name, &id, NULL) != ERR_OK) {
        log_warn(NULL, "%s/%s is no tenant: ignored", tenants->folder, name);
        return ERR_OK;
    }
    return open_tenant(tenants, id, msg);
}

/* Nobody reads and nothing runs; what waits to be erased can wait for another start. */
static bool tenant_is_quiet(struct tenant *tenant)
{
    LIST_FOR_EACH(&tenant->members, link)
    {
        if (timeline_has_readers(timeline_of(link))) {
            return false;
        }
    }
    return !tenant->flushing && !tenant->collecting && tenant->holds == 0 &&
           lane_is_idle(&tenant->lane);
}

/* -- flushing -- */

static void fail_all(struct tenant *tenant, const char *why)
{
    err_ignore(str_copy(tenant->failure, sizeof(tenant->failure), why, NULL), "errmsg texts fit");
    LIST_FOR_EACH(&tenant->members, link)
    {
        timeline_fail(timeline_of(link), why);
    }
}

/* ERR_BUSY: compaction is behind, each more flush would make every read slower. */
static err_t flush(struct job *job)
{
    struct tenant *tenant = CONTAINER_OF(job, struct tenant, flush_job);
    if (page_store_is_behind(tenant->store)) {
        metric_add(&flushes_throttled, 1);
        return err_set(&job->msg, ERR_BUSY, "compaction is behind");
    }
    return page_store_flush(tenant->store, &job->msg);
}

static void on_flushed(struct job *job)
{
    struct tenant *tenant = CONTAINER_OF(job, struct tenant, flush_job);
    tenant->flushing = false;
    if (job->result == ERR_OK) {
        tenant->dirty_since = page_store_open_bytes(tenant->store) > 0 ? clock_mono() : 0;
        LIST_FOR_EACH(&tenant->members, link)
        {
            timeline_flush_succeeded(timeline_of(link));
        }
        tenant_tell_durable(tenant);
        tenant->tenants->options.user->on_flushed(tenant->tenants->options.user, tenant);
    } else if (job->result == ERR_BUSY) {
        tenant->retry_at = clock_mono() + TICK_MS * NS_PER_MS;
    } else if (job->result == ERR_FULL) {
        log_warn(&tenant->log, "flush: %s; will retry", job->msg.text);
        tenant->retry_at = clock_mono() + NS_PER_S;
    } else {
        log_error(&tenant->log, "flush: %s; the tenant's storage is out of service", job->msg.text);
        fail_all(tenant, job->msg.text);
    }
}

/* Not in the lane: a row does not wait for megabytes to be written. */
static void start_flush(struct tenant *tenant)
{
    tenant->flushing = true;
    tenant->flushing_bytes = page_store_open_bytes(tenant->store);
    LIST_FOR_EACH(&tenant->members, link)
    {
        timeline_flush_begins(timeline_of(link));
    }
    tenant->flush_job = (struct job){.run = flush, .done = on_flushed};
    executor_submit(tenant->tenants->options.executor, &tenant->flush_job);
}

/* A tenant that is being deleted may have no store any more. */
static bool may_flush(const struct tenant *tenant, mono_ns_t now)
{
    if (tenant->flushing || tenant->erasing > 0 || tenant->deleting || tenant->failure[0] != '\0' ||
        now < tenant->retry_at) {
        return false;
    }
    return page_store_open_bytes(tenant->store) + page_store_frozen_bytes(tenant->store) > 0;
}

static void flush_if_due(struct tenant *tenant)
{
    mono_ns_t now = clock_mono();
    if (!may_flush(tenant, now)) {
        return;
    }
    if (tenant->dirty_since == 0) {
        tenant->dirty_since = now;
    }
    const struct tenants_options *options = &tenant->tenants->options;
    bool is_retry = page_store_frozen_bytes(tenant->store) > 0;
    if (is_retry || page_store_open_bytes(tenant->store) >= options->flush_bytes ||
        now - tenant->dirty_since >= options->flush_age_ms * NS_PER_MS) {
        start_flush(tenant);
    }
}

/* The layers of all tenants take too much: the largest goes first, until enough is on its way. */
static void flush_largest(struct tenants *tenants)
{
    size_t memory = page_stores_memory();
    mono_ns_t now = clock_mono();
    LIST_FOR_EACH(&tenants->list, link)
    {
        struct tenant *tenant = CONTAINER_OF(link, struct tenant, link);
        memory -= tenant->flushing ? MIN_OF(memory, tenant->flushing_bytes) : 0;
    }
    while (memory > tenants->options.layers_bytes / 2) {
        struct tenant *largest = NULL;
        LIST_FOR_EACH(&tenants->list, link)
        {
            struct tenant *tenant = CONTAINER_OF(link, struct tenant, link);
            if (may_flush(tenant, now) &&
                (largest == NULL ||
                 page_store_open_bytes(tenant->store) > page_store_open_bytes(largest->store))) {
                largest = tenant;
            }
        }
        if (largest == NULL) {
            return;
        }
        start_flush(largest);
        memory -= MIN_OF(memory, largest->flushing_bytes);
    }
}

void tenant_written(struct tenant *tenant)
{
    flush_if_due(tenant);
    if (page_stores_memory() > tenant->tenants->options.layers_bytes / 2) {
        flush_largest(tenant->tenants);
    }
}

/* While a flush is at work as much again may be put as makes the next one due. */
bool tenant_has_room(const struct tenant *tenant)
{
    const struct tenants_options *options = &tenant->tenants->options;
    return page_store_open_bytes(tenant->store) < 2 * options->flush_bytes &&
           page_stores_memory() < options->layers_bytes;
}

static void on_tick(struct timer *timer)
{
    struct tenants *tenants = CONTAINER_OF(timer, struct tenants, tick);
    LIST_FOR_EACH(&tenants->list, link)
    {
        struct tenant *tenant = CONTAINER_OF(link, struct tenant, link);
        flush_if_due(tenant);
        tenant_collect_if_due(tenant, clock_mono());
    }
    if (page_stores_memory() > tenants->options.layers_bytes / 2) {
        flush_largest(tenants);
    }
    timer_start(tenants->options.loop, timer, TICK_MS);
}

err_t tenants_open(
    const struct tenants_options *options, struct tenants **ret_tenants, struct errmsg *msg)
{
    struct tenants *tenants = MEM_NEW(struct tenants);
    tenants->options = *options;
    list_init(&tenants->list);
    list_init(&tenants->requests);
    doomed_tenants_init(
        &tenants->doomed, options->loop, options->executor, options->user, tenants->folder);
    err_t err =
        str_format(tenants->folder, sizeof(tenants->folder), msg, "%s/tenants", options->data_dir);
    if (err == ERR_OK) {
        err = dir_create(tenants->folder, msg);
    }
    if (err == ERR_OK) {
        err = dir_list(tenants->folder, open_entry, tenants, msg);
    }
    if (err != ERR_OK) {
        tenants_close(tenants);
        return err;
    }
    tenants->tick.on_fire = on_tick;
    timer_start(options->loop, &tenants->tick, TICK_MS);
    *ret_tenants = tenants;
    return ERR_OK;
}

bool tenants_are_idle(struct tenants *tenants)
{
    LIST_FOR_EACH(&tenants->list, link)
    {
        struct tenant *tenant = CONTAINER_OF(link, struct tenant, link);
        if (!list_is_empty(&tenant->requests) || !tenant_is_quiet(tenant)) {
            return false;
        }
    }
    return list_is_empty(&tenants->requests) && doomed_tenants_are_idle(&tenants->doomed);
}

void tenants_stop(struct tenants *tenants)
{
    doomed_tenants_stop(&tenants->doomed);
    tenants_stop_collecting(tenants);
}

void tenants_close(struct tenants *tenants)
{
    if (tenants == NULL) {
        return;
    }
    timer_stop(&tenants->tick);
    struct list_link *first;
    while ((first = list_pop_front(&tenants->list)) != NULL) {
        struct tenant *tenant = CONTAINER_OF(first, struct tenant, link);
        struct errmsg msg;
        if (page_store_flush(tenant->store, &msg) != ERR_OK) {
            log_warn(&tenant->log, "last flush: %s; ingest repeats from the WAL", msg.text);
        }
        drop_erasures(tenant);
        drop_members(tenant);
        tenant_destroy(tenant);
        metric_add(&tenant_count, -1);
    }
    doomed_tenants_deinit(&tenants->doomed);
    mem_free(tenants);
}

/* -- attach and delete a tenant -- */

static err_t write_tenant_row(
    struct page_store *store, struct tenant_id id, generation_t generation, struct errmsg *msg)
{
    struct tenant_row row = {.format = TENANT_FORMAT, .id = id, .generation = generation};
    struct buf bytes = {0};
    size_t size = tenant_row_size(&row);
    struct writer out = {.next = buf_extend(&bytes, size), .left = size};
    tenant_row_encode(&row, &out);
    struct meta_change change = {.kind = META_TENANT, .value = buf_view(&bytes)};
    err_t err = page_store_meta_write(store, &change, 1, msg);
    buf_deinit(&bytes);
    return err;
}

/* From elsewhere when there is something of it; else the tenant begins empty. */
static err_t make_folder(struct tenant_request *request, const char *path, struct errmsg *msg)
{
    struct tenants_user *user = request->tenants->options.user;
    if (user->restore != NULL) {
        TRY(user->restore(user, request->tenant_id, request->generation, path, msg));
    }
    return dir_create(path, msg);
}

static err_t attach_new(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    char path[PATH_SIZE];
    struct history *history = NULL;
    struct page_store *store = NULL;
    TRY(store_path(request->tenants, request->tenant_id, "", path, &job->msg));
    TRY(make_folder(request, path, &job->msg));
    TRY(open_store(request->tenants, path, &history, &store, &job->msg));
    err_t err = write_tenant_row(store, request->tenant_id, request->generation, &job->msg);
    if (err == ERR_OK) {
        err = load_timelines(store, &request->loaded, &job->msg);
    }
    if (err != ERR_OK) {
        page_store_close(store);
        history_destroy(history);
        return err;
    }
    /* Nobody else sees the tenant before on_attached_new links it. */
    request->tenant = tenant_create(request->tenants, request->tenant_id, history, store);
    request->tenant->generation = request->generation;
    return ERR_OK;
}

static void on_attached_new(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    err_t result = job->result;
    request->msg = job->msg;
    if (result == ERR_OK) {
        result = make_timelines(request->tenant, request->loaded, &request->msg);
        if (result == ERR_OK) {
            request->created = true;
            log_info(
                &request->tenant->log, "attached, generation %" PRIu32 ", %zu timelines",
                request->generation, request->loaded->count);
            show_tenant(request->tenants, request->tenant);
        } else {
            drop_erasures(request->tenant);
            drop_members(request->tenant);
            tenant_destroy(request->tenant);
        }
    }
    loaded_destroy(request->loaded);
    request->loaded = NULL;
    tenant_request_finish(request, result);
}

static err_t attach_again(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    return write_tenant_row(
        request->tenant->store, request->tenant_id, request->generation, &job->msg);
}

static void on_attached_again(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    if (job->result == ERR_OK) {
        request->tenant->generation = MAX_OF(request->tenant->generation, request->generation);
        struct tenants_user *user = request->tenants->options.user;
        if (user->on_tenant != NULL) {
            user->on_tenant(user, request->tenant);
        }
    }
    request->msg = job->msg;
    tenant_request_finish(request, job->result);
}

static bool tenant_is_under_way(struct tenants *tenants, struct tenant_id id)
{
    LIST_FOR_EACH(&tenants->requests, link)
    {
        struct tenant_request *request = CONTAINER_OF(link, struct tenant_request, link);
        if (tenant_id_equal(request->tenant_id, id)) {
            return true;
        }
    }
    return false;
}

void tenant_attach(
    struct tenants *tenants,
    struct tenant_request *request,
    struct tenant_id id,
    generation_t generation)
{
    struct tenant *tenant = tenants_find(tenants, id);
    bool under_way = tenant_is_under_way(tenants, id);
    tenant_request_begin(request, tenants, tenant);
    request->tenant_id = id;
    request->generation = generation;
    if (under_way) {
        tenant_request_answer(
            request, err_set(&request->msg, ERR_BUSY, "the tenant is being changed"));
    } else if (doomed_tenants_has(&tenants->doomed, id)) {
        tenant_request_answer(
            request, err_set(&request->msg, ERR_BUSY, "the tenant is being deleted"));
    } else if (tenant == NULL && tenants->count >= TENANTS_MAX) {
        tenant_request_answer(
            request, err_set(&request->msg, ERR_BUSY, "limit of %d tenants", TENANTS_MAX));
    } else if (tenant == NULL) {
        request->job = (struct job){.run = attach_new, .done = on_attached_new};
        executor_submit(tenants->options.executor, &request->job);
    } else if (generation < tenant->generation) {
        tenant_request_answer(
            request,
            err_set(
                &request->msg, ERR_STALE, "attached with generation %" PRIu32, tenant->generation));
    } else if (generation == tenant->generation) {
        tenant_request_answer(request, ERR_OK);
    } else {
        request->job = (struct job){.run = attach_again, .done = on_attached_again};
        lane_submit(&tenant->lane, &request->job);
    }
}

/* The rename is the moment of deletion; what it leaves goes in the background. */
static err_t remove_tenant(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    struct tenants *tenants = request->tenants;
    char path[PATH_SIZE], doomed[PATH_SIZE];
    page_store_close(request->tenant->store);
    request->tenant->store = NULL;
    TRY(store_path(tenants, request->tenant_id, "", path, &job->msg));
    TRY(store_path(tenants, request->tenant_id, DOOMED_SUFFIX, doomed, &job->msg));
    return file_rename_durably(path, doomed, &job->msg);
}

static void on_tenant_removed(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    struct tenant *tenant = request->tenant;
    log_info(&tenant->log, "deleted%s%s", job->result == ERR_OK ? "" : ": ", job->msg.text);
    list_remove(&tenant->link);
    request->tenants->count--;
    metric_add(&tenant_count, -1);
    if (job->result == ERR_OK) {
        doomed_tenants_add(&request->tenants->doomed, tenant->id);
    }
    request->msg = job->msg;
    tenant_request_finish(request, job->result);
    tenant_destroy(tenant);
}

static void on_delete_timer(struct timer *timer)
{
    struct tenant_request *request = CONTAINER_OF(timer, struct tenant_request, timer);
    if (!tenant_is_quiet(request->tenant)) {
        timer_start(request->tenants->options.loop, timer, 10);
        return;
    }
    drop_erasures(request->tenant);
    drop_members(request->tenant);
    request->job = (struct job){.run = remove_tenant, .done = on_tenant_removed};
    executor_submit(request->tenants->options.executor, &request->job);
}

void tenant_delete(struct tenants *tenants, struct tenant_request *request, struct tenant_id id)
{
    struct tenant *tenant = tenants_find(tenants, id);
    tenant_request_begin(request, tenants, NULL);
    request->tenant_id = id;
    request->tenant = tenant;
    if (tenant == NULL) {
        tenant_request_answer(
            request,
            err_set(&request->msg, ERR_NOT_FOUND, "no tenant %s", tenant_id_text(id).text));
    } else if (!list_is_empty(&tenant->requests)) {
        tenant_request_answer(
            request, err_set(&request->msg, ERR_BUSY, "the tenant is being changed"));
    } else {
        tenant->deleting = true;
        LIST_FOR_EACH(&tenant->members, link)
        {
            struct timeline *tl = timeline_of(link);
            timeline_set_state(tl, TIMELINE_DELETING);
            tenants->options.user->on_timeline_gone(tenants->options.user, tl);
        }
        if (tenants->options.user->on_tenant_gone != NULL) {
            tenants->options.user->on_tenant_gone(tenants->options.user, tenant);
        }
        request->timer = (struct timer){.on_fire = on_delete_timer};
        timer_start(tenants->options.loop, &request->timer, 0);
    }
}

/* -- create, import and delete a timeline -- */

/* Is a request about this timeline, or one that needs it as parent, under way? */
static bool timeline_is_under_way(struct tenant *tenant, struct timeline_id id)
{
    LIST_FOR_EACH(&tenant->requests, link)
    {
        struct tenant_request *request = CONTAINER_OF(link, struct tenant_request, link);
        if (timeline_id_equal(request->info.id, id) ||
            timeline_id_equal(request->info.parent, id)) {
            return true;
        }
    }
    LIST_FOR_EACH(&tenant->erasures, link)
    {
        struct erasure *erasure = CONTAINER_OF(link, struct erasure, link);
        if (erasure->timeline != NULL &&
            timeline_id_equal(timeline_info(erasure->timeline)->id, id)) {
            return true;
        }
    }
    return false;
}

static err_t write_new_row(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    uint32_t next = htole32(request->info.number + 1);
    struct meta_change changes[] = {
        {.kind = META_NEXT_NUMBER, .value = bytes_of(&next, sizeof(next))},
        {.kind = META_TIMELINE, .id = request->info.number, .value = buf_view(&request->row)},
    };
    return page_store_meta_write(request->tenant->store, changes, ARRAY_LEN(changes), &job->msg);
}

static void on_new_row(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    struct tenant *tenant = request->tenant;
    request->msg = job->msg;
    if (job->result != ERR_OK) {
        tenant_request_finish(request, job->result);
        return;
    }
    const struct timeline_info *info = &request->info;
    bool is_root = timeline_id_is_none(info->parent);
    struct timeline *parent = is_root ? NULL : tenant_find_member(tenant, info->parent);
    ASSERT(is_root || parent != NULL); /* a request that needs it keeps it from being deleted */
    struct ingest_position position = {.lsn = is_root ? 0 : info->start_lsn};
    struct timeline *tl =
        timeline_create(tenant, tenant->store, &tenant->log, info, parent, position);
    add_member(tenant, tl);
    tenant_know_timeline(tenant, tl);
    log_info(
        timeline_log(tl), "created as number %" PRIu32 " at " LSN_FMT "%s%s", info->number,
        LSN_ARGS(info->start_lsn), is_root ? "" : ", branch of ",
        is_root ? "" : timeline_id_text(info->parent).text);
    tenant->tenants->options.user->on_timeline(tenant->tenants->options.user, tl);
    request->timeline = tl;
    request->created = true;
    tenant_request_finish(request, ERR_OK);
}

static err_t write_row(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    struct meta_change change = {
        .kind = META_TIMELINE, .id = request->info.number, .value = buf_view(&request->row)};
    return page_store_meta_write(request->tenant->store, &change, 1, &job->msg);
}

static void on_row_updated(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    request->msg = job->msg;
    struct timeline *tl = tenant_find_timeline(request->tenant, request->info.id);
    ASSERT(tl != NULL);
    if (job->result == ERR_OK) {
        timeline_update_info(tl, &request->info);
        request->tenant->tenants->options.user->on_timeline(
            request->tenant->tenants->options.user, tl);
    }
    request->timeline = tl;
    tenant_request_finish(request, job->result);
}

static bool same_history(const struct timeline_info *a, const struct timeline_info *b)
{
    return timeline_id_equal(a->parent, b->parent) && a->pg_version == b->pg_version &&
           a->system_id == b->system_id && a->start_lsn == b->start_lsn &&
           strcmp(a->bootstrap_object, b->bootstrap_object) == 0;
}

/* A repeated PUT: the same again, or news about generation and safekeepers. */
static void put_existing(
    struct tenant_request *request, struct timeline *tl, const struct timeline_info *info)
{
    const struct timeline_info *have = timeline_info(tl);
    if (!same_history(have, info)) {
        tenant_request_answer(
            request, err_set(
                         &request->msg, ERR_EXISTS, "timeline %s exists with another content",
                         timeline_id_text(info->id).text));
        return;
    }
    if (info->generation < have->generation ||
        info->membership_generation < have->membership_generation) {
        tenant_request_answer(
            request,
            err_set(
                &request->msg, ERR_STALE, "generation %" PRIu32 ", membership %" PRIu32 " are here",
                have->generation, have->membership_generation));
        return;
    }
    bool same_safekeepers = strcmp(have->safekeepers, info->safekeepers) == 0;
    if (!same_safekeepers && info->membership_generation == have->membership_generation) {
        tenant_request_answer(
            request, err_set(
                         &request->msg, ERR_EXISTS,
                         "other safekeepers under the same membership generation"));
        return;
    }
    request->timeline = tl;
    if (same_safekeepers && info->generation == have->generation &&
        info->membership_generation == have->membership_generation) {
        tenant_request_answer(request, ERR_OK);
        return;
    }
    request->info = *info;
    request->info.number = have->number;
    request->info.parent_number = have->parent_number;
    request->info.state = have->state;
    timeline_info_encode(&request->info, &request->row);
    request->job = (struct job){.run = write_row, .done = on_row_updated};
    lane_submit(&request->tenant->lane, &request->job);
}

/* The branch LSN is held from here on, until the request is over and the branch holds it itself. */
static err_t check_new(
    struct tenant *tenant,
    const struct timeline_info *info,
    struct history_hold *hold,
    uint32_t *ret_parent_number,
    struct errmsg *msg)
{
    *ret_parent_number = 0;
    if (tenant_find_member(tenant, info->id) != NULL) {
        return err_set(msg, ERR_EXISTS, "the timeline was deleted, but children live on it");
    }
    if (tenant->member_count >= TIMELINES_MAX || tenant->next_number >= UINT32_MAX - 1) {
        return err_set(msg, ERR_BUSY, "limit of %d timelines of a tenant", TIMELINES_MAX);
    }
    if (timeline_id_is_none(info->parent)) {
        return ERR_OK;
    }
    struct timeline *parent = tenant_find_timeline(tenant, info->parent);
    if (parent == NULL) {
        return err_set(
            msg, ERR_NOT_FOUND, "no parent timeline %s", timeline_id_text(info->parent).text);
    }
    if (info->start_lsn < timeline_root_start_lsn(parent)) {
        return err_set(
            msg, ERR_RANGE, "branch LSN " LSN_FMT " is below the begin of history " LSN_FMT,
            LSN_ARGS(info->start_lsn), LSN_ARGS(timeline_root_start_lsn(parent)));
    }
    *ret_parent_number = timeline_number(parent);
    return history_hold(tenant->history, timeline_history(parent), info->start_lsn, hold, msg);
}

void tenant_put_timeline(
    struct tenant *tenant, struct tenant_request *request, const struct timeline_info *info)
{
    bool under_way = timeline_is_under_way(tenant, info->id);
    struct timeline *tl = tenant_find_timeline(tenant, info->id);
    tenant_request_begin(request, tenant->tenants, tenant);
    request->info = *info;
    if (under_way) {
        tenant_request_answer(
            request, err_set(&request->msg, ERR_BUSY, "the timeline is being changed"));
        return;
    }
    if (tl != NULL) {
        put_existing(request, tl, info);
        return;
    }
    uint32_t parent_number;
    err_t err = check_new(tenant, info, &request->hold, &parent_number, &request->msg);
    if (err != ERR_OK) {
        tenant_request_answer(request, err);
        return;
    }
    request->info.number = tenant->next_number++;
    request->info.parent_number = parent_number;
    request->info.state = timeline_id_is_none(info->parent) ? TIMELINE_IMPORTING : TIMELINE_ACTIVE;
    timeline_info_encode(&request->info, &request->row);
    request->job = (struct job){.run = write_new_row, .done = on_new_row};
    lane_submit(&tenant->lane, &request->job);
}

static void on_import_finished(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    request->msg = job->msg;
    struct timeline *tl = tenant_find_timeline(request->tenant, request->info.id);
    if (job->result == ERR_OK && tl != NULL) {
        timeline_advance(tl, request->position);
        timeline_flush_begins(tl);
        timeline_flush_succeeded(tl);
        tenant_tell_durable(request->tenant);
        timeline_set_state(tl, TIMELINE_ACTIVE);
        log_info(timeline_log(tl), "imported at " LSN_FMT, LSN_ARGS(request->position.lsn));
    }
    request->timeline = tl;
    tenant_request_finish(request, job->result);
}

void tenant_timeline_imported(
    struct tenant *tenant,
    struct tenant_request *request,
    struct timeline *tl,
    struct ingest_position position)
{
    tenant_request_begin(request, tenant->tenants, tenant);
    request->info = *timeline_info(tl);
    request->info.state = TIMELINE_ACTIVE;
    request->position = position;
    timeline_info_encode(&request->info, &request->row);
    request->job = (struct job){.run = write_row, .done = on_import_finished};
    lane_submit(&tenant->lane, &request->job);
}

/* -- deletion, also of timelines that children live on -- */

/*
 * A branch of it begins beyond what is in the object store: what leads there must still come, and
 * when this disk is lost it must come again. Nothing is known to be up there when a tenant is
 * opened, so a tombstone takes WAL again until the first upload has ended.
 */
static bool is_on_its_way(struct tenant *tenant, const struct timeline *tl)
{
    LIST_FOR_EACH(&tenant->members, link)
    {
        const struct timeline *child = timeline_of(link);
        if (child->parent == tl && child->info.start_lsn > tl->remote_lsn) {
            return true;
        }
    }
    return false;
}

/* Tombstones whose last branch LSN is in the object store need no more WAL. */
static void stop_arrived(struct tenant *tenant)
{
    struct tenants_user *user = tenant->tenants->options.user;
    LIST_FOR_EACH(&tenant->members, link)
    {
        struct timeline *tl = timeline_of(link);
        if (tl->info.state == TIMELINE_TOMBSTONE && tl->user != NULL &&
            !is_on_its_way(tenant, tl)) {
            user->on_timeline_gone(user, tl);
        }
    }
}

void tenant_uploaded(struct tenant *tenant)
{
    stop_arrived(tenant);
}

static void bury(struct tenant *tenant, struct timeline *tl)
{
    struct tenants_user *user = tenant->tenants->options.user;
    remove_member(tenant, tl);
    timeline_set_state(tl, TIMELINE_DELETING);
    user->on_timeline_gone(user, tl);
    start_erasing(tenant, tl->info.number, tl); /* the member's reference goes with it */
}

struct burial {
    struct tenant *tenant;
    struct timeline_info info;
    struct buf row;
    struct job job;
};

static err_t write_burial(struct job *job)
{
    struct burial *burial = CONTAINER_OF(job, struct burial, job);
    struct meta_change change = {
        .kind = META_TIMELINE, .id = burial->info.number, .value = buf_view(&burial->row)};
    return page_store_meta_write(burial->tenant->store, &change, 1, &job->msg);
}

static void on_burial(struct job *job)
{
    struct burial *burial = CONTAINER_OF(job, struct burial, job);
    struct tenant *tenant = burial->tenant;
    struct timeline *tl = tenant_find_member(tenant, burial->info.id);
    if (job->result != ERR_OK) {
        log_warn(&tenant->log, "a tombstone stays until the next start: %s", job->msg.text);
    } else if (tl != NULL && tl->info.state == TIMELINE_TOMBSTONE) {
        bury(tenant, tl);
        bury_unneeded(tenant);
    }
    buf_deinit(&burial->row);
    mem_free(burial);
}

/* Tombstones without children: the last child went, maybe just before a crash. */
static void bury_unneeded(struct tenant *tenant)
{
    LIST_FOR_EACH(&tenant->members, link)
    {
        struct timeline *tl = timeline_of(link);
        if (tl->info.state != TIMELINE_TOMBSTONE || tl->child_count > 0 || tl->is_being_buried) {
            continue;
        }
        tl->is_being_buried = true;
        struct burial *burial = MEM_NEW(struct burial);
        burial->tenant = tenant;
        burial->info = tl->info;
        burial->info.state = TIMELINE_DELETING;
        timeline_info_encode(&burial->info, &burial->row);
        burial->job = (struct job){.run = write_burial, .done = on_burial};
        lane_submit(&tenant->lane, &burial->job);
    }
}

static err_t write_deletion(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    TRY(write_row(job));
    return page_store_meta_settle(request->tenant->store, &job->msg);
}

static void on_row_deleting(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    struct tenant *tenant = request->tenant;
    request->msg = job->msg;
    if (job->result == ERR_OK) {
        struct timeline *tl = tenant_find_timeline(tenant, request->info.id);
        ASSERT(tl != NULL);
        if (request->info.state == TIMELINE_TOMBSTONE) {
            history_set_tombstone(tenant->history, timeline_history(tl));
            timeline_set_state(tl, TIMELINE_TOMBSTONE);
            log_info(timeline_log(tl), "deleted; kept for %u children", tl->child_count);
            stop_arrived(tenant);
        } else {
            bury(tenant, tl);
        }
        bury_unneeded(tenant);
    }
    tenant_request_finish(request, job->result);
}

void tenant_delete_timeline(
    struct tenant *tenant,
    struct tenant_request *request,
    struct timeline *tl,
    bool even_with_children)
{
    bool under_way = timeline_is_under_way(tenant, timeline_info(tl)->id);
    tenant_request_begin(request, tenant->tenants, tenant);
    request->info = *timeline_info(tl);
    if (under_way) {
        tenant_request_answer(
            request, err_set(&request->msg, ERR_BUSY, "the timeline is being changed"));
    } else if (tl->child_count > 0 && !even_with_children) {
        tenant_request_answer(
            request, err_set(&request->msg, ERR_EXISTS, "the timeline has children"));
    } else if (tl->child_count > 0 && tl->info.state != TIMELINE_ACTIVE) {
        tenant_request_answer(
            request, err_set(&request->msg, ERR_BUSY, "the timeline is not imported yet"));
    } else {
        request->info.state = tl->child_count > 0 ? TIMELINE_TOMBSTONE : TIMELINE_DELETING;
        timeline_info_encode(&request->info, &request->row);
        request->job = (struct job){.run = write_deletion, .done = on_row_deleting};
        lane_submit(&tenant->lane, &request->job);
    }
}
