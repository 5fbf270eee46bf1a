#include "tools/walreplay/touched.h"

#include "common/pg/cursor.h"
#include "common/pg/page.h"

#define VM_BLOCKS_PER_PAGE      ((PAGE_SIZE - PAGE_HEADER_SIZE) * 4u)
#define CLOG_XIDS_PER_PAGE      (PAGE_SIZE * 4u)
#define COMMIT_TS_XIDS_PER_PAGE 819u
#define MULTI_OFFSETS_PER_PAGE  2048u
#define MULTI_MEMBERS_PER_PAGE  1636u

static void add(struct touched *touched, struct page_key key, uint8_t block_index)
{
    for (size_t i = 0; i < touched->count; i++) {
        if (touched->pages[i].block_index == block_index &&
            page_key_equal(touched->pages[i].key, key)) {
            return;
        }
    }
    if (touched->count == TOUCHED_MAX) {
        touched->overflow = true;
        return;
    }
    touched->pages[touched->count++] = (struct touched_page){key, block_index, false};
}

static void add_slru(struct touched *touched, enum state_kind kind, uint32_t page)
{
    add(touched, page_key_state(kind, 0, page), VALUE_BLOCK_IMPLIED);
}

static void add_vm(struct touched *touched, const struct wal_record *record, unsigned index)
{
    struct page_key key = record->blocks[index].key;
    key.fork = FORK_VM;
    key.block /= VM_BLOCKS_PER_PAGE;
    add(touched, key, VALUE_BLOCK_IMPLIED);
}

static bool has_block(const struct wal_record *record, unsigned index)
{
    return index < record->block_count && record->blocks[index].in_use;
}

static unsigned main_byte(const struct wal_record *record, size_t at)
{
    return at < record->main_data.size ? record->main_data.data[at] : 0;
}

static void heap_implied(const struct wal_record *record, struct touched *touched)
{
    unsigned op = record->info & 0x70;
    if (op == 0x20 || op == 0x40) {
        unsigned flags = main_byte(record, 7);
        if (has_block(record, 2) || has_block(record, 3)) {
            return;
        }
        if (flags & 2) {
            add_vm(touched, record, 0);
        }
        if (flags & 1) {
            add_vm(touched, record, has_block(record, 1) ? 1 : 0);
        }
        return;
    }
    bool clears = (op == 0x00 && main_byte(record, 2) & 1) ||
                  (op == 0x10 && main_byte(record, 7) & 1) ||
                  (op == 0x60 && main_byte(record, 7) & 1);
    if (clears && !has_block(record, 1)) {
        add_vm(touched, record, 0);
    }
}

static void heap2_implied(const struct wal_record *record, struct touched *touched)
{
    unsigned op = record->info & 0x70;
    bool clears =
        (op == 0x50 && main_byte(record, 0) & 1) || (op == 0x60 && main_byte(record, 7) & 1);
    if (clears && !has_block(record, 1)) {
        add_vm(touched, record, 0);
    }
}

static void add_xid(struct touched *touched, uint32_t xid, bool commit_ts)
{
    add_slru(touched, STATE_CLOG, xid / CLOG_XIDS_PER_PAGE);
    if (commit_ts) {
        add_slru(touched, STATE_COMMIT_TS, xid / COMMIT_TS_XIDS_PER_PAGE);
    }
}

static void xact_implied(const struct wal_record *record, bool commit_ts, struct touched *touched)
{
    unsigned op = record->info & 0x70;
    bool commit = op == 0x00 || op == 0x30;
    bool prepared = op == 0x30 || op == 0x40;
    if (!commit && op != 0x20 && op != 0x40) {
        return;
    }
    commit_ts = commit_ts && commit;
    struct cursor fields = cursor_of(record->main_data);
    cursor_skip(&fields, 8);
    uint32_t xinfo = record->info & 0x80 ? cursor_u32(&fields) : 0;
    if (xinfo & 1) {
        cursor_skip(&fields, 8);
    }
    if (xinfo & 2) {
        for (uint32_t count = cursor_u32(&fields); count > 0; count--) {
            add_xid(touched, cursor_u32(&fields), commit_ts);
        }
    }
    uint32_t xid = record->xid;
    if (prepared) {
        uint32_t sizes[3] = {12, 12, 16};
        uint32_t bits[3] = {4, 0x100, 8};
        for (int i = 0; i < 3; i++) {
            if (xinfo & bits[i]) {
                uint32_t count = cursor_u32(&fields);
                (void)cursor_array(&fields, count, sizes[i]);
            }
        }
        xid = cursor_u32(&fields);
    }
    add_xid(touched, xid, commit_ts);
}

