/*
 * roles.c - roles and databases of a branch: read, create, reset a password.
 *
 * They are part of the branch's row, so that every compute of the branch and every later branch of
 * it has them. A running compute is told at once by the reconciler. What is made with SQL beside
 * this is not known here.
 */
#include <stdio.h>

#include "control/api/api_private.h"
#include "control/model/name.h"

#define ROLES_MAX 500 /* of a branch; the same for databases */

/* ---- rules ---- */

static bool is_one_of(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

err_t check_role_name(struct mutation *mutation, const char *name, struct errmsg *msg)
{
    static const char *const reserved[] = {"postgres",     "public",       "none",
                                           "current_user", "current_role", "session_user"};
    if (name[0] == '\0' || strlen(name) > 63 || str_starts_with(name, "pg_") ||
        is_one_of(name, reserved, ARRAY_LEN(reserved))) {
        return mutation_refuse(
            mutation, 400, "ROLE_NAME_INVALID", msg,
            "role name \"%.100s\": expected 1 to 63 bytes, not starting with pg_ and not reserved",
            name);
    }
    return ERR_OK;
}

err_t check_database_name(struct mutation *mutation, const char *name, struct errmsg *msg)
{
    static const char *const reserved[] = {"postgres", "template0", "template1"};
    if (name[0] == '\0' || strlen(name) > 63 || is_one_of(name, reserved, ARRAY_LEN(reserved))) {
        return mutation_refuse(
            mutation, 400, "DATABASE_NAME_INVALID", msg,
            "database name \"%.100s\": expected 1 to 63 bytes and none of postgres, template0, "
            "template1",
            name);
    }
    return ERR_OK;
}

struct doc *new_role(const char *name)
{
    char password[PASSWORD_SIZE];
    name_password(password);
    return doc_set_str(doc_set_str(doc_object(), "name", name), "password", password);
}

struct doc *new_database(const char *name, const char *owner)
{
    return doc_set_str(doc_set_str(doc_object(), "name", name), "owner", owner);
}

struct doc *find_named(const struct doc *array, const char *name)
{
    for (size_t i = 0; i < doc_count(array); i++) {
        const char *here = doc_value_str(doc_get(doc_at(array, i), "name"));
        if (here != NULL && strcmp(here, name) == 0) {
            return doc_at(array, i);
        }
    }
    return NULL;
}

/* ---- read ---- */

static void list_roles(struct http_context *context, struct http_request *request)
{
    struct branch *branch = request_branch(api_of(context), request);
    if (branch != NULL) {
        http_respond_json(request, 200, doc_set(doc_object(), "roles", view_roles(branch)));
    }
}

static void answer_named(
    struct http_request *request, const char *kind, struct doc *array, const char *name)
{
    const struct doc *found = find_named(array, name);
    struct errmsg msg = {0};
    if (found == NULL) {
        err_ignore(err_set(&msg, ERR_NOT_FOUND, "%s %s not found", kind, name), "answered below");
        answer_not_found(request, &msg);
    } else {
        http_respond_json(request, 200, doc_set(doc_object(), kind, doc_copy(found)));
    }
    doc_unref(array);
}

static void get_role(struct http_context *context, struct http_request *request)
{
    struct branch *branch = request_branch(api_of(context), request);
    if (branch != NULL) {
        answer_named(request, "role", view_roles(branch), http_request_param(request, "role"));
    }
}

static void reveal_password(struct http_context *context, struct http_request *request)
{
    struct branch *branch = request_branch(api_of(context), request);
    struct errmsg msg = {0};
    if (branch == NULL) {
        return;
    }
    const char *name = http_request_param(request, "role");
    const struct doc *role = find_named(branch->row.roles, name);
    if (role == NULL) {
        err_ignore(err_set(&msg, ERR_NOT_FOUND, "role %s not found", name), "answered below");
        answer_not_found(request, &msg);
        return;
    }
    const char *password = doc_value_str(doc_get(role, "password"));
    http_respond_json(request, 200, doc_set_str(doc_object(), "password", password));
}

static void list_databases(struct http_context *context, struct http_request *request)
{
    struct branch *branch = request_branch(api_of(context), request);
    if (branch != NULL) {
        http_respond_json(request, 200, doc_set(doc_object(), "databases", view_databases(branch)));
    }
}

static void get_database(struct http_context *context, struct http_request *request)
{
    struct branch *branch = request_branch(api_of(context), request);
    if (branch != NULL) {
        answer_named(
            request, "database", view_databases(branch), http_request_param(request, "database"));
    }
}

/* ---- create and delete ---- */

/* A copy of the element; takes over `views`. */
static struct doc *deleted_from(struct doc *views, const char *name)
{
    struct doc *found = doc_copy(find_named(views, name));
    doc_unref(views);
    return found;
}

/* Docs in rows never change: a new list, with the elements of the old one. */
static struct doc *list_with(const struct doc *old, struct doc *added)
{
    struct doc *list = doc_array();
    for (size_t i = 0; i < doc_count(old); i++) {
        doc_push(list, doc_ref(doc_at(old, i)));
    }
    return added == NULL ? list : doc_push(list, added);
}

/* The row with its new list, and an operation for each compute that has to be told. */
static void put_contents(struct mutation *mutation, struct branch *branch, struct branch_row *row)
{
    mutation_put(mutation, ROW_BRANCH, row);
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        if (endpoint->row.wanted == ENDPOINT_ACTIVE) {
            mutation_operation(
                mutation, row->project_id, ACTION_APPLY_CONFIG, row->id, endpoint->row.id);
        }
    }
}

