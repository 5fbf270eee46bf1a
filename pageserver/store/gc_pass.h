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

/* What passes have met so far: versions that were dropped, those of them that say "not there", and
 * those that stayed only because they hide others. */
struct gc_counts {
    uint64_t dropped, hid, hiding;
};
struct gc_counts gc_passes_counts(const struct gc_passes *passes); /* [any] */
