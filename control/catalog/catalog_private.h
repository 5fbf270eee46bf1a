/*
 * catalog_private.h - what catalog.c (commits) and join.c (a kv and its log) share.
 */
#pragma once

#include <pthread.h>

#include "common/base/str.h"
#include "common/kv/kv.h"
#include "control/catalog/catalog.h"
#include "control/catalog/changelog.h"
#include "control/catalog/snapshot.h"

struct catalog {
    struct kv *kv;
    char path[PATH_SIZE];
    struct objstore *objects; /* NULL: no log */
    struct changelog_position position;
    uint64_t owner; /* our number among the controls that have opened the log */
    err_t failed;   /* no commit is possible any more */
    uint64_t snapshot_after;
    _Atomic uint64_t commits_since; /* the last snapshot */
    atomic_bool canceled;
    pthread_mutex_t lock;
    char trouble[sizeof(struct errmsg)]; /* under the lock: why a commit is held back */
};

void batch_entry(struct kv_batch *batch, struct bytes key, struct bytes value); /* empty: delete */

/* Sends the record until the store has it; ERR_STALE: its number is taken. */
NODISCARD err_t
changelog_put(struct catalog *catalog, uint64_t seq, const struct buf *record, struct errmsg *msg);

/* The kv and the log are made one, see catalog.h. */
NODISCARD err_t join_log(struct catalog *catalog, struct errmsg *msg);
