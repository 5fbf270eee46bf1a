#include "pageserver/ingest/feeds.h"

#include <stdio.h>

#include "common/base/checksum.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/str.h"
#include "pageserver/timeline/timeline.h"

METRIC_GAUGE(watch_count, "pageserver_feed_watches", "timelines whose safekeepers are listened to");
METRIC_COUNTER(report_count, "pageserver_feed_reports_total", "news of timelines from safekeepers");

#define POSITIONS_MS 200
#define SOURCES_MAX  4096 /* safekeepers of all timelines */
#define SET_BUCKETS  64

/*
 * The key of a watch is its slot and how often the slot was used before: late reports on a timeline
 * that is gone find nobody. A slot that was used up stays empty.
 */
struct feed_slot {
    struct feed_watch *watch; /* NULL: free */
    uint32_t incarnation;
    uint32_t next_free; /* slot + 1; 0: none */
};

struct feeds {
    struct feeds_options options;
    struct list sources;
    size_t source_count;
    struct list sets[SET_BUCKETS];
    struct feed_slot *slots;
    uint32_t slot_count, capacity, first_free;
    struct list moved;
    struct timer positions_timer;
    bool is_stopping;
};

/* -- slots -- */

const struct feeds_options *feeds_options(const struct feeds *feeds)
{
    return &feeds->options;
}

uint32_t feeds_slots(const struct feeds *feeds)
{
    return feeds->slot_count;
}

struct feed_watch *feeds_watch_in(const struct feeds *feeds, uint32_t slot)
{
    return feeds->slots[slot].watch;
}

uint64_t feeds_key(const struct feeds *feeds, uint32_t slot)
{
    return (uint64_t)feeds->slots[slot].incarnation << 32 | slot;
}

static struct feed_watch *find_watch(const struct feeds *feeds, uint64_t key)
{
    uint32_t slot = (uint32_t)key;
    bool is_there = slot < feeds->slot_count && feeds_key(feeds, slot) == key;
    return is_there ? feeds->slots[slot].watch : NULL;
}

static uint32_t take_slot(struct feeds *feeds, struct feed_watch *watch)
{
    uint32_t slot = feeds->slot_count;
    if (feeds->first_free != 0) {
        slot = feeds->first_free - 1;
        feeds->first_free = feeds->slots[slot].next_free;
        feeds->slots[slot].incarnation++;
    } else {
        if (feeds->slot_count == feeds->capacity) {
            feeds->capacity = MAX_OF(16u, 2 * feeds->capacity);
            feeds->slots = mem_realloc(feeds->slots, feeds->capacity * sizeof(struct feed_slot));
        }
        feeds->slots[feeds->slot_count++] = (struct feed_slot){0};
    }
    feeds->slots[slot].watch = watch;
    return slot;
}

static void free_slot(struct feeds *feeds, uint32_t slot)
{
    feeds->slots[slot].watch = NULL;
    if (feeds->slots[slot].incarnation < UINT32_MAX) {
        feeds->slots[slot].next_free = feeds->first_free;
        feeds->first_free = slot + 1;
    }
}

/* -- sets -- */

