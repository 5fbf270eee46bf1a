/*
 * uploader.h - mirror one tenant's store to the object store, round by round.
 *
 * A round takes a checkpoint of the store (hard links), uploads the sorted files that are not up
 * there yet, then puts an index that names them all. What an older index named and neither of the
 * two newest names is doomed: the caller may delete it once control has confirmed the generation
 * (uploader_delete). Nothing that a round does harms another owner of the tenant: object names
 * carry the generation.
 *
 * Which files are up there is known from the newest index. The file "anabranch.remote" in the
 * tenant's folder says which index this disk wrote or was restored from; when that is the newest,
 * names are enough. When it is not (another owner was here, or a crash between index and file),
 * contents are compared by hash.
 *
 * Blocking: all calls but create come from one worker at a time.
 */
#pragma once

#include "common/objstore/objstore.h"
#include "pageserver/remote/index.h"
#include "pageserver/store/page_store.h"

struct uploader;

struct uploader_options {
    struct objstore *objects;
    struct tenant_id tenant;
    const char *folder; /* of the tenant's store; its checkpoint stands beside it for a while */
};

struct uploader *uploader_create(const struct uploader_options *options);
void uploader_destroy(struct uploader *uploader); /* NULL is fine */

struct upload_round {
    /* in */
    struct page_store *store;
    generation_t generation;
    const struct remote_position *positions; /* durable in the store when the round begins */
    size_t position_count;

    /* out */
    uint64_t sequence; /* of the index that was put */
    size_t files;      /* uploaded in this round */
    uint64_t bytes;
};

/*
 * ERR_STALE: there is an index of a later generation, this owner was replaced. ERR_BUSY: the newest
 * index, another owner's, is ahead of a position here: ingest has to catch up first. Errors of the
 * object store: nothing is lost, the next round begins again and skips what is up there.
 */
NODISCARD err_t
uploader_run(struct uploader *uploader, struct upload_round *round, struct errmsg *msg);

/* How many objects wait to be deleted. */
size_t uploader_doomed(const struct uploader *uploader);
/* Deletes them. Only after the generation of the last round was confirmed as the newest. */
NODISCARD err_t uploader_delete(struct uploader *uploader, struct errmsg *msg);

/* What a look at all of the tenant's objects found, and did. */
struct scrub_result {
    size_t objects;
    size_t dangling; /* the newest index names them, but they are missing or damaged */
    size_t repaired; /* ... of those: uploaded again from the local disk */
    size_t leaked;   /* no index needs them; they are doomed now */
};

/*
 * Compare all objects of the tenant with the newest index. Objects younger than `leaked_after_ms`
 * are never called leaked: an upload may be under way. Runs a round for repairs.
 */
NODISCARD err_t uploader_scrub(
    struct uploader *uploader,
    struct upload_round *round,
    uint64_t leaked_after_ms,
    struct scrub_result *ret_result,
    struct errmsg *msg);
