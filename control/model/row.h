/*
 * row.h - the rows of the catalog as plain structs, and their JSON.
 *
 * One field list a kind gives struct, encoder and decoder. A field that is missing in the JSON is
 * zero, a field that we do not know is dropped: rows of a neighbouring release can be read.
 * Rows with doc fields hold references: row_ref after a struct copy, row_unref at the end.
 */
#pragma once

#include "common/base/bytes.h"
#include "common/base/id.h"
#include "common/json/doc.h"

#define ROW_ID_SIZE     64
#define SAFEKEEPERS_MAX 5

typedef char row_id_t[ROW_ID_SIZE];
typedef char row_text_t[128];
typedef char row_long_t[sizeof(struct errmsg)];
typedef uint64_t row_u64_t;
typedef bool row_bool_t;
typedef lsn_t row_lsn_t;
typedef wall_us_t row_time_t;
typedef struct tenant_id row_tenant_t;
typedef struct timeline_id row_timeline_t;
typedef uint32_t row_choice_t; /* an enum, written by name */
typedef struct doc *row_doc_t; /* immutable once in a row: shared by reference */
typedef struct node_set {
    uint64_t ids[SAFEKEEPERS_MAX];
    uint64_t count;
} row_nodes_t;

/*
 * Bytes that are stored, by what they are kept for: control/plan/stored.h. Of a branch, or of all
 * of a project.
 */
enum stored_kind {
    STORED_ROOT,
    STORED_CHILD,
    STORED_RESTORE,
    STORED_SNAPSHOT,
    STORED_SYNTHETIC,
    STORED_LOGICAL,
    STORED_KINDS
};
typedef struct stored {
    uint64_t of[STORED_KINDS];
} row_stored_t;

enum project_state { PROJECT_ACTIVE, PROJECT_DELETING, PROJECT_DELETED };
enum branch_state { BRANCH_INIT, BRANCH_READY, BRANCH_DELETING, BRANCH_DELETED };
enum endpoint_type { ENDPOINT_READ_WRITE, ENDPOINT_READ_ONLY };
/* restarting: idle, and active as soon as it is. */
enum endpoint_wanted { ENDPOINT_ACTIVE, ENDPOINT_IDLE, ENDPOINT_DELETING, ENDPOINT_RESTARTING };
enum operation_action {
    ACTION_CREATE_TIMELINE,
    ACTION_CREATE_BRANCH,
    ACTION_START_COMPUTE,
    ACTION_SUSPEND_COMPUTE,
    ACTION_DELETE_TIMELINE,
    ACTION_TENANT_DETACH,
    ACTION_APPLY_CONFIG,
    ACTION_CHANGE_SAFEKEEPERS,
};
enum usage_granularity { USAGE_HOURLY, USAGE_DAILY, USAGE_MONTHLY };
#define USAGE_GRANULARITIES 3
enum operation_status { STATUS_RUNNING, STATUS_FINISHED, STATUS_FAILED, STATUS_CANCELLED };

extern const char *const project_state_names[];
extern const char *const branch_state_names[];
extern const char *const endpoint_type_names[];
extern const char *const endpoint_wanted_names[];
extern const char *const operation_action_names[];
extern const char *const operation_status_names[];
extern const char *const usage_granularity_names[];
extern const char *const stored_names[];

/* seq: order of creation; version: counts the writes of the row, the catalog checks it. */
#define ROW_HEAD_FIELDS(X)                                                                         \
    X(id, id, NULL)                                                                                \
    X(id, project_id, NULL)                                                                        \
    X(u64, version, NULL)                                                                          \
    X(u64, seq, NULL)                                                                              \
    X(time, created_at, NULL)                                                                      \
    X(time, updated_at, NULL)

/*
 * generation: of the attachment to `pageserver`, whose disk had this `incarnation`. deleted_at: of
 * an active one too, if it is deleted for people and can be recovered until recoverable_until.
 */
