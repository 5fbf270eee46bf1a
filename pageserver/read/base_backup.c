#include "pageserver/read/base_backup.h"

#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/checksum.h"

#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/pg/pg_control.h"
#include "common/pg/pg_version.h"
#include "common/pg/wal_reader.h"
#include "common/wire/codec.h"
#include "common/wire/page_proto.h"
#include "pageserver/read/reconstruct.h"
#include "pageserver/read/tar_writer.h"
#include "pageserver/timeline/slots.h"

#define NAME_SIZE          100
#define PLACEHOLDER_SUFFIX ".remote"   /* as in compute/extension/placeholder.c */
#define ORIGIN_MAGIC       0x1257DADEu /* of pg_logical/replorigin_checkpoint */
#define XID_PAGES          ((uint32_t)(0x100000000u / PG_CLOG_XIDS_PER_PAGE))
#define MULTI_OFFSET_PAGES ((uint32_t)(0x100000000u / PG_MULTI_OFFSETS_PER_PAGE))
#define MULTI_MEMBER_PAGES ((uint32_t)(UINT32_MAX / PG_MULTI_MEMBERS_PER_PAGE + 1))
#define COMMIT_TS_PAGES    ((uint32_t)(UINT32_MAX / PG_COMMIT_TS_XIDS_PER_PAGE + 1))

/* As initdb makes them; a parent before its children. */
static const char *const folders[] = {
    "global",
    "pg_wal",
    "pg_wal/archive_status",
    "pg_wal/summaries",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_subtrans",
    "pg_twophase",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "base",
    "pg_replslot",
    "pg_tblspc",
    "pg_stat",
    "pg_stat_tmp",
    "pg_xact",
    "pg_logical",
    "pg_logical/snapshots",
    "pg_logical/mappings",
};

struct backup {
    const struct base_backup_options *options;
    struct reconstruct work;
    struct pg_control control;
    struct buf *tar;
    struct buf room;       /* of the file being made */
    lsn_t wal_from;        /* WAL from before the start that slots need; LSN_NONE: none */
    uint64_t prepared_xid; /* the oldest prepared transaction; the next one when there is none */
    struct page_key place; /* the tablespace and database of the last relation */
};

static err_t state_value(struct backup *backup, struct page_key key, struct errmsg *msg)
{
    buf_clear(&backup->room);
    return page_reader_state(
        backup->work.reader, key, backup->options->lsn, &backup->room, NULL, msg);
}

/* -- control file -- */

static err_t load_control(struct backup *backup, struct errmsg *msg)
{
    TRY(state_value(backup, page_key_state(STATE_CONTROL, 0, 0), msg));
    TRY(pg_control_parse(buf_view(&backup->room), &backup->control, msg));
    struct pg_checkpoint *checkpoint = &backup->control.checkpoint;
    TRY(state_value(backup, page_key_state(STATE_CHECKPOINT, 0, 0), msg));
    TRY(pg_checkpoint_parse(buf_view(&backup->room), checkpoint, msg));

    TRY(state_value(backup, page_key_state(STATE_NEXT_XID, 0, 0), msg));
    struct reader in = reader_of(buf_view(&backup->room));
    checkpoint->next_xid = get_u64(&in);
    bool bad = in.bad;
    TRY(state_value(backup, page_key_state(STATE_NEXT_MULTI, 0, 0), msg));
    in = reader_of(buf_view(&backup->room));
    checkpoint->next_multi = get_u32(&in);
    checkpoint->next_multi_offset = get_u32(&in);
    return bad || in.bad ? err_set(msg, ERR_CORRUPT, "next xid or multixact is malformed") : ERR_OK;
}

/* The real begin of the last record, or any LSN before: only sequential readers look at it. */
static lsn_t prev_lsn(const struct base_backup_options *options)
{
    return options->prev_record_lsn != 0 && options->prev_record_lsn < options->lsn
               ? options->prev_record_lsn
               : options->lsn - 8;
}

