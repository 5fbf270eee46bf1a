#include "pageserver/store/path_view.h"

#include "common/base/assert.h"
#include "common/base/mem.h"

#define KEPT_FROM  4u /* spans: a shorter path is looked through as quickly */
#define KEPT_SLOTS 64u

/* -- what there is -- */

static lsn_t kv_lsn_of(const struct timeline_layers *layers)
{
    return layers == NULL ? UINT64_MAX : layers->kv_lsn;
}

static struct span_layers span_now(const struct timeline_layers *layers)
{
    struct span_layers span = {
        .kv_lsn = kv_lsn_of(layers), .filter = layers == NULL ? NULL : layers->filter};
    if (layers != NULL && layers->open != NULL) {
        span.layers[span.count++] = layers->open;
    }
    if (layers != NULL && layers->frozen != NULL) {
        span.layers[span.count++] = layers->frozen;
    }
    return span;
}

/* A branch is younger than what it comes from, and its number is greater. */
static bool numbers_descend(const struct page_path *path)
{
    for (size_t i = 1; i < path->count; i++) {
        if (path->spans[i - 1].timeline <= path->spans[i].timeline) {
            return false;
        }
    }
    return true;
}

/* Under the store's lock, as all that is called from path_view_take(). */
static struct path_view *make_view(struct page_store *store, const struct page_path *path)
{
    struct path_view *view =
        mem_alloc(sizeof(struct path_view) + path->count * sizeof(struct span_layers));
    *view = (struct path_view){
        .layer_changes = store->layer_changes,
        .path = path,
        .is_sparse = path->count >= KEPT_FROM && numbers_descend(path),
    };
    atomic_init(&view->references, 1);
    view->asked = mem_alloc(path->count * sizeof(view->asked[0]));
    for (size_t i = 0; i < path->count; i++) {
        const struct timeline_layers *layers = timeline_layers_find(store, path->spans[i].timeline);
        view->spans[i] = span_now(layers);
        bool is_indexed = view->is_sparse && layers != NULL && layers->is_indexed;
        if (!is_indexed || view->spans[i].count > 0 || i + 1 == path->count) {
            view->asked[view->asked_count++] = (uint32_t)i;
        }
    }
    return view;
}

static void unref(struct path_view *view)
{
    if (view != NULL &&
        atomic_fetch_sub_explicit(&view->references, 1, memory_order_acq_rel) == 1) {
        mem_free(view->asked);
        mem_free(view->kept_path);
        mem_free(view);
    }
}

/* -- views that are kept -- */

static struct path_view **slot_of(struct page_store *store, const struct page_path *path)
{
    if (store->views == NULL) {
        store->views = MEM_ARRAY(struct path_view *, KEPT_SLOTS);
    }
    return &store->views[path->spans[0].timeline % KEPT_SLOTS];
}

static bool is_of(const struct path_view *view, const struct page_path *path)
{
    return view->path->count == path->count &&
           memcmp(view->path->spans, path->spans, path->count * sizeof(path->spans[0])) == 0;
}

static struct path_view *kept_view(struct page_store *store, const struct page_path *path)
{
    struct path_view **slot = slot_of(store, path);
    if (*slot == NULL || (*slot)->layer_changes != store->layer_changes || !is_of(*slot, path)) {
        size_t size = sizeof(*path) + path->count * sizeof(path->spans[0]);
        struct page_path *own = mem_alloc(size);
        memcpy(own, path, size);
        unref(*slot);
        *slot = make_view(store, own);
        (*slot)->kept_path = own;
    }
    atomic_fetch_add_explicit(&(*slot)->references, 1, memory_order_relaxed);
    return *slot;
}

void path_views_forget(struct page_store *store)
{
    for (size_t i = 0; i < KEPT_SLOTS && store->views != NULL; i++) {
        unref(store->views[i]);
    }
    mem_free(store->views);
    store->views = NULL;
}

