#include "common/base/bytes.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

void buf_deinit(struct buf *buf)
{
    mem_free(buf->data);
    *buf = (struct buf){0};
}

void buf_clear(struct buf *buf)
{
    buf->size = 0;
}

void buf_reserve(struct buf *buf, size_t extra)
{
    ASSERT(extra < SIZE_MAX / 4 && buf->size < SIZE_MAX / 4);
    size_t wanted = buf->size + extra;
    if (wanted <= buf->capacity) {
        return;
    }
    size_t capacity = buf->capacity < 64 ? 64 : buf->capacity;
    while (capacity < wanted) {
        capacity *= 2;
    }
    buf->data = mem_realloc(buf->data, capacity);
    buf->capacity = capacity;
}

uint8_t *buf_extend(struct buf *buf, size_t size)
{
    buf_reserve(buf, size);
    uint8_t *begin = buf->data + buf->size;
    buf->size += size;
    return begin;
}

void buf_append(struct buf *buf, const void *data, size_t size)
{
    if (size > 0) {
        memcpy(buf_extend(buf, size), data, size);
    }
}

void buf_consume(struct buf *buf, size_t size)
{
    ASSERT(size <= buf->size);
    if (size > 0) {
        memmove(buf->data, buf->data + size, buf->size - size);
        buf->size -= size;
    }
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    ASSERT(format != NULL); /* said once more, because gcc's sanitizers imagine a NULL here */
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int needed = vsnprintf(NULL, 0, format, args);
    va_end(args);
    ASSERT(needed >= 0);
    buf_reserve(buf, (size_t)needed + 1);
    (void)vsnprintf((char *)buf->data + buf->size, (size_t)needed + 1, format, again);
    va_end(again);
    buf->size += (size_t)needed;
}

const char *buf_cstr(struct buf *buf)
{
    buf_reserve(buf, 1);
    buf->data[buf->size] = '\0';
    return (const char *)buf->data;
}
