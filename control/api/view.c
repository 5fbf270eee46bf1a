/*
 * view.c - objects as the API shows them, with every field that generated clients insist on.
 */
#include "common/base/clock.h"
#include "control/api/api_private.h"
#include "control/plan/usage.h"

static void set_time_or_null(struct doc *to, const char *key, wall_us_t time)
{
    if (time == 0) {
        doc_set(to, key, doc_null());
    } else {
        doc_set_time(to, key, time);
    }
}

/* For members that the published schema lets be absent, but not null. */
static void set_time_if_any(struct doc *to, const char *key, wall_us_t time)
{
    if (time != 0) {
        doc_set_time(to, key, time);
    }
}

static void set_zeros(struct doc *to, const char *const *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        doc_set_int(to, keys[i], 0);
    }
}

/* ---- project ---- */

/*
 * Of the month that is under way. What is stored counts up to the last full hour, so that a project
 * in which nothing happens looks the same for a while: clients ask with its ETag.
 */
static struct usage_row this_month(const struct api *api, const struct list *usages)
{
    wall_us_t now = api_now(api), hour = usage_begin(USAGE_HOURLY, now);
    struct usage_row row = {.begin = usage_begin(USAGE_MONTHLY, now)}, found;
    if (usage_frames(usages, USAGE_MONTHLY, now, now + 1, hour, &found, 1) == 1) {
        row = found;
    }
    return row;
}

static void set_usage(struct doc *doc, const struct usage_row *row)
{
    doc_set_int(doc, "active_time_seconds", (int64_t)(row->active_ms / 1000));
    doc_set_int(doc, "compute_time_seconds", (int64_t)(row->compute_ms / 1000));
    doc_set_int(doc, "cpu_used_sec", (int64_t)(row->compute_ms / 1000));
    doc_set_int(doc, "written_data_bytes", (int64_t)row->written_bytes);
}

static void set_project_usage(struct doc *doc, const struct api *api, const struct project *project)
{
    struct usage_row row = this_month(api, &project->usages);
    struct stored stored =
        project->measured.is_known ? project->measured.stored : usage_stored(&project->usages);
    set_usage(doc, &row);
    doc_set_time(doc, "consumption_period_start", MAX_OF(row.begin, project->row.created_at));
    doc_set_time(doc, "consumption_period_end", usage_end(USAGE_MONTHLY, row.begin));
    doc_set_int(doc, "active_time", (int64_t)(row.active_ms / 1000));
    doc_set_int(doc, "data_storage_bytes_hour", (int64_t)row.byte_hours.of[STORED_SYNTHETIC]);
    doc_set_int(doc, "synthetic_storage_size", (int64_t)stored.of[STORED_SYNTHETIC]);
}

struct doc *view_project_doc(const struct api *api, const struct project *project)
{
    static const char *const counters[] = {
        "branch_logical_size_limit", "branch_logical_size_limit_bytes", "data_transfer_bytes"};
    const struct project_row *row = &project->row;
    struct doc *doc = doc_object();
    doc_set_str(doc, "id", row->id);
    doc_set_str(doc, "name", row->name);
    doc_set_str(doc, "platform_id", "local");
    doc_set_str(doc, "provisioner", "k8s-pod");
    doc_set_str(doc, "region_id", row->region_id);
    doc_set_int(doc, "pg_version", (int64_t)row->pg_version);
    doc_set_str(doc, "proxy_host", "localhost");
    doc_set_bool(doc, "store_passwords", true);
    doc_set_str(doc, "creation_source", "console");
    doc_set_str(doc, "owner_id", USER_ID);
    doc_set_str(doc, "org_id", ORGANIZATION_ID);
    doc_set_int(doc, "history_retention_seconds", (int64_t)row->history_retention_seconds);
    doc_set(doc, "settings", row->settings == NULL ? doc_object() : doc_copy(row->settings));
    doc_set(doc, "default_endpoint_settings", doc_object());
    set_zeros(doc, counters, ARRAY_LEN(counters));
    set_project_usage(doc, api, project);
    doc_set_time(doc, "created_at", row->created_at);
    doc_set_time(doc, "updated_at", row->updated_at);
    if (project_is_recoverable(project)) {
        doc_set_time(doc, "deleted_at", row->deleted_at);
        doc_set_time(doc, "recoverable_until", row->recoverable_until);
    }
    doc_set_tenant(doc, "tenant_id", row->tenant); /* ours: for debugging with the other parts */
    return doc;
}

