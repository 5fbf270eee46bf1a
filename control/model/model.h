/*
 * model.h - what control knows, in memory: the catalog's rows, linked, and what was seen of them on
 * the nodes.
 *
 * Rows change only through model_apply() and model_remove(), after the catalog has them. `seen` and
 * the attempts are memory only: they belong to control/act and start from "unknown" in every
 * process. Threads: loop only.
 */
#pragma once

#include "common/base/list.h"
#include "control/model/index.h"
#include "control/model/lease.h"
#include "control/model/row.h"
#include "safekeeper/consensus/change.h"

enum seen { SEEN_UNKNOWN, SEEN_ABSENT, SEEN_PRESENT };

enum compute_seen {
    COMPUTE_UNKNOWN,
    COMPUTE_ABSENT,
    COMPUTE_STARTING,
    COMPUTE_RUNNING,
    COMPUTE_STOPPING,
    COMPUTE_STOPPED,
    COMPUTE_FAILED,
    COMPUTE_REFUSED, /* its settings, by the agent or by Postgres */
    COMPUTE_FENCED,
};

/* One place where a step of an object may be under way; it backs off after a failure. */
struct attempt {
    bool running;
    uint8_t failures;
    mono_ns_t next; /* not before */
};

/* Used since the last time that it was recorded, and what of it is being recorded. */
struct used {
    uint64_t active_ms, compute_ms, written_bytes;
};

/* What is stored, memory only: control/act/sizes.h. */
struct measured {
    bool is_known;          /* measured since this process began */
    bool is_due;            /* it is another size than on record */
    struct stored stored;   /* as it was measured last */
    struct stored recorded; /* as it was recorded last */
    uint64_t pass;          /* number of the one of the meter in which it was recorded last */
};

struct project {
    struct project_row row;
    struct index_link by_id, by_tenant;
    struct id_text tenant_text; /* key of by_tenant */
    struct list_link in_model;
    struct list branches, endpoints, operations, usages; /* in order of creation */
    size_t branch_count, recoverable_count, endpoint_count, operation_count;
    struct index names;  /* of its live branches */
    struct list running; /* operations of the project itself that have not ended */

    struct used used, recording; /* memory only: control/act/meter.h */

    struct measured measured;
    bool measuring;
    uint64_t stored_seen, stored_measured; /* change with what is stored; 0: not seen yet */
    wall_us_t measured_at, measure_at;     /* measure_at: again, not before */

    enum seen on_pageserver;
    uint64_t seen_poll;      /* number of the poll that listed it */
    bool seen_outdated;      /* and then another window or an older generation than its row */
    uint64_t deletions_poll; /* number of the poll that said which deletions are not stored yet */
    bool is_erased; /* deleted, and the pageserver says that nothing is left of it anywhere */
    uint8_t erasures_asked;  /* in a row: it is going, said the pageserver */
    size_t erasures_running; /* deletions of timelines on the pageserver */
    struct attempt attempt;
    struct list_link in_work, in_retry, in_commit, in_purge;
};

/* Former members, and the newcomers of a change that ends with its branch. */
#define LEFT_MAX (2 * SAFEKEEPERS_MAX)

struct branch {
    struct branch_row row;
    struct project *project;
    struct branch *parent; /* NULL: a root */
    struct index_link by_id, by_timeline, by_name;
    struct id_text timeline_text; /* key of by_timeline */
    struct list_link in_project, in_parent;
    struct list children, endpoints;
    struct list running, usages;
    struct used used, recording; /* memory only */
    struct measured measured;
    uint64_t logical_bytes; /* if it was measured */

    enum seen on_pageserver, on_safekeeper[SAFEKEEPERS_MAX];
    /* Pageserver, then safekeepers as in row.safekeepers. */
    uint64_t seen_poll[1 + SAFEKEEPERS_MAX];
    /* Deleted there, and its object store does without it: no other disk will bring it back. */
    bool is_forgotten;
    uint64_t stored_poll;            /* number of the poll that said that it does not yet */
    uint64_t deleted_poll;           /* ... of the last one that may be older than the deletion */
    uint8_t missed[SAFEKEEPERS_MAX]; /* polls in a row that did not list it */
    bool held[SAFEKEEPERS_MAX];      /* it was seen there, whether the row has that yet or not */
    lsn_t cutoff_lsn;                /* where its history began when it was measured; 0: unknown */
    lsn_t last_lsn, metered_lsn; /* on the pageserver, and up to where it was counted; 0: unknown */
    bool is_timeline_new; /* it began with the row that we have; a restore leaves an old one */
    struct attempt pageserver_attempt, safekeeper_attempts[SAFEKEEPERS_MAX];

