/* api_private.h - shared by the files of control/api only. */
#pragma once

#include "common/rpc/rpc.h"
#include "control/act/placement.h"
#include "control/api/api.h"
#include "control/api/queries.h"

#define ROUTE(method_, path_, handler_, help_)                                                     \
    {                                                                                              \
        .method = (method_), .path = (path_), .handler = (handler_), .help = (help_)               \
    }

#define ORGANIZATION_ID "org-local"
#define USER_ID         "9e0b5d1c-7a43-4c0e-8f1a-a1b2c3d4e5f6" /* clients insist on a UUID */

#define OPERATIONS_PER_MUTATION_MAX 16

struct mutation;

/* Who goes on after a mutation instead of an answer to its request; embed it. */
struct mutation_then {
    void (*done)(struct mutation_then *then, err_t result, const struct errmsg *msg);
    row_id_t endpoint_id; /* of the mutation, when it is done */
    unsigned status;      /* of a refusal; 0: as the error says */
    const char *code;
};

typedef err_t (*mutation_decide_fn)(struct mutation *mutation, struct errmsg *msg);
typedef struct doc *(*mutation_answer_fn)(struct mutation *mutation);

/* A request that changes something. `decide` puts rows; `answer` reads them back from the model. */
struct mutation {
    struct api *api;
    struct http_request *request;
    struct doc *body; /* what the route knows of the request's; {} when there was none */
    mutation_decide_fn decide;
    mutation_answer_fn answer;
    unsigned ok_status;
    struct mutation_then *then; /* NULL: the request is answered when it is done */
    row_id_t key_id; /* without a request: the API key that asked for it before; "": none */

    /* Filled in by decide, used by answer. */
    row_id_t project_id, branch_id, endpoint_id;
    row_id_t operations[OPERATIONS_PER_MUTATION_MAX];
    size_t operation_count;
    row_text_t name;     /* of a role or database */
    struct doc *deleted; /* what a DELETE answers with, or a new secret; freed with the mutation */

    /* Of a branch that is created: where, and in which history that was found (branch_start.h). */
    lsn_t start_lsn;
    wall_us_t parent_timestamp;
    row_id_t parent_id;
    struct timeline_id parent_timeline;

    bool is_secret; /* the answer shows what is nowhere else: it is not kept for a repetition */

    /* private */
    struct list_link in_keyed; /* not in it: the request has no Idempotency-Key */
    row_id_t reply_id;
    row_text_t reply_digest;
    struct doc *own_body; /* freed with the mutation */
    struct doc *answered; /* what is being kept, then answered */
    unsigned error_status;
    const char *error_code;
    size_t pruned;
    bool has_cancelled;
    uint64_t ports_taken;
    struct change change;
};

/* mutation.c */
struct api *api_of(struct http_context *context);
/* With project_id, branch_id and endpoint_id of its path. NULL: it was answered. */
struct mutation *mutation_create(
    struct http_context *context,
    struct http_request *request,
    mutation_decide_fn decide,
    mutation_answer_fn answer,
    unsigned ok_status);
/* Create and submit: what needs nothing but the ids in its path and its body. */
void mutation_start(
    struct http_context *context,
    struct http_request *request,
    mutation_decide_fn decide,
    mutation_answer_fn answer,
    unsigned ok_status);
/*
 * What the route's table has of it (bodies.h), the caller's; ERR_INVALID with a code: a member is
 * wrong, without: it is no JSON.
 */
NODISCARD err_t request_body(
    struct http_request *request, struct doc **ret_body, const char **ret_code, struct errmsg *msg);
/* Without a request: `then` goes on. `body` is an empty object. */
struct mutation *mutation_of_our_own(
    struct api *api, mutation_decide_fn decide, struct mutation_then *then);
