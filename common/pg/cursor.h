/*
 * cursor.h - read little-endian fields of an untrusted byte string, one after the other.
 *
 * Sticky: a read past the end gives zeros and sets `is_short`; read everything, then ask once with
 * cursor_is_good(). The le_ functions read at a pointer that was checked before. Threads: [any].
 */
#pragma once

#include <string.h>

#include "common/base/assert.h"
#include "common/base/bytes.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "formats are read with memcpy");

static inline uint16_t le_u16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static inline uint32_t le_u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static inline uint64_t le_u64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

struct cursor {
    const uint8_t *at;
    size_t left;
    bool is_short;
};

static inline struct cursor cursor_of(struct bytes bytes)
{
    return (struct cursor){.at = bytes.data, .left = bytes.size};
}

static inline bool cursor_is_good(const struct cursor *cursor)
{
    return !cursor->is_short;
}

/* A view of the next `size` bytes; empty when there are fewer. */
static inline struct bytes cursor_bytes(struct cursor *cursor, size_t size)
{
    if (size > cursor->left) {
        cursor->is_short = true;
        cursor->left = 0;
        return (struct bytes){.data = NULL, .size = 0};
    }
    struct bytes view = bytes_of(cursor->at, size);
    if (size > 0) { /* an empty string may be NULL: no arithmetic on it */
        cursor->at += size;
        cursor->left -= size;
    }
    return view;
}

/* `count` elements of `size` bytes: the product is checked. */
static inline struct bytes cursor_array(struct cursor *cursor, size_t count, size_t size)
{
    if (size != 0 && count > cursor->left / size) {
        cursor->is_short = true;
        cursor->left = 0;
        return (struct bytes){.data = NULL, .size = 0};
    }
    return cursor_bytes(cursor, count * size);
}

static inline void cursor_skip(struct cursor *cursor, size_t size)
{
    (void)cursor_bytes(cursor, size);
}

static inline uint8_t cursor_u8(struct cursor *cursor)
{
    struct bytes view = cursor_bytes(cursor, 1);
    return view.data != NULL ? *view.data : 0;
}

static inline uint16_t cursor_u16(struct cursor *cursor)
{
    struct bytes view = cursor_bytes(cursor, sizeof(uint16_t));
    return view.data != NULL ? le_u16(view.data) : 0;
}

static inline uint32_t cursor_u32(struct cursor *cursor)
{
    struct bytes view = cursor_bytes(cursor, sizeof(uint32_t));
    return view.data != NULL ? le_u32(view.data) : 0;
}

static inline uint64_t cursor_u64(struct cursor *cursor)
{
    struct bytes view = cursor_bytes(cursor, sizeof(uint64_t));
    return view.data != NULL ? le_u64(view.data) : 0;
}