#define PROJECT_FIELDS(X)                                                                          \
    ROW_HEAD_FIELDS(X)                                                                             \
    X(text, name, NULL)                                                                            \
    X(choice, state, project_state_names)                                                          \
    X(tenant, tenant, NULL)                                                                        \
    X(u64, pg_version, NULL)                                                                       \
    X(text, system_id, NULL)                                                                       \
    X(text, bootstrap_object, NULL)                                                                \
    X(u64, pageserver, NULL)                                                                       \
    X(u64, generation, NULL)                                                                       \
    X(text, incarnation, NULL)                                                                     \
    X(u64, history_retention_seconds, NULL)                                                        \
    X(text, region_id, NULL)                                                                       \
    X(doc, settings, NULL)                                                                         \
    X(time, deleted_at, NULL)                                                                      \
    X(time, recoverable_until, NULL)

/*
 * start_lsn of a root is 0 until the bootstrap image is known. confirmed: the safekeepers that have
 * held the timeline; one that no longer does has lost WAL and votes, and is never filled again.
 * change_generation: of the joint membership with next_safekeepers, 0: no change is under way;
 * change_disks: {"ID": incarnation} of the newcomers when it began. left_safekeepers: who was a
 * member and may still hold the timeline. See docs/design/membership.md. is_ephemeral: it belongs
 * to a read_only endpoint, whose source_branch_id it shows at start_lsn, and goes with it.
 * is_cut_off: a compute has run on it, and has disabled the subscriptions of its parent before.
 * dropped: {roles: [name], databases: [name]} that a compute still has to make go, and its changed:
 * [{from, to, owner}] databases, in order. created_by: the API key that made it, "" without one.
 * is_found: a rebuild of the catalog found the timeline and no branch that knew it; it is looked
 * for on the nodes and created nowhere.
 * is_snapshot: nobody writes to it; it is ephemeral as well, so that no list of branches shows it,
 * and people know it by its snapshot_name. is_retired: it is deleted for people, but others hang on
 * it: it goes when the last of them does. restored_from: the snapshot that it shows, restored_as:
 * the branch whose place it takes, and has taken when it is_finalized. schedule: [{frequency, hour,
 * day, month, retention_seconds}] of its snapshots, carried out up to scheduled_at; scheduled_by:
 * the API key that said so, whose quota counts them, "" without one.
 * recoverable_until: it was deleted for people at deleted_at, by them or because it had expired
 * (has_expired), and is as it was until then: nobody sees it, and it can be recovered.
 */
#define BRANCH_FIELDS(X)                                                                           \
    ROW_HEAD_FIELDS(X)                                                                             \
    X(text, name, NULL)                                                                            \
    X(choice, state, branch_state_names)                                                           \
    X(timeline, timeline, NULL)                                                                    \
    X(id, parent_id, NULL)                                                                         \
    X(lsn, start_lsn, NULL)                                                                        \
    X(time, parent_timestamp, NULL)                                                                \
    X(bool, is_default, NULL)                                                                      \
    X(bool, is_protected, NULL)                                                                    \
    X(u64, membership_generation, NULL)                                                            \
    X(nodes, safekeepers, NULL)                                                                    \
    X(nodes, confirmed, NULL)                                                                      \
    X(doc, roles, NULL)                                                                            \
    X(doc, databases, NULL)                                                                        \
    X(time, state_changed_at, NULL)                                                                \
    X(time, expires_at, NULL)                                                                      \
    X(time, last_reset_at, NULL)                                                                   \
    X(u64, change_generation, NULL)                                                                \
    X(bool, change_given_up, NULL)                                                                 \
    X(nodes, next_safekeepers, NULL)                                                               \
    X(doc, change_disks, NULL)                                                                     \
    X(nodes, left_safekeepers, NULL)                                                               \
    X(bool, is_ephemeral, NULL)                                                                    \
    X(bool, is_cut_off, NULL)                                                                      \
    X(doc, dropped, NULL)                                                                          \
    X(id, created_by, NULL)                                                                        \
    X(bool, is_found, NULL)                                                                        \
    X(bool, is_snapshot, NULL)                                                                     \
    X(bool, is_manual, NULL)                                                                       \
    X(text, snapshot_name, NULL)                                                                   \
    X(id, source_branch_id, NULL)                                                                  \
    X(bool, is_retired, NULL)                                                                      \
    X(id, restored_from, NULL)                                                                     \
    X(id, restored_as, NULL)                                                                       \
    X(bool, is_finalized, NULL)                                                                    \
    X(doc, schedule, NULL)                                                                         \
    X(time, scheduled_at, NULL)                                                                    \
    X(id, scheduled_by, NULL)                                                                      \
    X(time, deleted_at, NULL)                                                                      \
    X(time, recoverable_until, NULL)                                                               \
    X(bool, has_expired, NULL)

