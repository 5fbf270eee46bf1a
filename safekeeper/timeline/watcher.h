/*
 * watcher.h - one pageserver that watches timelines of this safekeeper: it hears where they stand
 * and sends its positions, all on one channel.
 *
 * A timeline that begins to move is told of at the end of the loop turn, one that goes on moving
 * with the next sign of life; one that rests costs nothing but its row here and is not woken for
 * it. Nothing is sent while the link is congested. A watcher has at most one watch of each timeline
 * that is here. See docs/protocol/feed.md. Threads: loop only.
 */
#pragma once

#include "common/wire/status_proto.h"
#include "safekeeper/timeline/timeline_set.h"

struct watcher;

/* `set` and `link` outlive it. */
struct watcher *watcher_create(
    const struct timeline_env *env,
    const struct timeline_set *set,
    struct link *link,
    uint32_t channel);
void watcher_destroy(struct watcher *watcher); /* NULL is fine */

/* ERR_CORRUPT: the list cannot be decoded. */
NODISCARD err_t watcher_watch(struct watcher *watcher, const struct status_list *list);
void watcher_unwatch(struct watcher *watcher, const struct status_unwatch *message);
void watcher_drained(struct watcher *watcher); /* the link has room again */