static err_t check_room(
    struct mutation *mutation,
    const struct doc *list,
    const char *kind,
    const char *name,
    struct errmsg *msg)
{
    if (find_named(list, name) != NULL) {
        return mutation_refuse(
            mutation, 409, "ALREADY_EXISTS", msg, "%s \"%s\" already exists", kind, name);
    }
    if (doc_count(list) >= ROLES_MAX) {
        return mutation_refuse(
            mutation, 422, "LIMIT_EXCEEDED", msg, "a branch has at most %d of them", ROLES_MAX);
    }
    return ERR_OK;
}

static struct doc *list_without(const struct doc *old, const char *name)
{
    struct doc *list = doc_array();
    for (size_t i = 0; i < doc_count(old); i++) {
        const char *here = doc_value_str(doc_get(doc_at(old, i), "name"));
        if (here == NULL || strcmp(here, name) != 0) {
            doc_push(list, doc_ref(doc_at(old, i)));
        }
    }
    return list;
}

static bool is_dropped(const struct branch *branch, const char *kinds, const char *name)
{
    const struct doc *names = doc_get(branch->row.dropped, kinds);
    for (size_t i = 0; i < doc_count(names); i++) {
        const char *here = doc_value_str(doc_at(names, i));
        if (here != NULL && strcmp(here, name) == 0) {
            return true;
        }
    }
    const struct doc *changed = doc_get(branch->row.dropped, "changed");
    for (size_t i = 0; i < doc_count(changed) && strcmp(kinds, "databases") == 0; i++) {
        const char *from = doc_value_str(doc_get(doc_at(changed, i), "from"));
        const char *to = doc_value_str(doc_get(doc_at(changed, i), "to"));
        if (from != NULL && to != NULL && strcmp(from, to) != 0 && strcmp(from, name) == 0) {
            return true;
        }
    }
    return false;
}

/* A copy with one name more. Emptied when a compute has made them go: see commit.c. */
static struct doc *dropped_with(const struct branch *branch, const char *kinds, const char *name)
{
    struct doc *dropped =
        branch->row.dropped == NULL ? doc_object() : doc_copy(branch->row.dropped);
    if (doc_get(dropped, kinds) == NULL) {
        doc_set(dropped, kinds, doc_array());
    }
    doc_push(doc_get(dropped, kinds), doc_str(name));
    return dropped;
}

/* Until a compute has dropped the old one, the new one would be taken for it. */
static err_t check_not_leaving(
    struct mutation *mutation,
    const struct branch *branch,
    const char *kinds,
    const char *name,
    struct errmsg *msg)
{
    return is_dropped(branch, kinds, name)
               ? mutation_refuse(
                     mutation, 423, "STILL_LEAVING", msg,
                     "\"%s\" was deleted and no compute of the branch has dropped it yet", name)
               : ERR_OK;
}

static bool sleeps_for_drop(const struct endpoint *endpoint)
{
    return endpoint_is_live(endpoint) && endpoint->row.type == ENDPOINT_READ_WRITE &&
           endpoint->row.wanted == ENDPOINT_IDLE;
}