void mutation_submit(struct mutation *mutation); /* it ends with an answer and frees itself */
/* Answer with the error and free. */
void mutation_fail(struct mutation *mutation, err_t err, const struct errmsg *msg);
/* In decide: return mutation_refuse(mutation, 409, "BRANCH_EXISTS", msg, "..."). */
NODISCARD err_t mutation_refuse(
    struct mutation *mutation,
    unsigned status,
    const char *code,
    struct errmsg *msg,
    const char *format,
    ...) PRINTF_LIKE(5, 6);
/*
 * If-Match of the request against the version of a row, which GET gave as ETag; 412: somebody else
 * has changed it. Without the header everything goes.
 */
#define HEAD_OF(object) ((const struct row_head *)(const void *)&(object)->row)
NODISCARD err_t
check_if_match(struct mutation *mutation, const struct row_head *row, struct errmsg *msg);
/*
 * The answer to a GET of one object, with an ETag: the version of its row, which If-Match looks at,
 * and what the whole view hashes to, because it shows more than the row. If-None-Match: 304.
 */
void respond_with_etag(
    struct http_request *request, const struct row_head *row, struct doc *answer);
void mutation_put(struct mutation *mutation, enum row_kind kind, void *row);
/*
 * A running operation; its target's ids may be "". Those that something else is wanted instead of
 * are cancelled before (mutation_cancel_running()); of a compute with many that are not, the newest
 * of the same kind stands for this one, too.
 */
void mutation_operation(
    struct mutation *mutation,
    const char *project_id,
    enum operation_action action,
    const char *branch_id,
    const char *endpoint_id);
void mutation_cancel_running(struct mutation *mutation, struct list *running);

/* An optional object; absent or null gives an empty one: what a client leaves out is no wish. */
NODISCARD err_t
wish_of(const struct doc *object, const char *key, const struct doc **ret_wish, struct errmsg *msg);

/* Lookups that say 404 in the way of the API; live objects only. */
NODISCARD err_t find_project(
    const struct api *api, const char *id, struct project **ret_project, struct errmsg *msg);
NODISCARD err_t find_branch(
    const struct api *api,
    const char *project_id,
    const char *id,
    struct branch **ret_branch,
    struct errmsg *msg);
/* A branch, a snapshot, or one that is retired: whatever may have children. */
NODISCARD err_t find_history(
    const struct api *api,
    const char *project_id,
    const char *id,
    struct branch **ret_branch,
    struct errmsg *msg);
NODISCARD err_t find_endpoint(
    const struct api *api,
    const char *project_id,
    const char *id,
    struct endpoint **ret_endpoint,
    struct errmsg *msg);
struct project *request_project(struct api *api, struct http_request *request); /* NULL: answered */
struct branch *request_branch(struct api *api, struct http_request *request);   /* NULL: answered */
void answer_not_found(struct http_request *request, const struct errmsg *msg);

/*
 * Limit and cursor of a list request. Lists are in order of creation, and a cursor is the number of
 * the last row that the client has: it holds also when that row has gone meanwhile.
 */
struct page {
    uint64_t limit;
    uint64_t after; /* 0: from the first */
};
NODISCARD err_t page_of(
    struct http_request *request,
    uint64_t limit_default,
    uint64_t limit_max,
    struct page *ret_page,
    struct errmsg *msg);
/* {"pagination": {KEY: cursor}} */
void set_cursor(struct doc *answer, const char *key, uint64_t seq);

/*
 * The API key for which something is made: of the request, or of who asked for it before; NULL:
 * none.
 */
const struct api_key *mutation_key(const struct mutation *mutation);

/* keys.c: 422 when the key of the mutation, or the one that made a compute, has its fill */
NODISCARD err_t check_branch_quota(struct mutation *mutation, struct errmsg *msg);
/* With `more` branches that it made and that come back; "": no key has made them. */
NODISCARD err_t check_quota_of_key(
    struct mutation *mutation, const char *key_id, uint64_t more, struct errmsg *msg);
