#include "tests/lib/wal_builder.h"

#include "common/base/assert.h"
#include "common/pg/page.h"

void wal_builder_init(struct wal_builder *builder, lsn_t lsn, uint32_t segment_size)
{
    *builder = (struct wal_builder){
        .segment_size = segment_size,
        .system_id = WAL_BUILDER_SYSTEM_ID,
        .begin_lsn = lsn,
        .lsn = lsn,
    };
}

void wal_builder_deinit(struct wal_builder *builder)
{
    buf_deinit(&builder->wal);
    buf_deinit(&builder->record);
}

static void append_u8(struct buf *to, size_t value)
{
    ASSERT(value <= UINT8_MAX);
    uint8_t byte = (uint8_t)value;
    buf_append(to, &byte, 1);
}

static void append_u16(struct buf *to, size_t value)
{
    ASSERT(value <= UINT16_MAX);
    uint16_t half = (uint16_t)value;
    buf_append(to, &half, sizeof(half));
}

static void append_u32(struct buf *to, size_t value)
{
    ASSERT(value <= UINT32_MAX);
    uint32_t word = (uint32_t)value;
    buf_append(to, &word, sizeof(word));
}

static void append_fill(struct buf *to, uint8_t byte, size_t count)
{
    if (count > 0) {
        memset(buf_extend(to, count), byte, count);
    }
}

static void append_image_header(struct buf *to, const struct wal_builder_block *block)
{
    uint8_t flags = block->image_flags != 0 ? block->image_flags : WAL_IMAGE_APPLY;
    append_u16(to, block->image.size);
    append_u16(to, block->hole_offset);
    append_u8(to, flags);
    if ((flags & WAL_IMAGE_COMPRESSED) != 0 && (flags & WAL_IMAGE_HAS_HOLE) != 0) {
        append_u16(to, block->hole_size);
    }
}

static void append_block_header(struct buf *to, const struct wal_builder_block *block, size_t id)
{
    unsigned flags = block->key.fork;
    flags |= block->image.size > 0 ? 0x10u : 0;
    flags |= block->data.size > 0 ? 0x20u : 0;
    flags |= block->will_init ? 0x40u : 0;
    flags |= block->same_rel ? 0x80u : 0;
    append_u8(to, id);
    append_u8(to, flags);
    append_u16(to, block->data.size);
    if (block->image.size > 0) {
        append_image_header(to, block);
    }
    if (!block->same_rel) {
        append_u32(to, block->key.spc);
        append_u32(to, block->key.db);
        append_u32(to, block->key.rel);
    }
    append_u32(to, block->key.block);
}

static void append_main_header(struct buf *to, size_t size)
{
    if (size > UINT8_MAX) {
        append_u8(to, 254);
        append_u32(to, size);
    } else if (size > 0) {
        append_u8(to, 255);
        append_u8(to, size);
    }
}

static void build(struct buf *to, const struct wal_builder_record *record)
{
    buf_clear(to);
    append_u32(to, 0); /* length: below */
    append_u32(to, record->xid);
    append_u32(to, 0); /* prev-link and CRC: when it is placed */
    append_u32(to, 0);
    append_u8(to, record->info);
    append_u8(to, record->rmgr);
    append_u16(to, 0);
    append_u32(to, 0);
    size_t id = 0;
    for (size_t i = 0; i < record->block_count; i++, id++) {
        id = record->blocks[i].id > 0 ? record->blocks[i].id : id;
        append_block_header(to, &record->blocks[i], id);
    }
    if (record->origin != 0) {
        append_u8(to, 253);
        append_u16(to, record->origin);
    }
    if (record->top_xid != 0) {
        append_u8(to, 252);
        append_u32(to, record->top_xid);
    }
    append_main_header(to, record->main_data.size);
    for (size_t i = 0; i < record->block_count; i++) {
        buf_append(to, record->blocks[i].image.data, record->blocks[i].image.size);
        buf_append(to, record->blocks[i].data.data, record->blocks[i].data.size);
    }
    buf_append(to, record->main_data.data, record->main_data.size);
    page_set_u32(to->data, 0, (uint32_t)to->size);
}

static void append_page_header(struct wal_builder *builder, size_t rest_size, bool is_rest)
{
    struct wal_page_header header = {
        .flags = is_rest ? WAL_PAGE_FIRST_IS_CONTRECORD : 0,
        .tli = 1,
        .lsn = builder->lsn,
        .rest_size = is_rest ? (uint32_t)rest_size : 0,
        .system_id = builder->system_id,
        .segment_size = builder->segment_size,
    };
    if (builder->overwrites) {
        header.flags |= WAL_PAGE_FIRST_IS_OVERWRITE;
        builder->overwrites = false;
    }
    uint8_t bytes[WAL_PAGE_HEADER_LONG];
    size_t size = wal_page_header_write(&header, bytes);
    buf_append(&builder->wal, bytes, size);
    builder->lsn += size;
}

