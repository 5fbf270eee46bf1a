/*
 * wal_builder.h - for tests: records in, valid WAL out, with page headers, prev-links and CRCs.
 *
 *   struct wal_builder builder;
 *   wal_builder_init(&builder, 0x1000000, 1 * MIB);
 *   lsn_t end = wal_builder_add(&builder, &(struct wal_builder_record){
 *       .rmgr = RM_HEAP, .info = 0x00, .xid = 700, .main_data = bytes_of(main, 3),
 *       .blocks = {{.key = key, .data = bytes_of(tuple, sizeof(tuple))}}, .block_count = 1});
 *   ... buf_view(&builder.wal) are the bytes from builder.begin_lsn to builder.lsn ...
 *   wal_builder_deinit(&builder);
 */
#pragma once

#include "common/pg/wal_image.h"
#include "common/pg/wal_page.h"
#include "common/pg/wal_record.h"

#define WAL_BUILDER_SYSTEM_ID 0x5EC0DE5EC0DEull

struct wal_builder_block {
    struct page_key key;
    uint8_t id; /* 0: one after the block before */
    bool will_init;
    bool same_rel; /* leave out the relation */
    struct bytes data;
    struct bytes image; /* as stored; with image_flags 0: 8192 bytes to apply, no hole */
    uint8_t image_flags;
    uint16_t hole_offset, hole_size;
};

struct wal_builder_record {
    uint8_t rmgr, info;
    uint32_t xid, top_xid;
    uint16_t origin;
    struct bytes main_data;
    size_t block_count;
    struct wal_builder_block blocks[WAL_BLOCKS_MAX];
};

struct wal_builder {
    uint32_t segment_size;
    uint64_t system_id;
    lsn_t begin_lsn;            /* of wal */
    lsn_t lsn;                  /* end of the last record */
    lsn_t last_begin, prev_lsn; /* begin of the last record, of the one before */
    bool overwrites;            /* the next page header says so */
    struct buf wal;
    struct buf record; /* bytes of the last record, without page headers */
};

/* `lsn` is a record end (or begin): the first record comes there. */
void wal_builder_init(struct wal_builder *builder, lsn_t lsn, uint32_t segment_size);
void wal_builder_deinit(struct wal_builder *builder);

/* Append a record; returns its end (EndRecPtr). */
lsn_t wal_builder_add(struct wal_builder *builder, const struct wal_builder_record *record);

/* Append bytes that are a whole record already; xl_prev and xl_crc are filled in. */
lsn_t wal_builder_add_bytes(struct wal_builder *builder, struct bytes record);

/* An XLOG no-op of exactly `total_size` bytes: 24, 26 to 281, or from 285 on. */
lsn_t wal_builder_add_sized(struct wal_builder *builder, uint32_t total_size);

/* Records of no interest up to `lsn`, which is at least 32 bytes away and a possible record end. */
void wal_builder_fill_to(struct wal_builder *builder, lsn_t lsn);

/* XLOG_SWITCH, and zeros up to the end of the segment. */
lsn_t wal_builder_add_switch(struct wal_builder *builder);

/*
 * What a crash leaves behind: a record of `total_size` bytes of which only the first page came; the
 * next record begins on the next page, which says that it overwrites. It must cross a page.
 */
void wal_builder_add_aborted(struct wal_builder *builder, uint32_t total_size);

/* The last record, decoded; points into builder->record. Aborts when it is malformed. */
void wal_builder_decode(const struct wal_builder *builder, struct wal_record *ret_record);
