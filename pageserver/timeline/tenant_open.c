/* Tenants: opening them at a start, and attaching them. */
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "pageserver/timeline/slots.h"
#include "pageserver/timeline/tenant_private.h"

METRIC_GAUGE(tenant_count, "pageserver_tenants", "tenants that are attached");

#define TICK_MS       100
#define TENANT_FORMAT 1
#define TENANTS_MAX   10000
#define BUCKETS_MIN   16

#define TENANT_ROW_FIELDS(X)                                                                       \
    X(u16, format)                                                                                 \
    X(tenant, id)                                                                                  \
    X(u32, generation)
WIRE_DECLARE(tenant_row, TENANT_ROW_FIELDS);
WIRE_DEFINE(tenant_row, TENANT_ROW_FIELDS)

/* -- opening -- */

void tenant_destroy(struct tenant *tenant)
{
    ASSERT(list_is_empty(&tenant->members));
    tenant_forget_full(tenant);
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
    const struct tenants_options *options = &tenants->options;
    lane_init(&tenant->lane, options->rows == NULL ? options->executor : options->rows);
    tenant->bucket_count = BUCKETS_MIN;
    tenant->buckets = MEM_ARRAY(struct timeline *, tenant->bucket_count);
    list_init(&tenant->members);
    list_init(&tenant->advanced);
    list_init(&tenant->requests);
    list_init(&tenant->new_timelines);
    list_init(&tenant->written_timelines);
    list_init(&tenant->deletions);
    list_init(&tenant->written_deletions);
    list_init(&tenant->erasures);
    list_init(&tenant->erased);
    return tenant;
}

static void tenants_add(struct tenants *tenants, struct tenant *tenant)
{
    list_push_back(&tenants->list, &tenant->link);
    tenants->count++;
    metric_add(&tenant_count, 1);
}

void tenants_unlink(struct tenant *tenant)
{
    list_remove(&tenant->link);
    tenant->tenants->count--;
    metric_add(&tenant_count, -1);
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
    uint32_t number;
    size_t row_begin, row_end;       /* in `rows` */
    struct ingest_position position; /* LSN 0: none */
    lsn_t slots_lsn;
};

struct loaded_timelines {
    struct loaded_timeline *items;
    size_t count, capacity;
    struct buf rows;
    uint32_t next_number;
};

static void loaded_destroy(struct loaded_timelines *loaded)
{
    if (loaded != NULL) {
        mem_free(loaded->items);
        buf_deinit(&loaded->rows);
        mem_free(loaded);
    }
}

static err_t load_row(uint32_t id, struct bytes value, void *context, struct errmsg *msg)
{
    struct loaded_timelines *loaded = context;
    (void)msg;
    if (loaded->count == loaded->capacity) {
        loaded->capacity = MAX_OF((size_t)16, 2 * loaded->capacity);
        loaded->items =
            mem_realloc(loaded->items, loaded->capacity * sizeof(struct loaded_timeline));
    }
    size_t begin = loaded->rows.size;
    buf_append(&loaded->rows, value.data, value.size);
    loaded->items[loaded->count++] =
        (struct loaded_timeline){.number = id, .row_begin = begin, .row_end = begin + value.size};
    return ERR_OK;
}

static err_t decode_loaded(
    const struct loaded_timelines *loaded,
    const struct loaded_timeline *item,
    struct timeline_texts *texts,
    struct timeline_info *ret_info,
    struct errmsg *msg)
{
    struct bytes row =
        bytes_of(loaded->rows.data + item->row_begin, item->row_end - item->row_begin);
    return timeline_info_decode(item->number, row, texts, ret_info, msg);
}

