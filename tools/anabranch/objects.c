#include "tools/anabranch/objects.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/parse.h"
#include "tools/anabranch/completion.h"
#include "tools/anabranch/output.h"
#include "tools/anabranch/preview.h"
#include "tools/anabranch/snapshots.h"
#include "tools/anabranch/storage.h"

#define PAGE_LIMIT  100
#define HARD_DELETE "?hard_delete=true"
#define ID_MAX      OBJECTS_ID_SIZE

static const char *const project_columns[] = {
    "ID=id", "NAME=name", "PG=pg_version", "CREATED=created_at"};
static const char *const branch_columns[] = {"ID=id",
                                             "NAME=name",
                                             "DEFAULT=default",
                                             "STATE=current_state",
                                             "PARENT=parent_id",
                                             "LSN=start_lsn",
                                             "CREATED=created_at"};
static const char *const endpoint_columns[] = {
    "ID=id", "BRANCH=branch_id", "TYPE=type", "STATE=current_state", "HOST=host", "ERROR=error"};
static const char *const operation_columns[] = {
    "ID=id",
    "ACTION=action",
    "STATUS=status",
    "MS=total_duration_ms",
    "BRANCH=branch_id",
    "CREATED=created_at",
    "ERROR=error"};
static const char *const snapshot_columns[] = {
    "ID=id",       "NAME=name",          "BRANCH=source_branch_id", "LSN=lsn",
    "STATE=state", "CREATED=created_at", "EXPIRES=expires_at"};

static const char *const deleted_project_columns[] = {
    "ID=id", "NAME=name", "DELETED=deleted_at", "UNTIL=recoverable_until"};
static const char *const deleted_branch_columns[] = {
    "ID=id", "NAME=name", "PARENT=parent_id", "DELETED=recovery.deleted_at",
    "UNTIL=recovery.recoverable_until"};

struct kind {
    const char *plural, *singular;
    const char *const *columns;
    size_t column_count;
};
static const struct kind kinds[] = {
    {"projects", "project", project_columns, ARRAY_LEN(project_columns)},
    {"branches", "branch", branch_columns, ARRAY_LEN(branch_columns)},
    {"endpoints", "endpoint", endpoint_columns, ARRAY_LEN(endpoint_columns)},
    {"operations", "operation", operation_columns, ARRAY_LEN(operation_columns)},
    {"snapshots", "snapshot", snapshot_columns, ARRAY_LEN(snapshot_columns)},
};

static const struct kind deleted_kinds[] = {
    {"projects", "project", deleted_project_columns, ARRAY_LEN(deleted_project_columns)},
    {"branches", "branch", deleted_branch_columns, ARRAY_LEN(deleted_branch_columns)},
};

static const struct kind *kind_of(const char *word)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(kinds[i].plural, word) == 0 || strcmp(kinds[i].singular, word) == 0) {
            return &kinds[i];
        }
    }
    return NULL;
}

bool objects_knows(const char *word)
{
    return kind_of(word) != NULL || strcmp(word, "connection-string") == 0;
}

/* ---- which project, which branch ---- */

/* As it stands in a path. */
static err_t escaped(const char *id, char ret_id[ID_MAX], struct errmsg *msg)
{
    struct buf text = {0};
    context_escape(&text, id);
    err_t err = str_copy(ret_id, ID_MAX, buf_cstr(&text), msg);
    buf_deinit(&text);
    return err;
}

/* --project, ANABRANCH_PROJECT, or the only one there is. */
err_t objects_find_project(struct context *context, char ret_id[ID_MAX], struct errmsg *msg)
{
    const char *given = args_flag(context->args, "project");
    if (given == NULL) {
        given = getenv("ANABRANCH_PROJECT"); // NOLINT(concurrency-mt-unsafe)
    }
    if (given != NULL && given[0] != '\0') {
        return escaped(given, ret_id, msg);
    }
    struct doc *answer = NULL;
    TRY(context_call(context, "GET", "/projects?limit=2", NULL, &answer, msg));
    const struct doc *projects = doc_get(answer, "projects");
    const char *id = doc_value_str(doc_get(doc_at(projects, 0), "id"));
    err_t err = ERR_OK;
    if (doc_count(projects) != 1 || id == NULL) {
        err = err_set(
            msg, ERR_INVALID, "%s: say --project ID (anabranch projects list shows them)",
            doc_count(projects) == 0 ? "there is no project yet" : "there are several projects");
    } else {
        err = str_copy(ret_id, ID_MAX, id, msg);
    }
    doc_unref(answer);
    return err;
}

