#include "tests/sim/disk.h"

#include "common/base/checksum.h"
#include "common/base/mark.h"

static uint8_t *at(uint8_t *wal, lsn_t lsn)
{
    return wal + (lsn - WAL_START);
}

size_t record_size_at(const uint8_t *wal, lsn_t lsn, lsn_t end_lsn)
{
    const uint8_t *record = wal + (lsn - WAL_START);
    if (end_lsn - lsn < RECORD_SIZE_MIN) {
        return 0;
    }
    uint16_t size = 0;
    memcpy(&size, record, sizeof(size));
    return size >= RECORD_SIZE_MIN && size <= RECORD_SIZE_MAX && size <= end_lsn - lsn ? size : 0;
}

bool record_is_intact(const uint8_t *record, size_t size)
{
    uint8_t copy[RECORD_SIZE_MAX];
    uint32_t crc = 0;
    memcpy(copy, record, size);
    memcpy(&crc, copy + 4, sizeof(crc));
    memset(copy + 4, 0, sizeof(crc));
    return crc32c(0, copy, size) == crc;
}

void record_write(uint8_t *record, size_t size, uint16_t link, uint64_t content)
{
    uint16_t size_field = (uint16_t)size;
    memset(record, (int)(content & 0xff), size);
    memcpy(record, &size_field, sizeof(size_field));
    memcpy(record + 2, &link, sizeof(link));
    memset(record + 4, 0, sizeof(uint32_t));
    memcpy(record + 8, &content, sizeof(content));
    uint32_t crc = crc32c(0, record, size);
    memcpy(record + 4, &crc, sizeof(crc));
}

uint32_t record_crc(const uint8_t *record)
{
    uint32_t crc = 0;
    memcpy(&crc, record + 4, sizeof(crc));
    return crc;
}

uint16_t record_link(const uint8_t *record)
{
    uint16_t link = 0;
    memcpy(&link, record + 2, sizeof(link));
    return link;
}

lsn_t record_end_before(const uint8_t *wal, lsn_t begin_lsn, lsn_t end_lsn)
{
    lsn_t lsn = begin_lsn;
    for (size_t size; (size = record_size_at(wal, lsn, end_lsn)) > 0; lsn += size) {
    }
    return lsn;
}

void state_copy(struct acceptor_state *to, const struct acceptor_state *from)
{
    size_t items = from->history.count * sizeof(from->history.items[0]);
    memcpy(to, from, offsetof(struct acceptor_state, history.items) + items);
}

void disk_init(struct disk *disk)
{
    memset(disk, 0, offsetof(struct disk, grave_begin_lsn));
    disk->slots[0].valid = disk->slots[1].valid = false;
    disk->state_writing = disk->state_waiting = false;
    disk->state_slot = 0;
    disk->written_lsn = disk->durable_lsn = disk->begin_lsn = WAL_START;
    disk->group_begin_lsn = disk->group_record_lsn = WAL_START;
}

void disk_bury(struct disk *disk)
{
    /* What was acknowledged, also if it was damaged before. */
    bool was_damaged = disk->intact_lsn >= disk->durable_lsn;
    if (!was_damaged && disk->durable_lsn == WAL_START) {
        disk_init(disk); /* it acknowledged nothing: what was buried before may still be counted */
        return;
    }
    disk->grave_begin_lsn = disk->begin_lsn;
    disk->grave_lsn = was_damaged ? disk->intact_lsn : disk->durable_lsn;
    memcpy(disk->grave, was_damaged ? disk->intact : disk->platter, sizeof(disk->grave));
    disk_init(disk);
}

void disk_write(struct disk *disk, lsn_t lsn, struct bytes wal, uint64_t epoch)
{
    memcpy(at(disk->cache, lsn), wal.data, wal.size);
    if (disk->dirty_count == DIRTY_MAX) {
        disk->dirty[DIRTY_MAX - 1].end_lsn = lsn + wal.size;
    } else {
        disk->dirty[disk->dirty_count].begin_lsn = lsn;
        disk->dirty[disk->dirty_count].end_lsn = lsn + wal.size;
        disk->dirty_count++;
    }
    disk->written_lsn = lsn + wal.size;
    disk->written_epoch = epoch;
}

static void settle(struct disk *disk, lsn_t begin_lsn, lsn_t end_lsn)
{
    memcpy(at(disk->platter, begin_lsn), at(disk->cache, begin_lsn), end_lsn - begin_lsn);
}

static void forget_synced(struct disk *disk)
{
    disk->dirty_count -= disk->sync_count;
    memmove(
        &disk->dirty[0], &disk->dirty[disk->sync_count],
        disk->dirty_count * sizeof(disk->dirty[0]));
    disk->syncing = false;
}

/* Nobody knows how much of it was written before the space ended: here, all of it. */
static void give_up_sync(struct disk *disk)
{
    MARK("sim.disk.group_given_up");
    for (uint32_t i = 0; i < disk->sync_count; i++) {
        settle(disk, disk->dirty[i].begin_lsn, disk->dirty[i].end_lsn);
    }
    forget_synced(disk);
}

