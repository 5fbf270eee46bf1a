#include "control/api/allowed_ips.h"

#include "common/base/ip_range.h"

#define RANGES_MAX 1000

err_t allowed_ips_check(const struct doc *list, struct errmsg *msg)
{
    bool protected_only = false;
    const struct doc *ranges = doc_get(list, "ips");
    if (list == NULL || doc_is_null(list)) {
        return ERR_OK;
    }
    if (!doc_is_object(list)) {
        return err_set(msg, ERR_INVALID, ": expected an object");
    }
    if (doc_opt_bool(list, "protected_branches_only", &protected_only, msg) != ERR_OK) {
        return err_set(msg, ERR_INVALID, ".protected_branches_only: expected true or false");
    }
    if (ranges != NULL && !doc_is_null(ranges) && !doc_is_array(ranges)) {
        return err_set(msg, ERR_INVALID, ".ips: expected an array");
    }
    if (doc_count(ranges) > RANGES_MAX) {
        return err_set(msg, ERR_INVALID, ".ips: at most %d", RANGES_MAX);
    }
    for (size_t i = 0; i < doc_count(ranges); i++) {
        struct ip_range range;
        struct errmsg why;
        const char *text = doc_value_str(doc_at(ranges, i));
        if (text == NULL) {
            return err_set(msg, ERR_INVALID, ".ips[%zu]: expected a string", i);
        }
        if (ip_range_parse(text, &range, &why) != ERR_OK) {
            return err_set(msg, ERR_INVALID, ".ips[%zu]: %.300s", i, why.text);
        }
    }
    return ERR_OK;
}

static bool is_protected(const struct model *model, const struct endpoint *endpoint)
{
    const struct branch *source = model_branch(model, endpoint->row.source_branch_id);
    return endpoint->branch->row.is_protected || (source != NULL && source->row.is_protected);
}

bool allowed_ips_let_in(
    const struct model *model, const struct endpoint *endpoint, const char *address)
{
    const struct doc *list = doc_get(endpoint->project->row.settings, "allowed_ips");
    const struct doc *ranges = doc_get(list, "ips");
    bool protected_only = false;
    struct errmsg msg;
    err_ignore(
        doc_opt_bool(list, "protected_branches_only", &protected_only, &msg),
        "checked when it came");
    if (doc_count(ranges) == 0 || (protected_only && !is_protected(model, endpoint))) {
        return true;
    }
    for (size_t i = 0; i < doc_count(ranges); i++) {
        struct ip_range range;
        const char *text = doc_value_str(doc_at(ranges, i));
        if (text != NULL && ip_range_parse(text, &range, &msg) == ERR_OK &&
            ip_range_has(&range, address)) {
            return true;
        }
    }
    return false;
}
