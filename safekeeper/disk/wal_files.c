/* The folder of a timeline's WAL: names, listing, removal, checksums of ranges. */
#include "safekeeper/disk/wal_store_private.h"

#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/wire/codec.h"

#define SIDECAR_SUFFIX ".crc"
#define NAME_DIGITS    24
#define PIECE_SIZE     (256 * KIB)

lsn_t wal_files_segment_begin(const struct wal_files *files, uint64_t segment)
{
    return segment * files->identity.segment_size;
}

uint64_t wal_files_end_segment(const struct wal_files *files, lsn_t lsn)
{
    ASSERT(lsn >= files->begin_lsn);
    return (lsn == files->begin_lsn ? lsn : lsn - 1) / files->identity.segment_size;
}

lsn_t wal_files_first_lsn(const struct wal_files *files)
{
    return files->begin_lsn - files->begin_lsn % files->identity.segment_size;
}

err_t wal_files_path(
    const struct wal_files *files,
    uint64_t segment,
    const char *suffix,
    char path[PATH_SIZE],
    struct errmsg *msg)
{
    struct wal_segment_name name =
        wal_segment_name(wal_files_segment_begin(files, segment), files->identity.segment_size);
    return str_format(path, PATH_SIZE, msg, "%s/%s%s", files->dir, name.text, suffix);
}

err_t wal_files_init(
    struct wal_files *files, const struct wal_store_options *options, struct errmsg *msg)
{
    *files = (struct wal_files){
        .identity =
            {
                .tenant = options->tenant,
                .timeline = options->timeline,
                .segment_size = options->segment_size,
            },
        .start_lsn = options->start_lsn,
        .begin_lsn = MAX_OF(options->start_lsn, options->begin_lsn),
        .system_id = options->system_id,
        .recycled_max = options->recycled_max,
    };
    return str_copy(files->dir, sizeof(files->dir), options->dir, msg);
}

err_t wal_files_crc(
    const struct wal_files *files,
    int fd,
    const char *path,
    lsn_t begin,
    lsn_t end,
    uint32_t *ret_crc,
    struct errmsg *msg)
{
    static_assert(PIECE_SIZE % WAL_PAGE_SIZE == 0, "whole pages");
    uint32_t crc = 0;
    uint8_t *piece = mem_alloc((size_t)MIN_OF(end - begin, (lsn_t)PIECE_SIZE));
    err_t err = ERR_OK;
    while (begin < end && err == ERR_OK) {
        size_t size = (size_t)MIN_OF(end - begin, (lsn_t)PIECE_SIZE);
        err = file_read_at(fd, path, piece, size, begin % files->identity.segment_size, msg);
        if (err == ERR_OK) {
            crc = crc32c(crc, piece, size);
        }
        begin += size;
    }
    mem_free(piece);
    if (err == ERR_OK) {
        *ret_crc = crc;
    }
    return err;
}

static bool is_zero(const uint8_t *bytes, size_t size)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

err_t file_zero_tail_and_sync(const char *path, uint64_t at, struct errmsg *msg)
{
    uint8_t *piece = NULL, *zeros = NULL;
    uint64_t size = 0;
    int fd = -1;
    err_t err = file_open(&fd, path, FILE_WRITE, msg);
    if (err != ERR_OK) {
        err = err == ERR_NOT_FOUND ? ERR_OK : err;
        goto out;
    }
    err = file_size(fd, path, &size, msg);
    if (err != ERR_OK) {
        goto out;
    }
    piece = mem_alloc(PIECE_SIZE);
    zeros = mem_zalloc(PIECE_SIZE);
    while (at < size) {
        size_t step = (size_t)MIN_OF(size - at, PIECE_SIZE - at % PIECE_SIZE);
        err = file_read_at(fd, path, piece, step, at, msg);
        if (err != ERR_OK) {
            goto out;
        }
        if (!is_zero(piece, step)) {
            err = file_write_at(fd, path, bytes_of(zeros, step), at, msg);
        }
        if (err != ERR_OK) {
            goto out;
        }
        at += step;
    }
    err = file_sync(fd, path, msg);
out:
    file_close(&fd);
    mem_free(piece);
    mem_free(zeros);
    return err;
}

/*
 * A whole page whose header names another address is left of the file's old life. Nobody takes it
 * for WAL of this place, no more than Postgres does in a segment that it has recycled.
 */
static bool is_of_old_life(const uint8_t *page, size_t size, lsn_t lsn)
{
    struct reader in = reader_of(bytes_of(page, size));
    uint16_t magic = get_u16(&in);
    (void)get_u16(&in);
    (void)get_u32(&in);
    lsn_t address = get_u64(&in);
    return size == WAL_PAGE_SIZE && magic == WAL_PAGE_MAGIC && address != lsn;
}

static err_t zero_pages(
    int fd, const char *path, lsn_t begin_lsn, uint64_t at, uint64_t size, struct errmsg *msg)
{
    static const uint8_t zeros[WAL_PAGE_SIZE];
    uint8_t page[WAL_PAGE_SIZE];
    while (at < size) {
        size_t step = (size_t)MIN_OF(size - at, WAL_PAGE_SIZE - at % WAL_PAGE_SIZE);
        TRY(file_read_at(fd, path, page, step, at, msg));
        if (!is_zero(page, step) && !is_of_old_life(page, step, begin_lsn + at)) {
            TRY(file_write_at(fd, path, bytes_of(zeros, step), at, msg));
        }
        at += step;
    }
    return file_sync(fd, path, msg);
}