void disk_truncate(struct disk *disk, lsn_t lsn, uint64_t epoch, bool is_full)
{
    ASSERT(!disk->truncate_waiting && !disk->truncating); /* one at a time: acceptor.h */
    if (disk->syncing && is_full) {
        give_up_sync(disk);
    }
    memset(at(disk->cache, lsn), 0, WAL_LIMIT - lsn);
    disk->truncate_waiting = true;
    disk->truncate_lsn = lsn;
    disk->truncate_epoch = epoch;
    disk->written_lsn = lsn;
}

/* Whoever reads what is gone sees that it is. */
static void bury_below(struct disk *disk, uint8_t *wal, lsn_t lsn)
{
    disk->begin_lsn = MAX_OF(disk->begin_lsn, lsn);
    memset(wal, 0xee, lsn - WAL_START);
}

void disk_empty(struct disk *disk, lsn_t lsn, uint64_t epoch, bool is_full)
{
    disk_truncate(disk, lsn, epoch, is_full);
    bury_below(disk, disk->cache, lsn);
    disk->emptying = true;
}

void disk_remove(struct disk *disk, lsn_t lsn)
{
    bury_below(disk, disk->cache, lsn);
    bury_below(disk, disk->platter, lsn);
}

void disk_persist(struct disk *disk, const struct acceptor_state *state)
{
    state_copy(&disk->waiting, state); /* an older one that waits has become unnecessary */
    disk->state_waiting = true;
}

bool disk_begin_sync(struct disk *disk, lsn_t record_lsn)
{
    if (disk->syncing || disk->truncating || disk->truncate_waiting || disk->dirty_count == 0) {
        return false;
    }
    disk->syncing = true;
    disk->sync_number++;
    disk->sync_count = disk->dirty_count;
    disk->sync_lsn = disk->written_lsn;
    disk->sync_record_lsn = record_lsn;
    disk->sync_epoch = disk->written_epoch;
    return true;
}

bool disk_begin_truncate(struct disk *disk)
{
    if (disk->syncing || disk->truncating || !disk->truncate_waiting) {
        return false;
    }
    disk->truncating = true;
    disk->truncate_waiting = false;
    return true;
}

bool disk_begin_state(struct disk *disk)
{
    if (disk->state_writing || !disk->state_waiting) {
        return false;
    }
    disk->state_writing = true;
    disk->state_waiting = false;
    state_copy(&disk->writing, &disk->waiting);
    return true;
}

void disk_end_sync(struct disk *disk)
{
    ASSERT(disk->syncing);
    for (uint32_t i = 0; i < disk->sync_count; i++) {
        settle(disk, disk->dirty[i].begin_lsn, disk->dirty[i].end_lsn);
    }
    forget_synced(disk);
    disk->group_begin_lsn = disk->durable_lsn;
    disk->group_record_lsn = disk->sync_record_lsn;
    disk->durable_lsn = disk->sync_lsn;
    if (disk->truncate_waiting) {
        disk->durable_lsn = MIN_OF(disk->durable_lsn, disk->truncate_lsn);
    }
    disk->is_rewritten = true;
    disk->intact_lsn = disk->durable_lsn < disk->intact_lsn ? disk->intact_lsn : WAL_START;
}

void disk_end_truncate(struct disk *disk)
{
    ASSERT(disk->truncating);
    memset(at(disk->platter, disk->truncate_lsn), 0, WAL_LIMIT - disk->truncate_lsn);
    disk->durable_lsn = MIN_OF(disk->durable_lsn, disk->truncate_lsn);
    if (disk->emptying) {
        bury_below(disk, disk->platter, disk->truncate_lsn);
        disk->durable_lsn = disk->truncate_lsn;
        disk->emptying = false;
    }
    disk->group_begin_lsn = disk->group_record_lsn = disk->durable_lsn; /* proven by its record */
    /* Who catches up cuts its log too: as long as the vote says what was lost, that counts. */
    if (disk_durable_state(disk)->suspect_lsn <= disk->truncate_lsn) {
        disk->intact_lsn = WAL_START;
    }
    disk->truncating = false;
}

uint64_t disk_end_state(struct disk *disk)
{
    ASSERT(disk->state_writing);
    struct disk_slot *slot = &disk->slots[disk->state_slot];
    slot->valid = true;
    state_copy(&slot->state, &disk->writing);
    disk->state_slot ^= 1;
    disk->state_writing = false;
    return slot->state.sequence;
}

