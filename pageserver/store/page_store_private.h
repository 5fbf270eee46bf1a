/*
 * page_store_private.h - shared by the files of this folder: the layers of a store's timelines, and
 * how they come to lie in its kv.
 *
 * Two locks. `writing` of a timeline is held while one version is put, a position is committed or
 * the open layer is taken away. `lock` of the store guards which layers a timeline has, so that a
 * reader references all layers of its path at one moment; it is held for a few loads and stores,
 * and taken inside `writing`, never around it. What is inside a layer needs neither.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "common/base/list.h"
#include "common/kv/kv.h"
#include "pageserver/store/key_filter.h"
#include "pageserver/store/open_layer.h"
#include "pageserver/store/page_index.h"
#include "pageserver/store/page_store.h"

/*
 * The layers of one timeline that was written to since the store was opened.
 *
 * Every version with an LSN above kv_lsn that a reader may see lies in one of the layers. In the kv
 * there may be more of them, left by a crash or by a flush amid a piece of WAL: ingest wrote, or
 * will write, the same into a layer before anybody is told of that LSN.
 */
struct timeline_layers {
    uint32_t timeline;
    pthread_mutex_t writing;
    struct open_layer *open;   /* NULL: nothing was put since the last flush */
    struct open_layer *frozen; /* being flushed, or a flush of it failed */
    lsn_t kv_lsn;
    struct ingest_position position, frozen_position; /* LSN 0: none */
    struct key_filter *filter; /* pages in the kv, added under `writing`; NULL: not known */
    bool is_indexed;           /* all of these pages are in the store's index too; under its lock */
    uint32_t indexed_pages;    /* as is this */
    struct list_link dirty_link; /* while there is an open layer */
    struct timeline_layers *next_in_bucket;
};

struct page_store {
    struct kv *kv;
    struct gc_passes *gc; /* NULL: compactions keep everything */
    char *folder;         /* for files that are not in the kv yet */
    _Atomic uint64_t file_number;
    _Atomic uint64_t open_bytes, frozen_bytes;

    pthread_mutex_t lock;
    struct list dirty;
    uint64_t layer_changes;           /* times that any timeline's layers or its kv_lsn changed */
    struct timeline_layers **buckets; /* a power of two */
    size_t bucket_count, timeline_count;
    struct page_index *index;
    struct path_view **views; /* of long paths; NULL: there were none */

    /* The flush's; there is one at a time. */
    atomic_bool is_flushing;
    struct timeline_layers **frozen;
    size_t frozen_count;
};

/* The layers of a timeline; _get makes them, blocking, _find may be NULL. */
NODISCARD err_t timeline_layers_get(
    struct page_store *store,
    uint32_t timeline,
    struct timeline_layers **ret_layers,
    struct errmsg *msg);
struct timeline_layers *timeline_layers_find(struct page_store *store, uint32_t timeline);
void timeline_layers_free(struct timeline_layers *layers);

#define LEARNED_AT_ONCE 32 /* pages */
/*
 * Pages that come to lie in the kv, before they do; under `writing`, or nobody else has `layers`.
 */
void timeline_layers_learn(
    struct page_store *store,
    struct timeline_layers *layers,
    const struct page_key *keys,
    size_t count);

/* -- layer_writer.c: layers to files to the kv -- */

/* Files in key order that go into the kv together. */
struct layer_files {
    struct page_store *store;
    struct kv_file *file; /* the one being written; NULL: none */
    char **paths;
    size_t count, capacity;
    struct buf value;
};

void layer_files_init(struct layer_files *files, struct page_store *store);
void layer_files_deinit(struct layer_files *files); /* what was not ingested is removed */
/*
 * Everything of one frozen layer, and the position when it has an LSN. `layers` learn of the pages.
 */
NODISCARD err_t layer_files_add(
    struct layer_files *files,
    struct timeline_layers *layers,
    const struct open_layer *layer,
    struct ingest_position position,
    struct errmsg *msg);
NODISCARD err_t layer_files_end_file(struct layer_files *files, struct errmsg *msg);
/* All files or none. Nothing was added: nothing happens. */
NODISCARD err_t layer_files_ingest(struct layer_files *files, struct errmsg *msg);

/* The value of an ingest position, without its tag. */
#define POSITION_VALUE_SIZE (2 * sizeof(uint64_t))
void position_encode(struct ingest_position position, uint8_t to[POSITION_VALUE_SIZE]);
