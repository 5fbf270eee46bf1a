/*
 * gc_pass.h - gc_filter at work: the compactions of one store drop what the horizon does not keep.
 *
 * Threads: [any]; passes run on RocksDB's threads, several at once.
 */
#pragma once

#include "pageserver/store/gc_filter.h"

/* Who knows what must be kept. */
struct gc_source {
    /* [any] The horizon as it is now, the pass's until put_back; NULL: not known, nothing goes. */
    struct gc_horizon *(*take)(struct gc_source *source);
    void (*put_back)(struct gc_source *source, struct gc_horizon *horizon);
};

struct gc_passes;
struct kv;
struct kv_filter;

/* Destroy it after the kv was closed. */
struct gc_passes *gc_passes_create(struct gc_source *source);
void gc_passes_destroy(struct gc_passes *passes);
struct kv_filter *gc_passes_filter(struct gc_passes *passes);
/* From here on passes look things up in `kv`; before, none drops anything. */
void gc_passes_start(struct gc_passes *passes, struct kv *kv);
/* [any] Versions that passes have dropped so far, and kept only because they hide others. */
uint64_t gc_passes_dropped(const struct gc_passes *passes);
uint64_t gc_passes_hiding(const struct gc_passes *passes);
