/*
 * tenant.h - the tenants of this pageserver: each one page store in a folder of its own, and the
 * timelines in it. Creation, branching and deletion.
 *
 *   DATA_DIR/tenants/TENANT/          one kv
 *   DATA_DIR/tenants/TENANT.deleted/  on its way out: doomed_tenants.h
 *   DATA_DIR/tenants/TENANT.outdated/  given up for what the object store has; removed
 *   .../TENANT.checkpoint/, TENANT.downloading/   of pageserver/remote; removed at a start
 *
 * A change is durable before it is visible: first the row is written (synced) on a worker, then the
 * loop shows the timeline. Timeline numbers are never reused: the counter is written with the row.
 * A deletion first makes its row say so, then the timeline disappears for everybody, and once
 * nobody reads from it its versions are erased; after a crash the erasing goes on. A timeline that
 * is deleted although children live on it becomes a tombstone: gone for everybody, but what its
 * children see of it stays, and it takes WAL until their branch LSNs are in the object store. It is
 * erased with its last child.
 *
 * Threads: loop only.
 */
#pragma once

#include "common/base/str.h"
#include "common/io/executor.h"
#include "pageserver/timeline/history.h"
#include "pageserver/timeline/timeline.h"

struct tenants;
struct tenant;

struct tenants_user {
    /* A timeline is there (loaded or new): serve it. Inside tenants_open_all or a request. */
    void (*on_timeline)(struct tenants_user *user, struct timeline *tl);
    /* It is being deleted: stop what was started; timeline_read_end() says when that is done. */
    void (*on_timeline_gone)(struct tenants_user *user, struct timeline *tl);
    /* Its row says, durably, that it is deleted. Before on_timeline_gone. May be NULL. */
    void (*on_timeline_deleted)(
        struct tenants_user *user, struct tenant *tenant, struct timeline_id id);
    /* A flush moved its durable_lsn. May be NULL. */
    void (*on_timeline_durable)(struct tenants_user *user, struct timeline *tl);
    /* ... of all that had WAL to make durable, and gave memory back. */
    void (*on_flushed)(struct tenants_user *user, struct tenant *tenant);
    /* What it promises to keep is another, durably: a lease, or its window. May be NULL. */
    void (*on_promise)(struct tenants_user *user, struct tenant *tenant);
    /* Files were written anew since this was said last: a copy of the store elsewhere holds what is
     * not needed any more. At the end of a round of GC. May be NULL. */
    void (*on_rewritten)(struct tenants_user *user, struct tenant *tenant);
    /*
     * The tenant is there, or has a newer generation; it is going: let go of it (tenant_release).
     * Either may be NULL.
     */
    void (*on_tenant)(struct tenants_user *user, struct tenant *tenant);
    void (*on_tenant_gone)(struct tenants_user *user, struct tenant *tenant);
    /*
     * [worker] A tenant is attached that this disk does not have: make `folder` with its store from
     * elsewhere, or leave it away when there is nothing of it. NULL: there never is.
     */
    err_t (*restore)(
        struct tenants_user *user,
        struct tenant_id id,
        generation_t generation,
        const char *folder,
        struct errmsg *msg);
    /* [worker] Is anything kept elsewhere of a tenant that this disk does not have? NULL: never. */
    err_t (*is_elsewhere)(
        struct tenants_user *user, struct tenant_id id, bool *ret_is, struct errmsg *msg);
    /* [worker] The tenant is deleted: nothing of it may stay elsewhere either. May be NULL. */
    err_t (*erase)(struct tenants_user *user, struct tenant_id id, struct errmsg *msg);
};

