/*
 * codec.h - bounded little-endian readers and writers with a sticky failure flag.
 *
 * A message is a list of fields; reading never checks field by field. Once a read does not fit,
 * `bad` is set, every later read yields zero, and the caller asks once at the end. One FIELDS list
 * gives the struct, its size, its encoder, its decoder and its printer (WIRE_DECLARE in the
 * header, WIRE_DEFINE in the .c).
 */
#pragma once

#include <endian.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/bytes.h"
#include "common/base/id.h"

struct reader {
    const uint8_t *next;
    size_t left;
    bool bad;
};

struct writer {
    uint8_t *next;
    size_t left;
};

static inline struct reader reader_of(struct bytes bytes)
{
    return (struct reader){.next = bytes.data, .left = bytes.size};
}

/* Compare before any arithmetic on a length that a peer chose. */
static inline const uint8_t *reader_take(struct reader *in, size_t size)
{
    if (in->bad || size > in->left) {
        in->bad = true;
        return NULL;
    }
    const uint8_t *taken = in->next;
    in->next += size;
    in->left -= size;
    return taken;
}

static inline void writer_put(struct writer *out, const void *data, size_t size)
{
    ASSERT(size <= out->left); /* sizes are ours here: a miss is our bug */
    if (size > 0) {
        memcpy(out->next, data, size);
    }
    out->next += size;
    out->left -= size;
}

typedef uint8_t u8_t;
typedef uint16_t u16_t;
typedef uint32_t u32_t;
typedef uint64_t u64_t;
typedef struct bytes bytes_t; /* u32 length, then the bytes; a view into the frame */
typedef struct tenant_id tenant_t;
typedef struct timeline_id timeline_t;

#define WIRE_SCALAR(kind, to_wire, from_wire)                                                      \
    static inline size_t size_##kind(kind##_t value)                                               \
    {                                                                                              \
        return sizeof(value);                                                                      \
    }                                                                                              \
    static inline void put_##kind(struct writer *out, kind##_t value)                              \
    {                                                                                              \
        kind##_t wire = (kind##_t)to_wire(value);                                                  \
        writer_put(out, &wire, sizeof(wire));                                                      \
    }                                                                                              \
    static inline kind##_t get_##kind(struct reader *in)                                           \
    {                                                                                              \
        kind##_t wire = 0;                                                                         \
        const uint8_t *from = reader_take(in, sizeof(wire));                                       \
        if (from != NULL) {                                                                        \
            memcpy(&wire, from, sizeof(wire));                                                     \
        }                                                                                          \
        return (kind##_t)from_wire(wire);                                                          \
    }                                                                                              \
    static inline void print_##kind(struct buf *to, const char *name, kind##_t value)              \
    {                                                                                              \
        buf_printf(to, " %s=%" PRIu64, name, (uint64_t)value);                                     \
    }

WIRE_SCALAR(u8, (u8_t), (u8_t))
WIRE_SCALAR(u16, htole16, le16toh)
WIRE_SCALAR(u32, htole32, le32toh)
WIRE_SCALAR(u64, htole64, le64toh)

/*
 * Only as the last field: one that an older protocol does not have. 0 is "not said" and takes no
 * byte, so the message without it is that of the older protocol.
 */
typedef uint64_t tail_u64_t;

static inline size_t size_tail_u64(tail_u64_t value)
{
    return value == 0 ? 0 : sizeof(value);
}

static inline void put_tail_u64(struct writer *out, tail_u64_t value)
{
    if (value != 0) {
        put_u64(out, value);
    }
}

static inline tail_u64_t get_tail_u64(struct reader *in)
{
    if (in->left == 0) {
        return 0;
    }
    tail_u64_t value = get_u64(in);
    in->bad = in->bad || value == 0; /* a message has one encoding */
    return value;
}

static inline void print_tail_u64(struct buf *to, const char *name, tail_u64_t value)
{
    print_u64(to, name, value);
}

static inline size_t size_bytes(struct bytes value)
{
    return sizeof(uint32_t) + value.size;
}

static inline void put_bytes(struct writer *out, struct bytes value)
{
    ASSERT(value.size <= UINT32_MAX);
    put_u32(out, (uint32_t)value.size);
    writer_put(out, value.data, value.size);
}

/* The result points into the reader's buffer; it lives as long as the frame does. */
static inline struct bytes get_bytes(struct reader *in)
{
    uint32_t size = get_u32(in);
    const uint8_t *data = reader_take(in, size);
    return (struct bytes){.data = data, .size = data == NULL ? 0 : size};
}

static inline void print_bytes(struct buf *to, const char *name, struct bytes value)
{
    buf_printf(to, " %s=<%zu bytes>", name, value.size);
}

#define WIRE_ID(kind)                                                                              \
    static inline size_t size_##kind(kind##_t value)                                               \
    {                                                                                              \
        return sizeof(value.bytes);                                                                \
    }                                                                                              \
    static inline void put_##kind(struct writer *out, kind##_t value)                              \
    {                                                                                              \
        writer_put(out, value.bytes, sizeof(value.bytes));                                         \
    }                                                                                              \
    static inline kind##_t get_##kind(struct reader *in)                                           \
    {                                                                                              \
        kind##_t value = {0};                                                                      \
        const uint8_t *from = reader_take(in, sizeof(value.bytes));                                \
        if (from != NULL) {                                                                        \
            memcpy(value.bytes, from, sizeof(value.bytes));                                        \
        }                                                                                          \
        return value;                                                                              \
    }                                                                                              \
    static inline void print_##kind(struct buf *to, const char *name, kind##_t value)              \
    {                                                                                              \
        buf_printf(to, " %s=%s", name, kind##_id_text(value).text);                                \
    }

WIRE_ID(tenant)
WIRE_ID(timeline)

/* One FIELDS list gives the struct, its size, its encoder, its decoder and its printer. */
#define WIRE_FIELD(kind, name) kind##_t name;
#define WIRE_SIZE(kind, name)  size += size_##kind(msg->name);
#define WIRE_PUT(kind, name)   put_##kind(out, msg->name);
#define WIRE_GET(kind, name)   msg->name = get_##kind(in);
#define WIRE_PRINT(kind, name) print_##kind(to, #name, msg->name);

/* decode: ERR_CORRUPT when fields are missing or bytes are left over. */
#define WIRE_DECLARE(type, FIELDS)                                                                 \
    struct type {                                                                                  \
        FIELDS(WIRE_FIELD)                                                                         \
    };                                                                                             \
    size_t type##_size(const struct type *msg);                                                    \
    void type##_encode(const struct type *msg, struct writer *out);                                \
    NODISCARD err_t type##_decode(struct type *msg, struct reader *in);                            \
    void type##_print(const struct type *msg, struct buf *to)

#define WIRE_DEFINE(type, FIELDS)                                                                  \
    size_t type##_size(const struct type *msg)                                                     \
    {                                                                                              \
        size_t size = 0;                                                                           \
        FIELDS(WIRE_SIZE)                                                                          \
        return size;                                                                               \
    }                                                                                              \
    void type##_encode(const struct type *msg, struct writer *out){                                \
        FIELDS(WIRE_PUT)} err_t type##_decode(struct type *msg, struct reader *in)                 \
    {                                                                                              \
        FIELDS(WIRE_GET)                                                                           \
        return in->bad || in->left > 0 ? ERR_CORRUPT : ERR_OK;                                     \
    }                                                                                              \
    void type##_print(const struct type *msg, struct buf *to)                                      \
    {                                                                                              \
        buf_printf(to, #type);                                                                     \
        FIELDS(WIRE_PRINT)                                                                         \
    }