static err_t add_control_and_wal(struct backup *backup, struct errmsg *msg)
{
    lsn_t wal_lsn;
    uint32_t segment_size = backup->control.wal_segment_size;
    buf_clear(&backup->room);
    TRY(pg_control_start_at(
        &backup->control, backup->options->lsn, prev_lsn(backup->options), &backup->room, &wal_lsn,
        msg));
    for (size_t at = 0; at < backup->room.size; at += segment_size) {
        char name[NAME_SIZE];
        size_t size = MIN_OF(backup->room.size - at, (size_t)segment_size);
        TRY(str_format(
            name, sizeof(name), msg, "pg_wal/%s",
            wal_segment_name(wal_lsn + at, segment_size).text));
        tar_add_sparse_file(backup->tar, name, bytes_of(backup->room.data + at, size));
    }
    uint8_t file[PG_CONTROL_FILE_SIZE];
    pg_control_write(&backup->control, file);
    tar_add_file(backup->tar, "global/pg_control", bytes_of(file, sizeof(file)));
    return ERR_OK;
}

/* -- databases -- */

static err_t database_folder(uint32_t spc, uint32_t db, char to[NAME_SIZE], struct errmsg *msg)
{
    if (spc == PG_SPC_DEFAULT) {
        return str_format(to, NAME_SIZE, msg, "base/%" PRIu32, db);
    }
    return str_format(
        to, NAME_SIZE, msg, "pg_tblspc/%" PRIu32 "/" PG_TABLESPACE_DIR "/%" PRIu32, spc, db);
}

static err_t add_in_folder(
    struct backup *backup,
    const char *folder,
    const char *name,
    struct bytes data,
    struct errmsg *msg)
{
    char path[NAME_SIZE];
    TRY(str_format(path, sizeof(path), msg, "%s/%s", folder, name));
    tar_add_file(backup->tar, path, data);
    return ERR_OK;
}

static err_t add_relmap(
    struct backup *backup, uint32_t spc, uint32_t db, const char *folder, struct errmsg *msg)
{
    err_t err = state_value(backup, page_key_state(STATE_RELMAP, db, spc), msg);
    if (err == ERR_NOT_FOUND) {
        return ERR_OK; /* a database that keeps only some relations in this tablespace */
    }
    TRY(err);
    return add_in_folder(backup, folder, "pg_filenode.map", buf_view(&backup->room), msg);
}

static err_t add_tablespace(struct backup *backup, uint32_t spc, struct errmsg *msg)
{
    char name[NAME_SIZE];
    TRY(str_format(name, sizeof(name), msg, "pg_tblspc/%" PRIu32, spc));
    tar_add_dir(backup->tar, name);
    TRY(str_format(name, sizeof(name), msg, "pg_tblspc/%" PRIu32 "/" PG_TABLESPACE_DIR, spc));
    tar_add_dir(backup->tar, name);
    return ERR_OK;
}

/* Keys are STATE_TABLESPACE: rel = tablespace; an empty value: dropped. */
static err_t add_if_tablespace(struct page_key key, void *context, struct errmsg *msg)
{
    struct backup *backup = context;
    TRY(state_value(backup, key, msg));
    return backup->room.size == 0 ? ERR_OK : add_tablespace(backup, key.rel, msg);
}

/* Keys are STATE_DATABASE: rel = database, block = tablespace; an empty value: dropped. */
static err_t add_database(struct page_key key, void *context, struct errmsg *msg)
{
    struct backup *backup = context;
    uint32_t db = key.rel, spc = key.block;
    TRY(state_value(backup, key, msg));
    if (backup->room.size == 0 || spc == PG_SPC_GLOBAL) {
        return ERR_OK;
    }
    char folder[NAME_SIZE];
    if (spc != PG_SPC_DEFAULT) {
        TRY(add_tablespace(backup, spc, msg)); /* twice is harmless: tar makes it once */
    }
    TRY(database_folder(spc, db, folder, msg));
    tar_add_dir(backup->tar, folder);
    TRY(add_in_folder(backup, folder, "PG_VERSION", bytes_of_str(PG_VERSION_FILE), msg));
    return add_relmap(backup, spc, db, folder, msg);
}

