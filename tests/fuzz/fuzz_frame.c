/*
 * What a peer sends on a framed port: frames are taken from the front, and each payload goes to the
 * decoder of every message. What decodes is encoded to the same bytes again.
 */
#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "common/wire/feed_proto.h"
#include "common/wire/hello_proto.h"
#include "common/wire/page_proto.h"
#include "common/wire/status_proto.h"
#include "common/wire/wal_proto.h"
#include "tests/fuzz/fuzz.h"

#define MESSAGES(X)                                                                                \
    X(hello)                                                                                       \
    X(hello_reply)                                                                                 \
    X(error_reply)                                                                                 \
    X(vote_request)                                                                                \
    X(vote_reply)                                                                                  \
    X(elected)                                                                                     \
    X(append)                                                                                      \
    X(append_reply)                                                                                \
    X(read_wal)                                                                                    \
    X(read_wal_reply)                                                                              \
    X(feed_start)                                                                                  \
    X(feed_wal)                                                                                    \
    X(feed_status)                                                                                 \
    X(feed_feedback)                                                                               \
    X(feed_window)                                                                                 \
    X(status_watch)                                                                                \
    X(status_unwatch)                                                                              \
    X(status_report)                                                                               \
    X(status_list)                                                                                 \
    X(get_page)                                                                                    \
    X(get_page_reply)                                                                              \
    X(rel_size)                                                                                    \
    X(rel_size_reply)                                                                              \
    X(db_size)                                                                                     \
    X(db_size_reply)                                                                               \
    X(get_working_set)                                                                             \
    X(get_working_set_reply)                                                                       \
    X(put_working_set)                                                                             \
    X(put_working_set_reply)                                                                       \
    X(membership_notice)

#define TRY_MESSAGE(type)                                                                          \
    static void try_##type(struct bytes payload)                                                   \
    {                                                                                              \
        struct type msg;                                                                           \
        struct reader in = reader_of(payload);                                                     \
        if (type##_decode(&msg, &in) != ERR_OK) {                                                  \
            return;                                                                                \
        }                                                                                          \
        struct buf text = {0};                                                                     \
        type##_print(&msg, &text);                                                                 \
        buf_clear(&text);                                                                          \
        size_t size = type##_size(&msg);                                                           \
        ASSERT(size == payload.size);                                                              \
        struct writer out = {.next = buf_extend(&text, size), .left = size};                       \
        type##_encode(&msg, &out);                                                                 \
        ASSERT(bytes_equal(buf_view(&text), payload));                                             \
        buf_deinit(&text);                                                                         \
    }
MESSAGES(TRY_MESSAGE)

static void try_all(struct bytes payload)
{
#define TRY_ONE(type) try_##type(payload);
    MESSAGES(TRY_ONE)
}

/* Frames straight from the input, as long as they hold. */
static void take_frames(struct bytes in)
{
    struct frame frame;
    size_t taken = 0;
    while (frame_parse(in, &frame, &taken, NULL) == ERR_OK && taken > 0) {
        ASSERT(taken <= in.size && frame.payload.size < taken);
        try_all(frame.payload);
        in = bytes_of(in.data + taken, in.size - taken);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = mem_dup(data, size); /* of exactly this size: sanitizers see its end */
    struct bytes in = bytes_of(copy, size);
    take_frames(in);
    try_all(in);
    if (size >= FRAME_HEADER_SIZE) { /* a header that a peer made right around anything */
        uint32_t magic = htole32(FRAME_MAGIC);
        uint32_t payload_size = htole32((uint32_t)(size - FRAME_HEADER_SIZE));
        memcpy(copy, &magic, sizeof(magic));
        memcpy(copy + 4, &payload_size, sizeof(payload_size));
        uint32_t crc = crc32c(0, copy, 28);
        crc = htole32(crc32c(crc, copy + FRAME_HEADER_SIZE, size - FRAME_HEADER_SIZE));
        memcpy(copy + 28, &crc, sizeof(crc));
        take_frames(in);
    }
    mem_free(copy);
    return 0;
}