static err_t load_position(
    struct page_store *store,
    const struct loaded_timelines *loaded,
    struct loaded_timeline *item,
    struct errmsg *msg)
{
    struct timeline_texts texts;
    struct timeline_info info;
    TRY(decode_loaded(loaded, item, &texts, &info, msg));
    if (info.state != TIMELINE_ACTIVE && info.state != TIMELINE_TOMBSTONE) {
        return ERR_OK;
    }
    err_t err = page_store_position(store, info.number, &item->position, msg);
    if (err == ERR_NOT_FOUND && !timeline_id_is_none(info.parent)) {
        return ERR_OK;
    }
    TRY(err);
    if (item->position.lsn <= info.start_lsn) {
        return ERR_OK; /* nothing of its own yet, so no slot either */
    }
    return slots_needed_lsn(store, info.number, item->position.lsn, &item->slots_lsn, msg);
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
        err = load_position(store, loaded, &loaded->items[i], msg);
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
    struct tenant *tenant,
    const struct loaded_timelines *loaded,
    const struct loaded_timeline *item,
    struct errmsg *msg)
{
    struct timeline_texts texts;
    struct timeline_info row;
    TRY(decode_loaded(loaded, item, &texts, &row, msg));
    const struct timeline_info *info = &row;
    if (info->state == TIMELINE_DELETING) {
        tenant_start_erasing(tenant, info->number, NULL);
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
    struct timeline *tl = timeline_create(tenant, info, parent, position);
    timeline_set_slots_lsn(tl, item->slots_lsn);
    tenant_add_member(tenant, tl);
    tenant_know_timeline(tenant, tl);
    tenant->next_number = MAX_OF(tenant->next_number, info->number + 1);
    return ERR_OK;
}

static err_t make_timelines(
    struct tenant *tenant, const struct loaded_timelines *loaded, struct errmsg *msg)
{
    tenant->next_number = MAX_OF(tenant->next_number, loaded->next_number);
    for (size_t i = 0; i < loaded->count; i++) {
        TRY(make_timeline(tenant, loaded, &loaded->items[i], msg));
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

err_t tenants_path(
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
    tenants_shut_opened(tenants, tenant->id);
    tenants_add(tenants, tenant);
    if (user->on_tenant != NULL) {
        user->on_tenant(user, tenant);
    }
    LIST_FOR_EACH(&tenant->members, link)
    {
        struct timeline *tl = timeline_of_member(link);
        if (tl->info.state != TIMELINE_TOMBSTONE || tenant_is_on_its_way(tenant, tl)) {
            user->on_timeline(user, tl);
        }
    }
    tenant_bury_unneeded(tenant);
}

void tenant_folder(const struct tenant *tenant, char to[PATH_SIZE])
{
    err_t err = tenants_path(tenant->tenants, tenant->id, "", to, NULL);
    ASSERT(err == ERR_OK); /* the store was opened there */
}

static err_t open_tenant(struct tenants *tenants, struct tenant_id id, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct history *history = NULL;
    struct page_store *store = NULL;
    TRY(tenants_path(tenants, id, "", path, msg));
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
        tenant_drop_erasures(tenant);
        tenant_drop_members(tenant);
        tenant_destroy(tenant);
        return err_wrap(msg, err, "tenant %s", tenant_id_text(id).text);
    }
    show_tenant(tenants, tenant);
    return ERR_OK;
}

/* Half of a restore or of an upload, or what was given up: of no use to this process. */
static bool is_leftover(const char *name)
{
    return str_ends_with(name, OUTDATED_SUFFIX) || str_ends_with(name, ".downloading") ||
           str_ends_with(name, ".checkpoint") ||
           str_ends_with(name, ".checkpoint.tmp"); /* while RocksDB makes it */
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
    err_t err = open_tenant(tenants, id, msg);
    if (err == ERR_OK || err == ERR_BUSY) { /* another process has this folder */
        return err;
    }
    tenants_shut_add(tenants, id, err, msg);
    return ERR_OK;
}

/* Nobody reads and nothing runs; what waits to be erased can wait for another start. */
bool tenant_is_quiet(struct tenant *tenant)
{
    LIST_FOR_EACH(&tenant->members, link)
    {
        if (timeline_has_readers(timeline_of_member(link))) {
            return false;
        }
    }
    return !tenant->flushing && !tenant->collecting && tenant->holds == 0 &&
           lane_is_idle(&tenant->lane);
}

static void on_tick(struct timer *timer)
{
    struct tenants *tenants = CONTAINER_OF(timer, struct tenants, tick);
    LIST_FOR_EACH(&tenants->list, link)
    {
        struct tenant *tenant = CONTAINER_OF(link, struct tenant, link);
        tenant_flush_if_due(tenant);
        tenant_collect_if_due(tenant, clock_mono());
    }
    tenants_open_shut_if_due(tenants, clock_mono());
    if (page_stores_memory() > tenants->options.layers_bytes / 2) {
        tenants_flush_largest(tenants);
    }
    timer_start(tenants->options.loop, timer, TICK_MS);
}

err_t tenants_open(
    const struct tenants_options *options, struct tenants **ret_tenants, struct errmsg *msg)
{
    struct tenants *tenants = MEM_NEW(struct tenants);
    tenants->options = *options;
    if (options->elsewhere == NULL) {
        tenants->options.elsewhere = options->executor;
    }
    list_init(&tenants->list);
    list_init(&tenants->requests);
    list_init(&tenants->shut);
    doomed_tenants_init(
        &tenants->doomed, options->loop, tenants->options.elsewhere, options->user,
        tenants->folder);
    err_t err =
        str_format(tenants->folder, sizeof(tenants->folder), msg, "%s/tenants", options->data_dir);
    if (err == ERR_OK) {
        err = dir_create_durably(tenants->folder, msg);
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
        tenant_drop_erasures(tenant);
        tenant_drop_members(tenant);
        tenant_destroy(tenant);
        metric_add(&tenant_count, -1);
    }
    tenants_shut_drop_all(tenants);
    doomed_tenants_deinit(&tenants->doomed);
    mem_free(tenants);
}

/* -- attach a tenant -- */

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

/* What was opened may be newer than who attaches it knows: it was shut until now. */
static err_t take_generation(struct tenant *tenant, generation_t generation, struct errmsg *msg)
{
    if (generation < tenant->generation) {
        return err_set(msg, ERR_STALE, "attached with generation %" PRIu32, tenant->generation);
    }
    TRY(write_tenant_row(tenant->store, tenant->id, generation, msg));
    tenant->generation = generation;
    return ERR_OK;
}

/* From elsewhere when there is something of it; else the tenant begins empty. */
static err_t make_folder(struct tenant_request *request, const char *path, struct errmsg *msg)
{
    struct tenants_user *user = request->tenants->options.user;
    if (user->restore != NULL && !request->is_on_disk) {
        TRY(user->restore(user, request->tenant_id, request->generation, path, msg));
    }
    return dir_create_durably(path, msg);
}

static err_t attach_new(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    char path[PATH_SIZE];
    struct history *history = NULL;
    struct page_store *store = NULL;
    TRY(tenants_path(request->tenants, request->tenant_id, "", path, &job->msg));
    TRY(make_folder(request, path, &job->msg));
    TRY(open_store(request->tenants, path, &history, &store, &job->msg));
    /* Nobody else sees the tenant before on_attached_new links it. */
    struct tenant *tenant = tenant_create(request->tenants, request->tenant_id, history, store);
    err_t err = load_tenant_row(tenant, &job->msg);
    if (err == ERR_OK && request->generation != 0) {
        err = take_generation(tenant, request->generation, &job->msg);
    }
    if (err == ERR_OK) {
        err = load_timelines(store, &request->loaded, &job->msg);
    }
    if (err != ERR_OK) {
        tenant_destroy(tenant);
        return err;
    }
    request->generation = tenant->generation;
    request->tenant = tenant;
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
            tenant_drop_erasures(request->tenant);
            tenant_drop_members(request->tenant);
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

bool tenants_are_changing(struct tenants *tenants, struct tenant_id id)
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
    bool under_way = tenants_are_changing(tenants, id);
    tenant_request_begin(request, tenants, tenant);
    request->tenant_id = id;
    request->generation = generation;
    request->is_on_disk = tenants_is_shut(tenants, id);
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
        executor_submit(
            request->is_on_disk ? tenants->options.executor : tenants->options.elsewhere,
            &request->job);
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

void tenant_open_again(struct tenants *tenants, struct tenant_request *request, struct tenant_id id)
{
    tenant_request_begin(request, tenants, NULL);
    request->tenant_id = id;
    request->generation = 0;
    request->is_on_disk = true;
    request->job = (struct job){.run = attach_new, .done = on_attached_new};
    executor_submit(tenants->options.executor, &request->job);
}
