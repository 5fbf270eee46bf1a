/*
 * climate.h - what kinds of trouble a schedule has, and how much of each. Variety finds more than
 * volume: every seed draws its own.
 */
#pragma once

#include "tests/sim/tape.h"

#define NODES_MAX 5
#define COMPUTES  3

/* What this schedule is like: drawn from the seed. */
struct climate {
    uint32_t nodes, computes;
    uint64_t latency_us[COMPUTES][NODES_MAX];
    uint64_t disk_us[NODES_MAX];
    uint64_t reset_one_in, crash_one_in; /* 0: never */
    uint64_t local_us;
    uint64_t chunk_max, read_max;
    size_t window_max, inflight_max;
    bool old_bytes;          /* what was sent on a connection that was reset still arrives */
    uint64_t failure_one_in; /* of the storage of one safekeeper, once */
    uint64_t rot_one_in;     /* of crashes after which the last group is damaged */
    uint64_t sync_one_in;
    bool sleeper;     /* the last safekeeper has slept for as many terms as a history holds */
    bool foreigner;   /* the last compute has another membership generation */
    uint64_t life_us; /* of a walproposer, at most */
    uint64_t chaos_us;
    bool heal_sync;        /* healing begins with a walproposer that only syncs */
    uint32_t persist_node; /* which safekeeper persists its commit_lsn for no reason */
};

void climate_draw(struct climate *climate, struct tape *swarm);

/*
 * What a search for a smaller schedule leaves out. Every concern has its own random numbers, so
 * that leaving one out does not shuffle the others.
 */
#define CLIMATE_CALMS(X)                                                                           \
    X(crashes)                                                                                     \
    X(resets)                                                                                      \
    X(old_bytes)                                                                                   \
    X(failures)                                                                                    \
    X(rot)                                                                                         \
    X(sleeper)                                                                                     \
    X(foreigner)                                                                                   \
    X(syncs)                                                                                       \
    X(third_rival)                                                                                 \
    X(rivals)                                                                                      \
    X(slow_links)                                                                                  \
    X(slow_disks)                                                                                  \
    X(small_reads)                                                                                 \
    X(small_windows)                                                                               \
    X(half_the_time)

enum climate_calm {
#define X(name) CALM_##name,
    CLIMATE_CALMS(X)
#undef X
        CALMS
};

const char *climate_calm_name(enum climate_calm calm);
bool climate_calm_parse(const char *name, enum climate_calm *ret_calm);
void climate_calm(struct climate *climate, uint32_t calms);
