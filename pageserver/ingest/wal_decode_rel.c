/*
 * wal_decode_rel.c - relations, databases and tablespaces that come and go: smgr, dbase, tblspc and
 * relmap records.
 *
 * Sources: storage.c, freespace.c, visibilitymap.c, dbcommands.c, tablespace.c, relmapper.c of
 * Postgres 17.
 */
#include <stdlib.h>

#include "common/base/mem.h"
#include "pageserver/ingest/wal_decode_private.h"

enum { SMGR_OP_CREATE = 0x10, SMGR_OP_TRUNCATE = 0x20 };
enum { TRUNCATE_HEAP = 1, TRUNCATE_VM = 2, TRUNCATE_FSM = 4 };
enum { DBASE_OP_CREATE_FILE_COPY = 0x00, DBASE_OP_CREATE_WAL_LOG = 0x10, DBASE_OP_DROP = 0x20 };
enum { TBLSPC_OP_CREATE = 0x00, TBLSPC_OP_DROP = 0x10 };

#define TABLESPACE_PATH_MAX 1024 /* MAXPGPATH */

#define RELMAP_FILE_SIZE 524 /* magic, count, 64 pairs of oids, checksum */

static struct page_key read_rel(struct cursor *fields)
{
    struct page_key rel = {0};
    rel.spc = cursor_u32(fields);
    rel.db = cursor_u32(fields);
    rel.rel = cursor_u32(fields);
    return rel;
}

static err_t check_rel(
    const struct decoding *decoding, const struct cursor *fields, struct page_key rel)
{
    if (!cursor_is_good(fields)) {
        MARK("wal_decode.short_smgr");
        return decode_refuse(decoding, "too short");
    }
    if (rel.spc == KEY_SPC_STATE || rel.rel == 0) {
        MARK("wal_decode.smgr_of_state");
        return decode_refuse(decoding, "no such tablespace or relation");
    }
    return ERR_OK;
}

/* Creating what exists already is nothing: a page was written before, or it is said twice. */
static err_t create_fork(struct decoding *decoding, struct page_key rel)
{
    struct touched_fork *fork;
    TRY(fork_find(decoding, rel, &fork));
    if (!fork->exists) {
        fork->exists = fork->changed = true;
    }
    return ERR_OK;
}

static err_t decode_create(struct decoding *decoding)
{
    struct cursor fields = cursor_of(decoding->record->main_data);
    struct page_key rel = read_rel(&fields);
    uint32_t fork = cursor_u32(&fields);
    TRY(check_rel(decoding, &fields, rel));
    if (fork >= FORK_COUNT) {
        MARK("wal_decode.create_bad_fork");
        return decode_refuse(decoding, "no such fork");
    }
    rel.fork = (uint8_t)fork;
    return create_fork(decoding, rel);
}

/*
 * A map fork keeps `whole` pages and, when the heap ends within what the next page covers, that one
 * as well: its tail is cleared. Nothing happens when the fork was shorter.
 */
struct map_end {
    uint32_t whole;
    bool is_partial;
};

static err_t truncate_map(struct decoding *decoding, struct page_key rel, struct map_end end)
{
    struct wal_state_source *source = decoding->state->source;
    uint32_t blocks;
    err_t err = source->rel_size(source, page_key_size_of(rel), &blocks, decoding->msg);
    if (err == ERR_NOT_FOUND) {
        return ERR_OK;
    }
    TRY(err);
    if (end.is_partial && end.whole < blocks) {
        rel.block = end.whole;
        if (rel.fork == FORK_VM) {
            put_implied(decoding, rel);
        } else {
            put_zero_page(decoding, rel);
        }
    }
    uint32_t kept = end.whole + end.is_partial;
    if (kept < blocks) {
        put_rel_size(decoding, rel, true, kept);
    }
    return ERR_OK;
}

static struct map_end vm_end(uint32_t heap_blocks)
{
    return (struct map_end){
        .whole = heap_blocks / VM_BLOCKS_PER_PAGE,
        .is_partial = heap_blocks % VM_BLOCKS_PER_PAGE != 0,
    };
}

/*
 * The free space map is a tree of three levels, laid out depth first: in front of leaf page n stand
 * the n leaf pages before it, one middle page for each begun group of leaf pages, and the root.
 */