/* An id, a name, or NULL for the default branch. */
err_t objects_find_branch(
    struct context *context,
    const char *project,
    const char *wanted,
    char ret_id[ID_MAX],
    struct errmsg *msg)
{
    struct buf path = {0};
    struct doc *answer = NULL;
    const char *found = NULL;
    buf_printf(&path, "/projects/%s/branches", project);
    err_t err = context_call(context, "GET", buf_cstr(&path), NULL, &answer, msg);
    const struct doc *branches = doc_get(answer, "branches");
    for (size_t i = 0; i < doc_count(branches) && err == ERR_OK; i++) {
        const struct doc *branch = doc_at(branches, i);
        const char *id = doc_value_str(doc_get(branch, "id"));
        const char *name = doc_value_str(doc_get(branch, "name"));
        bool is_default = false;
        err = doc_opt_bool(branch, "default", &is_default, msg);
        if (wanted == NULL ? is_default : strcmp(id, wanted) == 0 || strcmp(name, wanted) == 0) {
            found = id;
        }
    }
    if (err == ERR_OK && found == NULL) {
        err = err_set(
            msg, ERR_NOT_FOUND, "project %s has no branch \"%s\"", project,
            wanted == NULL ? "(default)" : wanted);
    }
    if (err == ERR_OK) {
        err = str_copy(ret_id, ID_MAX, found, msg);
    }
    doc_unref(answer);
    buf_deinit(&path);
    return err;
}

/* An id, or the name of the one that was deleted last under it. */
static err_t find_deleted_branch(
    struct context *context,
    const char *project,
    const char *wanted,
    char ret_id[ID_MAX],
    struct errmsg *msg)
{
    char path[256];
    struct doc *answer = NULL;
    const char *found = NULL, *found_at = "";
    TRY(str_format(path, sizeof path, msg, "/projects/%s/branches?include_deleted=true", project));
    TRY(context_call(context, "GET", path, NULL, &answer, msg));
    const struct doc *branches = doc_get(answer, "branches");
    for (size_t i = 0; i < doc_count(branches); i++) {
        const struct doc *branch = doc_at(branches, i);
        const char *id = doc_value_str(doc_get(branch, "id"));
        const char *name = doc_value_str(doc_get(branch, "name"));
        const char *at = doc_value_str(doc_get(doc_get(branch, "recovery"), "deleted_at"));
        bool is_it = id != NULL && name != NULL &&
                     (strcmp(id, wanted) == 0 || (at != NULL && strcmp(name, wanted) == 0));
        if (is_it && (at == NULL || strcmp(at, found_at) >= 0)) {
            found = id;
            found_at = at == NULL ? found_at : at;
        }
    }
    err_t err = found != NULL ? str_copy(ret_id, ID_MAX, found, msg)
                              : err_set(
                                    msg, ERR_NOT_FOUND,
                                    "project %s has no deleted branch \"%s\" that can be recovered",
                                    project, wanted);
    doc_unref(answer);
    return err;
}

/* ---- waiting ---- */

static err_t wait_for_operation(
    struct context *context, const struct doc *operation, struct errmsg *msg)
{
    const char *id = NULL, *project = NULL, *action = NULL;
    TRY(doc_get_str(operation, "id", &id, msg));
    TRY(doc_get_str(operation, "project_id", &project, msg));
    TRY(doc_get_str(operation, "action", &action, msg));
    for (;;) {
        char path[256];
        char status[32];
        struct doc *answer = NULL;
        TRY(str_format(path, sizeof path, msg, "/projects/%s/operations/%s?wait=5s", project, id));
        TRY(context_call(context, "GET", path, NULL, &answer, msg));
        const struct doc *now = doc_get(answer, "operation");
        const char *text = doc_value_str(doc_get(now, "status"));
        const char *error = doc_value_str(doc_get(now, "error"));
        snprintf(status, sizeof status, "%s", text == NULL ? "" : text);
        if (strcmp(status, "running") == 0) {
            output_progress("%s: running%s%s\n", action, error ? ", " : "", error ? error : "");
        }
        err_t err = ERR_OK;
        if (strcmp(status, "failed") == 0 || strcmp(status, "error") == 0) {
            err = err_set(
                msg, ERR_FAILED, "%s failed: %s", action, error == NULL ? "(no reason)" : error);
        }
        doc_unref(answer);
        if (err != ERR_OK || strcmp(status, "running") != 0) {
            return err;
        }
    }
}

