#include "common/pg/wal_record.h"

#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/mark.h"
#include "common/pg/cursor.h"
#include "common/pg/page.h"
#include "common/pg/wal_image.h"

/* Offsets in the record header (XLogRecord): two bytes of padding stand before the CRC. */
enum { XL_TOT_LEN = 0, XL_XID = 4, XL_PREV = 8, XL_INFO = 16, XL_RMID = 17, XL_CRC = 20 };

/* Ids of the headers behind it: up to 32 a block reference, and four special ones. */
enum {
    ID_BLOCK_MAX = WAL_BLOCKS_MAX - 1,
    ID_TOP_XID = 252,
    ID_ORIGIN = 253,
    ID_DATA_LONG = 254,
    ID_DATA_SHORT = 255
};

/* fork_flags of a block reference. */
enum {
    BLOCK_FORK_MASK = 0x0F,
    BLOCK_HAS_IMAGE = 0x10,
    BLOCK_HAS_DATA = 0x20,
    BLOCK_WILL_INIT = 0x40,
    BLOCK_SAME_REL = 0x80
};

/* A relation as a block reference names it: u32 tablespace, u32 database, u32 file. */
#define RELATION_SIZE 12

/* What decoding carries along: where the payload will be cut, and the relation of SAME_REL. */
struct decoding {
    struct cursor headers;
    uint64_t payload_size; /* announced so far: images, block data, main data */
    size_t main_size;
    const uint8_t *relation; /* the last one that was named, in the headers; NULL: none yet */
    lsn_t lsn;
    struct errmsg *msg;
};

static err_t corrupt(const struct decoding *decoding, const char *what, size_t block_id)
{
    return err_set(
        decoding->msg, ERR_CORRUPT, "record at " LSN_FMT ": %s (block reference %zu)",
        LSN_ARGS(decoding->lsn), what, block_id);
}

static bool is_one_bit_at_most(unsigned value)
{
    return (value & (value - 1)) == 0;
}

/* Everything that later code relies on when it fills a page from the image. */
static const char *image_refusal(const struct wal_block *block)
{
    uint8_t flags = block->image_flags;
    bool has_hole = (flags & WAL_IMAGE_HAS_HOLE) != 0;
    bool compressed = (flags & WAL_IMAGE_COMPRESSED) != 0;
    size_t size = block->image.size;

    if ((flags & ~WAL_IMAGE_FLAGS_KNOWN) != 0) {
        return "unknown image flags";
    }
    if (!is_one_bit_at_most(flags & WAL_IMAGE_COMPRESSED)) {
        return "image with two compression methods";
    }
    if (has_hole && (block->hole_offset == 0 || block->hole_size == 0 || size == PAGE_SIZE)) {
        return "image with an impossible hole";
    }
    if (!has_hole && (block->hole_offset != 0 || block->hole_size != 0)) {
        return "image without a hole, but with hole fields";
    }
    if ((size_t)block->hole_offset + block->hole_size > PAGE_SIZE) {
        return "image with a hole past the page";
    }
    if (size > PAGE_SIZE || (compressed && size == PAGE_SIZE)) {
        return "image too long";
    }
    if (!compressed && size + block->hole_size != PAGE_SIZE) {
        return "image and hole are not one page";
    }
    return NULL;
}

static err_t decode_image_header(struct decoding *decoding, size_t id, struct wal_block *block)
{
    struct cursor *headers = &decoding->headers;
    block->image.size = cursor_u16(headers);
    block->hole_offset = cursor_u16(headers);
    block->image_flags = cursor_u8(headers);
    block->apply_image = (block->image_flags & WAL_IMAGE_APPLY) != 0;
    bool has_hole = (block->image_flags & WAL_IMAGE_HAS_HOLE) != 0;
    if ((block->image_flags & WAL_IMAGE_COMPRESSED) != 0) {
        block->hole_size = has_hole ? cursor_u16(headers) : 0;
    } else if (block->image.size <= PAGE_SIZE) {
        block->hole_size = (uint16_t)(PAGE_SIZE - block->image.size);
    } else {
        block->hole_size = 0;
    }
    const char *refusal = cursor_is_good(headers) ? image_refusal(block) : "header cut short";
    if (refusal != NULL) {
        MARK("wal_record.bad_image_header");
        return corrupt(decoding, refusal, id);
    }
    decoding->payload_size += block->image.size;
    return ERR_OK;
}

