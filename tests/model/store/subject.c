#include "tests/model/store/subject.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "pageserver/timeline/history.h"
#include "tests/lib/page_batch.h"

static struct {
    struct page_store *store;
    struct history *history;
    struct history_timeline *timelines[MODEL_TIMELINES];
    struct history_hold hold;
    struct page_batch *batch;
    struct page_path *path;
    struct page_reader *reader;
    struct page_versions versions;
    unsigned opened;  /* readers so far; every other one walks over pages */
    pthread_t thread; /* of a compaction */
    bool has_thread;
    atomic_bool is_compacting;
} subject;
static struct errmsg msg;

/* The episode is over: the store failed where it must not. */
static void must(err_t err)
{
    if (err != ERR_OK) {
        printf("the store failed: %s: %s\n", err_name(err), msg.text);
        (void)fflush(stdout);
        _exit(1);
    }
}

const char *subject_base(void)
{
    const char *chosen = getenv("STORE_MODEL_DIR");
    return chosen != NULL ? chosen : file_exists("/dev/shm") ? "/dev/shm" : "/tmp";
}

void subject_open(const char *folder)
{
    subject.history = history_create((struct history_retention){0});
    struct page_store_options options = {.gc = history_gc_source(subject.history)};
    must(page_store_open(folder, &options, &subject.store, &msg));
    must(history_load(subject.history, subject.store, &msg));
    subject.batch = page_batch_create();
    subject.opened = 0;
}

void subject_start(void)
{
    history_start(subject.history, 1);
}

void subject_close(void)
{
    subject_compact_end();
    history_release(subject.history, &subject.hold);
    page_batch_destroy(subject.batch);
    page_store_close(subject.store);
    history_destroy(subject.history);
    subject.store = NULL;
}

void subject_flush(void)
{
    must(page_store_flush(subject.store, &msg));
}

/* -- history -- */

void subject_add(const struct model *model, int timeline)
{
    const struct model_timeline *tl = &model->timelines[timeline];
    subject.timelines[timeline] = history_add(
        subject.history,
        &(struct gc_timeline){
            .number = tl->number,
            .parent_number = tl->parent < 0 ? 0 : model->timelines[tl->parent].number,
            .start_lsn = tl->start,
            .durable_lsn = tl->durable,
            .is_tombstone = tl->is_tombstone,
        });
}

void subject_remove(int timeline)
{
    history_remove(subject.history, subject.timelines[timeline]);
    subject.timelines[timeline] = NULL;
}

void subject_set_tombstone(int timeline)
{
    history_set_tombstone(subject.history, subject.timelines[timeline]);
}

void subject_set_durable(int timeline, lsn_t lsn)
{
    history_set_durable(subject.history, subject.timelines[timeline], lsn);
}

lsn_t subject_cutoff(int timeline)
{
    return history_cutoff(subject.timelines[timeline]);
}

static bool is_kept(err_t err)
{
    if (err != ERR_RANGE) {
        must(err);
    }
    return err == ERR_OK;
}

bool subject_may_read(int timeline, lsn_t lsn)
{
    return is_kept(history_check(subject.history, subject.timelines[timeline], lsn, &msg));
}

bool subject_hold(int timeline, lsn_t lsn)
{
    return is_kept(
        history_hold(subject.history, subject.timelines[timeline], lsn, &subject.hold, &msg));
}

void subject_release(void)
{
    history_release(subject.history, &subject.hold);
}

bool subject_lease(int timeline, lsn_t lsn, size_t name)
{
    struct history_lease lease = {.lsn = lsn, .expires_us = LEASE_FOREVER};
    (void)snprintf(lease.name, sizeof(lease.name), "lease %zu", name);
    return is_kept(history_lease_put(
        subject.history, subject.store, subject.timelines[timeline], &lease, &msg));
}

bool subject_lease_drop(int timeline, size_t name)
{
    char text[LEASE_NAME_SIZE];
    (void)snprintf(text, sizeof(text), "lease %zu", name);
    err_t err =
        history_lease_drop(subject.history, subject.store, subject.timelines[timeline], text, &msg);
    if (err != ERR_NOT_FOUND) {
        must(err);
    }
    return err == ERR_OK;
}

