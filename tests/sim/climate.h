/*
 * climate.h - what kinds of trouble a schedule has, and how much of each. Variety finds more than
 * volume: every seed draws its own.
 */
#pragma once

#include "tests/sim/tape.h"

#define NODES_MAX 6 /* members and spares */
#define COMPUTES  4

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
    uint64_t peer_us;        /* between two questions of safekeepers to each other; 0: none */
    uint64_t rot_one_in;     /* of crashes after which the last group is damaged */
    uint64_t sync_one_in;
    bool sleeper;     /* the last safekeeper has slept for as many terms as a history holds */
    bool foreigner;   /* the last compute has another membership generation */
    uint64_t life_us; /* of a walproposer, at most */
    uint64_t chaos_us;
    bool heal_sync;        /* healing begins with a walproposer that only syncs */
    uint32_t persist_node; /* which safekeeper persists its commit_lsn for no reason */

    /* The membership changes: how often control begins one when it may; 0: never. */
    uint64_t change_one_in;
    uint64_t changer_crash_one_in, note_loss_one_in;
    uint32_t spares; /* safekeepers that are no members at first */
    bool deletes;    /* removed members lose their timeline; else they keep it and come back */
    bool wipes;      /* a newcomer or a removed member loses its disk, once */
    uint64_t
        deaf_one_in;    /* a walproposer misses the news of a membership, but for one in so many */
    uint64_t change_us; /* between two looks of control */
    bool one_comes_and_goes; /* always the same safekeeper leaves and is added again */
    bool stale_starts;       /* a walproposer may start with an older membership */
    bool many_terms;         /* they are about to pass 32 bits */
    bool many_writers;       /* sleeper: the terms it has missed were written in, each a little */
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
    X(peers)                                                                                       \
    X(sleeper)                                                                                     \
    X(foreigner)                                                                                   \
    X(syncs)                                                                                       \
    X(third_rival)                                                                                 \
    X(rivals)                                                                                      \
    X(slow_links)                                                                                  \
    X(slow_disks)                                                                                  \
    X(small_reads)                                                                                 \
    X(changes)                                                                                     \
    X(wipes)                                                                                       \
    X(small_windows)                                                                               \
    X(half_the_time)                                                                               \
    X(pauses)                                                                                      \
    X(clocks)                                                                                      \
    X(damage)                                                                                      \
    X(frozen)                                                                                      \
    X(fourth_rival)                                                                                \
    X(together)                                                                                    \
    X(versions)                                                                                    \
    X(nonsense)                                                                                    \
    X(full_disks)                                                                                  \
    X(retention)

enum climate_calm {
#define X(name) CALM_##name,
    CLIMATE_CALMS(X)
#undef X
        CALMS
};

const char *climate_calm_name(enum climate_calm calm);
bool climate_calm_parse(const char *name, enum climate_calm *ret_calm);
void climate_calm(struct climate *climate, uint32_t calms);