static void multixact_implied(const struct wal_record *record, struct touched *touched)
{
    struct cursor fields = cursor_of(record->main_data);
    switch (record->info & 0xF0) {
    case 0x00: add_slru(touched, STATE_MULTI_OFFSETS, (uint32_t)cursor_u64(&fields)); break;
    case 0x10: add_slru(touched, STATE_MULTI_MEMBERS, (uint32_t)cursor_u64(&fields)); break;
    case 0x20: {
        uint32_t multi = cursor_u32(&fields);
        uint32_t offset = cursor_u32(&fields);
        uint32_t count = cursor_u32(&fields);
        uint32_t next = multi + 1 == 0 ? 1 : multi + 1;
        add_slru(touched, STATE_MULTI_OFFSETS, multi / MULTI_OFFSETS_PER_PAGE);
        add_slru(touched, STATE_MULTI_OFFSETS, next / MULTI_OFFSETS_PER_PAGE);
        for (uint32_t i = 0; i < count && !touched->overflow; i++) {
            add_slru(touched, STATE_MULTI_MEMBERS, (offset + i) / MULTI_MEMBERS_PER_PAGE);
        }
        break;
    }
    default: break;
    }
}

static void smgr_implied(const struct wal_record *record, struct touched *touched)
{
    if ((record->info & 0xF0) != 0x20) {
        return;
    }
    struct cursor fields = cursor_of(record->main_data);
    uint32_t blocks = cursor_u32(&fields);
    struct page_key key = {.spc = cursor_u32(&fields), .block = blocks};
    key.db = cursor_u32(&fields);
    key.rel = cursor_u32(&fields);
    uint32_t flags = cursor_u32(&fields);
    touched->truncates = true;
    touched->truncated = key;
    if (!(flags & 1)) { /* only a map: pg_truncate_visibility_map() */
        touched->truncated.block = UINT32_MAX;
    }
    touched->map_blocks = UINT32_MAX;
    if (flags & 2) {
        key.fork = FORK_VM;
        key.block /= VM_BLOCKS_PER_PAGE;
        add(touched, key, VALUE_BLOCK_IMPLIED);
        touched->map_blocks = key.block + (blocks % VM_BLOCKS_PER_PAGE != 0);
    }
}

void touched_by(const struct wal_record *record, bool commit_ts, struct touched *ret_touched)
{
    ret_touched->count = 0;
    ret_touched->overflow = ret_touched->truncates = false;
    for (size_t i = 0; i < record->block_count; i++) {
        if (record->blocks[i].in_use) {
            add(ret_touched, record->blocks[i].key, (uint8_t)i);
            ret_touched->pages[ret_touched->count - 1].starts_empty = record->blocks[i].will_init;
        }
    }
    struct cursor fields = cursor_of(record->main_data);
    bool zero_page = (record->info & 0xF0) == 0;
    switch (record->rmgr) {
    case RM_HEAP: heap_implied(record, ret_touched); break;
    case RM_HEAP2: heap2_implied(record, ret_touched); break;
    case RM_XACT: xact_implied(record, commit_ts, ret_touched); break;
    case RM_MULTIXACT: multixact_implied(record, ret_touched); break;
    case RM_SMGR: smgr_implied(record, ret_touched); break;
    case RM_CLOG:
        if (zero_page) {
            add_slru(ret_touched, STATE_CLOG, (uint32_t)cursor_u64(&fields));
        }
        break;
    case RM_COMMIT_TS:
        if (zero_page) {
            add_slru(ret_touched, STATE_COMMIT_TS, (uint32_t)cursor_u64(&fields));
        }
        break;
    default: break;
    }
}
