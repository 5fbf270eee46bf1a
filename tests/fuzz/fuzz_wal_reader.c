/*
 * WAL with valid framing around bytes of the input's choice, a few of them changed afterwards: read
 * whole, in pieces and for record ends only, it is the same.
 */
#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "common/pg/cursor.h"
#include "common/pg/page.h"
#include "common/pg/wal_reader.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/wal_builder.h"

#define SEGMENT     ((uint32_t)(32 * KIB))
#define WAL_MAX     (256 * KIB)
#define RECORDS_MAX 100

struct pass {
    size_t count;
    uint64_t digest;
    err_t err;
    lsn_t record_lsn;
};

static void add_raw(struct wal_builder *builder, struct cursor *input)
{
    uint8_t record[WAL_RECORD_HEADER_SIZE + 255] = {0};
    size_t size = cursor_u8(input);
    struct bytes body = cursor_bytes(input, MIN_OF(size, input->left));
    page_set_u32(record, 0, (uint32_t)(WAL_RECORD_HEADER_SIZE + body.size));
    record[16] = 0x80; /* of no interest; resource manager Heap */
    record[17] = RM_HEAP;
    if (body.size > 0) {
        memcpy(record + WAL_RECORD_HEADER_SIZE, body.data, body.size);
    }
    wal_builder_add_bytes(builder, bytes_of(record, WAL_RECORD_HEADER_SIZE + body.size));
}

static uint32_t possible_size(uint32_t size)
{
    size = 26 + size % 20000;
    return size > 281 && size < 285 ? 285 : size;
}

static void build(struct wal_builder *builder, struct cursor *input)
{
    for (size_t i = 0; i < RECORDS_MAX && input->left > 0 && builder->wal.size < WAL_MAX; i++) {
        switch (cursor_u8(input) % 6) {
        case 0: add_raw(builder, input); break;
        case 1: wal_builder_add_switch(builder); break;
        case 2: /* must cross a page */
            wal_builder_add_aborted(builder, possible_size(cursor_u16(input)) + WAL_PAGE_SIZE);
            break;
        case 3: wal_builder_add_sized(builder, possible_size(cursor_u16(input))); break;
        default: wal_builder_add_sized(builder, 26 + cursor_u8(input) % 200);
        }
    }
}

static void damage(struct wal_builder *builder, struct cursor *input)
{
    size_t count = cursor_u8(input) % 4;
    for (size_t i = 0; i < count && builder->wal.size > 0; i++) {
        size_t at = cursor_u32(input) % builder->wal.size;
        builder->wal.data[at] ^= cursor_u8(input);
    }
}

static err_t take_all(struct wal_reader *reader, struct pass *pass)
{
    const struct wal_record *record;
    struct errmsg msg;
    err_t err;
    while ((err = wal_reader_next(reader, &record, &msg)) == ERR_OK) {
        pass->count++;
        pass->digest = hash64(record->bytes.data, record->bytes.size, pass->digest);
    }
    return err;
}

static struct pass read_in_pieces(
    const struct wal_builder *builder, uint64_t piece_seed, bool ends_only)
{
    struct wal_reader_options options = {
        .start_lsn = builder->begin_lsn,
        .segment_size = SEGMENT,
        .system_id = builder->system_id,
        .record_size_max = 64 * KIB,
        .ends_only = ends_only,
    };
    struct wal_reader *reader = wal_reader_create(&options);
    struct pass pass = {.err = ERR_NOT_FOUND};
    struct errmsg msg;
    for (size_t at = 0; at < builder->wal.size && pass.err == ERR_NOT_FOUND;) {
        piece_seed = piece_seed * 6364136223846793005u + 1442695040888963407u;
        size_t piece = piece_seed >> 63 != 0 ? piece_seed >> 32 & 63 : piece_seed >> 32 & 8191;
        size_t size = MIN_OF(piece + 1, builder->wal.size - at);
        if (piece_seed == 0 || builder->wal.size < 2) {
            size = builder->wal.size - at;
        }
        uint8_t *copy = mem_dup(builder->wal.data + at, size);
        pass.err = wal_reader_feed(reader, bytes_of(copy, size), &msg);
        if (pass.err == ERR_OK) {
            pass.err = ends_only ? ERR_NOT_FOUND : take_all(reader, &pass);
        }
        mem_free(copy);
        at += size;
    }
    pass.record_lsn = wal_reader_record_lsn(reader);
    wal_reader_destroy(reader);
    return pass;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cursor input = cursor_of(bytes_of(data, size));
    uint32_t seed = cursor_u32(&input);
    uint8_t damaged = cursor_u8(&input);
    struct wal_builder builder;
    wal_builder_init(&builder, SEGMENT + (lsn_t)(cursor_u16(&input) % (SEGMENT / 8)) * 8, SEGMENT);
    /* No record begins inside a page header. */
    builder.begin_lsn = builder.lsn = lsn_canonical(builder.lsn, SEGMENT);
    build(&builder, &input);
    if (damaged % 2 != 0) {
        damage(&builder, &input);
    }
    struct pass a = read_in_pieces(&builder, seed, false);
    struct pass b = read_in_pieces(&builder, (uint64_t)seed << 20 | 1, false);
    ASSERT(a.count == b.count && a.digest == b.digest && a.record_lsn == b.record_lsn);
    ASSERT(a.err == b.err);
    struct pass ends = read_in_pieces(&builder, seed, true);
    ASSERT(ends.record_lsn >= a.record_lsn); /* it does not look at checksums */
    ASSERT(IMPLIES(a.err == ERR_NOT_FOUND, ends.record_lsn == a.record_lsn));
    wal_builder_deinit(&builder);
    return 0;
}
