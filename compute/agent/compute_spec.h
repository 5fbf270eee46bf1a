/*
 * compute_spec.h - what a compute shall be: the body of its PUT, checked.
 *
 * Owned texts point into `body`, which the spec holds. Immutable after parsing.
 */
#pragma once

#include "common/base/id.h"
#include "common/base/str.h"
#include "common/json/doc.h"

#define COMPUTE_SAFEKEEPERS_MAX 9
#define COMPUTE_ID_SIZE         65

struct compute_safekeeper {
    uint64_t id;
    const char *host;
    uint16_t port, http_port; /* http_port 0: WAL of slots cannot be read from it */
};

/* 0: no limit. */
struct compute_size {
    uint64_t memory_mb;
    uint64_t cpu_milli; /* 1000: one processor */
    uint64_t processes;
    uint64_t file_size_mb; /* of each file */
};

struct compute_spec {
    struct doc *body; /* as it came; never logged, it holds passwords */
    struct tenant_id tenant;
    struct timeline_id timeline;
    uint64_t system_id;
    uint32_t pg_version;
    uint16_t port; /* 0: pick one at each start */
    const char *listen_host;
    struct compute_safekeeper safekeepers[COMPUTE_SAFEKEEPERS_MAX];
    size_t safekeeper_count;
    generation_t membership_generation;
    generation_t generation; /* of the attachment at the pageserver */
    const char *pageserver_host;
    uint16_t pageserver_port;
    const char *pageserver_url;
    uint64_t memory_mb, cpu_milli; /* what its size gives it; 0: no limit */
    bool is_branch;                /* it has a parent: schedulers stay off unless asked */
    bool quarantine; /* its first start: cut what it inherited before anybody is let in */
    const char *superuser_password; /* NULL: none, so no login over TCP */
    struct doc *settings;           /* borrowed from body; each of them may be NULL */
    struct doc *roles;
    struct doc *databases;
    struct doc *dropped; /* {roles: [name], databases: [name]}: shall be gone; changed: see
                            compute_drop.h */
};

/* Refs `body`. ERR_INVALID names the member. */
NODISCARD err_t
compute_spec_parse(struct doc *body, struct compute_spec **ret_spec, struct errmsg *msg);
void compute_spec_destroy(struct compute_spec *spec); /* NULL is fine */
bool compute_spec_equal(const struct compute_spec *a, const struct compute_spec *b);

/* A copy of the body without passwords; the caller's. */
struct doc *compute_spec_redacted(const struct compute_spec *spec);

/* 1 to 64 of [A-Za-z0-9._-], not beginning with a dot or dash. */
NODISCARD err_t compute_id_check(const char *id, struct errmsg *msg);

/* ERR_INVALID for settings that belong to the storage, or a name that is no setting's. */
NODISCARD err_t
compute_setting_check(const char *name, const struct doc *value, struct errmsg *msg);
