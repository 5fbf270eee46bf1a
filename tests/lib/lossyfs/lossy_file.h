/*
 * lossy_file.h - the bytes of one file twice: as programs see them, and as the disk has them for
 * certain; and between the two, in order, every change that nobody has synced yet.
 *
 * What a power cut leaves is what a page cache and a disk could have made of that: a sector of 512
 * bytes is on disk as it was for certain, or as it was in the cache after one of the changes to it.
 * Changes get there in any order, whole, in part or not at all. The size is one that the file had,
 * and a truncation before that size is on disk too, as a journal keeps them.
 *
 * Pure: no clock, no I/O; chance comes from the caller.
 */
#pragma once

#include "common/base/bytes.h"
#include "common/base/list.h"
#include "common/base/prng.h"

#define LOSSY_PAGE_SIZE     4096u
#define LOSSY_SECTOR_SIZE   512u
#define LOSSY_FILE_SIZE_MAX (4ull << 30)

struct lossy_page; /* shared by whoever has the same 4096 bytes; never changed while it is */

struct lossy_image {
    struct lossy_page **pages; /* NULL: zeros */
    size_t slots;
    size_t page_count; /* those that are not NULL */
    uint64_t size;     /* everything behind it is zero */
};

struct lossy_file {
    struct lossy_image cached, stable;
    struct list changes; /* of the cache, the oldest first */
    size_t change_count;
};

/* What one power cut does, and what it did. */
struct lossy_cut {
    struct prng prng;
    unsigned keep_percent; /* of changes to bytes and to names; 0 and 100: all alike */
    size_t kept, torn, lost;
    size_t names_kept, names_lost;
};

void lossy_file_init(struct lossy_file *file);
void lossy_file_deinit(struct lossy_file *file);

/* `offset + bytes.size` is at most LOSSY_FILE_SIZE_MAX, and so is `size`: the caller checks. */
void lossy_file_write(struct lossy_file *file, uint64_t offset, struct bytes bytes);
void lossy_file_resize(struct lossy_file *file, uint64_t size);
/* Pages that such a write would add. */
size_t lossy_file_pages_needed(const struct lossy_file *file, uint64_t offset, size_t size);
size_t lossy_file_read(const struct lossy_file *file, uint64_t offset, uint8_t *to, size_t size);

void lossy_file_sync(struct lossy_file *file);
/* A sync has failed: what was not synced is gone from the cache, and the next sync succeeds. */
void lossy_file_drop_changes(struct lossy_file *file);
/* Afterwards cache and disk are the same. */
void lossy_file_cut(struct lossy_file *file, struct lossy_cut *cut);
/* One bit changes on disk and in the cache. False: no data there. */
bool lossy_file_flip(struct lossy_file *file, uint64_t offset, unsigned bit);