err_t objects_wait(struct context *context, const struct doc *operations, struct errmsg *msg)
{
    for (size_t i = 0; i < doc_count(operations); i++) {
        TRY(wait_for_operation(context, doc_at(operations, i), msg));
    }
    return ERR_OK;
}

static err_t wait_for_all(struct context *context, const struct doc *answer, struct errmsg *msg)
{
    return args_has(context->args, "no-wait")
               ? ERR_OK
               : objects_wait(context, doc_get(answer, "operations"), msg);
}

/* ---- printing ---- */

static void print_one(const struct context *context, const struct kind *kind, const struct doc *doc)
{
    const struct doc *uris = doc_get(doc, "connection_uris");
    if (context->json) {
        output_json(doc);
        return;
    }
    output_object(doc_get(doc, kind->singular), kind->columns, kind->column_count);
    for (size_t i = 0; i < doc_count(uris); i++) {
        const char *uri = doc_value_str(doc_get(doc_at(uris, i), "connection_uri"));
        output_line("URI", uri == NULL ? "" : uri);
    }
}

/* ---- list ---- */

/* All pages in one array. */
static err_t list_all(
    struct context *context,
    const struct kind *kind,
    const char *base,
    const char *query,
    struct doc **ret_all,
    struct errmsg *msg)
{
    struct doc *all = doc_array();
    char cursor[ID_MAX] = "";
    for (;;) {
        struct buf path = {0};
        struct doc *answer = NULL;
        buf_printf(&path, "%s?limit=%d%s", base, PAGE_LIMIT, query);
        if (cursor[0] != '\0') {
            buf_printf(&path, "&cursor=%s", cursor);
        }
        err_t err = context_call(context, "GET", buf_cstr(&path), NULL, &answer, msg);
        buf_deinit(&path);
        if (err != ERR_OK) {
            doc_unref(all);
            return err;
        }
        const struct doc *page = doc_get(answer, kind->plural);
        for (size_t i = 0; i < doc_count(page); i++) {
            doc_push(all, doc_ref(doc_at(page, i)));
        }
        const struct doc *pagination = doc_get(answer, "pagination");
        const char *next = doc_value_str(doc_get(pagination, "next"));
        next = next != NULL ? next : doc_value_str(doc_get(pagination, "cursor"));
        bool more = next != NULL && doc_count(page) == PAGE_LIMIT;
        snprintf(cursor, sizeof cursor, "%s", more ? next : "");
        doc_unref(answer);
        if (!more) {
            *ret_all = all;
            return ERR_OK;
        }
    }
}

/* What can be recovered, and nothing else. */
static err_t list_deleted(
    struct context *context,
    const struct kind *kind,
    const char *base,
    struct doc **ret_all,
    struct errmsg *msg)
{
    struct doc *all = NULL, *deleted = doc_array();
    if (kind == &deleted_kinds[0]) {
        doc_unref(deleted);
        return list_all(context, kind, base, "&recoverable=true", ret_all, msg);
    }
    err_t err = list_all(context, kind, base, "&include_deleted=true", &all, msg);
    for (size_t i = 0; i < doc_count(all) && err == ERR_OK; i++) {
        if (doc_get(doc_at(all, i), "recovery") != NULL) {
            doc_push(deleted, doc_ref(doc_at(all, i)));
        }
    }
    doc_unref(all);
    if (err != ERR_OK) {
        doc_unref(deleted);
        return err;
    }
    *ret_all = deleted;
    return ERR_OK;
}

