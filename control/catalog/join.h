/*
 * join.h - a kv is made what the log in the object store says.
 */
#pragma once

#include "control/catalog/snapshot.h"

/* The highest number that the store knows of, in the log or in a snapshot; 0: it has no catalog. */
NODISCARD err_t changelog_newest(struct objstore *store, uint64_t *ret_seq, struct errmsg *msg);

/* Applies what follows `*position`, until the log ends. */
NODISCARD err_t changelog_replay(
    struct objstore *store, struct kv *kv, struct changelog_position *position, struct errmsg *msg);

/* All there is: a snapshot and what follows it, into an empty kv. */
NODISCARD err_t changelog_load(
    struct objstore *store,
    struct kv *kv,
    struct changelog_position *ret_position,
    struct errmsg *msg);