static err_t decode_block_name(
    struct decoding *decoding, size_t id, uint8_t fork_flags, struct wal_block *block)
{
    struct cursor *headers = &decoding->headers;
    if ((fork_flags & BLOCK_SAME_REL) == 0) {
        decoding->relation = cursor_bytes(headers, RELATION_SIZE).data;
    } else if (decoding->relation == NULL) {
        MARK("wal_record.same_rel_first");
        return corrupt(decoding, "same relation as the block before, but there is none", id);
    }
    uint32_t number = cursor_u32(headers);
    if (!cursor_is_good(headers)) {
        MARK("wal_record.block_header_short");
        return corrupt(decoding, "header cut short", id);
    }
    block->key = (struct page_key){
        .spc = le_u32(decoding->relation),
        .db = le_u32(decoding->relation + 4),
        .rel = le_u32(decoding->relation + 8),
        .fork = fork_flags & BLOCK_FORK_MASK,
        .block = number,
    };
    /* Tablespace 0 is where the store keeps what is not a page: WAL must not reach it. */
    if (block->key.spc == KEY_SPC_STATE || block->key.rel == 0) {
        MARK("wal_record.bad_relation");
        return corrupt(decoding, "no such tablespace or relation", id);
    }
    if (block->key.fork >= FORK_COUNT) {
        MARK("wal_record.bad_fork");
        return corrupt(decoding, "no such fork", id);
    }
    if (block->key.block == KEY_BLOCK_SIZE) {
        MARK("wal_record.bad_block_number");
        return corrupt(decoding, "no such block number", id);
    }
    return ERR_OK;
}

static err_t decode_block_header(struct decoding *decoding, size_t id, struct wal_record *record)
{
    if (id < record->block_count) {
        MARK("wal_record.out_of_order_block");
        return corrupt(decoding, "block references out of order", id);
    }
    while (record->block_count < id) {
        record->blocks[record->block_count++].in_use = false;
    }
    struct wal_block *block = &record->blocks[record->block_count++];
    uint8_t fork_flags = cursor_u8(&decoding->headers);
    *block = (struct wal_block){
        .in_use = true,
        .will_init = (fork_flags & BLOCK_WILL_INIT) != 0,
        .has_image = (fork_flags & BLOCK_HAS_IMAGE) != 0,
        .has_data = (fork_flags & BLOCK_HAS_DATA) != 0,
        .data.size = cursor_u16(&decoding->headers),
    };
    if (block->has_data != (block->data.size > 0)) {
        MARK("wal_record.data_flag_mismatch");
        return corrupt(decoding, "data flag and data length disagree", id);
    }
    decoding->payload_size += block->data.size;
    if (block->has_image) {
        TRY(decode_image_header(decoding, id, block));
    }
    return decode_block_name(decoding, id, fork_flags, block);
}

/* The size of the main data: the last header, whatever follows is payload. */
static void decode_main_header(struct decoding *decoding, uint8_t id)
{
    struct cursor *headers = &decoding->headers;
    decoding->main_size = id == ID_DATA_SHORT ? cursor_u8(headers) : cursor_u32(headers);
    decoding->payload_size += decoding->main_size;
}

static err_t decode_header(struct decoding *decoding, uint8_t id, struct wal_record *record)
{
    if (id <= ID_BLOCK_MAX) {
        return decode_block_header(decoding, id, record);
    }
    switch (id) {
    case ID_ORIGIN: record->origin = cursor_u16(&decoding->headers); return ERR_OK;
    case ID_TOP_XID: record->top_xid = cursor_u32(&decoding->headers); return ERR_OK;
    default: MARK("wal_record.bad_id"); return corrupt(decoding, "unknown header id", id);
    }
}