/* ---- branch ---- */

struct doc *view_branch_doc(const struct api *api, const struct branch *branch)
{
    static const char *const counters[] = {"data_transfer_bytes"};
    const struct usage_row used = this_month(api, &branch->usages);
    const struct branch_row *row = &branch->row;
    bool ready = row->state != BRANCH_INIT;
    struct doc *doc = doc_object();
    doc_set_str(doc, "id", row->id);
    doc_set_str(doc, "project_id", row->project_id);
    doc_set_str(doc, "name", row->name);
    const struct branch *parent = branch_shown_parent(branch);
    if (parent != NULL) {
        doc_set_str(doc, "parent_id", parent->row.id);
        doc_set_lsn(doc, "parent_lsn", row->start_lsn);
        if (row->parent_timestamp != 0) {
            doc_set_time(doc, "parent_timestamp", row->parent_timestamp);
        }
    }
    doc_set_str(doc, "current_state", ready ? "ready" : "init");
    if (!ready) {
        doc_set_str(doc, "pending_state", "ready");
    }
    doc_set_time(doc, "state_changed_at", row->state_changed_at);
    doc_set_str(doc, "init_source", "parent-data");
    doc_set_str(doc, "creation_source", "console");
    doc_set_bool(doc, "default", row->is_default);
    doc_set_bool(doc, "primary", row->is_default);
    doc_set_bool(doc, "protected", row->is_protected);
    if (row->expires_at != 0) {
        doc_set_time(doc, "expires_at", row->expires_at);
    }
    if (row->last_reset_at != 0) {
        doc_set_time(doc, "last_reset_at", row->last_reset_at);
    }
    if (row->restored_from[0] != '\0') {
        doc_set_str(doc, "restored_from", row->restored_from);
        doc_set_str(doc, "restore_status", row->is_finalized ? "finalized" : "restored");
    }
    if (row->restored_as[0] != '\0') {
        doc_set_str(doc, "restored_as", row->restored_as);
    }
    if (branch_is_recoverable(branch)) {
        struct doc *recovery = doc_set_time(doc_object(), "deleted_at", row->deleted_at);
        doc_set_time(recovery, "recoverable_until", row->recoverable_until);
        doc_set_str(recovery, "deletion_method", row->has_expired ? "ttl" : "user");
        doc_set(doc, "recovery", recovery);
    }
    if (branch->measured.is_known) {
        doc_set_int(doc, "logical_size", (int64_t)branch->logical_bytes);
    }
    set_zeros(doc, counters, ARRAY_LEN(counters));
    set_usage(doc, &used);
    doc_set_time(doc, "created_at", row->created_at);
    doc_set_time(doc, "updated_at", row->updated_at);
    doc_set_timeline(doc, "timeline_id", row->timeline);
    doc_set_lsn(doc, "start_lsn", row->start_lsn);
    return doc;
}

/* Roles without their passwords. */
struct doc *view_roles(const struct branch *branch)
{
    struct doc *array = doc_array();
    for (size_t i = 0; i < doc_count(branch->row.roles); i++) {
        const struct doc *stored = doc_at(branch->row.roles, i);
        struct doc *role = doc_set_str(doc_object(), "branch_id", branch->row.id);
        doc_set_str(role, "name", doc_value_str(doc_get(stored, "name")));
        doc_set_bool(role, "protected", false);
        doc_set_str(role, "authentication_method", "password");
        doc_set_time(role, "created_at", branch->row.created_at);
        doc_set_time(role, "updated_at", branch->row.updated_at);
        doc_push(array, role);
    }
    return array;
}

