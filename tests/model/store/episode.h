/*
 * episode.h - one life of a store: a list of operations, played against the store and the model.
 *
 * An operation is a kind and some random numbers, which are taken modulo what there is when its
 * turn comes: any part of a list is a list, so a failing one can be made smaller by leaving out.
 *
 * The store runs in a child process, the model in memory that both share: a crash is the child's
 * death, and the next child opens what is left on disk.
 *
 * On a lossyfs (tests/lib/lossyfs) the child may die at any change of the disk besides, and every
 * second time the power goes with it. What it had asked for and not heard of is asked for again.
 */
#pragma once

#include "tests/model/store/model.h"

#define OP_KINDS(X)                                                                                \
    X(WRITE, 2000)                                                                                 \
    X(READ, 2000)                                                                                  \
    X(LIST, 25)                                                                                    \
    X(TIME, 25)                                                                                    \
    X(IMAGE, 50)                                                                                   \
    X(BRANCH, 10)                                                                                  \
    X(BRANCH_LATER, 6)                                                                             \
    X(LEASE, 20)                                                                                   \
    X(LEASE_DROP, 10)                                                                              \
    X(CUTOFFS, 30)                                                                                 \
    X(COMPACT, 8)                                                                                  \
    X(ERASE, 3)                                                                                    \
    X(FLUSH, 12)                                                                                   \
    X(REOPEN, 1)                                                                                   \
    X(CRASH, 2)                                                                                    \
    X(CRASH_INSIDE, 2)

enum op_kind {
#define OP_ENUM(name, weight) OP_##name,
    OP_KINDS(OP_ENUM)
#undef OP_ENUM
};

struct op {
    enum op_kind kind;
    uint32_t a, b, c, d;
};

void episode_init(void); /* once a process */
void episode_generate(uint64_t seed, struct op *ops, size_t count);
/*
 * True: as the model says. Else `ret_why` says what was different. `trace` prints each step. The
 * seed is for what is not in the list: when the power goes.
 */
bool episode_run(
    uint64_t seed, const struct op *ops, size_t count, bool trace, struct errmsg *ret_why);

/* Where a lossyfs is mounted; it must outlive all episodes. */
void episode_set_lossy(const char *mountpoint);

struct episode_deaths {
    uint64_t kills, cuts; /* at a change of the disk; of these, with what was not synced */
};
struct episode_deaths episode_deaths(void);
/* Answers of the store that were compared in all episodes so far; of these, while a compaction of
 * all files ran. */
void episode_counts(uint64_t *ret_checks, uint64_t *ret_beside);