NODISCARD err_t check_quota_of_project(
    struct mutation *mutation, const struct project *recovered, struct errmsg *msg);
NODISCARD err_t
check_compute_quota(struct mutation *mutation, const char *key_id, struct errmsg *msg);

/* view.c: objects as the API shows them */
struct doc *view_project_doc(const struct api *api, const struct project *project);
struct doc *view_branch_doc(const struct api *api, const struct branch *branch);
struct doc *view_endpoint_doc(const struct api *api, const struct endpoint *endpoint);
struct doc *view_endpoints_of(const struct api *api, const struct branch *branch); /* live ones */
struct doc *view_operation_doc(const struct operation *operation);
struct doc *view_roles(const struct branch *branch);
struct doc *view_databases(const struct branch *branch);
/* [{connection_uri, connection_parameters}] of a read-write endpoint, with the password. */
struct doc *view_connection_uris(const struct api *api, const struct branch *branch);
/* One URI; role and database NULL: the first of the branch. False: there is no such thing. */
bool view_connection_uri(
    const struct api *api,
    const struct endpoint *endpoint,
    const char *role,
    const char *database,
    bool pooled,
    struct buf *to);
struct doc *view_operations_of(const struct mutation *mutation);

/* endpoints.c: used by projects and branches too */
NODISCARD err_t put_new_endpoint(
    struct mutation *mutation,
    const struct branch_row *branch,
    const struct doc *wish,
    struct errmsg *msg);
/* The rest of `row`, which has type and wanted state, from the wish. */
NODISCARD err_t put_endpoint(
    struct mutation *mutation,
    const struct branch_row *branch,
    const struct doc *wish,
    struct endpoint_row *row,
    struct errmsg *msg);
void put_endpoint_deletion(struct mutation *mutation, struct endpoint *endpoint);
void put_deletion_of_endpoints(struct mutation *mutation, const struct branch *branch);
/* Of a compute on the wish's host, also for several endpoints of one change; the range is ours. */
struct port_wish;
NODISCARD err_t choose_port(
    struct mutation *mutation, struct port_wish *wish, uint64_t *ret_port, struct errmsg *msg);
/* POST .../recover: project_id, or branch_id too, comes back. */
NODISCARD err_t decide_project_recovery(struct mutation *mutation, struct errmsg *msg);
NODISCARD err_t decide_branch_recovery(struct mutation *mutation, struct errmsg *msg);
/* As POST .../start, for another route's request; an error has been answered. */
NODISCARD err_t endpoint_want_active(
    struct api *api,
    struct http_request *request,
    const struct endpoint *endpoint,
    struct mutation_then *then);

/* read_only.c: computes at an LSN, each on an ephemeral branch */
#define LEASE_SECONDS_MAX (30 * 24 * 3600)
bool wish_is_read_only(const struct doc *body);
void post_read_only(struct mutation *mutation); /* submits or fails it */
/*
 * connect.c: the endpoint that others have come for, or NULL; and how many moments the branch has.
 */
const struct endpoint *find_moment(
    const struct branch *branch, const char *name, size_t *ret_count);
#define MOMENTS_MAX 8 /* of a branch: their makers need not have logged in */
/*
 * For who connects to a moment; false: it was answered with an error. `body` as of POST
 * .../endpoints. One that somebody else has made meanwhile is taken.
 */
bool read_only_begin(
    struct api *api,
    struct http_request *request,
    const char *project_id,
    struct doc *body,
    struct mutation_then *then);
/* Once nobody asks any more: without a request, which may be answered meanwhile. */
void read_only_end(
    struct api *api, const char *project_id, const char *endpoint_id, struct mutation_then *then);
void put_read_only_deletion(struct mutation *mutation, struct endpoint *endpoint);
/* `lease_seconds`, if it is given; 0: it stays until it is stopped. */
NODISCARD err_t read_lease(
    struct mutation *mutation, const struct doc *wish, wall_us_t *ret_until, struct errmsg *msg);