static struct map_end fsm_end(uint32_t heap_blocks)
{
    enum { SLOTS_PER_PAGE = 4069 }; /* leaf nodes of the binary tree on a page */
    uint32_t leaf = heap_blocks / SLOTS_PER_PAGE;
    uint32_t middle = leaf / SLOTS_PER_PAGE;
    uint32_t top = middle / SLOTS_PER_PAGE;
    return (struct map_end){
        .whole = leaf + (middle + 1) + (top + 1),
        .is_partial = heap_blocks % SLOTS_PER_PAGE != 0,
    };
}

static err_t truncate_main(struct decoding *decoding, struct page_key rel, uint32_t blocks)
{
    struct wal_state_source *source = decoding->state->source;
    uint32_t old_blocks;
    err_t err = source->rel_size(source, page_key_size_of(rel), &old_blocks, decoding->msg);
    if (err == ERR_NOT_FOUND) {
        put_rel_size(decoding, rel, true, 0); /* it is dropped further on, replay makes it first */
        return ERR_OK;
    }
    TRY(err);
    if (blocks < old_blocks) {
        put_rel_size(decoding, rel, true, blocks);
    }
    return ERR_OK;
}

static err_t decode_truncate(struct decoding *decoding)
{
    struct cursor fields = cursor_of(decoding->record->main_data);
    uint32_t blocks = cursor_u32(&fields);
    struct page_key rel = read_rel(&fields);
    uint32_t flags = cursor_u32(&fields);
    TRY(check_rel(decoding, &fields, rel));
    if ((flags & TRUNCATE_HEAP) != 0) {
        TRY(truncate_main(decoding, rel, blocks));
    }
    if ((flags & TRUNCATE_FSM) != 0) {
        rel.fork = FORK_FSM;
        TRY(truncate_map(decoding, rel, fsm_end(blocks)));
    }
    if ((flags & TRUNCATE_VM) != 0) {
        rel.fork = FORK_VM;
        TRY(truncate_map(decoding, rel, vm_end(blocks)));
    }
    return ERR_OK;
}

err_t decode_smgr(struct decoding *decoding)
{
    switch (decoding->op) {
    case SMGR_OP_CREATE: return decode_create(decoding);
    case SMGR_OP_TRUNCATE: return decode_truncate(decoding);
    default: MARK("wal_decode.unknown_smgr"); return decode_refuse(decoding, "unknown operation");
    }
}

/* -- databases -- */

static err_t note_rel(struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg)
{
    struct wal_state *state = context;
    (void)msg;
    if (state->rels_count == state->rels_capacity) {
        state->rels_capacity = MAX_OF(2 * state->rels_capacity, (size_t)256);
        state->rels = mem_realloc(state->rels, state->rels_capacity * sizeof(state->rels[0]));
    }
    state->rels[state->rels_count++] = (struct rel_entry){.rel = rel, .blocks = blocks};
    return ERR_OK;
}

/* All forks of a database behind those in state->rels. Gathered first: the source is not changed
 * while it walks. */
static err_t gather_rels(struct decoding *decoding, uint32_t spc, uint32_t db)
{
    struct wal_state *state = decoding->state;
    return state->source->relations(state->source, spc, db, note_rel, state, decoding->msg);
}

static err_t drop_database(struct decoding *decoding, uint32_t spc, uint32_t db)
{
    struct wal_state *state = decoding->state;
    state->rels_count = 0;
    TRY(gather_rels(decoding, spc, db));
    for (size_t i = 0; i < state->rels_count; i++) {
        put_rel_size(decoding, state->rels[i].rel, false, 0);
    }
    struct bytes dropped = {.data = NULL, .size = 0};
    put_state(decoding, page_key_state(STATE_DATABASE, db, spc), dropped);
    put_state(decoding, page_key_state(STATE_RELMAP, db, spc), dropped);
    return ERR_OK;
}