static err_t add_databases(struct backup *backup, struct errmsg *msg)
{
    tar_add_file(backup->tar, "PG_VERSION", bytes_of_str(PG_VERSION_FILE));
    TRY(page_reader_state_keys(
        backup->work.reader, STATE_DATABASE, backup->options->lsn, add_database, backup, msg));
    err_t err = state_value(backup, page_key_state(STATE_RELMAP, 0, PG_SPC_GLOBAL), msg);
    if (err == ERR_NOT_FOUND) {
        return err_set(msg, ERR_CORRUPT, "no relation map of the shared catalogs");
    }
    TRY(err);
    tar_add_file(backup->tar, "global/pg_filenode.map", buf_view(&backup->room));
    return ERR_OK;
}

/* -- SLRUs -- */

/*
 * Which segments are there, their pages say: a seek a segment. They are brought whole from the one
 * of `hot` on, and the first one if a start looks into it; of the others, as many as a database has
 * that was not frozen for long, only names (SLRU_COLD_TEXT). Names there must be: TruncateCLOG()
 * does nothing, and writes no WAL of it, when it finds no file that is old enough.
 */
struct slru {
    struct backup *backup;
    enum state_kind kind;
    const char *folder;
    uint32_t page_count;  /* of the whole ring */
    uint32_t first, last; /* pages; `last` may be numerically below `first` after a wraparound */
    uint32_t hot;         /* page between them from whose segment on nothing is left out */
    bool first_is_hot;
    uint32_t *segments;
    size_t count, capacity;
};

static uint32_t segment_of(uint32_t page)
{
    return page / PG_SLRU_PAGES_PER_SEGMENT;
}

/* How many segments behind that of the first page, on the ring. */
static uint32_t slru_distance(const struct slru *slru, uint32_t segment)
{
    uint32_t ring = segment_of(slru->page_count - 1) + 1;
    return (segment + ring - segment_of(slru->first)) % ring;
}

static err_t slru_note_page(struct page_key key, void *context, struct errmsg *msg)
{
    struct slru *slru = context;
    (void)msg;
    uint32_t segment = segment_of(key.block);
    if (key.block >= slru->page_count ||
        slru_distance(slru, segment) > slru_distance(slru, segment_of(slru->last)) ||
        (slru->count > 0 && slru->segments[slru->count - 1] == segment)) {
        return ERR_OK;
    }
    if (slru->count == slru->capacity) {
        slru->capacity = slru->capacity == 0 ? 64 : 2 * slru->capacity;
        slru->segments = mem_realloc(slru->segments, slru->capacity * sizeof(slru->segments[0]));
    }
    slru->segments[slru->count++] = segment;
    return ERR_OK;
}

/* To backup->room: the file of a segment, with zeros before the first page in use, and no more than
 * the last one. */
static err_t slru_read_segment(struct slru *slru, uint32_t segment, struct errmsg *msg)
{
    uint32_t begin = segment * PG_SLRU_PAGES_PER_SEGMENT;
    uint32_t end = MIN_OF(begin + PG_SLRU_PAGES_PER_SEGMENT, slru->page_count);
    if (segment == segment_of(slru->last)) {
        end = slru->last + 1;
    }
    uint32_t page = segment == segment_of(slru->first) ? slru->first : begin;
    struct buf *room = &slru->backup->room;
    buf_clear(room);
    memset(buf_extend(room, (size_t)(page - begin) * PAGE_SIZE), 0, (page - begin) * PAGE_SIZE);
    for (; page < end; page++) {
        TRY(reconstruct_page(
            &slru->backup->work, page_key_state(slru->kind, 0, page), buf_extend(room, PAGE_SIZE),
            NULL, msg));
    }
    return ERR_OK;
}

