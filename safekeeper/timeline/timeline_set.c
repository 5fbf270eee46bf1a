#include "safekeeper/timeline/timeline_set.h"

#include "common/base/checksum.h"
#include "common/base/clock.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "safekeeper/timeline/timeline_private.h"

METRIC_GAUGE(row_count, "safekeeper_timelines", "timelines at this safekeeper");
METRIC_GAUGE(unopened_count, "safekeeper_timelines_unopened", "not looked at since the start");
METRIC_COUNTER(wakes, "safekeeper_timeline_wakes_total", "timelines that were at rest and used");
METRIC_COUNTER(rests, "safekeeper_timeline_rests_total", "timelines that were put to rest");

#define SLOTS_MIN     64
#define OPENERS       32   /* timelines that are opened at a time, which nobody has asked for */
#define REST_TICK_MS  250u /* how often those that are awake are looked at */
#define REST_EXAMINED 1024 /* of them, each time */

/* Opens one timeline after the other, in the background. */
struct opener {
    struct timeline_set *set;
    struct timeline_row *row; /* being opened; NULL: nothing */
    struct timeline_waiter waiter;
};

struct timeline_set {
    const struct timeline_env *env;
    struct timeline_row **items;
    size_t count, capacity;
    struct timeline_row **slots; /* first row of each, linked by next_in_slot */
    size_t slot_count;           /* power of two */
    uint64_t digest;
    struct list unopened;
    size_t unopened_count, resting_count;
    struct list awake;                         /* who was used last comes last */
    struct list due[CATCH_UP_BACKOFF_MAX + 1]; /* one interval each, so each is in order */
    struct opener openers[OPENERS];
    struct timer rest_timer;
    struct loop_task rest_task; /* what an opener has opened rests at once */
    bool is_rest_posted, is_stopping;
};

/* ---- the table ---- */

static uint64_t hash_ids(struct tenant_id tenant, struct timeline_id id)
{
    return hash64(id.bytes, ID_SIZE, hash64(tenant.bytes, ID_SIZE, 0));
}

static struct timeline_row **slot_of(
    const struct timeline_set *set, struct tenant_id tenant, struct timeline_id id)
{
    return &set->slots[(size_t)hash_ids(tenant, id) & (set->slot_count - 1)];
}

static void put_in_slot(struct timeline_set *set, struct timeline_row *row)
{
    struct timeline_row **slot = slot_of(set, row->tenant, row->id);
    row->next_in_slot = *slot;
    *slot = row;
}

struct timeline_row *timeline_set_row(
    const struct timeline_set *set, struct tenant_id tenant, struct timeline_id id)
{
    struct timeline_row *row = *slot_of(set, tenant, id);
    while (row != NULL &&
           !(tenant_id_equal(row->tenant, tenant) && timeline_id_equal(row->id, id))) {
        row = row->next_in_slot;
    }
    return row;
}

static struct timeline_row *row_create(
    struct timeline_set *set, struct tenant_id tenant, struct timeline_id id)
{
    ASSERT(timeline_set_row(set, tenant, id) == NULL && set->count < UINT32_MAX);
    struct timeline_row *row = MEM_NEW(struct timeline_row);
    row->set = set;
    row->tenant = tenant;
    row->id = id;
    list_init(&row->watches);
    if (set->count == set->capacity) {
        set->capacity = MAX_OF((size_t)16, 2 * set->capacity);
        set->items = mem_realloc(set->items, set->capacity * sizeof(struct timeline_row *));
    }
    if (set->count == set->slot_count) {
        mem_free(set->slots);
        set->slot_count *= 2;
        set->slots = MEM_ARRAY(struct timeline_row *, set->slot_count);
        for (size_t i = 0; i < set->count; i++) {
            put_in_slot(set, set->items[i]);
        }
    }
    row->index = (uint32_t)set->count;
    set->items[set->count++] = row;
    put_in_slot(set, row);
    set->digest += hash_ids(tenant, id);
    metric_add(&row_count, 1);
    return row;
}

/* Its timeline, if there is one, was taken out of it. */
static void row_destroy(struct timeline_row *row)
{
    struct timeline_set *set = row->set;
    struct timeline_row **link = slot_of(set, row->tenant, row->id);
    ASSERT(list_is_empty(&row->watches));
    while (*link != row) {
        link = &(*link)->next_in_slot;
    }
    *link = row->next_in_slot;
    set->items[row->index] = set->items[--set->count];
    set->items[row->index]->index = row->index;
    set->digest -= hash_ids(row->tenant, row->id);
    metric_add(&row_count, -1);
    list_remove(&row->in_state);
    list_remove(&row->in_due);
    mem_free(row->rest);
    mem_free(row);
}

