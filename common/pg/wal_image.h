/*
 * wal_image.h - flags of a block's full-page image, and the compressions that may stand in it.
 *
 * Source: src/include/access/xlogrecord.h and the format description in
 * src/common/pg_lzcompress.c of Postgres 17. Threads: [any].
 */
#pragma once

#include "common/base/bytes.h"

enum {
    WAL_IMAGE_HAS_HOLE = 0x01,
    WAL_IMAGE_APPLY = 0x02,
    WAL_IMAGE_PGLZ = 0x04,
    WAL_IMAGE_LZ4 = 0x08,
    WAL_IMAGE_ZSTD = 0x10,
    WAL_IMAGE_COMPRESSED = WAL_IMAGE_PGLZ | WAL_IMAGE_LZ4 | WAL_IMAGE_ZSTD,
    WAL_IMAGE_FLAGS_KNOWN = 0x1F
};

/*
 * Undo pglz: `from` must yield exactly `size` bytes and be used up. ERR_CORRUPT otherwise; then
 * `to` holds garbage. Never writes past to + size.
 */
NODISCARD err_t pglz_decompress(struct bytes from, uint8_t *to, size_t size);
