/*
 * bytes.h - views of memory, and a buffer that grows.
 *
 * `struct bytes` is a view: it owns nothing and must not outlive what it points into.
 * `struct buf` owns its memory; zero-initialised is an empty one. It has no limit of its own: who
 * appends what a peer sends compares sizes first.
 */
#pragma once

#include <string.h>

#include "common/base/err.h"

struct bytes {
    const uint8_t *data;
    size_t size;
};

static inline struct bytes bytes_of(const void *data, size_t size)
{
    return (struct bytes){.data = data, .size = size};
}

static inline struct bytes bytes_of_str(const char *text)
{
    return bytes_of(text, strlen(text));
}

static inline bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

struct buf {
    uint8_t *data;
    size_t size;
    size_t capacity;
};

void buf_deinit(struct buf *buf); /* frees; the buffer is empty and usable again */
void buf_clear(struct buf *buf);  /* keeps the memory */
void buf_reserve(struct buf *buf, size_t extra);
void buf_append(struct buf *buf, const void *data, size_t size);
uint8_t *buf_extend(struct buf *buf, size_t size); /* `size` more bytes, uninitialised */
void buf_consume(struct buf *buf, size_t size);    /* drop bytes from the front */
void buf_printf(struct buf *buf, const char *format, ...) PRINTF_LIKE(2, 3);

static inline struct bytes buf_view(const struct buf *buf)
{
    return bytes_of(buf->data, buf->size);
}

/* The contents as a C string; a NUL is kept behind the last byte and not counted. */
const char *buf_cstr(struct buf *buf);
