/*
 * kv_private.h - shared by the files of this folder: the store, and the gate in front of RocksDB.
 *
 * RocksDB 7.8 cannot take up its work in place after a full disk has stopped it (kv_gate.c), so it
 * is closed and opened again under those who use it. Whoever calls it has entered the gate before
 * and leaves it after; an iterator stays inside as long as it lives. The gate is shut while nobody
 * is inside and the store is opened anew.
 */
#pragma once

#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>

#include "common/base/clock.h"
#include "common/kv/kv.h"

enum kv_health {
    KV_RUNS,
    KV_FULL,   /* a full disk has stopped it: it is mended when there is room */
    KV_CLOSED, /* the same, and it was closed and could not be opened again yet */
    KV_FAILED, /* for good */
};

struct kv {
    _Atomic(rocksdb_t *) db; /* changes while the gate is shut; NULL: it is not open */
    rocksdb_options_t *options;
    rocksdb_writeoptions_t *write_synced, *write_volatile;
    rocksdb_readoptions_t *read_total, *read_prefix, *read_in_memory;
    rocksdb_flushoptions_t *flush;
    rocksdb_ingestexternalfileoptions_t *ingest;
    char *path;

    atomic_bool is_ending; /* kv_stop_compacting() */
    atomic_uint users;     /* inside */
    atomic_bool is_shut;
    _Atomic enum kv_health health;
    pthread_mutex_t lock; /* the fields below; `moved` tells of is_shut and of users */
    pthread_cond_t moved;
    bool is_mending;
    mono_ns_t stopped_at, mend_at;
    unsigned attempts;
    struct errmsg why; /* it does not run */
};

rocksdb_compactionfilterfactory_t *kv_filter_factory(struct kv_filter *filter);

/* RocksDB describes a failure as text only. Takes over `text`; NULL is fine. */
NODISCARD err_t kv_take_error(const struct kv *kv, char *text, struct errmsg *msg);

/* -- kv_gate.c -- */

void kv_gate_init(struct kv *kv);
void kv_gate_deinit(struct kv *kv);
/* Waits while the gate is shut. What stopped the store is mended first if that can be. */
NODISCARD err_t kv_enter(struct kv *kv, struct errmsg *msg);
NODISCARD err_t kv_enter_to_write(struct kv *kv, struct errmsg *msg);
NODISCARD err_t kv_try_enter(struct kv *kv, struct errmsg *msg); /* does not block: ERR_BUSY */
void kv_leave(struct kv *kv);
/* To open a store takes a little: without it opening leaves no more than a closed store. */
bool kv_has_room(const char *path);
/* Inside: a write has failed, or something in the background may have. */
void kv_look_whether_stopped(struct kv *kv, bool in_background);