/* What put_drop() starts counts for who made it. */
static err_t check_drop_quota(
    struct mutation *mutation, const struct branch *branch, struct errmsg *msg)
{
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        if (sleeps_for_drop(endpoint)) {
            TRY(check_compute_quota(mutation, endpoint->row.created_by, msg));
        }
    }
    return ERR_OK;
}

/* Only a compute can drop something: one that sleeps is started for it. */
static void put_drop(struct mutation *mutation, struct branch *branch, struct branch_row *row)
{
    mutation_put(mutation, ROW_BRANCH, row);
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        if (!endpoint_is_live(endpoint) || endpoint->row.type != ENDPOINT_READ_WRITE) {
            continue;
        }
        if (sleeps_for_drop(endpoint)) {
            struct endpoint_row started = endpoint->row;
            started.wanted = ENDPOINT_ACTIVE;
            mutation_cancel_running(mutation, &endpoint->running);
            mutation_put(mutation, ROW_ENDPOINT, &started);
            mutation_operation(
                mutation, row->project_id, ACTION_START_COMPUTE, row->id, endpoint->row.id);
        }
        mutation_operation(
            mutation, row->project_id, ACTION_APPLY_CONFIG, row->id, endpoint->row.id);
    }
}

/* The same list with one of it renamed or given away. */
static struct doc *list_changed(
    const struct doc *old, const char *name, const char *new_name, const char *new_owner)
{
    struct doc *list = doc_array();
    for (size_t i = 0; i < doc_count(old); i++) {
        const char *here = doc_value_str(doc_get(doc_at(old, i), "name"));
        bool is_it = here != NULL && strcmp(here, name) == 0;
        doc_push(list, is_it ? new_database(new_name, new_owner) : doc_ref(doc_at(old, i)));
    }
    return list;
}

static struct doc *dropped_with_change(
    const struct branch *branch, const char *from, const char *to, const char *owner)
{
    struct doc *dropped =
        branch->row.dropped == NULL ? doc_object() : doc_copy(branch->row.dropped);
    if (doc_get(dropped, "changed") == NULL) {
        doc_set(dropped, "changed", doc_array());
    }
    struct doc *item = doc_set_str(doc_object(), "from", from);
    doc_set_str(item, "to", to);
    doc_push(doc_get(dropped, "changed"), doc_set_str(item, "owner", owner));
    return dropped;
}

static err_t check_new_name(
    struct mutation *mutation, const struct branch *branch, const char *name, struct errmsg *msg)
{
    TRY(check_database_name(mutation, name, msg));
    if (find_named(branch->row.databases, name) != NULL) {
        return mutation_refuse(
            mutation, 409, "ALREADY_EXISTS", msg, "database \"%s\" already exists", name);
    }
    return check_not_leaving(mutation, branch, "databases", name, msg);
}

/* A compute ends the sessions in it for a new name; one that sleeps is started. */
static err_t decide_change_database(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL;
    struct doc *wish = NULL;
    TRY(find_branch(mutation->api, mutation->project_id, mutation->branch_id, &branch, msg));
    TRY(doc_get_object(mutation->body, "database", &wish, msg));
    const struct doc *database = find_named(branch->row.databases, mutation->name);
    if (database == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "database %s not found", mutation->name);
    }
    const char *name = mutation->name, *owner = doc_value_str(doc_get(database, "owner"));
    TRY(doc_opt_str(wish, "name", &name, msg));
    TRY(doc_opt_str(wish, "owner_name", &owner, msg));
    if (find_named(branch->row.roles, owner) == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "role %s not found", owner);
    }
    bool is_renamed = strcmp(name, mutation->name) != 0;
    if (!is_renamed && strcmp(owner, doc_value_str(doc_get(database, "owner"))) == 0) {
        return ERR_OK; /* nothing that a compute would have to be woken for */
    }
    if (is_renamed) {
        TRY(check_new_name(mutation, branch, name, msg));
    }
    TRY(check_drop_quota(mutation, branch, msg));
    struct branch_row row = branch->row;
    row.dropped = dropped_with_change(branch, mutation->name, name, owner);
    row.databases = list_changed(branch->row.databases, mutation->name, name, owner);
    put_drop(mutation, branch, &row);
    doc_unref(row.databases);
    doc_unref(row.dropped);
    if (is_renamed) {
        snprintf(mutation->name, sizeof mutation->name, "%s", name); /* of what is answered */
    }
    return ERR_OK;
}