struct doc *view_databases(const struct branch *branch)
{
    struct doc *array = doc_array();
    for (size_t i = 0; i < doc_count(branch->row.databases); i++) {
        const struct doc *stored = doc_at(branch->row.databases, i);
        struct doc *database = doc_set_int(doc_object(), "id", (int64_t)i + 1);
        doc_set_str(database, "branch_id", branch->row.id);
        doc_set_str(database, "name", doc_value_str(doc_get(stored, "name")));
        doc_set_str(database, "owner_name", doc_value_str(doc_get(stored, "owner")));
        doc_set_time(database, "created_at", branch->row.created_at);
        doc_set_time(database, "updated_at", branch->row.updated_at);
        doc_push(array, database);
    }
    return array;
}

/* ---- endpoint ---- */

static const char *compute_host(const struct api *api, const struct endpoint *endpoint)
{
    const struct node *agent = nodes_find(api->nodes, NODE_AGENT, endpoint->row.agent);
    return agent == NULL ? "localhost" : agent->host;
}

/*
 * Through a gateway with a name, the endpoint is part of the host name; through one with an address
 * only, it has to be said in the options.
 */
static bool gateway_has_name(const struct api *api)
{
    const char *host = api->options.gateway_host;
    return host[0] != '\0' && strcmp(host, "localhost") != 0 && strchr(host, ':') == NULL &&
           host[strspn(host, "0123456789.")] != '\0';
}

/* Where clients connect: "ep-x.db.example.org", "127.0.0.1". */
static void append_host(
    const struct api *api, const struct endpoint *endpoint, bool pooled, struct buf *to)
{
    if (gateway_has_name(api)) {
        buf_printf(
            to, "%s%s.%s", endpoint->row.id, pooled ? "-pooler" : "", api->options.gateway_host);
    } else {
        bool gateway = api->options.gateway_host[0] != '\0';
        buf_printf(to, "%s", gateway ? api->options.gateway_host : compute_host(api, endpoint));
    }
}

static uint64_t client_port(const struct api *api, const struct endpoint *endpoint)
{
    return api->options.gateway_host[0] != '\0' ? api->options.gateway_port : endpoint->row.port;
}

/* "HOST:PORT": clients put it between @ and / of a URI as it is. */
static void set_host(struct doc *doc, const struct api *api, const struct endpoint *endpoint)
{
    struct buf host = {0};
    append_host(api, endpoint, false, &host);
    doc_set_str(doc, "proxy_host", buf_cstr(&host));
    buf_printf(&host, ":%" PRIu64, client_port(api, endpoint));
    doc_set_str(doc, "host", buf_cstr(&host));
    buf_deinit(&host);
    doc_set_int(doc, "port", (int64_t)client_port(api, endpoint));
}

static void set_endpoint_state(struct doc *doc, const struct endpoint *endpoint)
{
    bool running = endpoint->seen == COMPUTE_RUNNING;
    bool wanted = endpoint->row.wanted == ENDPOINT_ACTIVE;
    bool restarts = endpoint->row.wanted == ENDPOINT_RESTARTING;
    bool never = endpoint->row.started_at == 0 && endpoint->row.suspended_at == 0;
    doc_set_str(doc, "current_state", running ? "active" : never ? "init" : "idle");
    if (restarts) {
        doc_set_str(doc, "pending_state", "active");
    } else if (wanted != running && !(wanted && never && running)) {
        doc_set_str(doc, "pending_state", wanted ? "active" : "idle");
    }
    if (wanted && endpoint->seen == COMPUTE_STARTING && endpoint->seen_step[0] != '\0') {
        doc_set_str(doc, "step", endpoint->seen_step);
    }
    const char *error =
        endpoint->seen_error[0] != '\0' ? endpoint->seen_error : endpoint->row.last_error;
    if (!running && error[0] != '\0') {
        doc_set_str(doc, "error", error);
    }
}

static void set_what_it_shows(struct doc *doc, const struct branch_row *ephemeral)
{
    doc_set_lsn(doc, "lsn", ephemeral->start_lsn);
    if (ephemeral->parent_timestamp != 0) {
        doc_set_time(doc, "timestamp", ephemeral->parent_timestamp);
    }
    set_time_or_null(doc, "expires_at", ephemeral->expires_at);
}

