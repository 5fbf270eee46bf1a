/*
 * tenant_private.h - shared by tenant.c (members, requests) and tenant_*.c.
 */
#pragma once

#include "common/base/str.h"
#include "pageserver/timeline/doomed_tenants.h"
#include "pageserver/timeline/tenant.h"
#include "pageserver/timeline/timeline_private.h"

struct tenant {
    struct tenants *tenants;
    struct tenant_id id;
    struct log log;
    generation_t generation;
    struct page_store *store;
    struct history *history;
    struct lane lane;                        /* rows and erasures, in order */
    struct list members, requests, erasures; /* members: struct timeline, parents first */
    struct list advanced;                    /* members with WAL that is not durable yet */
    struct timeline **buckets;               /* of members, by id; a power of two */
    size_t member_count, bucket_count;
    uint32_t next_number;
    struct list new_timelines;     /* requests whose rows wait: those before are being written */
    struct list written_timelines; /* the job's while it is in the lane */
    struct job new_rows_job;
    bool writing_new_rows;
    struct list deletions, written_deletions; /* the same of requests to delete */
    struct job deletions_job;
    bool writing_deletions;
    char failure[sizeof(((struct errmsg *)NULL)->text)];
    char full[sizeof(((struct errmsg *)NULL)->text)]; /* why no flush finds room; empty: they do */
    bool deleting;
    unsigned holds, readers;
    struct tenant_user *user;

    struct job flush_job;
    bool flushing;
    struct list erased; /* erasures in the lane: the job's */
    struct job erase_job;
    bool erasing; /* one is; none while a flush is at work, and the other way round */
    uint64_t flushing_bytes;
    mono_ns_t dirty_since; /* 0: nothing unflushed */
    mono_ns_t retry_at;

    struct job gc_job;
    bool collecting;
    mono_ns_t gc_at;                        /* the next round; 0: as soon as possible */
    uint64_t files_stamp, files_stamp_told; /* at the last round; when on_rewritten was called */
    struct list_link link;
};

struct tenants {
    struct tenants_options options;
    char folder[PATH_SIZE];
    struct list list, requests, shut;
    struct doomed_tenants doomed;
    size_t count;
    struct timer tick;
};

/* A request is in one of the lists from begin to finish. Finish calls `done`. */
void tenant_request_begin(
    struct tenant_request *request, struct tenants *tenants, struct tenant *tenant);
void tenant_request_finish(struct tenant_request *request, err_t result);
/* From the loop, not from inside start. */
void tenant_request_answer(struct tenant_request *request, err_t result);
/* [worker] request->row becomes the row of the timeline. */
NODISCARD err_t tenant_request_write_row(struct job *job);

static inline struct timeline *timeline_of_member(struct list_link *link)
{
    return CONTAINER_OF(link, struct timeline, member_link);
}

void tenant_add_member(struct tenant *tenant, struct timeline *tl);    /* takes over a reference */
void tenant_remove_member(struct tenant *tenant, struct timeline *tl); /* ... and gives it back */
void tenant_drop_members(struct tenant *tenant);
void tenant_note_advanced(struct tenant *tenant, struct timeline *tl);

/* -- tenant_open.c, tenant_shut.c -- */

#define OUTDATED_SUFFIX ".outdated" /* of the folder of one that is given up */

/* Path of a tenant's folder, or of one beside it. */
NODISCARD err_t tenants_path(
    struct tenants *tenants,
    struct tenant_id id,
    const char *suffix,
    char to[PATH_SIZE],
    struct errmsg *msg);
/* Is a request about the tenant itself under way? */
bool tenants_are_changing(struct tenants *tenants, struct tenant_id id);
void tenants_unlink(struct tenant *tenant);  /* it is none of them any more */
void tenant_destroy(struct tenant *tenant);  /* it has no members; its store is closed, if open */
bool tenant_is_quiet(struct tenant *tenant); /* nobody reads, nothing is written or held */

void tenants_shut_add(
    struct tenants *tenants, struct tenant_id id, err_t result, const struct errmsg *why);
void tenants_shut_opened(struct tenants *tenants, struct tenant_id id);
bool tenants_is_shut(const struct tenants *tenants, struct tenant_id id);
void tenants_open_shut_if_due(struct tenants *tenants, mono_ns_t now);
void tenants_shut_drop_all(struct tenants *tenants);
/* As it is on this disk, with the generation that it has there. */
void tenant_open_again(
    struct tenants *tenants, struct tenant_request *request, struct tenant_id id);

/* -- tenant_timelines.c -- */

/* Is a request about this timeline, or one that needs it as parent, under way? */
bool tenant_is_changing(struct tenant *tenant, struct timeline_id id);

/* -- tenant_delete.c -- */

/* `tl` is NULL after a restart: nobody can be reading. Otherwise its reference is taken over. */
void tenant_start_erasing(struct tenant *tenant, uint32_t number, struct timeline *tl);
bool tenant_is_erasing(const struct tenant *tenant, struct timeline_id id);
/* For those who read: erasures that have begun wait for nobody. */
bool tenant_erasure_waits(const struct tenant *tenant);
void tenant_drop_erasures(struct tenant *tenant); /* the next start goes on with them */
/* A tombstone that must go on taking WAL. */
bool tenant_is_on_its_way(struct tenant *tenant, const struct timeline *tl);
void tenant_bury_unneeded(struct tenant *tenant);

/* -- tenant_flush.c -- */

void tenant_forget_full(struct tenant *tenant); /* it ends */

void tenant_flush_if_due(struct tenant *tenant);
/* The layers of all tenants take too much: the largest go first, until enough is on its way. */
void tenants_flush_largest(struct tenants *tenants);

/* -- tenant_history.c -- */

void tenant_know_timeline(struct tenant *tenant, struct timeline *tl); /* to its history */
void tenant_forget_timeline(struct tenant *tenant, struct timeline *tl);
void tenant_tell_durable(struct tenant *tenant, const struct timeline *tl);
void tenants_stop_collecting(struct tenants *tenants); /* rewriting ends soon, none begins */
void tenant_collect_if_due(struct tenant *tenant, mono_ns_t now);
