#include "tools/anabranch/snapshots.h"

#include <stdio.h>

#include "common/base/str.h"
#include "tools/anabranch/objects.h"
#include "tools/anabranch/output.h"

/* This one route says all that it wants behind the `?`. */
err_t snapshots_create(struct context *context, const char *project, struct errmsg *msg)
{
    static const char *const flags[][2] = {
        {"name", "name"}, {"lsn", "lsn"}, {"time", "timestamp"}, {"expires-at", "expires_at"}};
    char branch[OBJECTS_ID_SIZE];
    const char *wanted = args_flag(context->args, "branch");
    struct buf path = {0};
    bool first = true;
    TRY(objects_find_branch(context, project, wanted, branch, msg));
    buf_printf(&path, "/projects/%s/branches/%s/snapshot", project, branch);
    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        const char *value = args_flag(context->args, flags[i][0]);
        if (value != NULL) {
            buf_printf(&path, "%s%s=", first ? "?" : "&", flags[i][1]);
            context_escape(&path, value);
            first = false;
        }
    }
    err_t err = objects_mutate(context, "snapshot", "POST", buf_cstr(&path), NULL, msg);
    buf_deinit(&path);
    return err;
}

err_t snapshots_restore(struct context *context, const char *path, struct errmsg *msg)
{
    const char *target = args_flag(context->args, "target");
    const char *name = args_flag(context->args, "name");
    char project[OBJECTS_ID_SIZE], branch[OBJECTS_ID_SIZE], action[512];
    TRY(str_format(action, sizeof action, msg, "%s/restore", path));
    if (target != NULL) {
        TRY(objects_find_project(context, project, msg));
        TRY(objects_find_branch(context, project, target, branch, msg));
    }
    struct doc *wish = doc_object();
    if (target != NULL) {
        doc_set_str(wish, "target_branch_id", branch);
    }
    if (name != NULL) {
        doc_set_str(wish, "name", name);
    }
    doc_set_bool(wish, "finalize_restore", args_has(context->args, "finalize"));
    return objects_mutate(context, "branch", "POST", action, wish, msg);
}

err_t snapshots_finalize(struct context *context, const char *path, struct errmsg *msg)
{
    const char *name = args_flag(context->args, "name");
    char action[512];
    TRY(str_format(action, sizeof action, msg, "%s/finalize_restore", path));
    struct doc *wish = doc_object();
    if (name != NULL) {
        doc_set_str(wish, "name", name);
    }
    return objects_mutate(context, "branch", "POST", action, wish, msg);
}

err_t snapshots_schedule(struct context *context, const char *path, struct errmsg *msg)
{
    const char *set = args_flag(context->args, "set");
    char action[512];
    struct doc *answer = NULL;
    TRY(args_check_used(context->args, msg));
    TRY(str_format(action, sizeof action, msg, "%s/backup_schedule", path));
    if (set != NULL) {
        struct doc *rules = NULL, *said = NULL;
        if (doc_parse(bytes_of_str(set), &rules, msg) != ERR_OK) {
            return err_wrap(msg, ERR_INVALID, "--set");
        }
        struct doc *wish = doc_set(doc_object(), "schedule", rules);
        TRY(context_call(context, "PUT", action, wish, &said, msg));
        doc_unref(said);
    }
    TRY(context_call(context, "GET", action, NULL, &answer, msg));
    output_json(answer);
    doc_unref(answer);
    return ERR_OK;
}