void subject_move_cutoffs(const struct model *model, const lsn_t wanted[MODEL_TIMELINES])
{
    struct gc_tree *tree = history_tree(subject.history);
    lsn_t of_tree[MODEL_TIMELINES];
    for (size_t i = 0; i < model->timeline_count; i++) {
        size_t place = gc_find(tree, model->timelines[i].number);
        if (place != SIZE_MAX) {
            of_tree[place] = wanted[i];
        }
    }
    must(history_move_cutoffs(subject.history, subject.store, tree, of_tree, &msg));
    history_tree_free(tree);
}

void subject_compact(void)
{
    subject_compact_end();
    must(page_store_compact(subject.store, &msg));
}

static void *run_compaction(void *store)
{
    struct errmsg why;
    err_t err = page_store_compact(store, &why);
    if (err != ERR_OK) {
        printf("a compaction failed: %s: %s\n", err_name(err), why.text);
        (void)fflush(stdout);
        _exit(1);
    }
    atomic_store(&subject.is_compacting, false);
    return NULL;
}

void subject_compact_beside(void)
{
    subject_compact_end();
    atomic_store(&subject.is_compacting, true);
    subject.has_thread = true;
    int failed = pthread_create(&subject.thread, NULL, run_compaction, subject.store);
    ASSERT(failed == 0);
}

void subject_compact_end(void)
{
    if (subject.has_thread) {
        int failed = pthread_join(subject.thread, NULL);
        ASSERT(failed == 0);
        subject.has_thread = false;
    }
}

bool subject_is_compacting(void)
{
    return atomic_load(&subject.is_compacting);
}

/* -- versions -- */

static struct page_key key_of_event(const struct model_event *event)
{
    return event->key == MODEL_COMMIT
               ? page_key_state(
                     STATE_COMMIT_TIME, (uint32_t)(event->value >> 32), (uint32_t)event->value)
               : model_key(event->key);
}

static void put_bytes(
    const struct model *model,
    int timeline,
    struct page_key key,
    lsn_t lsn,
    uint8_t tag,
    uint64_t value)
{
    static uint8_t page[PAGE_SIZE];
    size_t size = tag == VALUE_IMAGE ? sizeof(page) : tag == VALUE_ZERO ? 0 : sizeof(value);
    memcpy(page, &value, sizeof(value));
    page_batch_put(
        subject.batch, model->timelines[timeline].number, key, lsn, tag, 0, bytes_of(page, size));
}

void subject_put_version(
    uint32_t number, struct page_key key, lsn_t lsn, uint8_t tag, struct bytes value)
{
    page_batch_put(subject.batch, number, key, lsn, tag, 0, value);
}

void subject_put(const struct model *model, const struct model_event *event)
{
    if (event->key >= MODEL_SIZE_0 && event->key < MODEL_SLRU_0) {
        page_batch_put_rel_size(
            subject.batch, model->timelines[event->timeline].number,
            model_key((event->key - MODEL_SIZE_0) * MODEL_BLOCKS), event->lsn,
            (event->value & MODEL_SIZE_EXISTS) != 0, (uint32_t)event->value);
        return;
    }
    uint64_t value = event->key == MODEL_COMMIT ? event->lsn - MODEL_LSN_STEP : event->value;
    put_bytes(model, event->timeline, key_of_event(event), event->lsn, event->tag, value);
}

void subject_commit(const struct model *model, int timeline, lsn_t lsn)
{
    struct ingest_position position = {.lsn = lsn, .prev_record_lsn = lsn - MODEL_LSN_STEP};
    page_batch_put_position(subject.batch, model->timelines[timeline].number, position);
    must(page_store_write(subject.store, subject.batch, &msg));
    page_batch_clear(subject.batch);
}

lsn_t subject_position(uint32_t number)
{
    struct ingest_position position = {0};
    err_t err = page_store_position(subject.store, number, &position, &msg);
    if (err != ERR_NOT_FOUND) {
        must(err);
    }
    return position.lsn;
}

