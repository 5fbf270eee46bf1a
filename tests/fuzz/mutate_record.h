/*
 * mutate_record.h - a WAL record as its parts: changed apart, written back with lengths and CRC
 * that fit. Sometimes one length lies, on purpose.
 *
 * The parts are taken as they stand, also where common/pg/wal_record.c would refuse them.
 */
#pragma once

#include "common/pg/wal_record.h"
#include "tests/fuzz/mutate.h"

struct record_part {
    uint8_t id, fork_flags;
    uint16_t hole_offset, hole_size; /* the latter stands there for compressed images only */
    uint8_t image_flags;
    uint8_t locator[12]; /* absent with SAME_REL */
    uint32_t block;
    struct buf data, image;
    int data_lie, image_lie; /* added to the length in the header */
};

struct record_parts {
    uint8_t header[WAL_RECORD_HEADER_SIZE];
    bool has_origin, has_top_xid, has_main, long_main;
    uint16_t origin;
    uint32_t top_xid;
    size_t part_count;
    struct record_part parts[WAL_BLOCKS_MAX + 2];
    struct buf main;
    int main_lie;
};

/* False: there are not even parts. The caller deinits in either case. */
bool record_parts_parse(struct bytes record, struct record_parts *ret_parts);
void record_parts_deinit(struct record_parts *parts);

/* Appends the record; xl_tot_len and xl_crc are right. */
void record_parts_write(const struct record_parts *parts, struct buf *to);

/* Without the images that are there for checking only. */
void record_parts_drop_check_images(struct record_parts *parts);

/* One change to the record's own fields, to its list of blocks or to a payload. */
void mutate_record_parts(
    struct mutation *mutation, struct record_parts *parts, size_t payload_size_max);

/* Only payloads: main data, and the data of `part_index` if there is such a part. */
void mutate_record_payload(
    struct mutation *mutation, struct record_parts *parts, size_t part_index, size_t size_max);

/* A few changes to `size` bytes of a record, in place: what a custom mutator does. */
size_t mutate_record(struct mutation *mutation, uint8_t *data, size_t size, size_t size_max);