static err_t decide_delete_role(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL;
    TRY(find_branch(mutation->api, mutation->project_id, mutation->branch_id, &branch, msg));
    if (find_named(branch->row.roles, mutation->name) == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "role %s not found", mutation->name);
    }
    for (size_t i = 0; i < doc_count(branch->row.databases); i++) {
        const struct doc *database = doc_at(branch->row.databases, i);
        const char *owner = doc_value_str(doc_get(database, "owner"));
        if (owner != NULL && strcmp(owner, mutation->name) == 0) {
            return mutation_refuse(
                mutation, 422, "ROLE_OWNS_DATABASE", msg,
                "role \"%s\" owns the database \"%s\": delete that, or give it to another role",
                owner, doc_value_str(doc_get(database, "name")));
        }
    }
    TRY(check_drop_quota(mutation, branch, msg));
    mutation->deleted = deleted_from(view_roles(branch), mutation->name);
    struct branch_row row = branch->row;
    row.roles = list_without(branch->row.roles, mutation->name);
    row.dropped = dropped_with(branch, "roles", mutation->name);
    put_drop(mutation, branch, &row);
    doc_unref(row.roles);
    doc_unref(row.dropped);
    return ERR_OK;
}

static err_t decide_delete_database(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL;
    TRY(find_branch(mutation->api, mutation->project_id, mutation->branch_id, &branch, msg));
    if (find_named(branch->row.databases, mutation->name) == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "database %s not found", mutation->name);
    }
    TRY(check_drop_quota(mutation, branch, msg));
    mutation->deleted = deleted_from(view_databases(branch), mutation->name);
    struct branch_row row = branch->row;
    row.databases = list_without(branch->row.databases, mutation->name);
    row.dropped = dropped_with(branch, "databases", mutation->name);
    put_drop(mutation, branch, &row);
    doc_unref(row.databases);
    doc_unref(row.dropped);
    return ERR_OK;
}

/* The object as it was last. */
static struct doc *answer_deleted(struct mutation *mutation, const char *kind)
{
    struct doc *doc = doc_set(doc_object(), kind, mutation->deleted);
    mutation->deleted = NULL;
    return doc_set(doc, "operations", view_operations_of(mutation));
}

static struct doc *answer_deleted_role(struct mutation *mutation)
{
    return answer_deleted(mutation, "role");
}

static struct doc *answer_deleted_database(struct mutation *mutation)
{
    return answer_deleted(mutation, "database");
}

static err_t decide_role(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL;
    struct doc *wish = NULL;
    const char *name = NULL;
    TRY(find_branch(mutation->api, mutation->project_id, mutation->branch_id, &branch, msg));
    TRY(doc_get_object(mutation->body, "role", &wish, msg));
    TRY(doc_get_str(wish, "name", &name, msg));
    TRY(check_role_name(mutation, name, msg));
    TRY(check_room(mutation, branch->row.roles, "role", name, msg));
    TRY(check_not_leaving(mutation, branch, "roles", name, msg));
    struct branch_row row = branch->row;
    row.roles = list_with(branch->row.roles, new_role(name));
    put_contents(mutation, branch, &row);
    doc_unref(row.roles);
    snprintf(mutation->name, sizeof mutation->name, "%s", name);
    return ERR_OK;
}

static err_t decide_password(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL;
    TRY(find_branch(mutation->api, mutation->project_id, mutation->branch_id, &branch, msg));
    if (find_named(branch->row.roles, mutation->name) == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "role %s not found", mutation->name);
    }
    struct branch_row row = branch->row;
    row.roles = doc_array();
    for (size_t i = 0; i < doc_count(branch->row.roles); i++) {
        struct doc *role = doc_at(branch->row.roles, i);
        const char *name = doc_value_str(doc_get(role, "name"));
        bool is_it = name != NULL && strcmp(name, mutation->name) == 0;
        doc_push(row.roles, is_it ? new_role(name) : doc_ref(role));
    }
    put_contents(mutation, branch, &row);
    doc_unref(row.roles);
    return ERR_OK;
}