/* ---- awake ---- */

static bool is_unopened(const struct timeline_row *row)
{
    return row->tl == NULL && row->rest == NULL;
}

static void start_rest_timer(struct timeline_set *set)
{
    uint64_t rest_ms = set->env->rest_ms;
    if (rest_ms > 0 && !set->is_stopping && !timer_is_started(&set->rest_timer)) {
        timer_start(set->env->loop, &set->rest_timer, MIN_OF(rest_ms, REST_TICK_MS));
    }
}

static void note_use(struct timeline_row *row)
{
    row->used_at = clock_mono();
    list_remove(&row->in_state);
    list_push_back(&row->set->awake, &row->in_state);
    start_rest_timer(row->set);
}

static void note_opened(struct timeline_set *set)
{
    set->unopened_count--;
    metric_add(&unopened_count, -1);
}

struct timeline *timeline_row_wake(struct timeline_row *row)
{
    struct timeline_set *set = row->set;
    if (is_unopened(row)) {
        row->tl = timeline_start(set->env, row, NULL);
        note_opened(set);
    } else if (row->tl == NULL) {
        row->tl = timeline_wake(set->env, row);
        mem_free(row->rest);
        row->rest = NULL;
        set->resting_count--;
        metric_add(&wakes, 1);
    }
    note_use(row);
    return row->tl;
}

struct timeline *timeline_set_find(
    struct timeline_set *set, struct tenant_id tenant, struct timeline_id id)
{
    struct timeline_row *row = timeline_set_row(set, tenant, id);
    return row == NULL ? NULL : timeline_row_wake(row);
}

/* From those that were used longest ago on; who may not rest yet is as good as used. */
static void rest_some(struct timeline_set *set)
{
    mono_ns_t now = clock_mono();
    struct list_link *first;
    for (unsigned i = 0; i < REST_EXAMINED && (first = list_first(&set->awake)) != NULL; i++) {
        struct timeline_row *row = CONTAINER_OF(first, struct timeline_row, in_state);
        if (row->used_at != 0 && now - row->used_at < set->env->rest_ms * NS_PER_MS) {
            break;
        }
        if (!timeline_may_rest(row->tl)) {
            note_use(row);
            continue;
        }
        list_remove(&row->in_state);
        timeline_rest(row->tl);
        set->resting_count++;
        metric_add(&rests, 1);
    }
}

static void on_rest_timer(struct timer *timer)
{
    struct timeline_set *set = CONTAINER_OF(timer, struct timeline_set, rest_timer);
    rest_some(set);
    if (!list_is_empty(&set->awake)) {
        start_rest_timer(set);
    }
}

static void on_rest_posted(struct loop_task *task)
{
    struct timeline_set *set = CONTAINER_OF(task, struct timeline_set, rest_task);
    set->is_rest_posted = false;
    if (!set->is_stopping) {
        rest_some(set);
    }
}

/* ---- opening what was there at the start ---- */

static void open_next(struct opener *opener)
{
    struct timeline_set *set = opener->set;
    struct list_link *first = list_first(&set->unopened);
    opener->row = NULL;
    if (first != NULL && !set->is_stopping) {
        opener->row = CONTAINER_OF(first, struct timeline_row, in_state);
        timeline_wait_ready(timeline_row_wake(opener->row), &opener->waiter);
    }
}

static void on_opened(struct timeline_waiter *waiter)
{
    struct opener *opener = CONTAINER_OF(waiter, struct opener, waiter);
    struct timeline_set *set = opener->set;
    struct timeline_row *row = opener->row;
    if (!set->is_stopping && set->env->rest_ms > 0) {
        row->used_at = 0; /* nobody wanted it: the first one to rest */
        list_remove(&row->in_state);
        list_push_front(&set->awake, &row->in_state);
        if (!set->is_rest_posted) {
            set->is_rest_posted = true;
            loop_post(set->env->loop, &set->rest_task);
        }
    }
    open_next(opener);
}

void timeline_set_open_all(struct timeline_set *set)
{
    for (size_t i = 0; i < OPENERS; i++) {
        open_next(&set->openers[i]);
    }
}

/* ---- from outside ---- */

