/*
 * timeline_private.h - shared by timeline.c and lsn_wait.c.
 */
#pragma once

#include "pageserver/timeline/rel_size.h"
#include "pageserver/timeline/timeline.h"

struct timeline {
    unsigned references;
    struct tenant *tenant; /* may go before us, once we are deleted */
    struct tenant_id tenant_id;
    struct loop *loop;
    struct timeline_user *user;
    struct timeline_info info;
    struct timeline *parent;
    struct page_path *path;
    uint64_t uid;
    lsn_t root_start_lsn;

    struct ingest_position position;
    lsn_t durable_lsn, flushing_lsn, commit_lsn, remote_lsn;
    lsn_t slots_lsn; /* 0: there are no slots */
    uint64_t slot_wal_keep_max;
    char *failure; /* NULL: none */
    unsigned readers;
    struct list waiters;
    struct rel_size_cache sizes;

    /* The tenant's: it finds its timelines by id and knows who has children. */
    struct list_link member_link;
    struct list_link advanced_link; /* until all of it is durable */
    struct timeline *next_in_bucket;
    unsigned child_count;
    bool is_being_buried;
    struct history *history; /* NULL: no GC */
    struct history_timeline *in_history;

    bool ancestors_ready;
    struct parent_wait *parent_wait; /* until the parent has ingested start_lsn */
};

/* Finish every wait whose end has come. */
void timeline_wake_waiters(struct timeline *tl);
