#include "pageserver/serve/server.h"

#include "common/base/assert.h"
#include "common/base/parse.h"
#include "common/base/prng.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "pageserver/read/memory_guess.h"
#include "pageserver/remote/downloader.h"

#define OBSERVE_MS 1000
#define STOP_MS    10

#define ELSEWHERE_THREADS 2
#define ROW_THREADS       2 /* they wait for fdatasync most of the time */

/* Reads that wait in front of a worker: enough to keep it busy while the loop does something else.
 */
#define JOBS_PER_THREAD 2

static void on_timeline(struct tenants_user *user, struct timeline *tl)
{
    struct server *server = CONTAINER_OF(user, struct server, tenants_user);
    if (!server->stopping) {
        attachment_start(server, tl);
    }
}

static void on_timeline_gone(struct tenants_user *user, struct timeline *tl)
{
    (void)user;
    struct attachment *attachment = attachment_find(tl);
    if (attachment != NULL) {
        attachment_stop(attachment);
    }
}

static void on_timeline_deleted(
    struct tenants_user *user, struct tenant *tenant, struct timeline_id id)
{
    (void)user;
    struct mirror *mirror = mirror_find(tenant);
    if (mirror != NULL) {
        mirror_deleted(mirror, id);
    }
}

static void on_timeline_durable(struct tenants_user *user, struct timeline *tl)
{
    (void)user;
    attachment_moved(tl);
}

static void on_flushed(struct tenants_user *user, struct tenant *tenant)
{
    attachments_room(CONTAINER_OF(user, struct server, tenants_user));
    struct mirror *mirror = mirror_find(tenant);
    if (mirror != NULL) {
        mirror_flushed(mirror);
    }
}

static void on_promise(struct tenants_user *user, struct tenant *tenant)
{
    (void)user;
    struct mirror *mirror = mirror_find(tenant);
    if (mirror != NULL) {
        mirror_flushed(mirror);
    }
}

static void on_rewritten(struct tenants_user *user, struct tenant *tenant)
{
    (void)user;
    struct mirror *mirror = mirror_find(tenant);
    if (mirror != NULL) {
        mirror_rewritten(mirror);
    }
}

static void on_tenant(struct tenants_user *user, struct tenant *tenant)
{
    struct server *server = CONTAINER_OF(user, struct server, tenants_user);
    if (!server->stopping) {
        mirror_start(server->mirrors, tenant);
    }
}

static void on_tenant_gone(struct tenants_user *user, struct tenant *tenant)
{
    (void)user;
    struct mirror *mirror = mirror_find(tenant);
    if (mirror != NULL) {
        mirror_stop(mirror);
    }
}

/* remote_lsn has moved: the safekeepers hear of it. */
static void on_timeline_uploaded(struct mirrors_user *user, struct timeline *tl)
{
    (void)user;
    attachment_moved(tl);
}

static err_t restore(
    struct tenants_user *user,
    struct tenant_id id,
    generation_t generation,
    const char *folder,
    struct errmsg *msg)
{
    struct server *server = CONTAINER_OF(user, struct server, tenants_user);
    struct download_result result;
    TRY(downloader_restore(server->objects, id, generation, folder, &result, msg));
    if (result.found) {
        log_info(
            NULL,
            "tenant %s: restored from index %08" PRIx32 "-%016" PRIx64 ", %zu files, %" PRIu64
            " bytes",
            tenant_id_text(id).text, result.generation, result.sequence, result.files,
            result.bytes);
    }
    return ERR_OK;
}

static struct link_user *on_accept(struct listener_user *user, struct link *link)
{
    return page_conn_accept(CONTAINER_OF(user, struct server, listener_user), link);
}

static void on_lag_timer(struct timer *timer)
{
    struct server *server = CONTAINER_OF(timer, struct server, lag_timer);
    attachments_observe(server);
    timer_start(server->options.loop, timer, OBSERVE_MS);
}

/* A file of its own: whoever empties the disk gets another identity. */
static err_t load_incarnation(struct server *server, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    TRY(str_format(path, sizeof(path), msg, "%s/incarnation", server->options.data_dir));
    err_t err = file_read_all(path, ID_TEXT_SIZE, &text, msg);
    if (err == ERR_NOT_FOUND) {
        uint8_t random[ID_SIZE];
        prng_secure(random, sizeof(random));
        format_hex(random, sizeof(random), server->incarnation);
        err = file_write_durably(path, bytes_of_str(server->incarnation), msg);
    } else if (err == ERR_OK) {
        err = str_copy(server->incarnation, sizeof(server->incarnation), buf_cstr(&text), msg);
    }
    buf_deinit(&text);
    return err;
}

static err_t collect_name(const struct objstore_entry *entry, void *context, struct errmsg *msg)
{
    struct buf *names = context; /* each with its NUL */
    (void)msg;
    buf_append(names, entry->name, strlen(entry->name) + 1);
    return ERR_OK;
}