struct timeline_set *timeline_set_create(const struct timeline_env *env)
{
    struct timeline_set *set = MEM_NEW(struct timeline_set);
    set->env = env;
    set->slot_count = SLOTS_MIN;
    set->slots = MEM_ARRAY(struct timeline_row *, set->slot_count);
    set->rest_timer.on_fire = on_rest_timer;
    set->rest_task.run = on_rest_posted;
    list_init(&set->unopened);
    list_init(&set->awake);
    for (size_t i = 0; i < ARRAY_LEN(set->due); i++) {
        list_init(&set->due[i]);
    }
    for (size_t i = 0; i < OPENERS; i++) {
        set->openers[i].set = set;
        set->openers[i].waiter.on_ready = on_opened;
    }
    return set;
}

void timeline_set_stop(struct timeline_set *set)
{
    set->is_stopping = true;
    timer_stop(&set->rest_timer);
}

void timeline_set_destroy(struct timeline_set *set)
{
    timer_stop(&set->rest_timer);
    while (set->count > 0) {
        struct timeline_row *row = set->items[set->count - 1];
        struct timeline *tl = row->tl;
        if (tl != NULL) {
            tl->row = NULL;
        }
        while (list_pop_front(&row->watches) != NULL) { /* of connections that are still closing */
        }
        row_destroy(row);
        timeline_unref(tl);
    }
    mem_free(set->items);
    mem_free(set->slots);
    mem_free(set);
}

void timeline_set_add(struct timeline_set *set, struct tenant_id tenant, struct timeline_id id)
{
    struct timeline_row *row = row_create(set, tenant, id);
    list_push_back(&set->unopened, &row->in_state);
    set->unopened_count++;
    metric_add(&unopened_count, 1);
}

struct timeline *timeline_set_start(
    struct timeline_set *set,
    struct tenant_id tenant,
    struct timeline_id id,
    const struct control_state *create)
{
    struct timeline_row *row = row_create(set, tenant, id);
    row->tl = timeline_start(set->env, row, create);
    note_use(row);
    return row->tl;
}

void timeline_set_remove(struct timeline_set *set, struct timeline *tl)
{
    ASSERT(tl->row != NULL && tl->row->set == set && tl->row->tl == tl);
    row_destroy(tl->row);
    tl->row = NULL;
    timeline_unref(tl);
}

size_t timeline_set_count(const struct timeline_set *set)
{
    return set->count;
}

size_t timeline_set_unopened_count(const struct timeline_set *set)
{
    return set->unopened_count;
}

size_t timeline_set_resting_count(const struct timeline_set *set)
{
    return set->resting_count;
}

uint64_t timeline_set_digest(const struct timeline_set *set)
{
    return set->digest;
}

void timeline_set_visit(struct timeline_set *set, struct timeline_visitor *visitor)
{
    for (size_t i = 0; i < set->count; i++) {
        struct timeline_row *row = set->items[i];
        bool is_resting = row->tl == NULL && row->rest != NULL;
        struct timeline *tl = is_resting ? timeline_wake(set->env, row) : row->tl;
        visitor->visit(visitor, row->tenant, row->id, tl);
        if (is_resting) {
            timeline_unref(tl);
        }
    }
}

void timeline_set_visit_awake(struct timeline_set *set, struct timeline_visitor *visitor)
{
    LIST_FOR_EACH(&set->awake, link)
    {
        struct timeline_row *row = CONTAINER_OF(link, struct timeline_row, in_state);
        visitor->visit(visitor, row->tenant, row->id, row->tl);
    }
}

/* ---- what is due ---- */

void timeline_row_schedule(struct timeline_row *row, uint8_t backoff, mono_ns_t now)
{
    ASSERT(backoff <= CATCH_UP_BACKOFF_MAX);
    list_remove(&row->in_due);
    row->catch_up_backoff = backoff;
    row->catch_up_at = now + (row->set->env->peer_check_ms << backoff) * NS_PER_MS;
    list_push_back(&row->set->due[backoff], &row->in_due);
}

void timeline_row_unschedule(struct timeline_row *row)
{
    list_remove(&row->in_due);
}

struct timeline_row *timeline_set_first_due(const struct timeline_set *set, mono_ns_t now)
{
    for (size_t i = 0; i < ARRAY_LEN(set->due); i++) {
        struct list_link *first = list_first(&set->due[i]);
        struct timeline_row *row =
            first == NULL ? NULL : CONTAINER_OF(first, struct timeline_row, in_due);
        if (row != NULL && row->catch_up_at <= now) {
            return row;
        }
    }
    return NULL;
}
