/*
 * checksum.h - CRC32C (Castagnoli, as Postgres uses for WAL) and xxh3. [any]
 */
#pragma once

#include "common/base/bytes.h"

/*
 * Start with 0; feed pieces in order: crc = crc32c(crc, a, n), crc = crc32c(crc, b, m). The value
 * between calls is finished (xor-ed), so it may be stored at any point.
 */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);

uint64_t hash64(const void *data, size_t size, uint64_t seed); /* xxh3 */

/* xxh3-128 in its canonical (big-endian) form, as it is stored and printed. */
struct hash128 {
    uint8_t bytes[16];
};

struct hash128 hash128(struct bytes data);
bool hash128_equal(struct hash128 a, struct hash128 b);

/* The same over pieces: start, feed in order, finish (which frees). */
struct hash128_stream;
struct hash128_stream *hash128_start(void);
void hash128_feed(struct hash128_stream *stream, struct bytes piece);
struct hash128 hash128_finish(struct hash128_stream *stream);