NODISCARD err_t renew_lease(
    struct mutation *mutation,
    const struct endpoint *endpoint,
    const struct doc *wish,
    struct errmsg *msg);

/* recover.c: deletions that can be taken back */
bool is_hard_delete(const struct mutation *mutation); /* said so, or nothing is recoverable here */
void put_branch_aside(struct mutation *mutation, const struct branch *branch);
void put_project_aside(struct mutation *mutation, const struct project *project);

/* placement.c */
NODISCARD err_t
choose_safekeepers(struct mutation *mutation, struct node_set *ret_set, struct errmsg *msg);

/* branches.c: used by projects too */
NODISCARD err_t
check_name(struct mutation *mutation, const char *what, const char *name, struct errmsg *msg);

/* People print names in terminals and in files of lines. */
NODISCARD err_t
check_one_line(struct mutation *mutation, const char *what, const char *name, struct errmsg *msg);

/* One that is there already may be older than the rules for names: only a new one is checked. */
NODISCARD err_t check_branch_name_is_free(
    struct mutation *mutation, const struct project *project, const char *name, struct errmsg *msg);
/* The name may be given to a branch, and is free. */
NODISCARD err_t check_branch_name(
    struct mutation *mutation, const struct project *project, const char *name, struct errmsg *msg);
/* And there is room for one more. */
NODISCARD err_t check_new_branch(
    struct mutation *mutation, const struct project *project, const char *name, struct errmsg *msg);

/* snapshots.c */
NODISCARD err_t find_snapshot(
    const struct api *api,
    const char *project_id,
    const char *id,
    struct branch **ret_snapshot,
    struct errmsg *msg);
struct doc *view_snapshot(const struct branch *snapshot);
/* `mutation` says where (branch_start.h); `row` has snapshot_name, expires_at and is_manual. */
NODISCARD err_t put_snapshot(
    struct mutation *mutation,
    const struct branch *source,
    struct branch_row *row,
    struct errmsg *msg);
/* "20261127T004512Z", for the names of what got none. */
struct compact_time {
    char text[24];
};
struct compact_time compact_time(wall_us_t time);

/* schedule.c: snapshots by the calendar */
void schedules_look(struct api *api); /* now, not at the next tick */

/* roles.c: used by projects too */
NODISCARD err_t check_role_name(struct mutation *mutation, const char *name, struct errmsg *msg);
NODISCARD err_t
check_database_name(struct mutation *mutation, const char *name, struct errmsg *msg);
struct doc *new_role(const char *name); /* with a random password */
struct doc *new_database(const char *name, const char *owner);
struct doc *find_named(const struct doc *array, const char *name); /* {"name": NAME}; or NULL */

extern const struct http_route project_routes[], branch_routes[], branch_list_routes[],
    restore_routes[], safekeeper_routes[], snapshot_routes[], snapshot_restore_routes[],
    schedule_routes[], storage_routes[], consumption_routes[], role_routes[], endpoint_routes[],
    operation_routes[], schema_routes[], key_routes[], openapi_routes[], recover_routes[],
    permission_routes[], other_routes[], rpc_routes[];
extern const size_t project_route_count, branch_route_count, branch_list_route_count,
    restore_route_count, safekeeper_route_count, snapshot_route_count, snapshot_restore_route_count,
    schedule_route_count, storage_route_count, consumption_route_count, role_route_count,
    endpoint_route_count, operation_route_count, schema_route_count, key_route_count,
    openapi_route_count, recover_route_count, permission_route_count, other_route_count,
    rpc_route_count;

/* The calls of the other parts: common/rpc/methods.h. */
RPC_CONTROL(RPC_HANDLER)

/* All of them, in the order in which they are matched. */
struct api_table {
    const struct http_route *routes;
    const size_t *count;
};
extern const struct api_table api_tables[];
extern const size_t api_table_count;