static err_t note_object(const struct objstore_entry *entry, void *context, struct errmsg *msg)
{
    (void)entry;
    (void)msg;
    *(bool *)context = true;
    return ERR_OK;
}

static err_t has_objects(
    struct tenants_user *user, struct tenant_id id, bool *ret_has, struct errmsg *msg)
{
    struct server *server = CONTAINER_OF(user, struct server, tenants_user);
    struct remote_name prefix = remote_tenant_prefix(id);
    struct objstore_query query = {.prefix = prefix.text, .count_max = 1};
    *ret_has = false;
    return objstore_list(server->objects, &query, note_object, ret_has, msg);
}

/* Every object of a deleted tenant. */
static err_t erase_objects(struct tenants_user *user, struct tenant_id id, struct errmsg *msg)
{
    struct server *server = CONTAINER_OF(user, struct server, tenants_user);
    struct remote_name prefix = remote_tenant_prefix(id);
    struct objstore_query query = {.prefix = prefix.text};
    struct buf names = {0};
    err_t err = objstore_list(server->objects, &query, collect_name, &names, msg);
    for (size_t at = 0; at < names.size && err == ERR_OK;) {
        const char *name = (const char *)names.data + at;
        err = objstore_delete(server->objects, name, msg);
        at += strlen(name) + 1;
    }
    buf_deinit(&names);
    return err;
}

/* What goes to the object store, and what is swept up there. */
static void start_mirrors(struct server *server)
{
    const struct server_options *options = &server->options;
    server->mirrors_user.on_timeline_uploaded = on_timeline_uploaded;
    server->mirrors = mirrors_create(&(struct mirrors_options){
        .loop = options->loop,
        .executor = server->uploads,
        .objects = server->objects,
        .http = server->http_client,
        .control_url = options->control_url,
        .control_token = options->control_token,
        .node_id = options->node_id,
        .interval_ms = options->upload_interval_ms,
        .leaked_after_ms = options->leaked_after_ms,
        .user = &server->mirrors_user,
    });
    sweeper_start(
        &server->sweeper, &(struct sweeper_options){
                              .loop = options->loop,
                              .executor = server->uploads,
                              .objects = server->objects,
                              .interval_ms = options->leaked_after_ms,
                              .older_than_ms = options->leaked_after_ms,
                          });
}

static err_t open_stores(struct server *server, struct errmsg *msg)
{
    const struct server_options *options = &server->options;
    TRY(load_incarnation(server, msg));
    TRY(objstore_open(options->object_store, &server->objects, msg));
    start_mirrors(server);
    server->cache = page_cache_create(options->page_cache_bytes);
    server->reads = (struct page_read_service){
        .executor = options->executor,
        .cache = server->cache,
        .guess = memory_guess_create(),
        .wait_timeout_ms = options->wait_timeout_ms,
    };
    server->turns = turns_create(
        options->loop, options->executor,
        (size_t)JOBS_PER_THREAD * executor_threads(options->executor));
    server->feeds = feeds_create(&(struct feeds_options){
        .loop = options->loop,
        .node_id = options->node_id,
        .token = options->secret,
        .silence_max_ms = options->safekeeper_silence_ms,
    });
    server->tenants_user = (struct tenants_user){
        .on_timeline = on_timeline,
        .on_timeline_gone = on_timeline_gone,
        .on_timeline_deleted = on_timeline_deleted,
        .on_timeline_durable = on_timeline_durable,
        .on_flushed = on_flushed,
        .on_promise = on_promise,
        .on_rewritten = on_rewritten,
        .on_tenant = on_tenant,
        .on_tenant_gone = on_tenant_gone,
        .restore = restore,
        .is_elsewhere = has_objects,
        .erase = erase_objects,
    };
    struct tenants_options tenants = {
        .loop = options->loop,
        .executor = server->background,
        .rows = server->rows,
        .elsewhere = server->elsewhere,
        .data_dir = options->data_dir,
        .store =
            {
                .block_cache_bytes = options->block_cache_bytes,
            },
        .flush_bytes = options->flush_bytes,
        .slot_wal_keep_max = options->slot_wal_keep_max,
        .flush_age_ms = options->flush_age_ms,
        .layers_bytes = options->layers_bytes,
        .retention = options->retention,
        .gc_period_ms = options->gc_period_ms,
        .disk_reserve_bytes = options->disk_reserve_bytes,
        .user = &server->tenants_user,
    };
    return tenants_open(&tenants, &server->tenants, msg);
}