struct tenants_options {
    struct loop *loop;
    struct executor *executor;
    struct executor *rows; /* rows never wait for ingest and flushes; NULL: the same */
    /* Its workers may wait for minutes for what is kept elsewhere, and nobody else for them:
     * restore, is_elsewhere and erase of the user; NULL: the same. */
    struct executor *elsewhere;
    const char *data_dir;
    struct page_store_options store;
    uint64_t flush_bytes;  /* flush a tenant when so much was written ... */
    uint64_t flush_age_ms; /* ... or when the oldest of it is that old ... */
    size_t layers_bytes; /* ... or when the layers of all tenants take half of this: the largest */
    uint64_t disk_reserve_bytes; /* no flush leaves less free: for compactions, and for deleting */
    uint64_t slot_wal_keep_max;  /* WAL that safekeepers keep for slots of a timeline; 0: any */
    struct history_retention retention; /* of tenants that have no setting of their own */
    uint64_t gc_period_ms; /* between two rounds that move the cutoffs; 0: only when asked to */
    struct tenants_user *user;
};

/* Opens every tenant in the folder; one that cannot be opened is left out, and says why. Blocking:
 * at start. */
NODISCARD err_t tenants_open(
    const struct tenants_options *options, struct tenants **ret_tenants, struct errmsg *msg);
/* No request, flush, erasure or read is under way. */
bool tenants_are_idle(struct tenants *tenants);
/* What goes on in the background for ever is given up: the next start goes on with it. */
void tenants_stop(struct tenants *tenants);
/* Flushes and closes everything; nothing may read or ingest any more. Blocking: at the end. */
void tenants_close(struct tenants *tenants);

struct tenant *tenants_find(struct tenants *tenants, struct tenant_id id); /* NULL: unknown */
/*
 * Why it is not found: ERR_NOT_FOUND, or it is here and its store cannot be opened: ERR_FULL, which
 * ends by itself, or ERR_FAILED until it is attached anew or the process starts again.
 */
NODISCARD err_t
tenants_why_missing(const struct tenants *tenants, struct tenant_id id, struct errmsg *msg);
/* A line for each; true: one of them does not wait for room only. */
bool tenants_describe_shut(const struct tenants *tenants, struct buf *to);
struct tenant *tenants_first(struct tenants *tenants); /* NULL: none */
struct tenant *tenants_next(struct tenants *tenants, struct tenant *tenant);

struct loop *tenant_loop(const struct tenant *tenant);
struct tenant_id tenant_id(const struct tenant *tenant);
generation_t tenant_generation(const struct tenant *tenant);
/* Why its storage is out of service; or NULL. */
const char *tenant_failure(const struct tenant *tenant);
/* Its disk is full: ingest waits, what reads goes on, it ends by itself; or NULL. */
const char *tenant_full(const struct tenant *tenant);
struct page_store *tenant_store(const struct tenant *tenant);
void tenant_folder(const struct tenant *tenant, char to[PATH_SIZE]);
/* While it is held, its store stays open: it is neither deleted nor closed. */
void tenant_hold(struct tenant *tenant);
void tenant_release(struct tenant *tenant);
/*
 * Somebody reads timelines that he has not asked for one by one: held, and none is erased. An
 * erasure that waits goes first: reads that overlap each other would put it off for ever.
 */
struct tenant_read {
    /* Once, from the loop. ERR_OK: until tenant_read_end; ERR_BUSY: an erasure still waits. */
    void (*done)(struct tenant_read *read, err_t result);
    struct errmsg msg;

    /* private */
    struct tenant *tenant;
    struct timer timer;
    mono_ns_t deadline;
};
void tenant_read_begin(struct tenant *tenant, struct tenant_read *read);
void tenant_read_end(struct tenant_read *read);
/* Who mirrors the tenant, to come back from it with CONTAINER_OF; NULL: nobody. */
struct tenant_user {
    char unused;
};
void tenant_set_user(struct tenant *tenant, struct tenant_user *user);
struct tenant_user *tenant_user(const struct tenant *tenant);
/* Versions were put: a flush begins when it is due. */
void tenant_written(struct tenant *tenant);
/* False: so much waits for a flush that nothing more should be put; on_flushed tells of its end. */
bool tenant_has_room(const struct tenant *tenant);
/* NULL: unknown or deleted. */
struct timeline *tenant_find_timeline(struct tenant *tenant, struct timeline_id id);
struct timeline *tenant_first_timeline(struct tenant *tenant);
struct timeline *tenant_next_timeline(struct tenant *tenant, struct timeline *tl);
/* The same with tombstones, for whoever keeps what their children see. */
struct timeline *tenant_find_member(struct tenant *tenant, struct timeline_id id);
struct timeline *tenant_first_member(struct tenant *tenant);
struct timeline *tenant_next_member(struct tenant *tenant, struct timeline *tl);
/* An upload moved remote_lsn of its timelines. */
void tenant_uploaded(struct tenant *tenant);