static err_t decode_drop(struct decoding *decoding)
{
    struct cursor fields = cursor_of(decoding->record->main_data);
    uint32_t db = cursor_u32(&fields);
    uint32_t count = cursor_u32(&fields);
    struct bytes spcs = cursor_array(&fields, count, sizeof(uint32_t));
    if (!cursor_is_good(&fields)) {
        MARK("wal_decode.short_dbase");
        return decode_refuse(decoding, "too short");
    }
    for (size_t at = 0; at < spcs.size; at += sizeof(uint32_t)) {
        uint32_t spc = le_u32(spcs.data + at);
        if (spc == KEY_SPC_STATE) {
            MARK("wal_decode.dbase_of_state");
            return decode_refuse(decoding, "no such tablespace");
        }
        TRY(drop_database(decoding, spc, db));
    }
    return ERR_OK;
}

static void put_database(struct decoding *decoding, uint32_t spc, uint32_t db)
{
    static const char value[] = "1" PG_VERSION_FILE;
    put_state(decoding, page_key_state(STATE_DATABASE, db, spc), bytes_of_str(value));
}

static err_t decode_create_wal_log(struct decoding *decoding)
{
    struct cursor fields = cursor_of(decoding->record->main_data);
    uint32_t db = cursor_u32(&fields);
    uint32_t spc = cursor_u32(&fields);
    if (!cursor_is_good(&fields)) {
        MARK("wal_decode.short_dbase");
        return decode_refuse(decoding, "too short");
    }
    put_database(decoding, spc, db);
    return ERR_OK;
}

static bool is_zero_page(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE_SIZE - 1) == 0;
}

static err_t copy_fork(
    struct decoding *decoding, const struct rel_entry *from, uint32_t spc, uint32_t db)
{
    struct wal_state_source *source = decoding->state->source;
    struct page_key key = from->rel, copy = from->rel;
    copy.spc = spc;
    copy.db = db;
    uint8_t page[PAGE_SIZE];
    for (uint32_t block = 0; block < from->blocks; block++) {
        key.block = copy.block = block;
        TRY(source->page(source, key, page, decoding->msg));
        if (is_zero_page(page)) {
            put_zero_page(decoding, copy);
        } else {
            decoding->sink->put(decoding->sink, copy, VALUE_IMAGE, 0, bytes_of(page, sizeof(page)));
        }
    }
    put_rel_size(decoding, copy, true, from->blocks);
    return ERR_OK;
}

static int compare_rels(const void *a, const void *b)
{
    const struct page_key *x = &((const struct rel_entry *)a)->rel;
    const struct page_key *y = &((const struct rel_entry *)b)->rel;
    if (x->rel != y->rel) {
        return x->rel < y->rel ? -1 : 1;
    }
    return (int)x->fork - (int)y->fork;
}

/* What the target had before, and the copy does not bring: gone. */
static err_t drop_leftovers(
    struct decoding *decoding, size_t source_count, uint32_t spc, uint32_t db)
{
    struct wal_state *state = decoding->state;
    TRY(gather_rels(decoding, spc, db));
    for (size_t i = source_count; i < state->rels_count; i++) {
        bool is_copied = source_count > 0 && bsearch(
                                                 &state->rels[i], state->rels, source_count,
                                                 sizeof(state->rels[0]), compare_rels) != NULL;
        if (!is_copied) {
            put_rel_size(decoding, state->rels[i].rel, false, 0);
        }
    }
    return ERR_OK;
}

struct file_copy {
    uint32_t db, spc, source_db, source_spc;
};

static err_t copy_relmap(struct decoding *decoding, const struct file_copy *copy)
{
    err_t err =
        load_state(decoding, page_key_state(STATE_RELMAP, copy->source_db, copy->source_spc));
    if (err == ERR_NOT_FOUND || (err == ERR_OK && decoding->state->room.size == 0)) {
        return ERR_OK; /* it lives in another tablespace of the database */
    }
    TRY(err);
    put_state(
        decoding, page_key_state(STATE_RELMAP, copy->db, copy->spc),
        buf_view(&decoding->state->room));
    return ERR_OK;
}

