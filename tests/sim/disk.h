/*
 * disk.h - the virtual disk of one simulated safekeeper: a WAL that can be torn, two state slots.
 *
 * A write changes the cache at once and the platter when a sync ends; writes go on while a sync is
 * under way. A crash leaves of each unsynced write nothing, all, or any part of it. The disk is
 * also the driver: it orders syncs and truncations as acceptor.h demands, and recovers after a
 * crash.
 */
#pragma once

#include "safekeeper/consensus/acceptor.h"
#include "tests/sim/tape.h"

#define WAL_START ((lsn_t)0x1000000)
#define WAL_SIZE  8192
#define WAL_LIMIT (WAL_START + WAL_SIZE)

/*
 * A record: u16 size (a multiple of 8), u16 link (the low half of the CRC of the record before),
 * u32 CRC of the whole record with this field 0, then anything.
 */
#define RECORD_SIZE_MIN 16
#define RECORD_SIZE_MAX 64

/* Size of the whole record at `lsn` in a WAL of which [.., end_lsn) counts; 0: none, or damaged. */
size_t record_size_at(const uint8_t *wal, lsn_t lsn, lsn_t end_lsn);
/* Make one; `content` tells who wrote it. */
void record_write(uint8_t *record, size_t size, uint16_t link, uint64_t content);
bool record_is_intact(const uint8_t *record, size_t size);
uint32_t record_crc(const uint8_t *record);
uint16_t record_link(const uint8_t *record);
/* End of the last whole record in [begin_lsn, end_lsn), reading from the record end begin_lsn. */
lsn_t record_end_before(const uint8_t *wal, lsn_t begin_lsn, lsn_t end_lsn);

#define DIRTY_MAX 32

struct disk_slot {
    bool valid;
    struct acceptor_state state;
};

struct disk {
    uint8_t cache[WAL_SIZE];
    uint8_t platter[WAL_SIZE];
    struct {
        lsn_t begin_lsn, end_lsn;
    } dirty[DIRTY_MAX];
    uint32_t dirty_count;
    lsn_t written_lsn;
    uint64_t written_epoch;

    bool syncing;
    uint64_t sync_number; /* grows with each: an older one was given up */
    uint32_t sync_count;  /* of dirty[] that this sync covers */
    lsn_t sync_lsn;
    uint64_t sync_epoch;

    lsn_t begin_lsn; /* what was below is gone */

    bool truncate_waiting, truncating;
    bool emptying; /* the truncation is to an empty log */
    lsn_t truncate_lsn;
    uint64_t truncate_epoch;

    lsn_t durable_lsn; /* everything below is on the platter */

    /* The record of the last group in the sidecar: what one sync made durable, or should have. */
    lsn_t group_begin_lsn, group_record_lsn;
    lsn_t sync_record_lsn;

    /* What was durable when the last group was damaged, until it is whole again or cut. */
    uint8_t intact[WAL_SIZE];
    lsn_t intact_lsn;
    bool is_rewritten; /* something was written since */
    lsn_t grave_begin_lsn;
    lsn_t grave_lsn;         /* what was on the platter ... */
    uint8_t grave[WAL_SIZE]; /* ... when the timeline was last deleted or lost here */

    struct disk_slot slots[2];
    bool state_writing, state_waiting;
    uint32_t state_slot;
    struct acceptor_state writing, waiting;
};

void state_copy(struct acceptor_state *to, const struct acceptor_state *from);

void disk_init(struct disk *disk); /* an empty timeline; keeps the grave */
void disk_bury(struct disk *disk); /* and then an empty one */
void disk_write(struct disk *disk, lsn_t lsn, struct bytes wal, uint64_t epoch);
/* `is_full`: a sync that waits for space is given up, what it would have written is cut anyway. */
void disk_truncate(struct disk *disk, lsn_t lsn, uint64_t epoch, bool is_full);
/* The log is empty and ends at `lsn`; as a truncation. */
void disk_empty(struct disk *disk, lsn_t lsn, uint64_t epoch, bool is_full);
void disk_remove(struct disk *disk, lsn_t lsn); /* what is below, at once */
void disk_persist(struct disk *disk, const struct acceptor_state *state);

/* What the driver has to begin next, if anything; each answers true when an operation was begun. */
bool disk_begin_sync(struct disk *disk, lsn_t record_lsn); /* last record end that was written */
bool disk_begin_truncate(struct disk *disk);
bool disk_begin_state(struct disk *disk);

/* The operation has ended: the platter changes. */
void disk_end_sync(struct disk *disk);
void disk_end_truncate(struct disk *disk);
uint64_t disk_end_state(struct disk *disk); /* the sequence that is durable now */

/* Power is gone: what was not synced is lost, torn or there. Then recover() before the next use. */
void disk_crash(struct disk *disk, struct tape *tape);
/* While the power is off: damage the last group, if nothing proves it. True: it is damaged. */
bool disk_rot(struct disk *disk, struct tape *tape);
/* Read state and WAL back as the driver of a safekeeper does. */
void disk_recover(struct disk *disk, struct acceptor_state *ret_state, lsn_t *ret_end_lsn);

/* Where the log would end if the power went now and took everything that is not synced. */
lsn_t disk_end_lsn_now(const struct disk *disk);

/* Everything below is on the platter, as a start would see it. */
lsn_t disk_durable_lsn(const struct disk *disk);

/* The state that would be read if the power went now. */
const struct acceptor_state *disk_durable_state(const struct disk *disk);