/* A kept view refers to layers only while it is in use: what was flushed shall go. */
struct path_view *path_view_take(struct page_store *store, const struct page_path *path)
{
    (void)pthread_mutex_lock(&store->lock);
    struct path_view *view =
        path->count >= KEPT_FROM ? kept_view(store, path) : make_view(store, path);
    for (size_t i = 0; i < view->asked_count; i++) {
        struct span_layers *span = &view->spans[view->asked[i]];
        for (size_t at = 0; at < span->count; at++) {
            (void)open_layer_ref(span->layers[at]);
        }
    }
    (void)pthread_mutex_unlock(&store->lock);
    return view;
}

void path_view_release(struct path_view *view)
{
    for (size_t i = 0; i < view->asked_count; i++) {
        struct span_layers *span = &view->spans[view->asked[i]];
        for (size_t at = 0; at < span->count; at++) {
            open_layer_unref(span->layers[at]);
        }
    }
    unref(view);
}

static bool has_same_layers(const struct span_layers *a, const struct span_layers *b)
{
    return a->count == b->count && a->layers[0] == b->layers[0] && a->layers[1] == b->layers[1];
}

static bool is_as_now(struct page_store *store, const struct path_view *view, bool with_layers)
{
    (void)pthread_mutex_lock(&store->lock);
    bool unchanged = view->layer_changes == store->layer_changes;
    bool is_same = true;
    for (size_t i = 0; i < view->path->count && is_same && !unchanged; i++) {
        const struct span_layers *then = &view->spans[i];
        struct span_layers now =
            span_now(timeline_layers_find(store, view->path->spans[i].timeline));
        is_same = then->kv_lsn == now.kv_lsn && (!with_layers || has_same_layers(then, &now));
    }
    (void)pthread_mutex_unlock(&store->lock);
    return is_same;
}

bool path_view_has_kv(struct page_store *store, const struct path_view *view)
{
    return is_as_now(store, view, false);
}

bool path_view_is_current(struct page_store *store, const struct path_view *view)
{
    return is_as_now(store, view, true);
}

/* -- the way of one read -- */

/* The span of the timeline; false: it is not on the path, whose numbers descend. */
static bool find_span(const struct page_path *path, uint32_t timeline, uint32_t *ret_span)
{
    size_t begin = 0, end = path->count;
    while (begin < end) {
        size_t middle = begin + (end - begin) / 2;
        if (path->spans[middle].timeline > timeline) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    *ret_span = (uint32_t)begin;
    return begin < path->count && path->spans[begin].timeline == timeline;
}

static void add_named(struct path_steps *steps, uint32_t span)
{
    size_t at = steps->named_count++;
    while (at > 0 && steps->named[at - 1] > span) {
        steps->named[at] = steps->named[at - 1];
        at--;
    }
    steps->named[at] = span;
}

void path_steps_begin(
    struct path_steps *steps, struct page_store *store, const struct path_view *view, uint64_t hash)
{
    steps->view = view;
    steps->all = !view->is_sparse;
    steps->named_count = steps->next_named = steps->next_asked = steps->next = 0;
    if (steps->all) {
        return;
    }
    uint32_t timelines[PAGE_INDEX_TIMELINES_MAX];
    size_t count = 0;
    (void)pthread_mutex_lock(&store->lock);
    steps->all = !page_index_find(store->index, hash, timelines, &count);
    (void)pthread_mutex_unlock(&store->lock);
    for (size_t i = 0; i < count; i++) {
        uint32_t span;
        if (find_span(view->path, timelines[i], &span)) {
            add_named(steps, span);
        }
    }
}

/* The smaller of the two that come next; one that is in both comes once. */
bool path_steps_next(struct path_steps *steps, size_t *ret_span)
{
    const struct path_view *view = steps->view;
    if (steps->all) {
        *ret_span = steps->next++;
        return *ret_span < view->path->count;
    }
    uint32_t asked =
        steps->next_asked < view->asked_count ? view->asked[steps->next_asked] : UINT32_MAX;
    uint32_t named =
        steps->next_named < steps->named_count ? steps->named[steps->next_named] : UINT32_MAX;
    uint32_t span = MIN_OF(asked, named);
    steps->next_asked += asked == span ? 1 : 0;
    steps->next_named += named == span ? 1 : 0;
    *ret_span = span;
    return span != UINT32_MAX;
}