static err_t decode_create_file_copy(struct decoding *decoding)
{
    struct wal_state *state = decoding->state;
    struct cursor fields = cursor_of(decoding->record->main_data);
    struct file_copy copy;
    copy.db = cursor_u32(&fields);
    copy.spc = cursor_u32(&fields);
    copy.source_db = cursor_u32(&fields);
    copy.source_spc = cursor_u32(&fields);
    if (!cursor_is_good(&fields)) {
        MARK("wal_decode.short_dbase");
        return decode_refuse(decoding, "too short");
    }
    bool is_same = copy.db == copy.source_db && copy.spc == copy.source_spc;
    if (copy.spc == KEY_SPC_STATE || copy.source_spc == KEY_SPC_STATE || is_same) {
        MARK("wal_decode.dbase_of_state");
        return decode_refuse(decoding, "no such tablespace, or a copy onto itself");
    }
    state->rels_count = 0;
    TRY(gather_rels(decoding, copy.source_spc, copy.source_db));
    size_t source_count = state->rels_count;
    if (source_count > 0) {
        qsort(state->rels, source_count, sizeof(state->rels[0]), compare_rels);
    }
    TRY(drop_leftovers(decoding, source_count, copy.spc, copy.db));
    for (size_t i = 0; i < source_count; i++) {
        TRY(copy_fork(decoding, &state->rels[i], copy.spc, copy.db));
    }
    TRY(copy_relmap(decoding, &copy));
    put_database(decoding, copy.spc, copy.db);
    return ERR_OK;
}

bool wal_decode_copies_database(const struct wal_record *record)
{
    return record->rmgr == RM_DBASE && (record->info & 0xF0) == DBASE_OP_CREATE_FILE_COPY;
}

err_t decode_dbase(struct decoding *decoding)
{
    switch (decoding->op) {
    case DBASE_OP_CREATE_FILE_COPY: return decode_create_file_copy(decoding);
    case DBASE_OP_CREATE_WAL_LOG: return decode_create_wal_log(decoding);
    case DBASE_OP_DROP: return decode_drop(decoding);
    default: MARK("wal_decode.unknown_dbase"); return decode_refuse(decoding, "unknown operation");
    }
}

/* The path says where it was; a compute has it in place, wherever that is. */
static err_t create_tablespace(struct decoding *decoding, uint32_t spc, struct cursor *fields)
{
    char value[1 + TABLESPACE_PATH_MAX] = "1";
    size_t size = 1;
    for (uint8_t c = cursor_u8(fields); c != '\0'; c = cursor_u8(fields)) {
        if (size == sizeof(value)) {
            MARK("wal_decode.long_tblspc");
            return decode_refuse(decoding, "the path is too long");
        }
        value[size++] = (char)c;
    }
    if (!cursor_is_good(fields)) {
        MARK("wal_decode.short_tblspc");
        return decode_refuse(decoding, "too short");
    }
    put_state(decoding, page_key_state(STATE_TABLESPACE, spc, 0), bytes_of(value, size));
    return ERR_OK;
}

err_t decode_tblspc(struct decoding *decoding)
{
    struct cursor fields = cursor_of(decoding->record->main_data);
    uint32_t spc = cursor_u32(&fields);
    if (!cursor_is_good(&fields) || spc == KEY_SPC_STATE) {
        MARK("wal_decode.bad_tblspc");
        return decode_refuse(decoding, "no such tablespace");
    }
    switch (decoding->op) {
    case TBLSPC_OP_CREATE: return create_tablespace(decoding, spc, &fields);
    case TBLSPC_OP_DROP:
        put_state(
            decoding, page_key_state(STATE_TABLESPACE, spc, 0),
            (struct bytes){.data = NULL, .size = 0});
        return ERR_OK;
    default: MARK("wal_decode.unknown_tblspc"); return decode_refuse(decoding, "unknown operation");
    }
}

err_t decode_relmap(struct decoding *decoding)
{
    struct cursor fields = cursor_of(decoding->record->main_data);
    uint32_t db = cursor_u32(&fields);
    uint32_t spc = cursor_u32(&fields);
    uint32_t size = cursor_u32(&fields);
    struct bytes file = cursor_bytes(&fields, size);
    if (!cursor_is_good(&fields) || size != RELMAP_FILE_SIZE || decoding->op != 0) {
        MARK("wal_decode.bad_relmap");
        return decode_refuse(decoding, "no relation map");
    }
    put_state(decoding, page_key_state(STATE_RELMAP, db, spc), file);
    return ERR_OK;
}
