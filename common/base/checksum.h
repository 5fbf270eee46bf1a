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
