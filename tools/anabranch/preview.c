#include "tools/anabranch/preview.h"

#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/parse.h"
#include "tools/anabranch/objects.h"
#include "tools/anabranch/output.h"

#define TTL_MAX_MS (366ULL * 24 * 3600 * 1000)

struct preview {
    struct context *context;
    const char *name, *parent;
    uint64_t ttl_ms; /* 0: it stays */
    char project[OBJECTS_ID_SIZE];
    struct doc *branch;     /* NULL: there is none */
    struct doc *operations; /* to wait for */
    char endpoint_id[OBJECTS_ID_SIZE], uri[2048];
};

static void preview_deinit(struct preview *preview)
{
    doc_unref(preview->branch);
    doc_unref(preview->operations);
}

bool preview_knows(const char *verb)
{
    return verb != NULL && (strcmp(verb, "up") == 0 || strcmp(verb, "down") == 0);
}

static err_t call(
    const struct preview *preview,
    const char *method,
    const char *rest,
    struct doc *body,
    struct doc **ret_answer,
    struct errmsg *msg)
{
    char path[512];
    err_t err = str_format(path, sizeof path, msg, "/projects/%s%s", preview->project, rest);
    if (err != ERR_OK) {
        doc_unref(body);
        return err;
    }
    return context_call(preview->context, method, path, body, ret_answer, msg);
}

static const char *id_of(const struct doc *object)
{
    const char *id = doc_value_str(doc_get(object, "id"));
    return id == NULL ? "" : id;
}

static void keep(struct doc **kept, struct doc *value)
{
    doc_unref(*kept);
    *kept = value == NULL ? NULL : doc_ref(value);
}

/* By its whole name: names are no patterns, and may have slashes. */
static err_t find(struct preview *preview, struct errmsg *msg)
{
    struct doc *answer = NULL;
    TRY(call(preview, "GET", "/branches", NULL, &answer, msg));
    const struct doc *branches = doc_get(answer, "branches");
    keep(&preview->branch, NULL);
    for (size_t i = 0; i < doc_count(branches); i++) {
        const char *name = doc_value_str(doc_get(doc_at(branches, i), "name"));
        if (name != NULL && strcmp(name, preview->name) == 0) {
            keep(&preview->branch, doc_at(branches, i));
        }
    }
    doc_unref(answer);
    return ERR_OK;
}

/* ---- up ---- */

static void set_expiry(const struct preview *preview, struct doc *branch)
{
    if (preview->ttl_ms != 0) {
        doc_set_time(branch, "expires_at", clock_wall() + (wall_us_t)preview->ttl_ms * 1000);
    }
}

static err_t create(struct preview *preview, struct errmsg *msg)
{
    char parent_id[OBJECTS_ID_SIZE];
    struct doc *answer = NULL;
    TRY(objects_find_branch(preview->context, preview->project, preview->parent, parent_id, msg));
    struct doc *branch = doc_set_str(doc_object(), "name", preview->name);
    doc_set_str(branch, "parent_id", parent_id);
    set_expiry(preview, branch);
    struct doc *endpoint = doc_set_str(doc_object(), "type", "read_write");
    struct doc *body = doc_set(doc_object(), "branch", branch);
    doc_set(body, "endpoints", doc_push(doc_array(), endpoint));
    err_t err = call(preview, "POST", "/branches", body, &answer, msg);
    if (err == ERR_EXISTS) {
        return ERR_OK; /* somebody was faster: what is there is taken as it is */
    }
    if (err == ERR_OK) {
        keep(&preview->branch, doc_get(answer, "branch"));
        keep(&preview->operations, doc_get(answer, "operations"));
    }
    doc_unref(answer);
    return err;
}

/* It lives on from now; its compute runs. */
static err_t renew(struct preview *preview, struct errmsg *msg)
{
    char path[256];
    bool is_default = false;
    struct doc *answer = NULL;
    const char *id = id_of(preview->branch);
    TRY(doc_opt_bool(preview->branch, "default", &is_default, msg));
    if (is_default) {
        return err_set(
            msg, ERR_INVALID, "branch \"%s\" is the default branch, not one of a pull request",
            preview->name);
    }
    if (preview->ttl_ms != 0) {
        struct doc *branch = doc_object();
        set_expiry(preview, branch);
        TRY(str_format(path, sizeof path, msg, "/branches/%s", id));
        TRY(call(preview, "PATCH", path, doc_set(doc_object(), "branch", branch), &answer, msg));
        doc_unref(answer);
        answer = NULL;
    }
    TRY(str_format(path, sizeof path, msg, "/branches/%s/endpoints", id));
    TRY(call(preview, "GET", path, NULL, &answer, msg));
    const struct doc *endpoint = doc_at(doc_get(answer, "endpoints"), 0);
    err_t err = ERR_OK;
    struct doc *started = NULL, *body = NULL;
    if (endpoint == NULL) {
        struct doc *wish = doc_set_str(doc_object(), "branch_id", id);
        body = doc_set(doc_object(), "endpoint", doc_set_str(wish, "type", "read_write"));
        err = str_copy(path, sizeof path, "/endpoints", msg);
    } else {
        err = str_format(path, sizeof path, msg, "/endpoints/%s/start", id_of(endpoint));
    }
    if (err == ERR_OK) {
        err = call(preview, "POST", path, body, &started, msg);
    }
    if (err == ERR_OK) {
        keep(&preview->operations, doc_get(started, "operations"));
    }
    doc_unref(started);
    doc_unref(answer);
    return err;
}