err_t wal_files_zero_tail(
    const struct wal_files *files, uint64_t segment, lsn_t end_lsn, struct errmsg *msg)
{
    char path[PATH_SIZE];
    uint64_t size = 0;
    int fd = -1;
    lsn_t begin_lsn = wal_files_segment_begin(files, segment);
    TRY(wal_files_path(files, segment, "", path, msg));
    err_t err = file_open(&fd, path, FILE_WRITE, msg);
    if (err != ERR_OK) {
        return err == ERR_NOT_FOUND ? ERR_OK : err;
    }
    err = file_size(fd, path, &size, msg);
    if (err == ERR_OK) {
        err = zero_pages(fd, path, begin_lsn, end_lsn - begin_lsn, size, msg);
    }
    file_close(&fd);
    return err;
}

/* ---- recycled segments ---- */

static err_t recycled_path(
    const struct wal_files *files, unsigned number, char path[PATH_SIZE], struct errmsg *msg)
{
    return str_format(path, PATH_SIZE, msg, "%s/recycled.%u", files->dir, number);
}

err_t wal_files_recycle(
    const struct wal_files *files, uint64_t segment, bool *ret_kept, struct errmsg *msg)
{
    char path[PATH_SIZE], kept[PATH_SIZE];
    TRY(wal_files_path(files, segment, SIDECAR_SUFFIX, path, msg));
    TRY(file_remove(path, msg));
    TRY(wal_files_path(files, segment, "", path, msg));
    for (unsigned i = 0; i < files->recycled_max; i++) {
        TRY(recycled_path(files, i, kept, msg));
        if (!file_exists(kept)) {
            *ret_kept = vfs.rename(path, kept) == 0;
            return *ret_kept ? ERR_OK : file_remove(path, msg);
        }
    }
    *ret_kept = false;
    return file_remove(path, msg);
}

bool wal_files_reuse(const struct wal_files *files, const char *path)
{
    char kept[PATH_SIZE];
    for (unsigned i = 0; i < files->recycled_max; i++) {
        if (recycled_path(files, i, kept, NULL) == ERR_OK && file_exists(kept) &&
            vfs.rename(kept, path) == 0) {
            return true;
        }
    }
    return false;
}

static err_t visit_recycled(const char *name, void *context, struct errmsg *msg)
{
    const struct wal_files *files = context;
    char path[PATH_SIZE];
    if (!str_starts_with(name, "recycled.")) {
        return ERR_OK;
    }
    TRY(str_format(path, sizeof(path), msg, "%s/%s", files->dir, name));
    return file_remove(path, msg);
}

err_t wal_files_drop_recycled(const struct wal_files *files, struct errmsg *msg)
{
    struct wal_files copy = *files;
    return files->recycled_max == 0 ? ERR_OK : dir_list(files->dir, visit_recycled, &copy, msg);
}

err_t wal_files_remove_segment(const struct wal_files *files, uint64_t segment, struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(wal_files_path(files, segment, SIDECAR_SUFFIX, path, msg));
    TRY(file_remove(path, msg));
    TRY(wal_files_path(files, segment, "", path, msg));
    return file_remove(path, msg);
}

struct listing {
    uint32_t segments_per_id; /* of 4 GiB */
    uint64_t *segments;
    size_t count, capacity;
};

static bool parse_name(const char *name, const struct listing *listing, uint64_t *ret_segment)
{
    unsigned timeline, high, low;
    int used = 0;
    if (strspn(name, "0123456789ABCDEF") != NAME_DIGITS ||
        (name[NAME_DIGITS] != '\0' && strcmp(name + NAME_DIGITS, SIDECAR_SUFFIX) != 0)) {
        return false;
    }
    if (sscanf(name, "%8X%8X%8X%n", &timeline, &high, &low, &used) != 3 || used != NAME_DIGITS) {
        return false;
    }
    *ret_segment = (uint64_t)high * listing->segments_per_id + low;
    return timeline == 1 && low < listing->segments_per_id;
}

/* Names come sorted, so that a segment and its sidecar are neighbours. Other files are not ours. */
static err_t visit(const char *name, void *context, struct errmsg *msg)
{
    struct listing *listing = context;
    uint64_t segment;
    (void)msg;
    if (!parse_name(name, listing, &segment) ||
        (listing->count > 0 && listing->segments[listing->count - 1] == segment)) {
        return ERR_OK;
    }
    if (listing->count == listing->capacity) {
        listing->capacity = MAX_OF((size_t)16, 2 * listing->capacity);
        listing->segments =
            mem_realloc(listing->segments, listing->capacity * sizeof(*listing->segments));
    }
    listing->segments[listing->count++] = segment;
    return ERR_OK;
}

err_t wal_files_list(
    const struct wal_files *files, uint64_t **ret_segments, size_t *ret_count, struct errmsg *msg)
{
    struct listing listing = {
        .segments_per_id = (uint32_t)((1ull << 32) / files->identity.segment_size),
    };
    err_t err = dir_list(files->dir, visit, &listing, msg);
    if (err != ERR_OK) {
        mem_free(listing.segments);
        return err;
    }
    *ret_segments = listing.segments;
    *ret_count = listing.count;
    return ERR_OK;
}

err_t wal_files_remove_behind(const struct wal_files *files, uint64_t segment, struct errmsg *msg)
{
    uint64_t *segments = NULL;
    size_t count = 0;
    TRY(wal_files_list(files, &segments, &count, msg));
    err_t err = ERR_OK;
    bool is_any = false;
    /* Newest first: what a crash leaves is always a log without a hole. */
    for (size_t i = count; i > 0 && segments[i - 1] > segment && err == ERR_OK; i--) {
        err = wal_files_remove_segment(files, segments[i - 1], msg);
        is_any = true;
    }
    mem_free(segments);
    if (err == ERR_OK && is_any) {
        err = file_sync_dir(files->dir, msg);
    }
    return err;
}