static bool slru_is_cold(const struct slru *slru, uint32_t segment)
{
    bool is_first = segment == segment_of(slru->first);
    return slru->backup->options->cold_slrus && !(is_first && slru->first_is_hot) &&
           slru_distance(slru, segment) < slru_distance(slru, segment_of(slru->hot));
}

static err_t slru_add_segment(struct slru *slru, uint32_t segment, struct errmsg *msg)
{
    struct backup *backup = slru->backup;
    char name[NAME_SIZE];
    TRY(str_format(name, sizeof(name), msg, "%s/%04" PRIX32, slru->folder, segment));
    if (slru_is_cold(slru, segment)) {
        tar_add_file(backup->tar, name, bytes_of_str(SLRU_COLD_TEXT));
    } else {
        TRY(slru_read_segment(slru, segment, msg));
        tar_add_sparse_file(backup->tar, name, buf_view(&backup->room));
    }
    return backup->tar->size > BASE_BACKUP_BYTES_MAX
               ? err_set(
                     msg, ERR_FULL, "base backup larger than %zu", (size_t)BASE_BACKUP_BYTES_MAX)
               : ERR_OK;
}

static err_t add_slru(struct slru *slru, struct errmsg *msg)
{
    const struct backup *backup = slru->backup;
    err_t err = page_reader_state_runs(
        backup->work.reader, slru->kind, PG_SLRU_PAGES_PER_SEGMENT, backup->options->lsn,
        slru_note_page, slru, msg);
    /* The page of the next one must be there even if nothing was ever written to it. */
    bool has_last = false;
    for (size_t i = 0; i < slru->count; i++) {
        has_last = has_last || slru->segments[i] == segment_of(slru->last);
    }
    if (err == ERR_OK && !has_last) {
        err = slru_note_page(page_key_state(slru->kind, 0, slru->last), slru, msg);
    }
    for (size_t i = 0; i < slru->count && err == ERR_OK; i++) {
        err = slru_add_segment(slru, slru->segments[i], msg);
    }
    mem_free(slru->segments);
    return err;
}

/* Where the members of the oldest multixact begin; the next offset when there is no multixact. */
static err_t oldest_member(struct backup *backup, uint32_t *ret_offset, struct errmsg *msg)
{
    const struct pg_checkpoint *checkpoint = &backup->control.checkpoint;
    *ret_offset = checkpoint->next_multi_offset;
    if (checkpoint->oldest_multi == checkpoint->next_multi) {
        return ERR_OK;
    }
    uint32_t multi = checkpoint->oldest_multi;
    uint8_t page[PAGE_SIZE];
    TRY(reconstruct_page(
        &backup->work, page_key_state(STATE_MULTI_OFFSETS, 0, multi / PG_MULTI_OFFSETS_PER_PAGE),
        page, NULL, msg));
    uint32_t offset = page_u32(page, (multi % PG_MULTI_OFFSETS_PER_PAGE) * sizeof(uint32_t));
    *ret_offset = offset == 0 ? 1 : offset; /* 0 is written for none: keep everything then */
    return ERR_OK;
}

/*
 * COMMIT PREPARED writes to the pages of its transaction and of those under it, which are younger,
 * in a critical section: they are not to be waited for there. No other transaction of before the
 * start ends after it.
 */
