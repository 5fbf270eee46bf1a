/*
 * path_view.h - what a read needs to know of the timelines on its path, as of one moment: their
 * layers, up to where the kv has everything, their filters.
 *
 * To put it together takes a look at each of them. For a long path it is kept, and good for every
 * read until the layers of some timeline of the store change; and it says which timelines must
 * always be asked, so that a read visits these, those that the store's index names for its page,
 * and no others, however long the path.
 */
#pragma once

#include "pageserver/store/page_store_private.h"

#define LAYERS_OF_SPAN_MAX 2 /* open and frozen */

struct span_layers {
    struct open_layer *layers[LAYERS_OF_SPAN_MAX]; /* newest first */
    size_t count;
    lsn_t kv_lsn;                    /* as in struct timeline_layers; UINT64_MAX: not known */
    const struct key_filter *filter; /* NULL: not known */
};

struct path_view {
    _Atomic unsigned references;
    uint64_t layer_changes; /* of the store, at that moment */
    const struct page_path *path;
    struct page_path *kept_path; /* the same, when it is the view's own; or NULL */
    bool is_sparse;              /* spans that are not in `asked` are in the index */
    uint32_t *asked;             /* spans to ask for every page, ascending; not sparse: all */
    size_t asked_count;
    struct span_layers spans[]; /* path->count */
};

/* [quick] As of now, with a reference to each layer. `path` outlives it. */
struct path_view *path_view_take(struct page_store *store, const struct page_path *path);
void path_view_release(struct path_view *view);
/* No flush since: the kv has what it had. */
bool path_view_has_kv(struct page_store *store, const struct path_view *view);
/* And its layers are those that there are. */
bool path_view_is_current(struct page_store *store, const struct path_view *view);
/* Of the store, when it is closed. */
void path_views_forget(struct page_store *store);

/* The spans that may have a page, one after the other. */
struct path_steps {
    const struct path_view *view;
    bool all;
    uint32_t named[PAGE_INDEX_TIMELINES_MAX]; /* by the index; spans, ascending */
    size_t named_count, next_named, next_asked, next;
};

void path_steps_begin(
    struct path_steps *steps,
    struct page_store *store,
    const struct path_view *view,
    uint64_t hash);
bool path_steps_next(struct path_steps *steps, size_t *ret_span);