    /* What the members answered under the newest membership, by their index in it: members.h. */
    struct change_report reports[MEMBERS_MAX];
    struct attempt member_attempts[MEMBERS_MAX];
    uint64_t pageserver_generation; /* of the membership that the pageserver was told; 0: ask */
    enum seen on_left[LEFT_MAX];    /* parallel to branch_left() */
    struct attempt left_attempts[LEFT_MAX];

    /* Of the snapshots that its schedule makes, control/api/schedule.c; memory only. */
    struct attempt schedule_attempt;
    char *schedule_error; /* why the last try made none, owned; NULL: it did, or there was none */
    struct list_link in_work, in_retry, in_commit, in_purge, in_ending;
};

struct endpoint {
    struct endpoint_row row;
    struct project *project;
    struct branch *branch;
    struct index_link by_id;
    struct list_link in_project, in_branch;
    struct list running;
    struct list waiters; /* of control/api: for its compute */

    enum compute_seen seen;
    row_long_t seen_error;
    row_text_t seen_step;
    struct timeline_id seen_timeline; /* that it works on: a restored branch has another one */
    uint64_t idle_ms;                 /* since its last work, as the agent saw it */
    mono_ns_t connected_at;           /* a gateway was told where it runs; 0: never */
    uint64_t wish, told; /* count changes of what its PUT says; the agent has the one of `told` */
    bool recreate;       /* the agent holds it with other settings: delete, then start */
    uint64_t seen_poll;
    struct attempt attempt;
    struct list_link in_work, in_retry, in_commit, in_homeless, in_purge;
};

struct operation {
    struct operation_row row;
    struct project *project;
    struct index_link by_id;
    struct list_link in_project, in_target; /* in_target: `running` of what it is about */
    struct list waiters;                    /* of control/api: long polls */
    unsigned failures_count;
    wall_us_t retry_at;
    struct errmsg failure; /* of the last step that failed; memory only */
};

struct api_key {
    struct key_row row;
    struct index_link by_id, by_hash;
    struct list_link in_model;

    /* Memory only: used since the row was written, and how many requests it may make now. */
    wall_us_t used_at;
    row_text_t used_from;
    double tokens;
    mono_ns_t tokens_at;
    uint64_t made, comes_back; /* branches, while a project's recovery counts them */
};

/* The answer to a request with an Idempotency-Key: see control/api/idempotency.h. */
struct reply {
    struct reply_row row;
    struct index_link by_id;
    struct list_link in_model;
};

struct host {
    struct host_row row;
    struct index_link by_id;
    struct list_link in_model;
    struct lease lease; /* memory only: begins when somebody looks (control/act/hosts.c) */
};

struct usage {
    struct usage_row row;
    struct index_link by_id;
    struct list_link in_target; /* of its project, or of its branch */
};

struct model {
    struct index projects, tenants, branches, timelines, endpoints, operations, keys, hashes,
        replies, hosts, usages;
    struct list project_list, key_list, reply_list, host_list; /* in order of creation */
    uint64_t seq_last;
    struct image_row image; /* id is empty until initdb has run */
};

void model_init(struct model *model);
void model_deinit(struct model *model);

/*
 * Create or update the object of a row; the model keeps its own references. What the row refers to
 * must be there (ERR_CORRUPT otherwise), but for the parent of a branch: see model_link. Returns
 * the object: struct project, branch, endpoint, operation, api_key, reply, host, or NULL for an
 * image.
 */
NODISCARD err_t model_apply(
    struct model *model,
    enum row_kind kind,
    const union any_row *row,
    void **ret_object,
    struct errmsg *msg);
/*
 * Find the parent that the row names. After every row of one change was applied: a restore puts a
 * new branch above an old one, so neither order of rows would have each parent first.
 */
NODISCARD err_t model_link(struct model *model, struct branch *branch, struct errmsg *msg);
NODISCARD err_t model_link_all(struct model *model, struct errmsg *msg); /* after loading */
/* The object is freed. Nothing may refer to it any more. An unknown id is fine. */
void model_remove(struct model *model, enum row_kind kind, const char *id);

/* NULL: there is none. */
struct project *model_project(const struct model *model, const char *id);
struct project *model_project_of_tenant(const struct model *model, const char *tenant_hex);
struct branch *model_branch(const struct model *model, const char *id);
struct branch *model_branch_of_timeline(const struct model *model, const char *timeline_hex);
struct endpoint *model_endpoint(const struct model *model, const char *id);
struct operation *model_operation(const struct model *model, const char *id);
struct api_key *model_key(const struct model *model, const char *id);
struct usage *model_usage(const struct model *model, const char *id);
struct reply *model_reply(const struct model *model, const char *id);
struct api_key *model_key_of_hash(const struct model *model, const char *hash);
struct host *model_host(const struct model *model, const char *id);