void subject_put_image(const struct model *model, int key, struct model_page page)
{
    put_bytes(model, page.timeline, model_key(key), page.lsn, VALUE_IMAGE, page.content);
    must(page_store_write(subject.store, subject.batch, &msg));
    page_batch_clear(subject.batch);
}

void subject_erase(uint32_t number)
{
    must(page_store_erase(subject.store, &number, 1, &msg));
    must(history_erase_rows(subject.history, subject.store, number, &msg));
}

void subject_reader_open(const struct model *model, int timeline)
{
    size_t count = 0;
    subject.path =
        mem_zalloc(sizeof(*subject.path) + MODEL_TIMELINES * sizeof(subject.path->spans[0]));
    lsn_t max_lsn = UINT64_MAX;
    while (timeline >= 0) {
        const struct model_timeline *tl = &model->timelines[timeline];
        subject.path->spans[count++] =
            (struct page_span){.timeline = tl->number, .max_lsn = max_lsn};
        max_lsn = MIN_OF(max_lsn, tl->start);
        timeline = tl->parent;
    }
    subject.path->count = count;
    subject.reader = page_reader_create(subject.store, subject.path);
    subject.opened++;
}

void subject_reader_close(void)
{
    page_reader_destroy(subject.reader);
    mem_free(subject.path);
}

static uint64_t value_of(const struct page_version *version)
{
    struct bytes bytes = page_version_value(&subject.versions, version);
    uint64_t value = 0;
    memcpy(&value, bytes.data, MIN_OF(bytes.size, sizeof(value)));
    return value;
}

/* From the first page of the relation to `key`, which the caller reads again. */
static void walk_to(int key, lsn_t lsn)
{
    int first = key - key % MODEL_BLOCKS;
    page_reader_expect(subject.reader, model_key(first), MODEL_BLOCKS);
    for (int before = first; before <= key; before++) {
        must(page_reader_collect(subject.reader, model_key(before), lsn, &subject.versions, &msg));
    }
}

struct model_page subject_read(int key, lsn_t lsn)
{
    struct page_versions *versions = &subject.versions;
    if (subject.opened % 2 == 0 && key < MODEL_SIZE_0) {
        walk_to(key, lsn);
    }
    must(page_reader_collect(subject.reader, model_key(key), lsn, versions, &msg));
    struct model_page page = {.lsn = versions->count == 0 ? 0 : versions->items[0].lsn};
    for (size_t i = versions->count; i-- > 0;) {
        const struct page_version *version = &versions->items[i];
        switch (version->tag) {
        case VALUE_ZERO: page.content = 0; break;
        case VALUE_INIT: page.content = model_mix(0, value_of(version)); break;
        case VALUE_DELTA: page.content = model_mix(page.content, value_of(version)); break;
        default: page.content = value_of(version);
        }
    }
    return page;
}

int subject_blocks(int rel, lsn_t lsn)
{
    struct fork_size size;
    must(page_reader_rel_size(subject.reader, model_key(rel * MODEL_BLOCKS), lsn, &size, &msg));
    return size.exists ? (int)size.blocks : -1;
}

static err_t note_relation(struct page_key rel, uint32_t blocks, void *context, struct errmsg *why)
{
    (void)blocks;
    (void)why;
    unsigned *seen = context;
    *seen |= 1u << (rel.rel - model_key(0).rel);
    return ERR_OK;
}

unsigned subject_relations(lsn_t lsn)
{
    unsigned seen = 0;
    must(page_reader_relations(subject.reader, KEY_SPC_STATE, 0, lsn, note_relation, &seen, &msg));
    return seen;
}

lsn_t subject_commit_after(uint64_t time, lsn_t lsn)
{
    lsn_t found = 0;
    err_t err = page_reader_commit_after(subject.reader, time, lsn, &found, &msg);
    if (err != ERR_NOT_FOUND) {
        must(err);
    }
    return err == ERR_OK ? found : 0;
}

uint64_t subject_newest_commit(lsn_t lsn)
{
    uint64_t found = 0;
    err_t err = page_reader_newest_commit(subject.reader, lsn, &found, &msg);
    if (err != ERR_NOT_FOUND) {
        must(err);
    }
    return err == ERR_OK ? found : 0;
}