static err_t add_transactions(struct backup *backup, struct errmsg *msg)
{
    const struct pg_checkpoint *checkpoint = &backup->control.checkpoint;
    uint32_t oldest_prepared = (uint32_t)backup->prepared_xid;
    struct slru clog = {
        .backup = backup,
        .kind = STATE_CLOG,
        .folder = "pg_xact",
        .page_count = XID_PAGES,
        .first = checkpoint->oldest_xid / PG_CLOG_XIDS_PER_PAGE,
        .last = (uint32_t)checkpoint->next_xid / PG_CLOG_XIDS_PER_PAGE,
        .hot = oldest_prepared / PG_CLOG_XIDS_PER_PAGE,
    };
    TRY(add_slru(&clog, msg));
    if (checkpoint->oldest_commit_ts_xid == 0) {
        return ERR_OK;
    }
    uint32_t newest = checkpoint->newest_commit_ts_xid;
    bool is_prepared_older = (int32_t)(oldest_prepared - newest) < 0;
    bool is_kept = (int32_t)(oldest_prepared - checkpoint->oldest_commit_ts_xid) >= 0;
    uint32_t hot = is_prepared_older ? oldest_prepared : newest;
    hot = is_kept ? hot : checkpoint->oldest_commit_ts_xid;
    struct slru commit_ts = {
        .backup = backup,
        .kind = STATE_COMMIT_TS,
        .folder = "pg_commit_ts",
        .page_count = COMMIT_TS_PAGES,
        .first = checkpoint->oldest_commit_ts_xid / PG_COMMIT_TS_XIDS_PER_PAGE,
        .last = newest / PG_COMMIT_TS_XIDS_PER_PAGE,
        .hot = hot / PG_COMMIT_TS_XIDS_PER_PAGE,
    };
    return add_slru(&commit_ts, msg);
}

/* A start asks where the members of the oldest multixact begin. */
static err_t add_multixacts(struct backup *backup, struct errmsg *msg)
{
    const struct pg_checkpoint *checkpoint = &backup->control.checkpoint;
    struct slru offsets = {
        .backup = backup,
        .kind = STATE_MULTI_OFFSETS,
        .folder = "pg_multixact/offsets",
        .page_count = MULTI_OFFSET_PAGES,
        .first = checkpoint->oldest_multi / PG_MULTI_OFFSETS_PER_PAGE,
        .last = checkpoint->next_multi / PG_MULTI_OFFSETS_PER_PAGE,
        .first_is_hot = true,
    };
    offsets.hot = offsets.last;
    TRY(add_slru(&offsets, msg));
    uint32_t oldest_offset;
    TRY(oldest_member(backup, &oldest_offset, msg));
    struct slru members = {
        .backup = backup,
        .kind = STATE_MULTI_MEMBERS,
        .folder = "pg_multixact/members",
        .page_count = MULTI_MEMBER_PAGES,
        .first = oldest_offset / PG_MULTI_MEMBERS_PER_PAGE,
        .last = checkpoint->next_multi_offset / PG_MULTI_MEMBERS_PER_PAGE,
    };
    members.hot = members.last;
    return add_slru(&members, msg);
}

/* -- prepared transactions, replication origins, unlogged relations -- */

/* The value is the file, with its CRC. */
static err_t add_twophase(struct page_key key, void *context, struct errmsg *msg)
{
    struct backup *backup = context;
    TRY(state_value(backup, key, msg));
    if (backup->room.size == 0) {
        return ERR_OK; /* finished */
    }
    backup->prepared_xid = MIN_OF(backup->prepared_xid, (uint64_t)key.rel << 32 | key.block);
    char name[NAME_SIZE];
    TRY(str_format(
        name, sizeof(name), msg, "pg_twophase/%08" PRIX32 "%08" PRIX32, key.rel, key.block));
    tar_add_file(backup->tar, name, buf_view(&backup->room));
    return ERR_OK;
}

struct origins {
    struct backup *backup;
    struct buf file;
};

/* On disk: u16 id, 6 bytes of padding, u64 remote LSN. */
static err_t add_origin(struct page_key key, void *context, struct errmsg *msg)
{
    struct origins *origins = context;
    TRY(state_value(origins->backup, key, msg));
    if (origins->backup->room.size == 0) {
        return ERR_OK; /* dropped */
    }
    struct reader in = reader_of(buf_view(&origins->backup->room));
    struct {
        uint16_t id, padding[3];
        uint64_t lsn;
    } entry = {.id = (uint16_t)key.rel, .lsn = get_u64(&in)};
    if (in.bad) {
        return err_set(msg, ERR_CORRUPT, "%s: malformed", page_key_text(key).text);
    }
    buf_append(&origins->file, &entry, sizeof(entry));
    return ERR_OK;
}