static err_t find_uri(struct preview *preview, struct errmsg *msg)
{
    char path[256];
    struct doc *answer = NULL;
    const char *uri = NULL;
    TRY(str_format(path, sizeof path, msg, "/connection_uri?branch_id=%s", id_of(preview->branch)));
    TRY(call(preview, "GET", path, NULL, &answer, msg));
    err_t err = doc_get_str(answer, "uri", &uri, msg);
    if (err == ERR_OK) {
        err = str_copy(preview->uri, sizeof preview->uri, uri, msg);
    }
    doc_unref(answer);
    return err;
}

/* NAME=value without quotes, as dotenv files, GITHUB_ENV and GitLab's dotenv reports want it. */
static void print_up(const struct preview *preview)
{
    const struct context *context = preview->context;
    if (context->json) {
        struct doc *doc = doc_set(doc_object(), "branch", doc_ref(preview->branch));
        doc_set_str(doc, "connection_uri", preview->uri);
        output_json(doc);
        doc_unref(doc);
    } else if (context->env) {
        printf("DATABASE_URL=%s\n", preview->uri);
        printf("ANABRANCH_PROJECT_ID=%s\n", preview->project);
        printf("ANABRANCH_BRANCH_ID=%s\n", id_of(preview->branch));
        printf("ANABRANCH_BRANCH_NAME=%s\n", preview->name);
    } else {
        static const char *const columns[] = {
            "ID=id", "NAME=name", "PARENT=parent_id", "EXPIRES=expires_at"};
        output_object(preview->branch, columns, ARRAY_LEN(columns));
        output_line("URI", preview->uri);
    }
}

static err_t up(struct preview *preview, bool waits, struct errmsg *msg)
{
    TRY(find(preview, msg));
    if (preview->branch == NULL) {
        TRY(create(preview, msg));
    } else {
        TRY(renew(preview, msg));
    }
    if (preview->branch == NULL) {
        TRY(find(preview, msg)); /* of somebody who was faster */
        if (preview->branch == NULL) {
            return err_set(msg, ERR_BUSY, "branch \"%s\" comes and goes, try again", preview->name);
        }
        TRY(renew(preview, msg));
    }
    if (waits) {
        TRY(objects_wait(preview->context, preview->operations, msg));
        TRY(find(preview, msg));
    }
    if (preview->branch == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "branch \"%s\" was deleted meanwhile", preview->name);
    }
    TRY(find_uri(preview, msg));
    print_up(preview);
    return ERR_OK;
}

/* ---- down ---- */

static err_t down(struct preview *preview, bool waits, struct errmsg *msg)
{
    char path[256];
    struct doc *answer = NULL;
    TRY(find(preview, msg));
    err_t err = ERR_NOT_FOUND;
    if (preview->branch != NULL) {
        /* For good: it is for scripts, which come again, and its space is wanted back. */
        TRY(str_format(
            path, sizeof path, msg, "/branches/%s?hard_delete=true", id_of(preview->branch)));
        err = call(preview, "DELETE", path, NULL, &answer, msg);
    }
    if (err == ERR_OK && waits) {
        err = objects_wait(preview->context, doc_get(answer, "operations"), msg);
    }
    if (preview->context->json && (err == ERR_OK || err == ERR_NOT_FOUND)) {
        struct doc *doc = doc_set_bool(doc_object(), "deleted", err == ERR_OK);
        output_json(doc);
        doc_unref(doc);
    } else if (err == ERR_OK) {
        printf("deleted branch \"%s\"\n", preview->name);
    } else if (err == ERR_NOT_FOUND) {
        printf("there is no branch \"%s\"\n", preview->name);
    }
    doc_unref(answer);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

err_t preview_command(struct context *context, struct errmsg *msg)
{
    struct preview preview = {.context = context};
    struct args *args = context->args;
    const char *ttl = args_flag(args, "ttl");
    bool is_up = strcmp(args_word(args, 1), "up") == 0;
    bool waits = !args_has(args, "no-wait");
    (void)args_has(args, "wait"); /* as it is anyway */
    preview.name = args_word(args, 2);
    preview.parent = is_up ? args_flag(args, "from") : NULL;
    if (preview.name == NULL || preview.name[0] == '\0') {
        return err_set(msg, ERR_INVALID, "say which: anabranch branch %s NAME", args_word(args, 1));
    }
    if (ttl != NULL) {
        err_t err = parse_duration(ttl, &preview.ttl_ms, msg);
        if (err != ERR_OK || preview.ttl_ms == 0 || preview.ttl_ms > TTL_MAX_MS || !is_up) {
            return err_set(
                msg, ERR_INVALID,
                "--ttl of `branch up`: expected 30min, 12h, .. up to 366d, got %s", ttl);
        }
    }
    TRY(objects_find_project(context, preview.project, msg));
    TRY(args_check_used(args, msg));
    err_t err = is_up ? up(&preview, waits, msg) : down(&preview, waits, msg);
    preview_deinit(&preview);
    return err;
}
