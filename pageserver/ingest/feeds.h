/*
 * feeds.h - which timelines have WAL to bring: what their safekeepers say about all of them.
 *
 * There is one connection to each safekeeper, whatever the number of timelines (feed_source.h). A
 * timeline that rests is a row in here: where its safekeepers stand. When one of them reports more
 * than the timeline has, on_report is called, and whoever serves it starts a wal_receiver. The
 * positions of a timeline go to all its safekeepers when they have moved.
 *
 * Threads: loop only.
 */
#pragma once

#include "pageserver/ingest/feed_source.h"

struct feeds_options {
    struct loop *loop;
    uint64_t node_id;
    const char *token;       /* of the hello; lives as long as the process */
    uint64_t silence_max_ms; /* a safekeeper says something once a second */
};

struct feeds *feeds_create(const struct feeds_options *options);
void feeds_stop(struct feeds *feeds); /* no more reports; the links close */
bool feeds_are_stopped(const struct feeds *feeds);
void feeds_destroy(struct feeds *feeds); /* stopped, and every watch has ended; NULL is fine */

/* The safekeepers of a timeline; those with the same text share one. */
struct feed_set {
    unsigned references;
    size_t count;
    struct feed_source *sources[SAFEKEEPERS_MAX];
    struct list_link link;
    char text[];
};

/* What one safekeeper of the set said last; of its present connection or of an earlier one. */
struct feed_standing {
    lsn_t commit_lsn;
    err_t code; /* ERR_OK: it has the timeline; ERR_BUSY: it was asked and has not answered */
};

/* Embed it, zeroed. */
struct feed_watch {
    void (*on_report)(struct feed_watch *watch);
    struct feeds *feeds; /* private from here on, but for reading; NULL: not started */
    struct timeline *timeline;
    struct feed_set *set;
    struct feed_standing *standings; /* as set->sources */
    lsn_t seen_lsn; /* what came up to here gave no record: to ask for it again is of no use */
    uint32_t slot;
    struct list_link in_moved;
};

/* The timeline outlives the watch. on_report comes from the loop, never from inside. */
void feed_watch_start(struct feed_watch *watch, struct feeds *feeds, struct timeline *tl);
void feed_watch_update(struct feed_watch *watch); /* the row of the timeline has changed */
void feed_watch_moved(struct feed_watch *watch);  /* its positions have; soon they are sent */
void feed_watch_stop(struct feed_watch *watch);   /* not started is fine */

bool feed_watch_can_use(const struct feed_watch *watch, size_t index);
/* The greatest of those that can be used; 0: none can. */
lsn_t feed_watch_commit_lsn(const struct feed_watch *watch);
bool feed_watch_has_wal(const struct feed_watch *watch); /* that the timeline lacks */
/* "idle", or why nothing can be heard: "none: sk 1: connection refused". */
void feed_watch_describe(const struct feed_watch *watch, char *to, size_t to_size);

/* -- for feed_source.c -- */

const struct feeds_options *feeds_options(const struct feeds *feeds);
uint32_t feeds_slots(const struct feeds *feeds);
struct feed_watch *feeds_watch_in(const struct feeds *feeds, uint32_t slot); /* NULL: free */
uint64_t feeds_key(const struct feeds *feeds, uint32_t slot);
bool feed_watch_has(const struct feed_watch *watch, const struct feed_source *source);
/* It said no, and was not asked again yet: from here on it was. */
bool feed_watch_ask_again(struct feed_watch *watch, const struct feed_source *source);
/* ERR_CORRUPT: the list cannot be decoded. */
NODISCARD err_t
feeds_on_reports(struct feeds *feeds, struct feed_source *source, const struct status_list *list);
void feeds_forget_source(struct feeds *feeds, struct feed_source *source); /* it frees itself */