void disk_crash(struct disk *disk, struct tape *tape)
{
    if (disk->syncing && tape_below(tape, TAPE_ROT, 2) == 1) { /* the sidecar was quicker */
        disk->group_begin_lsn = disk->durable_lsn;
        disk->group_record_lsn = disk->sync_record_lsn;
    }
    for (uint32_t i = 0; i < disk->dirty_count; i++) {
        lsn_t begin_lsn = disk->dirty[i].begin_lsn, end_lsn = disk->dirty[i].end_lsn;
        uint64_t cut = tape_below(tape, TAPE_CRASH, end_lsn - begin_lsn + 1);
        switch (tape_below(tape, TAPE_CRASH, 4)) {
        case 0: break;
        case 1: settle(disk, begin_lsn, end_lsn); break;
        case 2: settle(disk, begin_lsn, begin_lsn + cut); break;
        default: settle(disk, begin_lsn + cut, end_lsn); break;
        }
    }
    if (disk->truncating) {
        lsn_t from_lsn = disk->truncate_lsn, end_lsn = WAL_LIMIT;
        if (disk->emptying) { /* newest first */
            from_lsn = WAL_START;
            end_lsn = disk->truncate_lsn;
        }
        from_lsn += tape_below(tape, TAPE_CRASH, end_lsn - from_lsn + 1);
        memset(at(disk->platter, from_lsn), 0, WAL_LIMIT - from_lsn);
        disk->group_begin_lsn = disk->group_record_lsn =
            WAL_START; /* its record is durable first */
    }
    if (disk->state_writing) {
        struct disk_slot *slot = &disk->slots[disk->state_slot];
        uint64_t fate = tape_below(tape, TAPE_CRASH, 3);
        if (fate == 0) {
            slot->valid = false; /* torn: its checksum does not fit */
        } else if (fate == 1) {
            (void)disk_end_state(disk);
        }
    }
    disk->dirty_count = 0;
    disk->syncing = disk->truncating = disk->truncate_waiting = disk->emptying = false;
    disk->state_writing = disk->state_waiting = false;
}

bool disk_rot(struct disk *disk, struct tape *tape)
{
    const struct acceptor_state *state = disk_durable_state(disk);
    lsn_t begin_lsn = disk->group_begin_lsn, end_lsn = disk->group_record_lsn;
    if (end_lsn <= begin_lsn || begin_lsn < state->commit_lsn) {
        return false;
    }
    memcpy(disk->intact, disk->platter, WAL_SIZE);
    disk->intact_lsn = disk->durable_lsn;
    disk->is_rewritten = false;
    *at(disk->platter, begin_lsn + tape_below(tape, TAPE_ROT, end_lsn - begin_lsn)) ^= 0x10;
    return true;
}

const struct acceptor_state *disk_durable_state(const struct disk *disk)
{
    const struct acceptor_state *best = NULL;
    for (int i = 0; i < 2; i++) {
        const struct disk_slot *slot = &disk->slots[i];
        if (slot->valid && (best == NULL || slot->state.sequence > best->sequence)) {
            best = &slot->state;
        }
    }
    return best;
}

/* The end of the whole records on the platter, reading from where a start would. */
static lsn_t find_end(const struct disk *disk, lsn_t lsn)
{
    for (size_t size; (size = record_size_at(disk->platter, lsn, WAL_LIMIT)) > 0; lsn += size) {
        if (!record_is_intact(disk->platter + (lsn - WAL_START), size)) {
            break;
        }
    }
    return lsn;
}

lsn_t disk_end_lsn_now(const struct disk *disk)
{
    const struct acceptor_state *state = disk_durable_state(disk);
    return state->is_begun_anew ? state->begin_lsn : find_end(disk, state->commit_lsn);
}

lsn_t disk_durable_lsn(const struct disk *disk)
{
    const struct acceptor_state *state = disk_durable_state(disk);
    return state != NULL && state->is_begun_anew ? state->begin_lsn : disk->durable_lsn;
}

void disk_recover(struct disk *disk, struct acceptor_state *ret_state, lsn_t *ret_end_lsn)
{
    const struct acceptor_state *state = disk_durable_state(disk);
    ASSERT(state != NULL);
    disk->state_slot = state == &disk->slots[0].state ? 1 : 0;

    disk_remove(disk, state->begin_lsn);
    if (state->is_begun_anew) { /* noted durably that it is done */
        memset(at(disk->platter, state->begin_lsn), 0, WAL_LIMIT - state->begin_lsn);
        disk->slots[disk->state_slot ^ 1].state.is_begun_anew = false;
        disk->group_record_lsn = WAL_START;
    }
    lsn_t lsn = find_end(disk, state->commit_lsn);
    if (disk->group_record_lsn > lsn) { /* noted durably before the cut */
        acceptor_state_suspect(
            &disk->slots[disk->state_slot ^ 1].state, lsn, disk->group_record_lsn);
    }
    state_copy(ret_state, state);
    disk->group_begin_lsn = disk->group_record_lsn = lsn;
    memset(at(disk->platter, lsn), 0, WAL_LIMIT - lsn); /* durably, before anybody writes there */
    memcpy(disk->cache, disk->platter, WAL_SIZE);
    disk->written_lsn = disk->durable_lsn = lsn;
    disk->written_epoch = 0;
    *ret_end_lsn = lsn;
}