/* The headers: until the payload that they announce is all that is left, or the main data. */
static err_t decode_headers(struct decoding *decoding, struct wal_record *record)
{
    struct cursor *headers = &decoding->headers;
    while (headers->left > decoding->payload_size) {
        uint8_t id = cursor_u8(headers);
        if (id == ID_DATA_SHORT || id == ID_DATA_LONG) {
            decode_main_header(decoding, id);
            break;
        }
        TRY(decode_header(decoding, id, record));
    }
    if (!cursor_is_good(headers) || headers->left != decoding->payload_size) {
        MARK("wal_record.bad_payload_size");
        return corrupt(decoding, "headers and payload do not add up", record->block_count);
    }
    return ERR_OK;
}

/* The sum was compared with what is there: every cut succeeds. */
static void cut_payload(struct decoding *decoding, struct wal_record *record)
{
    struct cursor *payload = &decoding->headers;
    for (size_t i = 0; i < record->block_count; i++) {
        struct wal_block *block = &record->blocks[i];
        if (block->in_use && block->has_image) {
            block->image = cursor_bytes(payload, block->image.size);
        }
        if (block->in_use && block->has_data) {
            block->data = cursor_bytes(payload, block->data.size);
        }
    }
    record->main_data = cursor_bytes(payload, decoding->main_size);
    ASSERT(cursor_is_good(payload) && payload->left == 0);
}

err_t wal_record_decode(
    struct bytes bytes, lsn_t lsn, lsn_t end_lsn, struct wal_record *ret_record, struct errmsg *msg)
{
    if (bytes.size < WAL_RECORD_HEADER_SIZE || le_u32(bytes.data + XL_TOT_LEN) != bytes.size) {
        MARK("wal_record.bad_total_size");
        return err_set(
            msg, ERR_CORRUPT, "record at " LSN_FMT ": %zu bytes, header says %" PRIu32,
            LSN_ARGS(lsn), bytes.size,
            bytes.size < sizeof(uint32_t) ? 0 : le_u32(bytes.data + XL_TOT_LEN));
    }
    struct wal_record *record = ret_record;
    record->lsn = lsn;
    record->end_lsn = end_lsn;
    record->total_size = (uint32_t)bytes.size;
    record->xid = le_u32(bytes.data + XL_XID);
    record->top_xid = 0;
    record->prev_lsn = le_u64(bytes.data + XL_PREV);
    record->info = bytes.data[XL_INFO];
    record->rmgr = bytes.data[XL_RMID];
    record->origin = 0;
    record->bytes = bytes;
    record->block_count = 0;

    struct decoding decoding = {
        .headers =
            {
                .at = bytes.data + WAL_RECORD_HEADER_SIZE,
                .left = bytes.size - WAL_RECORD_HEADER_SIZE,
            },
        .lsn = lsn,
        .msg = msg,
    };
    TRY(decode_headers(&decoding, record));
    cut_payload(&decoding, record);
    return ERR_OK;
}

uint32_t wal_record_crc(struct bytes bytes)
{
    ASSERT(bytes.size >= WAL_RECORD_HEADER_SIZE);
    /* The header last, so that Postgres can compute the rest before it knows xl_prev. */
    uint32_t crc =
        crc32c(0, bytes.data + WAL_RECORD_HEADER_SIZE, bytes.size - WAL_RECORD_HEADER_SIZE);
    return crc32c(crc, bytes.data, XL_CRC);
}

err_t wal_record_check_crc(struct bytes bytes, struct errmsg *msg)
{
    if (bytes.size < WAL_RECORD_HEADER_SIZE) {
        MARK("wal_record.crc_of_a_fragment");
        return err_set(msg, ERR_CORRUPT, "record of %zu bytes has no header", bytes.size);
    }
    uint32_t stored = le_u32(bytes.data + XL_CRC);
    uint32_t computed = wal_record_crc(bytes);
    if (stored != computed) {
        MARK("wal_record.bad_crc");
        return err_set(
            msg, ERR_CORRUPT, "record checksum is %08" PRIx32 ", computed %08" PRIx32, stored,
            computed);
    }
    return ERR_OK;
}

const char *wal_rmgr_name(uint8_t rmgr)
{
    static const char *const names[RM_COUNT] = {
#define X(id, name) [id] = (name),
        WAL_RMGRS(X)
#undef X
    };
    if (rmgr < RM_COUNT) {
        return names[rmgr];
    }
    return rmgr >= RM_CUSTOM_MIN ? "Custom" : "Unknown";
}