err_t server_start(struct server *server, const struct server_options *options, struct errmsg *msg)
{
    *server = (struct server){.options = *options};
    list_init(&server->attachments);
    list_init(&server->activities);
    list_init(&server->connections);
    list_init(&server->giving_ups);
    TRY(executor_create(options->loop, options->background_threads, &server->background, msg));
    TRY(executor_create(options->loop, ROW_THREADS, &server->rows, msg));
    TRY(executor_create(options->loop, ELSEWHERE_THREADS, &server->elsewhere, msg));
    TRY(executor_create(options->loop, 1, &server->copier, msg));
    TRY(executor_create(options->loop, 1, &server->walks, msg));
    TRY(executor_create(options->loop, options->upload_threads, &server->uploads, msg));
    TRY(http_client_create(options->loop, &server->http_client, msg));
    http_client_trust(server->http_client, options->tls_authorities);
    TRY(open_stores(server, msg));
    struct link_options link_options = {.idle_timeout_ms = 0};
    server->listener_user.on_accept = on_accept;
    TRY(listener_open(
        options->loop, options->host, options->port, options->connections_max, &link_options,
        &server->listener_user, &server->listener, msg));
    management_add_routes(server, options->http);
    server->lag_timer.on_fire = on_lag_timer;
    timer_start(options->loop, &server->lag_timer, OBSERVE_MS);
    log_info(
        NULL, "pageserver %" PRIu64 ", incarnation %s, port %u", options->node_id,
        server->incarnation, server_port(server));
    return ERR_OK;
}

uint16_t server_port(const struct server *server)
{
    return listener_port(server->listener);
}

/* Connections first, then imports and ingest, then the stores: each needs what comes after it. */
static void on_stop_timer(struct timer *timer)
{
    struct server *server = CONTAINER_OF(timer, struct server, stop_timer);
    if (!list_is_empty(&server->connections) || !list_is_empty(&server->attachments) ||
        !feeds_are_stopped(server->feeds) || !mirrors_are_stopped(server->mirrors) ||
        !sweeper_is_idle(&server->sweeper) || !list_is_empty(&server->giving_ups) ||
        !tenants_are_idle(server->tenants)) {
        timer_start(server->options.loop, timer, STOP_MS);
        return;
    }
    feeds_destroy(server->feeds);
    tenants_close(server->tenants);
    mirrors_destroy(server->mirrors);
    http_client_destroy(server->http_client);
    executor_destroy(server->uploads);
    executor_destroy(server->background);
    executor_destroy(server->rows);
    executor_destroy(server->elsewhere);
    executor_destroy(server->copier);
    executor_destroy(server->walks);
    turns_destroy(server->turns);
    page_cache_destroy(server->cache);
    memory_guess_destroy(server->reads.guess);
    objstore_close(server->objects);
    server->on_stopped(server);
}

static void cancel_waits(struct server *server)
{
    for (struct tenant *tenant = tenants_first(server->tenants); tenant != NULL;
         tenant = tenants_next(server->tenants, tenant)) {
        for (struct timeline *tl = tenant_first_timeline(tenant); tl != NULL;
             tl = tenant_next_timeline(tenant, tl)) {
            timeline_cancel_waiters(tl);
        }
    }
}

void server_stop(struct server *server, void (*on_stopped)(struct server *server))
{
    server->stopping = true;
    server->on_stopped = on_stopped;
    timer_stop(&server->lag_timer);
    listener_close(server->listener);
    page_conn_close_all(server);
    attachments_stop_all(server);
    feeds_stop(server->feeds);
    objstore_cancel(server->objects);
    mirrors_stop_all(server->mirrors);
    tenants_stop(server->tenants);
    sweeper_stop(&server->sweeper);
    cancel_waits(server);
    server->stop_timer.on_fire = on_stop_timer;
    timer_start(server->options.loop, &server->stop_timer, STOP_MS);
}

/* What an operator can do about it. */
static void tell_remedy(struct buf *reasons)
{
    buf_printf(
        reasons,
        "what is damaged on this disk is given up for the object store's copy of the tenant by "
        "POST /v1/tenants/TENANT/remote/restore\n");
}

void server_not_ready(struct server *server, struct buf *reasons)
{
    bool is_damaged = tenants_describe_shut(server->tenants, reasons);
    for (struct tenant *tenant = tenants_first(server->tenants); tenant != NULL;
         tenant = tenants_next(server->tenants, tenant)) {
        if (tenant_failure(tenant) != NULL) {
            buf_printf(
                reasons, "tenant %s: %s\n", tenant_id_text(tenant_id(tenant)).text,
                tenant_failure(tenant));
            is_damaged = true;
            continue;
        }
        if (tenant_full(tenant) != NULL) {
            buf_printf(
                reasons, "tenant %s: waits for room on the disk: %s\n",
                tenant_id_text(tenant_id(tenant)).text, tenant_full(tenant));
        }
        for (struct timeline *tl = tenant_first_timeline(tenant); tl != NULL;
             tl = tenant_next_timeline(tenant, tl)) {
            if (timeline_failure(tl) != NULL) {
                buf_printf(
                    reasons, "timeline %s of tenant %s: failed: %s\n",
                    timeline_id_text(timeline_info(tl)->id).text,
                    tenant_id_text(tenant_id(tenant)).text, timeline_failure(tl));
            }
        }
    }
    if (is_damaged) {
        tell_remedy(reasons);
    }
}
