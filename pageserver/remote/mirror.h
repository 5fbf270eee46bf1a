/*
 * mirror.h - keep every tenant's copy in the object store up to date: upload rounds, deletions that
 * control has allowed, scrubbing.
 *
 * One mirror a tenant, made when the tenant is there, quiet while nothing is flushed. A round
 * begins `interval_ms` after the flush that made it necessary, or after files were rewritten.
 * Before the first one of a process control is asked whether it may upload at all: its disk may
 * have been away while the tenant was deleted, or had another owner. When its index is put, control
 * is asked whether the generation is still the newest. Only then remote_lsn of the tenant's
 * timelines moves (timeline_set_remote_lsn), the user is told, and the doomed objects are deleted.
 * A store or control that does not answer is asked again, with growing pauses; nothing is lost
 * meanwhile. ERR_STALE, another owner, ends the rounds until a newer generation is attached.
 *
 * Threads: loop only; the rounds run on `executor`, one at a time for a tenant.
 */
#pragma once

#include "common/io/executor.h"
#include "common/io/http_client.h"
#include "pageserver/remote/uploader.h"
#include "pageserver/timeline/tenant.h"

#define CONTROL_URL_MAX 400

struct mirrors;
struct mirror;

struct mirrors_user {
    /* Its remote_lsn has moved. May be NULL. */
    void (*on_timeline_uploaded)(struct mirrors_user *user, struct timeline *tl);
};

struct mirrors_options {
    struct loop *loop;
    struct executor *executor; /* its threads wait for the object store */
    struct objstore *objects;
    struct http_client *http;
    const char *control_url; /* "": nobody can confirm a generation, so nothing is deleted */
    const char *control_token;
    uint64_t node_id;
    uint64_t interval_ms;
    uint64_t leaked_after_ms;
    struct mirrors_user *user;
};

struct mirrors *mirrors_create(const struct mirrors_options *options);
void mirrors_destroy(struct mirrors *mirrors); /* all mirrors are stopped */

/*
 * A tenant is there, or has a newer generation. Its mirror holds it until mirror_stop is through.
 */
void mirror_start(struct mirrors *mirrors, struct tenant *tenant);
struct mirror *mirror_find(const struct tenant *tenant); /* NULL: it has none */
void mirror_flushed(struct mirror *mirror);              /* there is something new to upload */
/*
 * Files were rewritten, and maybe nothing new comes: what they replaced is up there until two
 * indexes do without it, so two rounds begin, and the object store holds no more than the disk.
 */
void mirror_rewritten(struct mirror *mirror);
/*
 * A timeline of the tenant is deleted, durably on this disk. Until an index without it is put and
 * confirmed, a successor with another disk would bring it back: a round begins, and whoever may
 * have to delete it once more is told until then (mirror_deletions).
 */
void mirror_deleted(struct mirror *mirror, struct timeline_id id);
/* No round begins any more; the mirror lets go of the tenant once the one under way has ended. */
void mirror_stop(struct mirror *mirror);
void mirrors_stop_all(struct mirrors *mirrors);
bool mirrors_are_stopped(const struct mirrors *mirrors);

struct mirror_status {
    generation_t generation;
    uint64_t sequence;       /* of the newest index that this process put; 0: none yet */
    bool uploading, waiting; /* for the next round */
    size_t doomed;           /* objects that wait for a confirmation */
    const char *error;       /* of the last round or deletion; NULL: none */
};
void mirror_status(const struct mirror *mirror, struct mirror_status *ret_status);

/*
 * The timelines that are deleted here and that the object store may still have. False: unknown, no
 * index of this process is confirmed yet, and an earlier process may have deleted some.
 */
bool mirror_deletions(
    const struct mirror *mirror, const struct timeline_id **ret_ids, size_t *ret_count);

/* A scrub with its repairs: embed, start; `done` is called once, never from inside start. */
struct mirror_scrub {
    void (*done)(struct mirror_scrub *scrub, err_t result);
    struct scrub_result result;
    struct errmsg msg;
};
/* ERR_BUSY (from here, `done` is not called): a round is under way, or the mirror stops. */
NODISCARD err_t mirror_scrub(struct mirror *mirror, struct mirror_scrub *scrub, struct errmsg *msg);
