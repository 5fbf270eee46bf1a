#include "common/wire/frame.h"

#include "common/base/checksum.h"

#define CRC_OFFSET 28

const char *frame_type_name(uint16_t type)
{
    switch (type) {
#define X(name, number)                                                                            \
    case number: return #name;
        FRAME_TYPES(X)
#undef X
    default: return "unknown";
    }
}

size_t frame_begin_(struct buf *out, size_t payload_size)
{
    ASSERT(payload_size <= FRAME_PAYLOAD_MAX);
    size_t begin = out->size;
    (void)buf_extend(out, FRAME_HEADER_SIZE + payload_size);
    return begin;
}

void frame_finish_(struct buf *out, size_t begin, const struct frame *frame)
{
    uint8_t *header = out->data + begin;
    size_t payload_size = out->size - begin - FRAME_HEADER_SIZE;
    struct writer to = {.next = header, .left = FRAME_HEADER_SIZE};
    put_u32(&to, FRAME_MAGIC);
    put_u32(&to, (uint32_t)payload_size);
    put_u16(&to, frame->type);
    put_u8(&to, frame->version);
    put_u8(&to, 0);
    put_u32(&to, frame->channel);
    put_u64(&to, frame->request_id);
    put_u32(&to, 0);
    uint32_t crc = crc32c(0, header, CRC_OFFSET);
    put_u32(&to, crc32c(crc, header + FRAME_HEADER_SIZE, payload_size));
}

void frame_append(struct buf *out, const struct frame *frame)
{
    size_t begin = frame_begin_(out, frame->payload.size);
    if (frame->payload.size > 0) {
        memcpy(out->data + begin + FRAME_HEADER_SIZE, frame->payload.data, frame->payload.size);
    }
    frame_finish_(out, begin, frame);
}

err_t frame_parse(struct bytes in, struct frame *ret_frame, size_t *ret_size, struct errmsg *msg)
{
    *ret_size = 0;
    if (in.size >= sizeof(uint32_t)) { /* refuse garbage at once, not after a whole header */
        struct reader peek = reader_of(in);
        uint32_t magic = get_u32(&peek);
        if (magic != FRAME_MAGIC) {
            return err_set(msg, ERR_CORRUPT, "frame begins with 0x%08X, not with ANB1", magic);
        }
    }
    if (in.size < FRAME_HEADER_SIZE) {
        return ERR_OK;
    }
    struct reader header = reader_of(in);
    (void)get_u32(&header);
    uint32_t payload_size = get_u32(&header);
    struct frame frame = {.type = get_u16(&header), .version = get_u8(&header)};
    uint8_t flags = get_u8(&header);
    frame.channel = get_u32(&header);
    frame.request_id = get_u64(&header);
    uint32_t reserved = get_u32(&header);
    uint32_t crc = get_u32(&header);
    if (payload_size > FRAME_PAYLOAD_MAX) {
        return err_set(
            msg, ERR_CORRUPT, "frame of type %u claims %u bytes, the limit is %zu", frame.type,
            payload_size, FRAME_PAYLOAD_MAX);
    }
    if (in.size < FRAME_HEADER_SIZE + (size_t)payload_size) {
        return ERR_OK;
    }
    frame.payload = bytes_of(in.data + FRAME_HEADER_SIZE, payload_size);
    uint32_t computed = crc32c(0, in.data, CRC_OFFSET);
    computed = crc32c(computed, frame.payload.data, payload_size);
    if (computed != crc) {
        return err_set(
            msg, ERR_CORRUPT, "frame of type %s: checksum %08X, expected %08X",
            frame_type_name(frame.type), computed, crc);
    }
    if (flags != 0 || reserved != 0) {
        return err_set(
            msg, ERR_CORRUPT, "frame of type %s has unknown flags %02X/%08X",
            frame_type_name(frame.type), flags, reserved);
    }
    *ret_frame = frame;
    *ret_size = FRAME_HEADER_SIZE + (size_t)payload_size;
    return ERR_OK;
}