/* cu_min_milli, cu_max_milli: thousandths of a compute unit, 0: no limit was asked for. */
#define ENDPOINT_FIELDS(X)                                                                         \
    ROW_HEAD_FIELDS(X)                                                                             \
    X(id, branch_id, NULL)                                                                         \
    X(text, name, NULL)                                                                            \
    X(choice, type, endpoint_type_names)                                                           \
    X(choice, wanted, endpoint_wanted_names)                                                       \
    X(u64, agent, NULL)                                                                            \
    X(u64, port, NULL)                                                                             \
    X(doc, settings, NULL)                                                                         \
    X(time, started_at, NULL)                                                                      \
    X(time, suspended_at, NULL)                                                                    \
    X(long, last_error, NULL)                                                                      \
    X(id, source_branch_id, NULL)                                                                  \
    X(u64, suspend_timeout_seconds, NULL)                                                          \
    X(bool, never_suspends, NULL)                                                                  \
    X(u64, cu_min_milli, NULL)                                                                     \
    X(u64, cu_max_milli, NULL)                                                                     \
    X(id, created_by, NULL)

#define OPERATION_FIELDS(X)                                                                        \
    ROW_HEAD_FIELDS(X)                                                                             \
    X(id, branch_id, NULL)                                                                         \
    X(id, endpoint_id, NULL)                                                                       \
    X(choice, action, operation_action_names)                                                      \
    X(choice, status, operation_status_names)                                                      \
    X(long, error, NULL)

/*
 * An API key: project_id "": of the whole organisation. hash: SHA-256 of the key in hex; the key
 * itself is nowhere. branches_max, computes_max: of what it made and runs at a time; 0: no limit.
 */
#define KEY_FIELDS(X)                                                                              \
    ROW_HEAD_FIELDS(X)                                                                             \
    X(text, name, NULL)                                                                            \
    X(text, hash, NULL)                                                                            \
    X(bool, is_read_only, NULL)                                                                    \
    X(u64, branches_max, NULL)                                                                     \
    X(u64, computes_max, NULL)                                                                     \
    X(time, last_used_at, NULL)                                                                    \
    X(text, last_used_from, NULL)

/* What initdb made once for a Postgres version: every root starts from it. */
#define IMAGE_FIELDS(X)                                                                            \
    ROW_HEAD_FIELDS(X)                                                                             \
    X(text, object, NULL)                                                                          \
    X(text, system_id, NULL)                                                                       \
    X(u64, pg_version, NULL)                                                                       \
    X(lsn, start_lsn, NULL)

/*
 * What an Idempotency-Key was answered; the id is a hash of caller, method, path and key. digest:
 * of the body. made: the ids with which the answer can be given again; answer: as it was given, if
 * it was not lost in a crash, is small enough and shows no secret.
 */
#define REPLY_FIELDS(X)                                                                            \
    ROW_HEAD_FIELDS(X)                                                                             \
    X(text, caller, NULL)                                                                          \
    X(text, digest, NULL)                                                                          \
    X(u64, status, NULL)                                                                           \
    X(time, expires_at, NULL)                                                                      \
    X(bool, is_secret, NULL)                                                                       \
    X(doc, made, NULL)                                                                             \
    X(doc, answer, NULL)