static err_t decide_database(struct mutation *mutation, struct errmsg *msg)
{
    struct branch *branch = NULL;
    struct doc *wish = NULL;
    const char *name = NULL, *owner = NULL;
    TRY(find_branch(mutation->api, mutation->project_id, mutation->branch_id, &branch, msg));
    TRY(doc_get_object(mutation->body, "database", &wish, msg));
    TRY(doc_get_str(wish, "name", &name, msg));
    TRY(doc_get_str(wish, "owner_name", &owner, msg));
    TRY(check_database_name(mutation, name, msg));
    TRY(check_room(mutation, branch->row.databases, "database", name, msg));
    TRY(check_not_leaving(mutation, branch, "databases", name, msg));
    if (find_named(branch->row.roles, owner) == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "role %s not found", owner);
    }
    struct branch_row row = branch->row;
    row.databases = list_with(branch->row.databases, new_database(name, owner));
    put_contents(mutation, branch, &row);
    doc_unref(row.databases);
    snprintf(mutation->name, sizeof mutation->name, "%s", name);
    return ERR_OK;
}

/* The only answers, besides reveal_password, that hold a password. */
static struct doc *answer_role(struct mutation *mutation)
{
    const struct branch *branch = model_branch(mutation->api->model, mutation->branch_id);
    struct doc *views = view_roles(branch);
    struct doc *role = doc_copy(find_named(views, mutation->name));
    const struct doc *stored = find_named(branch->row.roles, mutation->name);
    doc_set_str(role, "password", doc_value_str(doc_get(stored, "password")));
    doc_unref(views);
    struct doc *doc = doc_set(doc_object(), "role", role);
    return doc_set(doc, "operations", view_operations_of(mutation));
}

static struct doc *answer_database(struct mutation *mutation)
{
    const struct branch *branch = model_branch(mutation->api->model, mutation->branch_id);
    struct doc *views = view_databases(branch);
    struct doc *doc =
        doc_set(doc_object(), "database", doc_copy(find_named(views, mutation->name)));
    doc_unref(views);
    return doc_set(doc, "operations", view_operations_of(mutation));
}

static void post_role(struct http_context *context, struct http_request *request)
{
    mutation_start(context, request, decide_role, answer_role, 201);
}

static void post_database(struct http_context *context, struct http_request *request)
{
    mutation_start(context, request, decide_database, answer_database, 201);
}

static void start_on_one(
    struct http_context *context,
    struct http_request *request,
    mutation_decide_fn decide,
    mutation_answer_fn answer,
    const char *parameter)
{
    struct mutation *mutation = mutation_create(context, request, decide, answer, 200);
    if (mutation != NULL) {
        const char *name = http_request_param(request, parameter);
        snprintf(mutation->name, sizeof mutation->name, "%s", name);
        mutation_submit(mutation);
    }
}

static void post_password(struct http_context *context, struct http_request *request)
{
    start_on_one(context, request, decide_password, answer_role, "role");
}

static void delete_role(struct http_context *context, struct http_request *request)
{
    start_on_one(context, request, decide_delete_role, answer_deleted_role, "role");
}

static void patch_database(struct http_context *context, struct http_request *request)
{
    start_on_one(context, request, decide_change_database, answer_database, "database");
}

static void delete_database(struct http_context *context, struct http_request *request)
{
    start_on_one(context, request, decide_delete_database, answer_deleted_database, "database");
}

#define B "/api/v2/projects/{project}/branches/{branch}"
const struct http_route role_routes[] = {
    ROUTE("GET", B "/roles", list_roles, "roles of a branch"),
    ROUTE("POST", B "/roles", post_role, "create a role with a random password"),
    ROUTE("GET", B "/roles/{role}", get_role, "one role"),
    ROUTE("GET", B "/roles/{role}/reveal_password", reveal_password, "its password"),
    ROUTE("POST", B "/roles/{role}/reset_password", post_password, "give it a new password"),
    ROUTE("DELETE", B "/roles/{role}", delete_role, "drop it; what it owned goes to others"),
    ROUTE("GET", B "/databases", list_databases, "databases of a branch"),
    ROUTE("POST", B "/databases", post_database, "create a database for a role"),
    ROUTE("GET", B "/databases/{database}", get_database, "one database"),
    ROUTE("PATCH", B "/databases/{database}", patch_database, "name, owner_name"),
    ROUTE("DELETE", B "/databases/{database}", delete_database, "drop it, with its sessions"),
};
const size_t role_route_count = ARRAY_LEN(role_routes);