static err_t add_origins(struct backup *backup, struct errmsg *msg)
{
    struct origins origins = {.backup = backup};
    uint32_t magic = ORIGIN_MAGIC;
    buf_append(&origins.file, &magic, sizeof(magic));
    err_t err = page_reader_state_keys(
        backup->work.reader, STATE_ORIGIN, backup->options->lsn, add_origin, &origins, msg);
    if (err == ERR_OK && origins.file.size > sizeof(magic)) {
        uint32_t crc = crc32c(0, origins.file.data, origins.file.size);
        buf_append(&origins.file, &crc, sizeof(crc));
        tar_add_file(backup->tar, "pg_logical/replorigin_checkpoint", buf_view(&origins.file));
    }
    buf_deinit(&origins.file);
    return err;
}

/* -- logical slots -- */

static err_t add_slot_files(struct backup *backup, const struct slot_view *slot, struct errmsg *msg)
{
    char name[NAME_SIZE];
    TRY(str_format(name, sizeof(name), msg, "pg_replslot/%s", slot->head.name));
    tar_add_dir(backup->tar, name);
    TRY(add_in_folder(backup, name, "state", slot->state, msg));
    if (slot->snapshot.size > 0) {
        TRY(str_format(
            name, sizeof(name), msg, "pg_logical/snapshots/%" PRIX32 "-%" PRIX32 ".snap",
            (uint32_t)(slot->head.restart_lsn >> 32), (uint32_t)slot->head.restart_lsn));
        tar_add_file(backup->tar, name, slot->snapshot);
    }
    return ERR_OK;
}

/* One that was still being made is gone with its server. */
static err_t add_slot(struct page_key key, void *context, struct errmsg *msg)
{
    struct backup *backup = context;
    struct slot_view slot;
    lsn_t lsn = LSN_NONE;
    buf_clear(&backup->room);
    TRY(page_reader_state(
        backup->work.reader, key, backup->options->lsn, &backup->room, &lsn, msg));
    bool is_inherited = lsn <= backup->options->start_lsn;
    if (backup->room.size == 0 || is_inherited || (key.rel == 0 && key.block == 0)) {
        return ERR_OK;
    }
    TRY(slot_parse(buf_view(&backup->room), &slot, msg));
    lsn_t needed = slot.head.restart_lsn;
    if ((slot.head.flags & SLOT_MESSAGE_RESERVES) != 0) {
        return ERR_OK;
    }
    if (needed != LSN_NONE && (backup->wal_from == LSN_NONE || needed < backup->wal_from)) {
        backup->wal_from = needed;
    }
    return add_slot_files(backup, &slot, msg);
}

/*
 * Postgres judges by the files in a tablespace's folder whether it may be dropped, and which ones
 * to copy with a database. So a compute keeps an empty file there for each relation, and for the
 * database a folder, which need not be the database's own one.
 */
static err_t add_placeholder(struct backup *backup, struct page_key rel, struct errmsg *msg)
{
    char folder[NAME_SIZE], name[NAME_SIZE];
    TRY(database_folder(rel.spc, rel.db, folder, msg));
    if (rel.spc != backup->place.spc || rel.db != backup->place.db) {
        backup->place = rel;
        tar_add_dir(backup->tar, folder);
    }
    if (rel.fork != FORK_MAIN) {
        return ERR_OK;
    }
    TRY(str_format(name, sizeof(name), msg, "%" PRIu32 PLACEHOLDER_SUFFIX, rel.rel));
    return add_in_folder(backup, folder, name, bytes_of(NULL, 0), msg);
}

/*
 * Unlogged relations start empty: their init fork, as itself and as the main fork (a server that
 * was shut down does not reset them by itself).
 */