static err_t list(
    struct context *context, const struct kind *kind, const char *base, struct errmsg *msg)
{
    struct doc *all = NULL;
    bool has_deleted = kind == &kinds[0] || kind == &kinds[1];
    bool deleted = has_deleted && args_has(context->args, "deleted");
    TRY(args_check_used(context->args, msg));
    kind = deleted ? &deleted_kinds[kind - kinds] : kind;
    TRY(deleted ? list_deleted(context, kind, base, &all, msg)
                : list_all(context, kind, base, "", &all, msg));
    if (context->json) {
        struct doc *doc = doc_set(doc_object(), kind->plural, all);
        output_json(doc);
        doc_unref(doc);
    } else {
        output_table(all, kind->columns, kind->column_count);
        doc_unref(all);
    }
    return ERR_OK;
}

/* ---- create ---- */

static void set_if_given(struct context *context, struct doc *to, const char *key, const char *flag)
{
    const char *value = args_flag(context->args, flag);
    if (value != NULL) {
        doc_set_str(to, key, value);
    }
}

static struct doc *project_wish(struct context *context)
{
    struct doc *branch = doc_object();
    set_if_given(context, branch, "role_name", "role");
    set_if_given(context, branch, "database_name", "database");
    set_if_given(context, branch, "name", "branch");
    struct doc *project = doc_set(doc_object(), "branch", branch);
    set_if_given(context, project, "name", "name");
    return doc_set(doc_object(), "project", project);
}

static err_t branch_wish(
    struct context *context, const char *project, struct doc **ret_wish, struct errmsg *msg)
{
    const char *parent = args_flag(context->args, "parent");
    char parent_id[ID_MAX];
    TRY(objects_find_branch(context, project, parent, parent_id, msg));
    struct doc *branch = doc_set_str(doc_object(), "parent_id", parent_id);
    set_if_given(context, branch, "name", "name");
    set_if_given(context, branch, "parent_lsn", "lsn");
    set_if_given(context, branch, "parent_timestamp", "time");
    if (args_has(context->args, "protected")) {
        doc_set_bool(branch, "protected", true);
    }
    struct doc *wish = doc_set(doc_object(), "branch", branch);
    if (!args_has(context->args, "no-endpoint")) {
        struct doc *endpoint = doc_set_str(doc_object(), "type", "read_write");
        doc_set(wish, "endpoints", doc_push(doc_array(), endpoint));
    }
    *ret_wish = wish;
    return ERR_OK;
}

static err_t endpoint_wish(
    struct context *context, const char *project, struct doc **ret_wish, struct errmsg *msg)
{
    char branch_id[ID_MAX];
    TRY(objects_find_branch(context, project, args_flag(context->args, "branch"), branch_id, msg));
    struct doc *endpoint = doc_set_str(doc_object(), "branch_id", branch_id);
    bool is_read_only = args_has(context->args, "read-only");
    doc_set_str(endpoint, "type", is_read_only ? "read_only" : "read_write");
    set_if_given(context, endpoint, "name", "name");
    set_if_given(context, endpoint, "lsn", "lsn");
    set_if_given(context, endpoint, "timestamp", "time");
    *ret_wish = doc_set(doc_object(), "endpoint", endpoint);
    return ERR_OK;
}

/* The object as it is now that its operations have ended; of a deleted one the old view stays. */
static void refresh(struct context *context, const struct kind *kind, struct doc *answer)
{
    char path[512];
    struct doc *now = NULL;
    struct errmsg msg = {0};
    const struct doc *object = doc_get(answer, kind->singular);
    const char *id = doc_value_str(doc_get(object, "id"));
    const char *project = doc_value_str(doc_get(object, "project_id"));
    if (id == NULL) {
        return;
    }
    if (project == NULL) {
        snprintf(path, sizeof path, "/projects/%s", id);
    } else {
        snprintf(path, sizeof path, "/projects/%s/%s/%s", project, kind->plural, id);
    }
    if (context_call(context, "GET", path, NULL, &now, &msg) == ERR_OK) {
        doc_set(answer, kind->singular, doc_ref(doc_get(now, kind->singular)));
    }
    doc_unref(now);
}

