/* management_body.c - what creates a timeline, and a membership, as requests say it. */
#include <string.h>

#include "common/base/parse.h"
#include "common/base/str.h"
#include "safekeeper/serve/management_private.h"

#define SEGMENT_SIZE_DEFAULT (16 * MIB)

static err_t take_host(const struct doc *member, const char *key, char *to, struct errmsg *msg)
{
    const char *host = NULL;
    TRY(doc_get_str(member, key, &host, msg));
    return str_copy(to, CONTROL_HOST_SIZE, host, msg);
}

static err_t take_port(const struct doc *member, const char *key, uint16_t *to, struct errmsg *msg)
{
    uint64_t port = 0;
    TRY(doc_get_u64(member, key, &port, msg));
    if (port > UINT16_MAX) {
        return err_set(msg, ERR_INVALID, "%s %" PRIu64 " is no port", key, port);
    }
    *to = (uint16_t)port;
    return ERR_OK;
}

/* "old", "new": only there. */
static err_t take_set(const char *set, uint32_t index, struct membership *sets, struct errmsg *msg)
{
    if (set == NULL) {
        return ERR_OK;
    }
    if (strcmp(set, "old") == 0) {
        sets->old_set |= 1u << index;
    } else if (strcmp(set, "new") == 0) {
        sets->new_set |= 1u << index;
    } else {
        return err_set(msg, ERR_INVALID, "set \"%.20s\": expected old or new", set);
    }
    return ERR_OK;
}

err_t take_membership(struct doc *body, struct control_state *to, struct errmsg *msg)
{
    struct doc *membership = NULL;
    struct doc *members = NULL;
    uint64_t generation = 0;
    TRY(doc_get_object(body, "membership", &membership, msg));
    TRY(doc_get_u64(membership, "generation", &generation, msg));
    TRY(doc_get_array(membership, "members", &members, msg));
    if (generation == 0 || generation > UINT32_MAX) {
        return err_set(msg, ERR_INVALID, "membership.generation %" PRIu64, generation);
    }
    if (doc_count(members) > MEMBERS_MAX) {
        return err_set(msg, ERR_INVALID, "limit: %d members", MEMBERS_MAX);
    }
    to->membership.generation = (generation_t)generation;
    to->membership.count = (uint32_t)doc_count(members);
    struct membership sets = {0};
    for (uint32_t i = 0; i < to->membership.count; i++) {
        const struct doc *member = doc_at(members, i);
        const char *set = NULL;
        TRY(doc_get_u64(member, "id", &to->membership.members[i], msg));
        TRY(doc_opt_str(member, "set", &set, msg));
        TRY(take_set(set, i, &sets, msg));
        TRY(take_host(member, "host", to->addresses[i].host, msg));
        TRY(take_port(member, "port", &to->addresses[i].port, msg));
        TRY(take_host(member, "http_host", to->addresses[i].http_host, msg));
        TRY(take_port(member, "http_port", &to->addresses[i].http_port, msg));
    }
    /* Who names no set is in both, if there are two. */
    if (sets.old_set != 0 || sets.new_set != 0) {
        uint32_t everyone = (1u << to->membership.count) - 1;
        to->membership.old_set = everyone & ~sets.new_set;
        to->membership.new_set = everyone & ~sets.old_set;
    }
    return membership_check(&to->membership, msg);
}

/*
 * Who creates a timeline says for which disk, if it knows: another one may have held it before, and
 * an empty timeline must not be taken for that.
 */
static err_t check_incarnation(const struct operation *op, struct doc *body, struct errmsg *msg)
{
    const char *incarnation = NULL;
    TRY(doc_opt_str(body, "incarnation", &incarnation, msg));
    if (incarnation != NULL && strcmp(incarnation, op->server->incarnation) != 0) {
        return err_set(
            msg, ERR_STALE, "this is disk %s, the timeline is for disk %.40s",
            op->server->incarnation, incarnation);
    }
    return ERR_OK;
}

err_t take_wanted(struct operation *op, struct errmsg *msg)
{
    struct doc *body = NULL;
    struct control_state *wanted = &op->wanted;
    const char *system_id = NULL;
    uint64_t pg_version = 0, segment_size = SEGMENT_SIZE_DEFAULT;
    lsn_t start_lsn = LSN_NONE;
    TRY(http_request_json(op->request, &body, msg));
    TRY(doc_get_lsn(body, "start_lsn", &start_lsn, msg));
    TRY(doc_get_u64(body, "pg_version", &pg_version, msg));
    TRY(doc_get_str(body, "system_id", &system_id, msg));
    TRY(doc_opt_u64(body, "segment_size", &segment_size, msg));
    TRY(take_membership(body, wanted, msg));
    TRY(check_incarnation(op, body, msg));
    wanted->params.tenant = op->tenant;
    wanted->params.timeline = op->id;
    TRY(parse_u64(system_id, 0, UINT64_MAX, &wanted->params.system_id, msg));
    if (pg_version == 0 || pg_version > UINT32_MAX) {
        return err_set(msg, ERR_INVALID, "pg_version %" PRIu64, pg_version);
    }
    if (segment_size < MIB || segment_size > GIB || (segment_size & (segment_size - 1)) != 0) {
        return err_set(msg, ERR_INVALID, "segment_size %" PRIu64, segment_size);
    }
    if (start_lsn == LSN_NONE || start_lsn % 8 != 0) {
        return err_set(
            msg, ERR_INVALID, "start_lsn " LSN_FMT " is not the end of a record",
            LSN_ARGS(start_lsn));
    }
    wanted->params.pg_version = (uint32_t)pg_version;
    wanted->params.segment_size = (uint32_t)segment_size;
    acceptor_state_init(&wanted->acceptor, wanted->membership.generation, start_lsn);
    return ERR_OK;
}
