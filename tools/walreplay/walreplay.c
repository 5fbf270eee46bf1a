/*
 * walreplay - replay WAL with the native redo and compare with what Postgres made of it.
 *
 *   walreplay --base DIR --wal DIR [--twin DIR | --primary DIR] [--end LSN] [--decode] [--imply-vm]
 *             [--pairs DIR] [--counts FILE] [--page SPC/DB/REL/FORK/BLOCK]
 *
 * --base  a cold copy of a data directory that was shut down; replay starts at its checkpoint
 * --wal   pg_wal of the server that went on from there; of several timelines, the newest one counts
 * --twin  a copy of the base that stock Postgres recovered up to --end: compared byte for byte
 * --primary  the server itself, which was stopped cleanly: compared with the masks of page_mask.h
 * --end   stop behind the record that ends there (default: where the WAL ends)
 * --decode  let the pageserver's decoder say which pages change and how; sizes are compared, too
 * --imply-vm  take the references to visibility map pages away, as older minor versions of 17 wrote
 *         the records; such pages keep their pd_lsn, so it is not compared
 * --pairs  write the first few pages and records of each kind, as tests/fuzz/fuzz_redo.c reads them
 * --counts  write a line for every kind of record: resource manager, operation (the high 4 bits of
 *         info, in hexadecimal), records, pages, images compared, images that differ, refused
 * --page  print every record that touches this page
 *
 * WAL written with wal_consistency_checking=all carries images of pages as the primary had them:
 * each is compared too, with masks. Exit code 1: something differs.
 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/pg/cursor.h"
#include "common/pg/wal_reader.h"
#include "pageserver/redo/redo.h"
#include "tools/walreplay/decoded.h"
#include "tools/walreplay/page_map.h"
#include "tools/walreplay/page_mask.h"
#include "tools/walreplay/touched.h"
#include "tools/walreplay/twin.h"

#define SHOWN_MAX 20

/* Offsets in pg_control of 17. */
enum {
    CONTROL_SYSTEM_ID = 0,
    CONTROL_REDO = 40,
    CONTROL_LOG_HINTS = 176,
    CONTROL_COMMIT_TS = 200,
    CONTROL_SEGMENT_SIZE = 228,
    CONTROL_CHECKSUMS = 252
};

#define PAIRS_MAX    4
#define TIMELINE_MAX 8

struct coverage {
    uint64_t records, pages, images, refused, different;
    uint8_t pairs[8]; /* written, by block index */
};