/* A call whose answer holds the object and its operations. */
static err_t mutate(
    struct context *context,
    const struct kind *kind,
    const char *method,
    const char *path,
    struct doc *body,
    struct errmsg *msg)
{
    struct doc *answer = NULL;
    bool wait = !args_has(context->args, "no-wait");
    err_t err = args_check_used(context->args, msg);
    if (err != ERR_OK) {
        doc_unref(body);
        return err;
    }
    TRY(context_call(context, method, path, body, &answer, msg));
    if (wait) {
        err = wait_for_all(context, answer, msg);
        refresh(context, kind, answer);
    }
    print_one(context, kind, answer); /* also when it goes on: it has the ids */
    doc_unref(answer);
    return err;
}

err_t objects_mutate(
    struct context *context,
    const char *singular,
    const char *method,
    const char *path,
    struct doc *body,
    struct errmsg *msg)
{
    return mutate(context, kind_of(singular), method, path, body, msg);
}

static err_t create(
    struct context *context,
    const struct kind *kind,
    const char *base,
    const char *project,
    struct errmsg *msg)
{
    struct doc *wish = NULL;
    if (kind == &kinds[0]) {
        wish = project_wish(context);
    } else if (kind == &kinds[1]) {
        TRY(branch_wish(context, project, &wish, msg));
    } else if (kind == &kinds[2]) {
        TRY(endpoint_wish(context, project, &wish, msg));
    } else if (kind == &kinds[4]) {
        return snapshots_create(context, project, msg);
    } else {
        return err_set(msg, ERR_INVALID, "operations come from other commands");
    }
    return mutate(context, kind, "POST", base, wish, msg);
}

/* ---- one object ---- */

static err_t get(
    struct context *context, const struct kind *kind, const char *path, struct errmsg *msg)
{
    struct doc *answer = NULL;
    TRY(args_check_used(context->args, msg));
    TRY(context_call(context, "GET", path, NULL, &answer, msg));
    print_one(context, kind, answer);
    doc_unref(answer);
    return ERR_OK;
}

/* To a moment of its own, or to another branch's data; the old data stays under --preserve. */
static err_t restore(struct context *context, const char *path, struct errmsg *msg)
{
    char project[ID_MAX], source_id[ID_MAX], action[512];
    const char *source = args_flag(context->args, "source");
    TRY(objects_find_project(context, project, msg));
    TRY(objects_find_branch(
        context, project, source != NULL ? source : args_word(context->args, 2), source_id, msg));
    struct doc *wish = doc_set_str(doc_object(), "source_branch_id", source_id);
    set_if_given(context, wish, "source_lsn", "lsn");
    set_if_given(context, wish, "source_timestamp", "time");
    set_if_given(context, wish, "preserve_under_name", "preserve");
    err_t err = str_format(action, sizeof action, msg, "%s/restore", path);
    if (err != ERR_OK) {
        doc_unref(wish);
        return err;
    }
    return mutate(context, &kinds[1], "POST", action, wish, msg);
}

/* To what its parent is now; the old data stays under --preserve. */
static err_t reset(struct context *context, const char *path, struct errmsg *msg)
{
    struct doc *answer = NULL, *branch = NULL;
    const char *parent = NULL;
    char action[512];
    TRY(context_call(context, "GET", path, NULL, &answer, msg));
    err_t err = doc_get_object(answer, "branch", &branch, msg);
    if (err == ERR_OK) {
        err = doc_opt_str(branch, "parent_id", &parent, msg);
    }
    if (err == ERR_OK && parent == NULL) {
        err = err_set(
            msg, ERR_INVALID, "%s has no parent to be reset to", args_word(context->args, 2));
    }
    if (err == ERR_OK) {
        err = str_format(action, sizeof action, msg, "%s/restore", path);
    }
    if (err == ERR_OK) {
        struct doc *wish = doc_set_str(doc_object(), "source_branch_id", parent);
        set_if_given(context, wish, "preserve_under_name", "preserve");
        err = mutate(context, &kinds[1], "POST", action, wish, msg);
    }
    doc_unref(answer);
    return err;
}