/* What people know as a project: neither deleted nor being deleted, and not recoverable. */
bool project_is_shown(const struct project *project);
/* Deleted for people, unchanged on the nodes, and they can have it back. */
bool project_is_recoverable(const struct project *project);
bool branch_is_recoverable(const struct branch *branch);
#define RECOVERABLE_BRANCHES_MAX 1000 /* of a project: then deleted is deleted */
/*
 * When it is deleted or expires, it is set aside: it is what people know as a branch, and its
 * project has not set aside as many as it may.
 */
bool branch_may_be_set_aside(const struct branch *branch);
bool branch_is_live(const struct branch *branch); /* not deleted, not being deleted */
/* What people know as a branch, or as a snapshot. */
bool branch_is_shown(const struct branch *branch);
bool snapshot_is_shown(const struct branch *branch);
/* The nearest ancestor that is shown; NULL: there is none. */
const struct branch *branch_shown_parent(const struct branch *branch);
/*
 * Live children that are neither snapshots nor retired nor recoverable: people's, and those of
 * read_only endpoints.
 */
size_t branch_shown_children(const struct branch *branch);
/*
 * A row that is deleted: at once, or when the last of its snapshots and retired children has gone.
 */
void branch_take_leave(const struct branch *branch, struct branch_row *row);
/* A row that is deleted for people, and that they can have back until then. */
void branch_set_aside(struct branch_row *row, wall_us_t now, wall_us_t until);
bool endpoint_is_live(const struct endpoint *endpoint);
bool endpoint_is_shown(const struct endpoint *endpoint);
/* It sleeps until its branch or project is recovered; its port is its own if nobody needs it. */
bool endpoint_is_recoverable(const struct endpoint *endpoint);
struct branch *project_default_branch(const struct project *project); /* NULL: none */
struct branch *project_branch_named(const struct project *project, const char *name);
size_t branch_live_children(const struct branch *branch);
/* Of a recoverable endpoint: by another one meanwhile. */
bool endpoint_lost_port(const struct model *model, const struct endpoint *endpoint);

#define FOR_EACH_KEY(model, item)                                                                  \
    LIST_FOR_EACH(&(model)->key_list, item##_at)                                                   \
    for (struct api_key *item = CONTAINER_OF(item##_at, struct api_key, in_model); item != NULL;   \
         item = NULL)
#define FOR_EACH_REPLY(model, item)                                                                \
    LIST_FOR_EACH(&(model)->reply_list, item##_at)                                                 \
    for (struct reply *item = CONTAINER_OF(item##_at, struct reply, in_model); item != NULL;       \
         item = NULL)
#define FOR_EACH_HOST(model, item)                                                                 \
    LIST_FOR_EACH(&(model)->host_list, item##_at)                                                  \
    for (struct host *item = CONTAINER_OF(item##_at, struct host, in_model); item != NULL;         \
         item = NULL)
#define FOR_EACH_PROJECT(model, item)                                                              \
    LIST_FOR_EACH(&(model)->project_list, item##_at)                                               \
    for (struct project *item = CONTAINER_OF(item##_at, struct project, in_model); item != NULL;   \
         item = NULL)
#define FOR_EACH_BRANCH(project, item)                                                             \
    LIST_FOR_EACH(&(project)->branches, item##_at)                                                 \
    for (struct branch *item = CONTAINER_OF(item##_at, struct branch, in_project); item != NULL;   \
         item = NULL)
#define FOR_EACH_CHILD(branch, item)                                                               \
    LIST_FOR_EACH(&(branch)->children, item##_at)                                                  \
    for (struct branch *item = CONTAINER_OF(item##_at, struct branch, in_parent); item != NULL;    \
         item = NULL)
#define FOR_EACH_ENDPOINT(project, item)                                                           \
    LIST_FOR_EACH(&(project)->endpoints, item##_at)                                                \
    for (struct endpoint *item = CONTAINER_OF(item##_at, struct endpoint, in_project);             \
         item != NULL; item = NULL)
#define FOR_EACH_ENDPOINT_OF(branch, item)                                                         \
    LIST_FOR_EACH(&(branch)->endpoints, item##_at)                                                 \
    for (struct endpoint *item = CONTAINER_OF(item##_at, struct endpoint, in_branch);              \
         item != NULL; item = NULL)
#define FOR_EACH_OPERATION(project, item)                                                          \
    LIST_FOR_EACH(&(project)->operations, item##_at)                                               \
    for (struct operation *item = CONTAINER_OF(item##_at, struct operation, in_project);           \
         item != NULL; item = NULL)
#define FOR_EACH_USAGE(target, item)                                                               \
    LIST_FOR_EACH(&(target)->usages, item##_at)                                                    \
    for (struct usage *item = CONTAINER_OF(item##_at, struct usage, in_target); item != NULL;      \
         item = NULL)
#define FOR_EACH_RUNNING(target, item)                                                             \
    LIST_FOR_EACH(&(target)->running, item##_at)                                                   \
    for (struct operation *item = CONTAINER_OF(item##_at, struct operation, in_target);            \
         item != NULL; item = NULL)