/* Clients insist on a number; without a limit it is the smallest whole one. */
static struct doc *compute_units(uint64_t milli)
{
    bool is_whole = milli % 1000 == 0;
    return milli == 0 ? doc_int(1)
           : is_whole ? doc_int((int64_t)milli / 1000)
                      : doc_real((double)milli / 1000);
}

struct doc *view_endpoint_doc(const struct api *api, const struct endpoint *endpoint)
{
    const struct endpoint_row *row = &endpoint->row;
    struct doc *doc = doc_object();
    doc_set_str(doc, "id", row->id);
    doc_set_str(doc, "project_id", row->project_id);
    bool is_read_only = row->type == ENDPOINT_READ_ONLY;
    doc_set_str(doc, "branch_id", is_read_only ? row->source_branch_id : row->branch_id);
    if (is_read_only) {
        set_what_it_shows(doc, &endpoint->branch->row);
    }
    if (row->name[0] != '\0') {
        doc_set_str(doc, "name", row->name);
    }
    set_host(doc, api, endpoint);
    doc_set_str(doc, "region_id", endpoint->project->row.region_id);
    doc_set_str(doc, "type", endpoint_type_names[row->type]);
    doc_set(doc, "autoscaling_limit_min_cu", compute_units(row->cu_min_milli));
    doc_set(doc, "autoscaling_limit_max_cu", compute_units(row->cu_max_milli));
    set_endpoint_state(doc, endpoint);
    doc_set(
        doc, "settings",
        doc_set(
            doc_object(), "pg_settings",
            row->settings == NULL ? doc_object() : doc_copy(row->settings)));
    /* Its -pooler name leads to the gateway's pools; without a gateway there are none. */
    doc_set_bool(doc, "pooler_enabled", api->options.gateway_host[0] != '\0');
    doc_set_str(doc, "pooler_mode", "transaction");
    doc_set_bool(doc, "disabled", false);
    doc_set_bool(doc, "passwordless_access", false);
    doc_set_int(
        doc, "suspend_timeout_seconds",
        row->never_suspends ? -1 : (int64_t)row->suspend_timeout_seconds);
    doc_set_str(doc, "provisioner", "k8s-pod");
    doc_set_str(doc, "creation_source", "console");
    set_time_if_any(doc, "started_at", row->started_at);
    set_time_if_any(doc, "suspended_at", row->suspended_at);
    doc_set_time(doc, "created_at", row->created_at);
    doc_set_time(doc, "updated_at", row->updated_at);
    return doc;
}

struct doc *view_endpoints_of(const struct api *api, const struct branch *branch)
{
    struct doc *array = doc_array();
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        if (endpoint_is_live(endpoint)) {
            doc_push(array, view_endpoint_doc(api, endpoint));
        }
    }
    return array;
}

/* ---- connection URIs ---- */

static void append_escaped(struct buf *to, const char *text)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (const char *at = text; *at != '\0'; at++) {
        if (strchr(plain, *at) != NULL) {
            buf_append(to, at, 1);
        } else {
            buf_printf(to, "%%%02X", (unsigned)(uint8_t)*at);
        }
    }
}

static const struct doc *named(const struct doc *array, const char *name)
{
    for (size_t i = 0; i < doc_count(array); i++) {
        const char *here = doc_value_str(doc_get(doc_at(array, i), "name"));
        if (name == NULL || (here != NULL && strcmp(here, name) == 0)) {
            return doc_at(array, i);
        }
    }
    return NULL;
}