/* "4,5" as [4, 5]. */
static err_t set_ids(struct doc *wish, const char *key, const char *text, struct errmsg *msg)
{
    char copy[128];
    struct doc *ids = doc_array();
    err_t err = str_copy(copy, sizeof copy, text == NULL ? "" : text, msg);
    char *rest = copy;
    for (char *item = text == NULL ? NULL : strsep(&rest, ","); item != NULL && err == ERR_OK;
         item = strsep(&rest, ",")) {
        uint64_t id = 0;
        err = parse_u64(item, 1, INT64_MAX, &id, msg);
        doc_push(ids, doc_int((int64_t)id));
    }
    doc_set(wish, key, ids);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, ERR_INVALID, "--%s", key);
}

/* Who holds its WAL; with --add or --remove others from now on, while it is written. */
static err_t safekeepers(struct context *context, const char *path, struct errmsg *msg)
{
    const char *add = args_flag(context->args, "add"), *remove = args_flag(context->args, "remove");
    bool gives_up = args_has(context->args, "give-up");
    bool waits = !args_has(context->args, "no-wait");
    char members[512], change[512];
    struct doc *wish = NULL, *answer = NULL;
    err_t err = ERR_OK;
    TRY(args_check_used(context->args, msg));
    TRY(str_format(members, sizeof members, msg, "%s/safekeepers", path));
    TRY(str_format(change, sizeof change, msg, "%s/change", members));
    if (gives_up) {
        err = context_call(context, "DELETE", change, NULL, &answer, msg);
    } else if (add != NULL || remove != NULL) {
        wish = doc_object();
        err = set_ids(wish, "add", add, msg);
        if (err == ERR_OK) {
            err = set_ids(wish, "remove", remove, msg);
        }
        if (err != ERR_OK) {
            doc_unref(wish);
            return err;
        }
        err = context_call(context, "POST", members, wish, &answer, msg);
    } else {
        err = context_call(context, "GET", members, NULL, &answer, msg);
    }
    if (err == ERR_OK && waits) {
        err = wait_for_all(context, answer, msg);
    }
    if (err == ERR_OK && (gives_up || wish != NULL)) {
        doc_unref(answer);
        answer = NULL;
        err = context_call(context, "GET", members, NULL, &answer, msg);
    }
    if (answer != NULL) {
        output_json(answer);
    }
    doc_unref(answer);
    return err;
}

static err_t on_one(
    struct context *context,
    const struct kind *kind,
    const char *verb,
    const char *path,
    struct errmsg *msg)
{
    char action[512];
    if (strcmp(verb, "get") == 0) {
        return get(context, kind, path, msg);
    }
    if (strcmp(verb, "delete") == 0 && kind != &kinds[3]) {
        bool is_hard = args_has(context->args, "hard"); /* also when it could be recovered */
        TRY(str_format(action, sizeof action, msg, "%s%s", path, is_hard ? HARD_DELETE : ""));
        return mutate(context, kind, "DELETE", action, NULL, msg);
    }
    if (strcmp(verb, "recover") == 0 && (kind == &kinds[0] || kind == &kinds[1])) {
        TRY(str_format(action, sizeof action, msg, "%s/recover", path));
        return mutate(context, kind, "POST", action, NULL, msg);
    }
    if (strcmp(verb, "set-default") == 0 && kind == &kinds[1]) {
        TRY(str_format(action, sizeof action, msg, "%s/set_as_default", path));
        return mutate(context, kind, "POST", action, NULL, msg);
    }
    if (strcmp(verb, "restore") == 0 && kind == &kinds[1]) {
        return restore(context, path, msg);
    }
    if (strcmp(verb, "reset") == 0 && kind == &kinds[1]) {
        return reset(context, path, msg);
    }
    if (strcmp(verb, "safekeepers") == 0 && kind == &kinds[1]) {
        return safekeepers(context, path, msg);
    }
    if (storage_knows(kind->singular, verb)) {
        return storage_command(context, path, msg);
    }
    if (strcmp(verb, "schedule") == 0 && kind == &kinds[1]) {
        return snapshots_schedule(context, path, msg);
    }
    if (strcmp(verb, "finalize") == 0 && kind == &kinds[1]) {
        return snapshots_finalize(context, path, msg);
    }
    if (strcmp(verb, "restore") == 0 && kind == &kinds[4]) {
        return snapshots_restore(context, path, msg);
    }
    bool runs =
        strcmp(verb, "start") == 0 || strcmp(verb, "suspend") == 0 || strcmp(verb, "restart") == 0;
    if (runs && kind == &kinds[2]) {
        TRY(str_format(action, sizeof action, msg, "%s/%s", path, verb));
        return mutate(context, kind, "POST", action, NULL, msg);
    }
    return err_set(msg, ERR_INVALID, "unknown command: anabranch %s %s", kind->plural, verb);
}