static err_t add_relation(struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg)
{
    struct backup *backup = context;
    if (rel.spc != PG_SPC_DEFAULT && rel.spc != PG_SPC_GLOBAL) {
        TRY(add_placeholder(backup, rel, msg));
    }
    if (rel.fork != FORK_INIT) {
        return ERR_OK;
    }
    if (blocks > 16) {
        return err_set(msg, ERR_CORRUPT, "%s: %u blocks", page_key_text(rel).text, blocks);
    }
    buf_clear(&backup->room);
    for (rel.block = 0; rel.block < blocks; rel.block++) {
        uint8_t page[PAGE_SIZE];
        TRY(reconstruct_page(&backup->work, rel, page, NULL, msg));
        buf_append(&backup->room, page, PAGE_SIZE);
    }
    char folder[NAME_SIZE], name[NAME_SIZE];
    TRY(database_folder(rel.spc, rel.db, folder, msg));
    TRY(str_format(name, sizeof(name), msg, "%" PRIu32 "_init", rel.rel));
    TRY(add_in_folder(backup, folder, name, buf_view(&backup->room), msg));
    TRY(str_format(name, sizeof(name), msg, "%" PRIu32, rel.rel));
    return add_in_folder(backup, folder, name, buf_view(&backup->room), msg);
}

static err_t add_last_member(struct backup *backup, struct errmsg *msg)
{
    const struct base_backup_options *options = backup->options;
    char text[256], wal[128] = "";
    if (backup->wal_from != LSN_NONE) {
        TRY(str_format(
            wal, sizeof(wal), msg,
            ", \"wal_from\": \"" LSN_FMT "\", \"timeline_start_lsn\": \"" LSN_FMT "\"",
            LSN_ARGS(backup->wal_from), LSN_ARGS(options->start_lsn)));
    }
    TRY(str_format(
        text, sizeof(text), msg,
        "{\"start_lsn\": \"" LSN_FMT "\", \"pg_version\": %" PRIu32 ", \"system_id\": \"%" PRIu64
        "\"%s}\n",
        LSN_ARGS(options->lsn), options->pg_version, options->system_id, wal));
    tar_add_file(backup->tar, "anabranch.json", bytes_of_str(text));
    tar_finish(backup->tar);
    return ERR_OK;
}

static err_t build(struct backup *backup, struct errmsg *msg)
{
    const struct base_backup_options *options = backup->options;
    struct page_reader *reader = backup->work.reader;
    TRY(load_control(backup, msg));
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        tar_add_dir(backup->tar, folders[i]);
    }
    TRY(page_reader_state_keys(
        reader, STATE_TABLESPACE, options->lsn, add_if_tablespace, backup, msg));
    TRY(add_databases(backup, msg));
    backup->prepared_xid = backup->control.checkpoint.next_xid;
    TRY(page_reader_state_keys(reader, STATE_TWOPHASE, options->lsn, add_twophase, backup, msg));
    TRY(add_transactions(backup, msg));
    TRY(add_multixacts(backup, msg));
    TRY(add_origins(backup, msg));
    TRY(page_reader_state_keys(reader, STATE_SLOT, options->lsn, add_slot, backup, msg));
    TRY(page_reader_relations(reader, KEY_SPC_STATE, 0, options->lsn, add_relation, backup, msg));
    TRY(add_control_and_wal(backup, msg));
    return add_last_member(backup, msg);
}

err_t base_backup_build(
    const struct base_backup_options *options, struct buf *tar, struct errmsg *msg)
{
    struct backup backup = {.options = options, .tar = tar};
    reconstruct_init(&backup.work, options->store, options->path, options->lsn);
    err_t err = build(&backup, msg);
    if (err != ERR_OK) {
        err = err_wrap(msg, err, "base backup at " LSN_FMT, LSN_ARGS(options->lsn));
    }
    buf_deinit(&backup.room);
    reconstruct_deinit(&backup.work);
    return err;
}