static bool same_address(const struct safekeeper_address *a, const struct safekeeper_address *b)
{
    return a->id == b->id && a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* NULL: there are too many. */
static struct feed_source *ref_source(struct feeds *feeds, const struct safekeeper_address *address)
{
    LIST_FOR_EACH(&feeds->sources, link)
    {
        struct feed_source *source = CONTAINER_OF(link, struct feed_source, link);
        if (source->references > 0 && same_address(&source->address, address)) {
            source->references++;
            return source;
        }
    }
    if (feeds->source_count == SOURCES_MAX) {
        log_warn(
            NULL, "safekeeper %" PRIu64 " is not used: limit of %d safekeepers", address->id,
            SOURCES_MAX);
        return NULL;
    }
    struct feed_source *source = feed_source_create(feeds, address);
    list_push_back(&feeds->sources, &source->link);
    feeds->source_count++;
    return source;
}

void feeds_forget_source(struct feeds *feeds, struct feed_source *source)
{
    list_remove(&source->link);
    feeds->source_count--;
}

static struct feed_set *ref_set(struct feeds *feeds, const char *text)
{
    struct list *bucket = &feeds->sets[hash64(text, strlen(text), 0) % SET_BUCKETS];
    LIST_FOR_EACH(bucket, link)
    {
        struct feed_set *set = CONTAINER_OF(link, struct feed_set, link);
        if (strcmp(set->text, text) == 0) {
            set->references++;
            return set;
        }
    }
    struct feed_set *set = mem_zalloc(sizeof(struct feed_set) + strlen(text) + 1);
    memcpy(set->text, text, strlen(text) + 1);
    set->references = 1;
    list_push_back(bucket, &set->link);
    struct safekeeper_address address;
    struct errmsg msg;
    while (set->count < SAFEKEEPERS_MAX) {
        err_t err = safekeeper_address_take(&text, &address, &msg);
        if (err != ERR_OK) {
            ASSERT(err == ERR_NOT_FOUND); /* it was checked before it became a row */
            break;
        }
        struct feed_source *source = ref_source(feeds, &address);
        if (source != NULL) {
            set->sources[set->count++] = source;
        }
    }
    return set;
}

static void unref_set(struct feed_set *set)
{
    if (--set->references > 0) {
        return;
    }
    for (size_t i = 0; i < set->count; i++) {
        feed_source_unref(set->sources[i]);
    }
    list_remove(&set->link);
    mem_free(set);
}

/* -- reports -- */

static size_t index_of(const struct feed_watch *watch, const struct feed_source *source)
{
    size_t index = 0;
    while (index < watch->set->count && watch->set->sources[index] != source) {
        index++;
    }
    return index;
}

bool feed_watch_has(const struct feed_watch *watch, const struct feed_source *source)
{
    return index_of(watch, source) < watch->set->count;
}

bool feed_watch_ask_again(struct feed_watch *watch, const struct feed_source *source)
{
    if (!feed_watch_has(watch, source)) {
        return false;
    }
    struct feed_standing *standing = &watch->standings[index_of(watch, source)];
    bool is_wanted = standing->code != ERR_OK && standing->code != ERR_BUSY;
    if (is_wanted) {
        standing->code = ERR_BUSY;
    }
    return is_wanted;
}

static void on_report(
    struct feeds *feeds, struct feed_source *source, const struct status_report *report)
{
    struct feed_watch *watch = find_watch(feeds, report->key);
    if (watch == NULL || !feed_watch_has(watch, source)) {
        return; /* it was on its way when we let go of the timeline */
    }
    struct feed_standing *standing = &watch->standings[index_of(watch, source)];
    standing->code =
        report->code < ERR_COUNT && report->code != ERR_BUSY ? (err_t)report->code : ERR_INVALID;
    if (standing->code != ERR_OK) {
        feed_source_ask_later(source, watch->slot);
        return;
    }
    standing->commit_lsn = report->commit_lsn;
    timeline_saw_commit_lsn(watch->timeline, report->commit_lsn);
    if (watch->on_report != NULL) {
        watch->on_report(watch);
    }
}

err_t feeds_on_reports(
    struct feeds *feeds, struct feed_source *source, const struct status_list *list)
{
    struct bytes entries = list->entries;
    struct status_report report;
    err_t err;
    while ((err = status_report_take(&entries, &report)) == ERR_OK) {
        metric_add(&report_count, 1);
        on_report(feeds, source, &report);
    }
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

bool feed_watch_can_use(const struct feed_watch *watch, size_t index)
{
    return watch->set->sources[index]->state == FEED_SOURCE_READY &&
           watch->standings[index].code == ERR_OK;
}

lsn_t feed_watch_commit_lsn(const struct feed_watch *watch)
{
    lsn_t commit_lsn = LSN_NONE;
    for (size_t i = 0; i < watch->set->count; i++) {
        if (feed_watch_can_use(watch, i)) {
            commit_lsn = MAX_OF(commit_lsn, watch->standings[i].commit_lsn);
        }
    }
    return commit_lsn;
}

bool feed_watch_has_wal(const struct feed_watch *watch)
{
    return timeline_failure(watch->timeline) == NULL &&
           feed_watch_commit_lsn(watch) >
               MAX_OF(timeline_last_lsn(watch->timeline), watch->seen_lsn);
}

void feed_watch_describe(const struct feed_watch *watch, char *to, size_t to_size)
{
    (void)snprintf(to, to_size, "none");
    for (size_t i = 0; i < watch->set->count; i++) {
        const struct feed_source *source = watch->set->sources[i];
        if (feed_watch_can_use(watch, i)) {
            (void)snprintf(to, to_size, "idle");
            return;
        }
        (void)snprintf(
            to, to_size, "none: sk %" PRIu64 ": %s", source->address.id,
            source->state == FEED_SOURCE_READY ? err_name(watch->standings[i].code)
            : source->error.text[0] != '\0'    ? source->error.text
                                               : "not connected yet");
    }
}

/* -- positions -- */

static void on_positions_timer(struct timer *timer)
{
    struct feeds *feeds = CONTAINER_OF(timer, struct feeds, positions_timer);
    struct list_link *first;
    while ((first = list_pop_front(&feeds->moved)) != NULL) {
        struct feed_watch *watch = CONTAINER_OF(first, struct feed_watch, in_moved);
        for (size_t i = 0; i < watch->set->count; i++) {
            if (feed_watch_can_use(watch, i)) {
                feed_source_add_position(watch->set->sources[i], watch);
            }
        }
    }
    LIST_FOR_EACH(&feeds->sources, link)
    {
        feed_source_send_positions(CONTAINER_OF(link, struct feed_source, link));
    }
}

void feed_watch_moved(struct feed_watch *watch)
{
    struct feeds *feeds = watch->feeds;
    if (feeds == NULL || feeds->is_stopping || list_link_is_in(&watch->in_moved)) {
        return;
    }
    list_push_back(&feeds->moved, &watch->in_moved);
    if (!timer_is_started(&feeds->positions_timer)) {
        timer_start(feeds->options.loop, &feeds->positions_timer, POSITIONS_MS);
    }
}

/* -- life -- */

static void take_set(struct feed_watch *watch)
{
    watch->set = ref_set(watch->feeds, timeline_info(watch->timeline)->safekeepers);
    watch->standings = MEM_ARRAY(struct feed_standing, MAX_OF(watch->set->count, (size_t)1));
    for (size_t i = 0; i < watch->set->count; i++) {
        watch->standings[i].code = ERR_BUSY; /* until it has answered */
    }
}

void feed_watch_start(struct feed_watch *watch, struct feeds *feeds, struct timeline *tl)
{
    ASSERT(watch->feeds == NULL);
    watch->feeds = feeds;
    watch->timeline = tl;
    watch->slot = take_slot(feeds, watch);
    metric_add(&watch_count, 1);
    take_set(watch);
    for (size_t i = 0; i < watch->set->count; i++) {
        feed_source_watch(watch->set->sources[i], watch);
    }
}

/* Who stays does not answer a second time: what it said is kept. */
static void change_set(struct feed_watch *watch)
{
    struct feed_set *old_set = watch->set;
    struct feed_standing *old = watch->standings;
    take_set(watch);
    for (size_t i = 0; i < old_set->count; i++) {
        if (feed_watch_has(watch, old_set->sources[i])) {
            watch->standings[index_of(watch, old_set->sources[i])] = old[i];
        } else {
            feed_source_unwatch(old_set->sources[i], watch);
        }
    }
    for (size_t i = 0; i < watch->set->count; i++) {
        if (watch->standings[i].code == ERR_BUSY) {
            feed_source_watch(watch->set->sources[i], watch);
        }
    }
    mem_free(old);
    unref_set(old_set);
}

void feed_watch_update(struct feed_watch *watch)
{
    if (strcmp(watch->set->text, timeline_info(watch->timeline)->safekeepers) != 0) {
        change_set(watch);
    }
    feed_watch_moved(watch); /* the generation goes with the positions */
}

void feed_watch_stop(struct feed_watch *watch)
{
    if (watch->feeds == NULL) {
        return;
    }
    for (size_t i = 0; i < watch->set->count; i++) {
        feed_source_unwatch(watch->set->sources[i], watch);
    }
    list_remove(&watch->in_moved);
    mem_free(watch->standings);
    unref_set(watch->set);
    free_slot(watch->feeds, watch->slot);
    watch->feeds = NULL;
    metric_add(&watch_count, -1);
}

struct feeds *feeds_create(const struct feeds_options *options)
{
    struct feeds *feeds = MEM_NEW(struct feeds);
    feeds->options = *options;
    feeds->positions_timer.on_fire = on_positions_timer;
    list_init(&feeds->sources);
    list_init(&feeds->moved);
    for (size_t i = 0; i < SET_BUCKETS; i++) {
        list_init(&feeds->sets[i]);
    }
    return feeds;
}

void feeds_stop(struct feeds *feeds)
{
    feeds->is_stopping = true;
    timer_stop(&feeds->positions_timer);
    LIST_FOR_EACH(&feeds->sources, link)
    {
        feed_source_stop(CONTAINER_OF(link, struct feed_source, link));
    }
}

bool feeds_are_stopped(const struct feeds *feeds)
{
    LIST_FOR_EACH(&feeds->sources, link)
    {
        if (CONTAINER_OF(link, struct feed_source, link)->state != FEED_SOURCE_OFF) {
            return false;
        }
    }
    return true;
}

void feeds_destroy(struct feeds *feeds)
{
    if (feeds == NULL) {
        return;
    }
    ASSERT(list_is_empty(&feeds->sources)); /* each ended with its last set */
    mem_free(feeds->slots);
    mem_free(feeds);
}
