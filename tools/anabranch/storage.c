#include "tools/anabranch/storage.h"

#include <stdio.h>
#include <string.h>

#include "common/base/parse.h"
#include "common/base/str.h"
#include "tools/anabranch/objects.h"
#include "tools/anabranch/output.h"

static const struct {
    const char *kind, *verb, *route;
} verbs[] = {
    {"project", "size", "size"},
    {"project", "retention", "retention"},
    {"branch", "digest", "digest"},
    {"branch", "why-kept", "why_kept"},
    {"branch", "diff", "diff"},
    {"branch", "leases", "leases"},
    {"branch", "time-of-lsn", "time_of_lsn"},
};

static const char *route_of(const char *kind, const char *verb)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if ((kind == NULL || strcmp(verbs[i].kind, kind) == 0) &&
            strcmp(verbs[i].verb, verb) == 0) {
            return verbs[i].route;
        }
    }
    return NULL;
}

bool storage_knows(const char *kind, const char *verb)
{
    return route_of(kind, verb) != NULL;
}

static err_t show(
    struct context *context,
    const char *method,
    const char *path,
    struct doc *body,
    struct errmsg *msg)
{
    struct doc *answer = NULL;
    TRY(context_call(context, method, path, body, &answer, msg));
    output_json(answer);
    doc_unref(answer);
    return ERR_OK;
}

static err_t change_lease(
    struct context *context,
    const char *path,
    const char *add,
    const char *remove,
    const char *lsn,
    struct errmsg *msg)
{
    const char *text = args_flag(context->args, "seconds");
    char lease[512];
    uint64_t seconds = 0;
    TRY(str_format(lease, sizeof lease, msg, "%s/leases/%s", path, add != NULL ? add : remove));
    TRY(args_check_used(context->args, msg));
    if (add == NULL) {
        return show(context, "DELETE", lease, NULL, msg);
    }
    if (lsn == NULL || text == NULL) {
        return err_set(msg, ERR_INVALID, "a lease needs --lsn and --seconds");
    }
    TRY(parse_u64(text, 1, INT64_MAX, &seconds, msg));
    struct doc *wish = doc_set_str(doc_object(), "lsn", lsn);
    return show(context, "PUT", lease, doc_set_int(wish, "seconds", (int64_t)seconds), msg);
}

static err_t print_question(
    struct context *context, const char *path, const char *lsn, struct buf *to, struct errmsg *msg)
{
    const char *other = args_flag(context->args, "other");
    const char *other_lsn = args_flag(context->args, "other-lsn");
    char project[OBJECTS_ID_SIZE], branch[OBJECTS_ID_SIZE];
    TRY(args_check_used(context->args, msg));
    buf_printf(to, "%s/%s", path, route_of(NULL, args_word(context->args, 1)));
    size_t size = to->size;
    if (other != NULL) {
        TRY(objects_find_project(context, project, msg));
        TRY(objects_find_branch(context, project, other, branch, msg));
        buf_printf(to, "?other=%s", branch);
    }
    if (lsn != NULL) {
        buf_printf(to, "%slsn=%s", to->size == size ? "?" : "&", lsn);
    }
    if (other_lsn != NULL) {
        buf_printf(to, "%sother_lsn=%s", to->size == size ? "?" : "&", other_lsn);
    }
    return ERR_OK;
}

err_t storage_command(struct context *context, const char *path, struct errmsg *msg)
{
    bool is_leases = strcmp(args_word(context->args, 1), "leases") == 0;
    const char *lsn = args_flag(context->args, "lsn");
    const char *add = is_leases ? args_flag(context->args, "add") : NULL;
    const char *remove = is_leases ? args_flag(context->args, "remove") : NULL;
    struct buf question = {0};
    if (add != NULL || remove != NULL) {
        return change_lease(context, path, add, remove, lsn, msg);
    }
    err_t err = print_question(context, path, lsn, &question, msg);
    if (err == ERR_OK) {
        err = show(context, "GET", buf_cstr(&question), NULL, msg);
    }
    buf_deinit(&question);
    return err;
}