/*
 * One management operation: embed it, fill in nothing, start one of the functions below. `done` is
 * called once, never from inside start.
 */
struct tenant_request {
    void (*done)(struct tenant_request *request, err_t result);
    struct errmsg msg;
    bool created;              /* false: it was there already, with the same content */
    struct timeline *timeline; /* of put and imported: borrowed, valid in done() only */

    /* of leases, retention: in */
    struct history_lease lease;
    struct history_retention retention;

    /* private */
    struct history_hold hold; /* a branch LSN, until the branch holds it itself */
    struct tenants *tenants;
    struct tenant *tenant;
    struct tenant_id tenant_id;
    generation_t generation; /* of an attach; 0: the one that the store has */
    bool is_given_up;        /* of a removal */
    bool is_on_disk;
    struct timeline_info info;
    bool holds_texts; /* of `info` */
    struct ingest_position position;
    struct loaded_timelines *loaded;
    struct buf row;
    struct job job;
    struct timer timer;
    err_t result;
    struct list_link link, new_link;
};

/*
 * Create the folder when missing. ERR_STALE: a newer generation was here. Generation 0: of one that
 * this disk has and could not open, under the generation that it has.
 */
void tenant_attach(
    struct tenants *tenants,
    struct tenant_request *request,
    struct tenant_id id,
    generation_t generation);
/*
 * Remove the tenant with everything in it, here and elsewhere. Done when it is gone for everybody
 * and that is durable on this disk; what it leaves goes after that and asked
 * again meanwhile it is ERR_OK again. Also of one that this disk cannot open, or does not have:
 * ERR_NOT_FOUND when nothing is left of it anywhere. ERR_BUSY: while requests are under way.
 */
void tenant_delete(struct tenants *tenants, struct tenant_request *request, struct tenant_id id);
/*
 * The same for this disk only, also of a tenant that it cannot open: what the user keeps elsewhere
 * stays, and the tenant can be attached again at once, from there.
 */
void tenant_give_up(struct tenants *tenants, struct tenant_request *request, struct tenant_id id);

/*
 * Create a timeline: a root (info->parent none; it begins as TIMELINE_IMPORTING) or a branch. The
 * same again is fine; newer generations replace the safekeepers of an existing one. ERR_EXISTS:
 * there with another content; ERR_NOT_FOUND: no such parent; ERR_RANGE: start_lsn below the root's;
 * ERR_STALE: an older generation; ERR_BUSY: another request for it is under way.
 */
void tenant_put_timeline(
    struct tenant *tenant, struct tenant_request *request, const struct timeline_info *info);
/* The bootstrap image is in the store up to `position`, durably: make the timeline active. */
void tenant_timeline_imported(
    struct tenant *tenant,
    struct tenant_request *request,
    struct timeline *tl,
    struct ingest_position position);
/*
 * Done when it is durable; the erasing goes on after that. Children: ERR_EXISTS, or it becomes a
 * tombstone.
 */
void tenant_delete_timeline(
    struct tenant *tenant,
    struct tenant_request *request,
    struct timeline *tl,
    bool even_with_children);

/* -- history: what the calls mean is in history.h -- */

struct history *tenant_history(struct tenant *tenant); /* [any] */
/* request->lease: name, LSN and end of the lease. */
void tenant_put_lease(struct tenant *tenant, struct tenant_request *request, struct timeline *tl);
void tenant_drop_lease(struct tenant *tenant, struct tenant_request *request, struct timeline *tl);
void tenant_set_retention(struct tenant *tenant, struct tenant_request *request);
/* Move the cutoffs now and rewrite what is on disk without what nobody can read. May take long. */
void tenant_collect(struct tenant *tenant, struct tenant_request *request);