/* Lays down the record; stops at the first page boundary inside it when it is to be aborted. */
static void place(struct wal_builder *builder, bool aborted)
{
    struct bytes record = buf_view(&builder->record);
    if (builder->lsn % WAL_PAGE_SIZE == 0) {
        append_page_header(builder, 0, false);
    }
    if (!aborted) {
        builder->prev_lsn = builder->last_begin;
        builder->last_begin = builder->lsn;
    }
    for (size_t done = 0; done < record.size;) {
        if (builder->lsn % WAL_PAGE_SIZE == 0) {
            if (aborted) {
                builder->overwrites = true;
                return;
            }
            append_page_header(builder, record.size - done, true);
        }
        size_t left_on_page = WAL_PAGE_SIZE - (size_t)(builder->lsn % WAL_PAGE_SIZE);
        size_t part = MIN_OF(left_on_page, record.size - done);
        buf_append(&builder->wal, record.data + done, part);
        builder->lsn += part;
        done += part;
    }
    ASSERT(!aborted);
    while (builder->lsn % 8 != 0) {
        append_u8(&builder->wal, 0);
        builder->lsn++;
    }
}

static void seal(struct wal_builder *builder)
{
    uint8_t *record = builder->record.data;
    memcpy(record + 8, &builder->last_begin, sizeof(builder->last_begin));
    page_set_u32(record, 20, wal_record_crc(buf_view(&builder->record)));
}

lsn_t wal_builder_add(struct wal_builder *builder, const struct wal_builder_record *record)
{
    build(&builder->record, record);
    seal(builder);
    place(builder, false);
    return builder->lsn;
}

lsn_t wal_builder_add_bytes(struct wal_builder *builder, struct bytes record)
{
    buf_clear(&builder->record);
    buf_append(&builder->record, record.data, record.size);
    seal(builder);
    place(builder, false);
    return builder->lsn;
}

static void build_sized(struct buf *to, uint32_t total_size)
{
    enum { NO_OP = 0x20, SHORT_MAX = WAL_RECORD_HEADER_SIZE + 2 + UINT8_MAX };
    ASSERT(total_size == WAL_RECORD_HEADER_SIZE || total_size > WAL_RECORD_HEADER_SIZE + 1);
    uint32_t overhead = total_size <= SHORT_MAX ? 2 : 5;
    uint32_t main_size =
        total_size == WAL_RECORD_HEADER_SIZE ? 0 : total_size - WAL_RECORD_HEADER_SIZE - overhead;
    ASSERT(total_size <= SHORT_MAX || main_size > UINT8_MAX);
    struct buf main = {0};
    append_fill(&main, 0x5A, main_size);
    build(
        to,
        &(struct wal_builder_record){.rmgr = RM_XLOG, .info = NO_OP, .main_data = buf_view(&main)});
    if (total_size == WAL_RECORD_HEADER_SIZE + 2) { /* main data of no bytes */
        append_u8(to, 255);
        append_u8(to, 0);
        page_set_u32(to->data, 0, (uint32_t)to->size);
    }
    buf_deinit(&main);
    ASSERT(to->size == total_size);
}

lsn_t wal_builder_add_sized(struct wal_builder *builder, uint32_t total_size)
{
    build_sized(&builder->record, total_size);
    seal(builder);
    place(builder, false);
    return builder->lsn;
}

void wal_builder_add_aborted(struct wal_builder *builder, uint32_t total_size)
{
    build_sized(&builder->record, total_size);
    seal(builder);
    place(builder, true);
}

void wal_builder_fill_to(struct wal_builder *builder, lsn_t lsn)
{
    while (builder->lsn < lsn) {
        lsn_t begin = lsn_skip_header(builder->lsn, builder->segment_size);
        lsn_t page_end = begin - begin % WAL_PAGE_SIZE + WAL_PAGE_SIZE;
        size_t left = (size_t)(MIN_OF(page_end, lsn) - begin);
        size_t size = MIN_OF(left, (size_t)240);
        if (left - size > 0 && left - size < WAL_RECORD_HEADER_SIZE) {
            size -= WAL_RECORD_HEADER_SIZE; /* leave room for one more on this page */
        }
        ASSERT(size >= WAL_RECORD_HEADER_SIZE);
        wal_builder_add_sized(builder, (uint32_t)size);
    }
    ASSERT(builder->lsn == lsn);
}

lsn_t wal_builder_add_switch(struct wal_builder *builder)
{
    enum { SWITCH = 0x40 };
    wal_builder_add(builder, &(struct wal_builder_record){.rmgr = RM_XLOG, .info = SWITCH});
    lsn_t rest =
        (builder->segment_size - builder->lsn % builder->segment_size) % builder->segment_size;
    append_fill(&builder->wal, 0, rest);
    builder->lsn += rest;
    return builder->lsn;
}

void wal_builder_decode(const struct wal_builder *builder, struct wal_record *ret_record)
{
    struct errmsg msg;
    err_t err = wal_record_decode(
        buf_view(&builder->record), builder->last_begin, builder->lsn, ret_record, &msg);
    if (err != ERR_OK) {
        fatal("the record that the test built is malformed: %s", msg.text);
    }
}