bool view_connection_uri(
    const struct api *api,
    const struct endpoint *endpoint,
    const char *role,
    const char *database,
    bool pooled,
    struct buf *to)
{
    const struct doc *with_role = named(endpoint->branch->row.roles, role);
    const struct doc *with_database = named(endpoint->branch->row.databases, database);
    const char *role_name = doc_value_str(doc_get(with_role, "name"));
    const char *password = doc_value_str(doc_get(with_role, "password"));
    const char *database_name = doc_value_str(doc_get(with_database, "name"));
    if (role_name == NULL || password == NULL || database_name == NULL) {
        return false;
    }
    buf_printf(to, "postgresql://");
    append_escaped(to, role_name);
    buf_printf(to, ":");
    append_escaped(to, password);
    buf_printf(to, "@");
    append_host(api, endpoint, pooled, to);
    buf_printf(to, ":%" PRIu64 "/", client_port(api, endpoint));
    append_escaped(to, database_name);
    if (api->options.gateway_host[0] != '\0') {
        buf_printf(to, "?sslmode=require&channel_binding=require");
        if (!gateway_has_name(api)) {
            buf_printf(to, "&options=endpoint%%3D%s%s", endpoint->row.id, pooled ? "-pooler" : "");
        }
    }
    return true;
}

static struct doc *connection_parameters(const struct api *api, const struct endpoint *endpoint)
{
    const struct doc *role = named(endpoint->branch->row.roles, NULL);
    const struct doc *database = named(endpoint->branch->row.databases, NULL);
    struct doc *doc = doc_object();
    doc_set_str(doc, "database", doc_value_str(doc_get(database, "name")));
    doc_set_str(doc, "role", doc_value_str(doc_get(role, "name")));
    doc_set_str(doc, "password", doc_value_str(doc_get(role, "password")));
    for (int pooled = 0; pooled <= 1; pooled++) {
        struct buf host = {0};
        append_host(api, endpoint, pooled == 1, &host);
        doc_set_str(doc, pooled == 1 ? "pooler_host" : "host", buf_cstr(&host));
        buf_deinit(&host);
    }
    doc_set_int(doc, "port", (int64_t)client_port(api, endpoint));
    return doc;
}

struct doc *view_connection_uris(const struct api *api, const struct branch *branch)
{
    struct doc *array = doc_array();
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        struct buf uri = {0};
        if (endpoint_is_live(endpoint) && doc_count(array) == 0 &&
            view_connection_uri(api, endpoint, NULL, NULL, false, &uri)) {
            struct doc *entry = doc_set_str(doc_object(), "connection_uri", buf_cstr(&uri));
            doc_set(entry, "connection_parameters", connection_parameters(api, endpoint));
            doc_push(array, entry);
        }
        buf_deinit(&uri);
    }
    return array;
}

/* ---- operation ---- */

struct doc *view_operation_doc(const struct operation *operation)
{
    const struct operation_row *row = &operation->row;
    bool running = row->status == STATUS_RUNNING;
    wall_us_t until = running ? clock_wall() : row->updated_at;
    struct doc *doc = doc_object();
    doc_set_str(doc, "id", row->id);
    doc_set_str(doc, "project_id", row->project_id);
    if (row->branch_id[0] != '\0') {
        doc_set_str(doc, "branch_id", row->branch_id);
    }
    if (row->endpoint_id[0] != '\0') {
        doc_set_str(doc, "endpoint_id", row->endpoint_id);
    }
    doc_set_str(doc, "action", operation_action_names[row->action]);
    doc_set_str(doc, "status", operation_status_names[row->status]);
    doc_set_int(doc, "failures_count", running ? (int64_t)operation->failures_count : 0);
    if (running && operation->failures_count > 0) {
        doc_set_time(doc, "retry_at", operation->retry_at);
    }
    const char *error = running ? operation->failure.text : row->error;
    if (error[0] != '\0') {
        doc_set_str(doc, "error", error);
    }
    doc_set_int(doc, "total_duration_ms", (until - row->created_at) / 1000);
    doc_set_time(doc, "created_at", row->created_at);
    doc_set_time(doc, "updated_at", row->updated_at);
    return doc;
}

struct doc *view_operations_of(const struct mutation *mutation)
{
    struct doc *array = doc_array();
    for (size_t i = 0; i < mutation->operation_count; i++) {
        const struct operation *operation =
            model_operation(mutation->api->model, mutation->operations[i]);
        if (operation != NULL) {
            doc_push(array, view_operation_doc(operation));
        }
    }
    return array;
}