/* ---- connection string ---- */

static err_t connection_string(struct context *context, struct errmsg *msg)
{
    char project[ID_MAX], branch[ID_MAX];
    struct buf path = {0};
    struct doc *answer = NULL;
    const char *uri = NULL;
    const char *role = args_flag(context->args, "role");
    const char *database = args_flag(context->args, "database");
    TRY(objects_find_project(context, project, msg));
    TRY(args_check_used(context->args, msg));
    TRY(objects_find_branch(context, project, args_word(context->args, 1), branch, msg));
    buf_printf(&path, "/projects/%s/connection_uri?branch_id=%s", project, branch);
    if (role != NULL) {
        buf_printf(&path, "&role_name=");
        context_escape(&path, role);
    }
    if (database != NULL) {
        buf_printf(&path, "&database_name=");
        context_escape(&path, database);
    }
    err_t err = context_call(context, "GET", buf_cstr(&path), NULL, &answer, msg);
    if (err == ERR_OK) {
        err = doc_get_str(answer, "uri", &uri, msg);
    }
    if (err == ERR_OK && context->json) {
        output_json(answer);
    } else if (err == ERR_OK) {
        printf("%s\n", uri);
    }
    doc_unref(answer);
    buf_deinit(&path);
    return err;
}

/* ---- dispatch ---- */

static err_t path_of_one(
    struct context *context,
    const struct kind *kind,
    const char *base,
    const char *project,
    char ret_path[512],
    struct errmsg *msg)
{
    const char *id = args_word(context->args, 2);
    char branch_id[ID_MAX];
    if (id == NULL) {
        return err_set(
            msg, ERR_INVALID, "say which: anabranch %s %s ID", kind->plural,
            args_word(context->args, 1));
    }
    if (kind == &kinds[1]) { /* a name is fine too */
        bool recovers = strcmp(args_word(context->args, 1), "recover") == 0;
        TRY(recovers ? find_deleted_branch(context, project, id, branch_id, msg)
                     : objects_find_branch(context, project, id, branch_id, msg));
    } else {
        TRY(escaped(id, branch_id, msg));
    }
    return str_format(ret_path, 512, msg, "%s/%s", base, branch_id);
}

err_t objects_command(struct context *context, struct errmsg *msg)
{
    const char *word = args_word(context->args, 0);
    const char *verb = args_word(context->args, 1);
    const struct kind *kind = kind_of(word);
    char base[256] = "/projects", project[ID_MAX] = "", path[512];
    bool is_preview = kind == &kinds[1] && preview_knows(verb);
    if (kind != NULL && verb != NULL && !is_preview && !completion_has_verb(kind->plural, verb)) {
        return err_set(
            msg, ERR_INVALID, "unknown command: anabranch %s %s; %s has %s", word, verb,
            kind->plural, completion_verbs(kind->plural));
    }
    bool names_one = verb != NULL && strcmp(verb, "list") != 0 && strcmp(verb, "create") != 0;
    TRY(args_check_words(context->args, kind != NULL && names_one ? 3 : 2, msg));
    TRY(context_need_api(context, msg));
    if (kind == NULL) {
        return connection_string(context, msg);
    }
    if (is_preview) {
        return preview_command(context, msg);
    }
    if (kind != &kinds[0]) {
        TRY(objects_find_project(context, project, msg));
        TRY(str_format(base, sizeof base, msg, "/projects/%s/%s", project, kind->plural));
    }
    if (verb == NULL || strcmp(verb, "list") == 0) {
        return list(context, kind, base, msg);
    }
    if (strcmp(verb, "create") == 0) {
        return create(context, kind, base, project, msg);
    }
    TRY(path_of_one(context, kind, base, project, path, msg));
    return on_one(context, kind, verb, path, msg);
}