struct check {
    const char *base_dir, *wal_dir, *twin_dir, *primary_dir, *pairs_dir, *counts_path;
    lsn_t start_lsn, end_lsn;
    uint64_t system_id;
    uint32_t segment_size, next_xid;
    bool log_hints, commit_ts;
    bool decodes, implies_vm, traces;
    struct decoded *decoded;
    struct page_key traced;
    struct page_map *map;
    struct page_key *lost; /* map pages whose bits an image lost */
    size_t lost_count;
    struct coverage coverage[RM_COUNT][16];
    uint64_t records, record_bytes, shown;
    uint64_t redo_ns, redo_pages;
    lsn_t last_lsn;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static err_t read_control(struct check *check, struct errmsg *msg)
{
    char path[PATH_SIZE];
    uint8_t control[512];
    (void)snprintf(path, sizeof(path), "%s/global/pg_control", check->base_dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, control, sizeof(control)) : -1;
    if (fd >= 0) {
        (void)close(fd);
    }
    if (got != sizeof(control)) {
        return err_set(msg, ERR_IO, "read %s: %m", path);
    }
    memcpy(&check->system_id, control + CONTROL_SYSTEM_ID, sizeof(uint64_t));
    memcpy(&check->start_lsn, control + CONTROL_REDO, sizeof(uint64_t));
    check->log_hints = control[CONTROL_LOG_HINTS] != 0 || page_u32(control, CONTROL_CHECKSUMS) != 0;
    check->commit_ts = control[CONTROL_COMMIT_TS] != 0;
    check->segment_size = page_u32(control, CONTROL_SEGMENT_SIZE);
    return ERR_OK;
}

/*
 * CREATE DATABASE logs copied visibility map pages as if they had the usual layout, so what lies
 * between pd_lower and pd_upper, all of the bits, is not in the image: replay has them clear, the
 * primary has them set. From then on the primary may have bits that replay has not, never others.
 */
static bool lost_bits(struct check *check, struct page_key key, bool add)
{
    for (size_t i = 0; i < check->lost_count; i++) {
        if (page_key_equal(check->lost[i], key)) {
            return true;
        }
    }
    if (add) {
        check->lost = mem_realloc(check->lost, (check->lost_count + 1) * sizeof(struct page_key));
        check->lost[check->lost_count++] = key;
    }
    return add;
}

static bool bits_are_subset(const uint8_t *ours, const uint8_t *theirs)
{
    for (size_t i = PAGE_HEADER_SIZE; i < PAGE_SIZE; i++) {
        if (ours[i] & ~theirs[i]) {
            return false;
        }
    }
    return memcmp(ours, theirs, PAGE_HEADER_SIZE) == 0;
}

/*
 * The first page of a hash bucket, which a record about another page of it names for the sake of
 * its lock alone. The primary holds no lock on it while it makes the record, so the image may be of
 * any moment; recovery with wal_consistency_checking stops there, too ("inconsistent page found").
 */
static bool image_is_of_another_moment(const struct wal_record *record, unsigned block_index)
{
    enum { MOVE = 0x70, SQUEEZE = 0x80, DELETE = 0x90 };
    unsigned op = record->info & 0xF0;
    size_t flag = op == MOVE ? 2 : op == SQUEEZE ? 10 : 1;
    return record->rmgr == RM_HASH && block_index == 0 &&
           (op == MOVE || op == SQUEEZE || op == DELETE) && record->main_data.size > flag &&
           record->main_data.data[flag] == 0;
}

/* Compare our page with the image that the primary put beside the record. */
static err_t check_image(
    struct check *check,
    const struct wal_record *record,
    const struct touched_page *touched,
    const uint8_t *page,
    struct coverage *coverage,
    struct errmsg *msg)
{
    uint8_t ours[PAGE_SIZE];
    uint8_t theirs[PAGE_SIZE];
    const struct wal_block *block = &record->blocks[touched->block_index];
    TRY(wal_block_restore_image(block, theirs, msg));
    memcpy(ours, page, PAGE_SIZE);
    page_mask(ours, record->rmgr, touched->key);
    page_mask(theirs, record->rmgr, touched->key);
    coverage->images++;
    if (memcmp(ours, theirs, PAGE_SIZE) == 0 ||
        (touched->key.fork == FORK_VM && lost_bits(check, touched->key, false) &&
         bits_are_subset(ours, theirs))) {
        return ERR_OK;
    }
    coverage->different++;
    if (check->shown++ < SHOWN_MAX) {
        printf(
            "image differs: %s at " LSN_FMT ", block %u, %s:", wal_record_text(record).text,
            LSN_ARGS(record->lsn), touched->block_index, page_key_text(touched->key).text);
        int listed = 0;
        for (size_t i = 0; i < PAGE_SIZE && listed < 16; i++) {
            if (ours[i] != theirs[i]) {
                printf(" %zu:%02x/%02x", i, ours[i], theirs[i]);
                listed++;
            }
        }
        printf("\n");
    }
    return ERR_OK;
}

/* The page before and the record: a seed for the fuzz target. */
static err_t write_pair(
    const struct check *check,
    const struct wal_record *record,
    const struct touched_page *touched,
    const uint8_t *page,
    unsigned number,
    struct errmsg *msg)
{
    char path[PATH_SIZE];
    uint8_t header[36] = {'P', touched->block_index, touched->key.fork};
    memcpy(header + 4, &touched->key.spc, 4);
    memcpy(header + 8, &touched->key.db, 4);
    memcpy(header + 12, &touched->key.rel, 4);
    memcpy(header + 16, &touched->key.block, 4);
    memcpy(header + 20, &record->lsn, 8);
    memcpy(header + 28, &record->end_lsn, 8);
    (void)snprintf(
        path, sizeof(path), "%s/%02x-%02x-%02x-%u", check->pairs_dir, record->rmgr,
        record->info & 0xF0, touched->block_index, number);
    FILE *file = fopen(path, "wb");
    if (file == NULL) {
        return err_set(msg, ERR_IO, "open %s: %m", path);
    }
    bool good = fwrite(header, sizeof(header), 1, file) == 1 &&
                fwrite(page, PAGE_SIZE, 1, file) == 1 &&
                fwrite(record->bytes.data, record->bytes.size, 1, file) == 1;
    good = fclose(file) == 0 && good;
    return good ? ERR_OK : err_set(msg, ERR_IO, "write %s: %m", path);
}

static err_t apply_page(
    struct check *check,
    const struct wal_record *record,
    const struct touched_page *touched,
    struct coverage *coverage,
    struct errmsg *msg)
{
    uint8_t *page = NULL;
    struct errmsg refusal = {.text = ""};
    TRY(page_map_page(check->map, touched->key, &page, msg));
    bool implied = touched->block_index == VALUE_BLOCK_IMPLIED;
    const struct wal_block *block = implied ? NULL : &record->blocks[touched->block_index];
    if (touched->starts_empty) {
        memset(page, 0, PAGE_SIZE);
    }
    unsigned kind = touched->block_index % 8u;
    bool has_image = block != NULL && block->apply_image;
    if (check->pairs_dir != NULL && !has_image && coverage->pairs[kind] < PAIRS_MAX) {
        TRY(write_pair(check, record, touched, page, coverage->pairs[kind]++, msg));
    }
    lsn_t old_lsn = page_lsn(page);
    uint64_t begin = now_ns();
    err_t err = redo_apply(record, touched->block_index, touched->key, page, &refusal);
    check->redo_ns += now_ns() - begin;
    check->redo_pages++;
    coverage->pages++;
    if (check->traces && page_key_equal(touched->key, check->traced)) {
        printf(
            "trace: %s at " LSN_FMT " end " LSN_FMT " block %u: %s lower %u upper %u\n",
            wal_record_text(record).text, LSN_ARGS(record->lsn), LSN_ARGS(record->end_lsn),
            touched->block_index, err_name(err), page_u16(page, PAGE_LOWER),
            page_u16(page, PAGE_UPPER));
    }
    if (err != ERR_OK) {
        coverage->refused++;
        if (check->shown++ < SHOWN_MAX) {
            printf("refused: %s\n", refusal.text);
        }
    }
    /* Without hint logging Postgres sets PD_ALL_VISIBLE but leaves pd_lsn; our redo always sets it.
     */
    if (!check->log_hints && record->rmgr == RM_HEAP2 && (record->info & 0x70) == 0x40 &&
        touched->block_index == 1) {
        page_set_lsn(page, old_lsn);
    }
    if (block != NULL && block->has_image && !block->apply_image && err == ERR_OK &&
        !image_is_of_another_moment(record, touched->block_index)) {
        return check_image(check, record, touched, page, coverage, msg);
    }
    return ERR_OK;
}

/* A page that the decoder made itself: an image, or zeros. */
static err_t put_page(
    struct check *check, const struct decoded_version *version, struct errmsg *msg)
{
    uint8_t *page = NULL;
    TRY(page_map_page(check->map, version->key, &page, msg));
    if (version->tag == VALUE_IMAGE && version->value.size == PAGE_SIZE) {
        memcpy(page, version->value.data, PAGE_SIZE);
    } else {
        memset(page, 0, PAGE_SIZE);
    }
    return ERR_OK;
}

static err_t apply_version(
    struct check *check,
    const struct wal_record *record,
    const struct decoded_version *version,
    struct coverage *coverage,
    struct errmsg *msg)
{
    struct touched_page touched = {.key = version->key, .block_index = version->block_index};
    switch (version->tag) {
    case VALUE_INIT: touched.starts_empty = true; break;
    case VALUE_DELTA: break;
    case VALUE_STATE: decoded_apply_state(check->decoded, version); return ERR_OK;
    default: coverage->pages++; return put_page(check, version, msg);
    }
    return apply_page(check, record, &touched, coverage, msg);
}

/* The versions of a record, applied as a read would, and the sizes that it changes. */
static err_t apply_versions(
    struct check *check,
    const struct wal_record *record,
    struct coverage *coverage,
    struct errmsg *msg)
{
    const struct decoded_version *versions = NULL;
    size_t count = 0;
    TRY(decoded_record(check->decoded, record, &versions, &count, msg));
    for (size_t i = 0; i < count; i++) {
        TRY(apply_version(check, record, &versions[i], coverage, msg));
    }
    return ERR_OK;
}

/* The record without references to map pages that it only clears bits on. */
static const struct wal_record *without_vm(const struct wal_record *record)
{
    static struct wal_record copy;
    bool visible = record->rmgr == RM_HEAP2 && (record->info & 0x70) == 0x40;
    if ((record->rmgr != RM_HEAP && record->rmgr != RM_HEAP2) || visible) {
        return record;
    }
    copy = *record;
    for (size_t i = 1; i < copy.block_count; i++) {
        copy.blocks[i].in_use = copy.blocks[i].in_use && copy.blocks[i].key.fork != FORK_VM;
    }
    return &copy;
}

/* CREATE DATABASE that copies files: the WAL has no pages of the copy. Lost bits are copied with
 * them. */
static err_t copy_database(struct check *check, const struct wal_record *record, struct errmsg *msg)
{
    struct cursor fields = cursor_of(record->main_data);
    struct page_key from = {.spc = 0}, to = {.spc = 0};
    to.db = cursor_u32(&fields);
    to.spc = cursor_u32(&fields);
    from.db = cursor_u32(&fields);
    from.spc = cursor_u32(&fields);
    for (size_t i = 0, count = check->lost_count; i < count; i++) {
        struct page_key key = check->lost[i];
        if (key.db == from.db && key.spc == from.spc) {
            key.db = to.db;
            key.spc = to.spc;
            (void)lost_bits(check, key, true);
        }
    }
    return check->decodes ? ERR_OK : page_map_copy_database(check->map, from, to, msg);
}

static void follow_xid(struct check *check, const struct wal_record *record)
{
    enum { CHECKPOINT_NEXT_XID = 24 };
    if (record->rmgr == RM_XLOG && (record->info & 0xF0) == 0 &&
        record->main_data.size >= CHECKPOINT_NEXT_XID + sizeof(uint64_t)) {
        check->next_xid = page_u32(record->main_data.data, CHECKPOINT_NEXT_XID);
    } else if (record->xid != 0 && (int32_t)(record->xid - check->next_xid) >= 0) {
        check->next_xid = record->xid + 1;
    }
}

/*
 * A changed setting: when commit timestamps are kept again, the page of the next transaction is
 * made anew without a record. Older pages are nobody's: the primary has removed them, a twin that
 * had them in its buffers has them again.
 */
static err_t follow_settings(
    struct check *check, const struct wal_record *record, struct errmsg *msg)
{
    enum { XIDS_PER_PAGE = 819 };
    struct cursor fields = cursor_of(record->main_data);
    cursor_skip(&fields, 6 * sizeof(uint32_t) + 1);
    bool commit_ts = cursor_u8(&fields) != 0;
    if (!check->commit_ts && commit_ts && !check->decodes) {
        uint8_t *page = NULL;
        struct page_key key = page_key_state(STATE_COMMIT_TS, 0, check->next_xid / XIDS_PER_PAGE);
        TRY(page_map_page(check->map, key, &page, msg));
        memset(page, 0, PAGE_SIZE);
    }
    check->commit_ts = commit_ts;
    return ERR_OK;
}

static err_t apply_record(struct check *check, const struct wal_record *record, struct errmsg *msg)
{
    static struct touched touched;
    record = check->implies_vm ? without_vm(record) : record;
    if (record->rmgr >= RM_COUNT) {
        return err_set(msg, ERR_UNSUPPORTED, "resource manager %u", record->rmgr);
    }
    struct coverage *coverage = &check->coverage[record->rmgr][record->info >> 4];
    coverage->records++;
    check->records++;
    check->record_bytes += record->total_size;
    check->last_lsn = record->end_lsn;
    for (size_t i = 0; i < record->block_count; i++) {
        const struct wal_block *block = &record->blocks[i];
        if (block->in_use && block->key.fork == FORK_VM && block->apply_image &&
            block->hole_size > 0) {
            (void)lost_bits(check, block->key, true);
        }
    }
    if (record->rmgr == RM_DBASE && (record->info & 0xF0) == 0) {
        TRY(copy_database(check, record, msg));
    }
    follow_xid(check, record);
    if (record->rmgr == RM_XLOG && (record->info & 0xF0) == 0x60) {
        TRY(follow_settings(check, record, msg));
    }
    if (check->decodes) {
        return apply_versions(check, record, coverage, msg);
    }
    touched_by(record, check->commit_ts, &touched);
    if (touched.overflow) {
        return err_set(msg, ERR_UNSUPPORTED, "a record touches more than %d pages", TOUCHED_MAX);
    }
    for (size_t i = 0; i < touched.count; i++) {
        TRY(apply_page(check, record, &touched.pages[i], coverage, msg));
    }
    if (touched.truncates) {
        page_map_truncate(check->map, touched.truncated, touched.truncated.block);
        struct page_key map = touched.truncated;
        map.fork = FORK_VM;
        map.block = touched.map_blocks;
        page_map_truncate(check->map, map, map.block);
    }
    return ERR_OK;
}

/* The newest timeline's file of the segment: where a server was promoted, it begins like the older
 * one's. -1: there is none. */
static int open_segment(const struct check *check, lsn_t lsn)
{
    struct wal_segment_name name = wal_segment_name(lsn, check->segment_size);
    int fd = -1;
    for (unsigned timeline = TIMELINE_MAX; timeline > 0 && fd < 0; timeline--) {
        char path[PATH_SIZE];
        (void)snprintf(path, sizeof(path), "%s/%08X%s", check->wal_dir, timeline, name.text + 8);
        fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    return fd;
}

/* Feed one read's worth of WAL; ERR_NOT_FOUND: there is no more. */
static err_t feed_more(
    struct check *check, struct wal_reader *reader, uint8_t *room, size_t size, struct errmsg *msg)
{
    lsn_t lsn = wal_reader_next_lsn(reader);
    int fd = open_segment(check, lsn);
    if (fd < 0) {
        return ERR_NOT_FOUND;
    }
    off_t at = (off_t)(lsn % check->segment_size);
    size = MIN_OF(size, check->segment_size - (size_t)at);
    ssize_t got = pread(fd, room, size, at);
    (void)close(fd);
    if (got <= 0) {
        return ERR_NOT_FOUND;
    }
    return wal_reader_feed(reader, bytes_of(room, (size_t)got), msg);
}

static err_t replay(struct check *check, struct errmsg *msg)
{
    size_t room_size = 1 * MIB;
    uint8_t *room = mem_alloc(room_size);
    struct wal_reader_options options = {
        .start_lsn = check->start_lsn,
        .segment_size = check->segment_size,
        .system_id = check->system_id,
        .record_size_max = 64 * MIB,
    };
    struct wal_reader *reader = wal_reader_create(&options);
    err_t err = ERR_OK;
    while (err == ERR_OK) {
        const struct wal_record *record = NULL;
        err = wal_reader_next(reader, &record, msg);
        if (err == ERR_NOT_FOUND) {
            err = feed_more(check, reader, room, room_size, msg);
            continue;
        }
        if (err == ERR_OK) {
            err = apply_record(check, record, msg);
        }
        if (err == ERR_OK && check->end_lsn != 0 && check->last_lsn >= check->end_lsn) {
            break;
        }
    }
    if (check->end_lsn == 0 && (err == ERR_NOT_FOUND || err == ERR_CORRUPT)) {
        printf("WAL ends behind " LSN_FMT "\n", LSN_ARGS(check->last_lsn));
        err = ERR_OK;
    } else if (err == ERR_NOT_FOUND) {
        err = err_set(msg, ERR_NOT_FOUND, "the WAL ends before --end");
    }
    wal_reader_destroy(reader);
    mem_free(room);
    return err;
}

static bool report(const struct check *check)
{
    uint64_t bad = 0;
    printf(
        "%-24s %10s %10s %10s %9s %9s\n", "record", "records", "pages", "images", "differ",
        "refused");
    for (unsigned rmgr = 0; rmgr < RM_COUNT; rmgr++) {
        for (unsigned op = 0; op < 16; op++) {
            const struct coverage *coverage = &check->coverage[rmgr][op];
            if (coverage->records == 0) {
                continue;
            }
            struct wal_record record = {.rmgr = (uint8_t)rmgr, .info = (uint8_t)(op << 4)};
            printf(
                "%-24s %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %9" PRIu64 " %9" PRIu64 "\n",
                wal_record_text(&record).text, coverage->records, coverage->pages, coverage->images,
                coverage->different, coverage->refused);
            bad += coverage->different + coverage->refused;
        }
    }
    printf(
        "%" PRIu64 " records, %" PRIu64 " bytes; %" PRIu64 " pages at %" PRIu64 " ns each\n",
        check->records, check->record_bytes, check->redo_pages,
        check->redo_pages > 0 ? check->redo_ns / check->redo_pages : 0);
    return bad == 0;
}

static err_t write_counts(const struct check *check, struct errmsg *msg)
{
    FILE *file = fopen(check->counts_path, "w");
    if (file == NULL) {
        return err_set(msg, ERR_IO, "open %s: %m", check->counts_path);
    }
    for (unsigned rmgr = 0; rmgr < RM_COUNT; rmgr++) {
        for (unsigned op = 0; op < 16; op++) {
            const struct coverage *coverage = &check->coverage[rmgr][op];
            if (coverage->records > 0) {
                (void)fprintf(
                    file, "%u %02x %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
                    rmgr, op << 4, coverage->records, coverage->pages, coverage->images,
                    coverage->different, coverage->refused);
            }
        }
    }
    return fclose(file) == 0 ? ERR_OK : err_set(msg, ERR_IO, "write %s: %m", check->counts_path);
}

static err_t compare_directory(
    struct check *check, const char *dir, bool is_primary, bool *same, struct errmsg *msg)
{
    struct twin_result result;
    struct twin_options options = {
        .twin_dir = dir,
        .base_dir = check->base_dir,
        .commit_ts = check->commit_ts,
        .ignores_vm_lsn = check->implies_vm,
        .masks = is_primary,
    };
    TRY(twin_compare(&options, check->map, &result, msg));
    printf(
        "%s: %" PRIu64 " files, %" PRIu64 " pages, %" PRIu64 " different\n",
        is_primary ? "primary" : "twin", result.files, result.pages, result.different);
    *same = *same && result.different == 0 && result.pages > 0;
    return ERR_OK;
}

static err_t run(struct check *check, bool *ret_same, struct errmsg *msg)
{
    TRY(read_control(check, msg));
    printf(
        "replay from " LSN_FMT ", hint logging %s, commit timestamps %s\n",
        LSN_ARGS(check->start_lsn), check->log_hints ? "on" : "off",
        check->commit_ts ? "on" : "off");
    if (check->decodes) {
        TRY(decoded_create(check->base_dir, check->map, &check->decoded, msg));
    }
    TRY(replay(check, msg));
    bool same = report(check);
    if (check->counts_path != NULL) {
        TRY(write_counts(check, msg));
    }
    if (check->twin_dir != NULL) {
        TRY(compare_directory(check, check->twin_dir, false, &same, msg));
    }
    if (check->primary_dir != NULL) {
        TRY(compare_directory(check, check->primary_dir, true, &same, msg));
    }
    if (check->twin_dir != NULL && check->decodes) {
        uint64_t different = 0;
        TRY(decoded_compare_sizes(check->decoded, check->twin_dir, &different, msg));
        printf("sizes and maps: %" PRIu64 " different\n", different);
        same = same && different == 0;
    }
    *ret_same = same;
    return ERR_OK;
}

static int next_option(int argc, char **argv)
{
    static const struct option known[] = {
        {"base", required_argument, NULL, 'b'},
        {"wal", required_argument, NULL, 'w'},
        {"twin", required_argument, NULL, 't'},
        {"primary", required_argument, NULL, 'm'},
        {"counts", required_argument, NULL, 'c'},
        {"end", required_argument, NULL, 'e'},
        {"page", required_argument, NULL, 'p'},
        {"decode", no_argument, NULL, 'd'},
        {"imply-vm", no_argument, NULL, 'v'},
        {"pairs", required_argument, NULL, 'r'},
        {NULL, 0, NULL, 0},
    };
    return getopt_long(argc, argv, "", known, NULL); // NOLINT(concurrency-mt-unsafe): one thread
}

/* SPC/DB/REL/FORK/BLOCK */
static err_t parse_page(const char *text, struct page_key *ret_key, struct errmsg *msg)
{
    struct page_key key = {.spc = 0};
    unsigned fork = 0;
    if (sscanf(text, "%u/%u/%u/%u/%u", &key.spc, &key.db, &key.rel, &fork, &key.block) != 5 ||
        fork > UINT8_MAX) {
        return err_set(msg, ERR_INVALID, "\"%s\" is no SPC/DB/REL/FORK/BLOCK", text);
    }
    key.fork = (uint8_t)fork;
    *ret_key = key;
    return ERR_OK;
}

static err_t set_option(struct check *check, int option, struct errmsg *msg)
{
    switch (option) {
    case 'b': check->base_dir = optarg; return ERR_OK;
    case 'w': check->wal_dir = optarg; return ERR_OK;
    case 't': check->twin_dir = optarg; return ERR_OK;
    case 'm': check->primary_dir = optarg; return ERR_OK;
    case 'c': check->counts_path = optarg; return ERR_OK;
    case 'r': check->pairs_dir = optarg; return ERR_OK;
    case 'd': check->decodes = true; return ERR_OK;
    case 'v': check->implies_vm = true; return ERR_OK;
    case 'e': return parse_lsn(optarg, &check->end_lsn, msg);
    case 'p': check->traces = true; return parse_page(optarg, &check->traced, msg);
    default: return err_set(msg, ERR_INVALID, "unknown option");
    }
}

static err_t parse_options(int argc, char **argv, struct check *check, struct errmsg *msg)
{
    for (int option = 0; (option = next_option(argc, argv)) != -1;) {
        TRY(set_option(check, option, msg));
    }
    return check->base_dir != NULL && check->wal_dir != NULL
               ? ERR_OK
               : err_set(msg, ERR_INVALID, "--base and --wal are needed");
}

int main(int argc, char **argv)
{
    struct errmsg msg = {.text = ""};
    struct check *check = MEM_NEW(struct check);
    bool same = false;
    err_t err = parse_options(argc, argv, check, &msg);
    if (err == ERR_OK) {
        check->map = page_map_create(check->base_dir);
        err = run(check, &same, &msg);
        decoded_destroy(check->decoded);
        mem_free(check->lost);
        page_map_destroy(check->map);
    }
    mem_free(check);
    if (err != ERR_OK) {
        fprintf(stderr, "walreplay: %s\n", msg.text);
        return 2;
    }
    return same ? 0 : 1;
}