/*
 * A compute host whose agent registered itself, under the number that it has as `agent` of
 * endpoints. The row goes when nobody kept it alive for lease_ms: control/act/hosts.h.
 * listen_host: where its computes listen.
 */
#define HOST_FIELDS(X)                                                                             \
    ROW_HEAD_FIELDS(X)                                                                             \
    X(u64, number, NULL)                                                                           \
    X(text, address, NULL)                                                                         \
    X(u64, http_port, NULL)                                                                        \
    X(text, listen_host, NULL)                                                                     \
    X(u64, lease_ms, NULL)

/*
 * What a project has used in an hour, a day or a month (UTC) that begins at `begin`. compute: of
 * one unit, a compute of two counts twice. branch_id: only that branch; "" for all of the project.
 * stored: since stored_at (never, if that is 0), and until a newer row says otherwise; byte_hours:
 * what had been stored in the period until then, for how long.
 */
#define USAGE_FIELDS(X)                                                                            \
    ROW_HEAD_FIELDS(X)                                                                             \
    X(choice, granularity, usage_granularity_names)                                                \
    X(time, begin, NULL)                                                                           \
    X(u64, active_ms, NULL)                                                                        \
    X(u64, compute_ms, NULL)                                                                       \
    X(u64, written_bytes, NULL)                                                                    \
    X(id, branch_id, NULL)                                                                         \
    X(time, stored_at, NULL)                                                                       \
    X(stored, stored, NULL)                                                                        \
    X(stored, byte_hours, NULL)

#define ROW_MEMBER(type, name, names) row_##type##_t name;
struct row_head {
    ROW_HEAD_FIELDS(ROW_MEMBER)
};
struct project_row {
    PROJECT_FIELDS(ROW_MEMBER)
};
struct branch_row {
    BRANCH_FIELDS(ROW_MEMBER)
};
struct endpoint_row {
    ENDPOINT_FIELDS(ROW_MEMBER)
};
struct operation_row {
    OPERATION_FIELDS(ROW_MEMBER)
};
struct image_row {
    IMAGE_FIELDS(ROW_MEMBER)
};
struct key_row {
    KEY_FIELDS(ROW_MEMBER)
};
struct usage_row {
    USAGE_FIELDS(ROW_MEMBER)
};
struct reply_row {
    REPLY_FIELDS(ROW_MEMBER)
};
struct host_row {
    HOST_FIELDS(ROW_MEMBER)
};

/* In the order in which they refer to each other: the earlier is loaded first. */
enum row_kind {
    ROW_IMAGE,
    ROW_PROJECT,
    ROW_BRANCH,
    ROW_ENDPOINT,
    ROW_OPERATION,
    ROW_KEY,
    ROW_REPLY,
    ROW_USAGE,
    ROW_HOST,
    ROW_KIND_COUNT
};

union any_row {
    struct row_head head;
    struct project_row project;
    struct branch_row branch;
    struct endpoint_row endpoint;
    struct operation_row operation;
    struct image_row image;
    struct key_row key;
    struct reply_row reply;
    struct usage_row usage;
    struct host_row host;
};

bool stored_is_nothing(const struct stored *stored);
bool node_set_has(const struct node_set *set, uint64_t id);

const char *row_kind_name(enum row_kind kind); /* "branch" */
size_t row_size(enum row_kind kind);

struct doc *row_encode(enum row_kind kind, const void *row);
/* On success `ret_row` holds references (row_unref); on failure nothing. */
NODISCARD err_t
row_decode(enum row_kind kind, const struct doc *doc, union any_row *ret_row, struct errmsg *msg);

void row_ref(enum row_kind kind, void *row);   /* one more reference on every doc field */
void row_unref(enum row_kind kind, void *row); /* and they are NULL */
