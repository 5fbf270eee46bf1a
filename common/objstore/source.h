/*
 * source.h - what a put uploads: a view in memory or a local file, read piece by piece.
 *
 * Threads: one at a time.
 */
#pragma once

#include "common/base/checksum.h"

struct source {
    uint64_t size;
    /* private */
    struct bytes data;
    int fd; /* -1: `data` is everything */
    const char *path;
    struct buf room; /* holds the piece of a file */
};

void source_of_bytes(struct source *source, struct bytes data);
NODISCARD err_t source_open_file(struct source *source, const char *path, struct errmsg *msg);
void source_close(struct source *source);

/* A piece that must be there; valid until the next read or close. */
NODISCARD err_t source_read(
    struct source *source,
    uint64_t begin,
    size_t size,
    struct bytes *ret_piece,
    struct errmsg *msg);
/* xxh3-128 of everything. */
NODISCARD err_t source_hash(struct source *source, struct hash128 *ret_hash, struct errmsg *msg);
