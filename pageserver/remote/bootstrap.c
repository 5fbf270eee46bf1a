#include "pageserver/remote/bootstrap.h"

#include "common/base/assert.h"
#include "common/base/fault.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/pg/pg_control.h"
#include "common/pg/pg_version.h"
#include "common/wire/codec.h"
#include "pageserver/remote/tar_reader.h"

#define REL_PAGES_PER_SEGMENT 131072u /* 1 GiB */

struct fork_end {
    struct page_key rel;
    uint32_t blocks;
};

struct import {
    const struct bootstrap_options *options;
    struct page_import *versions;
    struct fork_end *forks; /* sizes are written at the end: a fork may have several segments */
    size_t fork_count, fork_capacity;
    bool has_control, has_relmap;
    lsn_t checkpoint_lsn;
};

static err_t put(
    struct import *import, struct page_key key, uint8_t tag, struct bytes value, struct errmsg *msg)
{
    return page_import_put(import->versions, key, tag, value, msg);
}

static err_t put_state(
    struct import *import, struct page_key key, struct bytes value, struct errmsg *msg)
{
    return put(import, key, VALUE_STATE, value, msg);
}

static bool is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE_SIZE - 1) == 0;
}

/* Whole pages of a file, as blocks from key.block on. */
static err_t put_pages(
    struct import *import,
    struct page_key key,
    struct bytes data,
    const char *name,
    struct errmsg *msg)
{
    if (data.size % PAGE_SIZE != 0) {
        return err_set(msg, ERR_CORRUPT, "%s: %zu bytes are no whole pages", name, data.size);
    }
    for (size_t at = 0; at < data.size; at += PAGE_SIZE, key.block++) {
        bool zero = is_zero(data.data + at);
        struct bytes page = bytes_of(data.data + at, zero ? 0 : PAGE_SIZE);
        TRY(put(import, key, zero ? VALUE_ZERO : VALUE_IMAGE, page, msg));
    }
    return ERR_OK;
}

/* -- names -- */

/* Digits from *text on; moves *text behind them. False: none, or more than 32 bits. */
static bool take_number(const char **text, uint32_t *ret_value)
{
    uint64_t value = 0;
    const char *at = *text;
    while (*at >= '0' && *at <= '9' && value <= UINT32_MAX) {
        value = value * 10 + (uint64_t)(*at++ - '0');
    }
    bool good = at > *text && value <= UINT32_MAX;
    *text = at;
    *ret_value = (uint32_t)value;
    return good;
}

static bool take_text(const char **text, const char *wanted)
{
    bool found = str_starts_with(*text, wanted);
    *text += found ? strlen(wanted) : 0;
    return found;
}

/* "16384", "16384_fsm", "16384.1": false for everything that is no relation file. */
static bool parse_relation(const char *name, struct page_key *key, uint32_t *ret_segment)
{
    if (!take_number(&name, &key->rel)) {
        return false;
    }
    key->fork = FORK_MAIN;
    if (take_text(&name, "_fsm")) {
        key->fork = FORK_FSM;
    } else if (take_text(&name, "_vm")) {
        key->fork = FORK_VM;
    } else if (take_text(&name, "_init")) {
        key->fork = FORK_INIT;
    }
    *ret_segment = 0;
    return (!take_text(&name, ".") || take_number(&name, ret_segment)) && name[0] == '\0';
}

/* Four hex digits or more: a segment of an SLRU. */
static bool parse_segment(const char *name, uint32_t *ret_segment)
{
    uint64_t value = 0;
    size_t length = strlen(name);
    for (size_t i = 0; i < length; i++) {
        char c = name[i];
        bool digit = c >= '0' && c <= '9';
        if (!digit && !(c >= 'A' && c <= 'F')) {
            return false;
        }
        value = value * 16 + (uint64_t)(digit ? c - '0' : c - 'A' + 10);
    }
    *ret_segment = (uint32_t)value;
    return length >= 4 && length <= 8 && value < UINT32_MAX / PG_SLRU_PAGES_PER_SEGMENT;
}

/* -- members -- */

static void note_fork(struct import *import, struct page_key rel, uint32_t blocks)
{
    rel.block = 0;
    for (size_t i = import->fork_count; i-- > 0;) { /* segments of a fork are near each other */
        if (page_key_equal(import->forks[i].rel, rel)) {
            import->forks[i].blocks = MAX_OF(import->forks[i].blocks, blocks);
            return;
        }
    }
    if (import->fork_count == import->fork_capacity) {
        import->fork_capacity = import->fork_capacity == 0 ? 256 : 2 * import->fork_capacity;
        import->forks =
            mem_realloc(import->forks, import->fork_capacity * sizeof(import->forks[0]));
    }
    import->forks[import->fork_count++] = (struct fork_end){.rel = rel, .blocks = blocks};
}

static err_t import_relation(
    struct import *import,
    struct page_key key,
    const char *name,
    const struct tar_member *member,
    struct errmsg *msg)
{
    uint32_t segment;
    if (!parse_relation(name, &key, &segment)) {
        return ERR_OK; /* pg_internal.init and the like: Postgres makes them anew */
    }
    if (segment > UINT32_MAX / REL_PAGES_PER_SEGMENT ||
        member->data.size > (size_t)REL_PAGES_PER_SEGMENT * PAGE_SIZE) {
        return err_set(msg, ERR_CORRUPT, "%s: larger than a segment", member->name);
    }
    key.block = segment * REL_PAGES_PER_SEGMENT;
    TRY(put_pages(import, key, member->data, member->name, msg));
    note_fork(import, key, key.block + (uint32_t)(member->data.size / PAGE_SIZE));
    return ERR_OK;
}

static err_t import_relmap(
    struct import *import, uint32_t spc, uint32_t db, struct bytes data, struct errmsg *msg)
{
    import->has_relmap |= db == 0;
    return put_state(import, page_key_state(STATE_RELMAP, db, spc), data, msg);
}

/* base/DB/...: its version file says that the database is there. */
static err_t import_database_file(
    struct import *import, const char *path, const struct tar_member *member, struct errmsg *msg)
{
    uint32_t db;
    if (!take_number(&path, &db) || !take_text(&path, "/")) {
        return ERR_OK;
    }
    if (strcmp(path, "PG_VERSION") == 0) {
        return put_state(
            import, page_key_state(STATE_DATABASE, db, PG_SPC_DEFAULT),
            bytes_of_str("1" PG_VERSION_FILE), msg);
    }
    if (strcmp(path, "pg_filenode.map") == 0) {
        return import_relmap(import, PG_SPC_DEFAULT, db, member->data, msg);
    }
    struct page_key key = {.spc = PG_SPC_DEFAULT, .db = db};
    return import_relation(import, key, path, member, msg);
}

static err_t import_control(struct import *import, struct bytes data, struct errmsg *msg)
{
    struct pg_control control;
    TRY(pg_control_parse(data, &control, msg));
    if (control.checkpoint_lsn >= import->options->start_lsn) {
        return err_set(
            msg, ERR_CORRUPT, "last checkpoint " LSN_FMT " is not below the start LSN " LSN_FMT,
            LSN_ARGS(control.checkpoint_lsn), LSN_ARGS(import->options->start_lsn));
    }
    control.system_id = import->options->system_id;
    import->has_control = true;
    import->checkpoint_lsn = control.checkpoint_lsn;
    uint8_t file[PG_CONTROL_FILE_SIZE];
    pg_control_write(&control, file);
    TRY(put_state(import, page_key_state(STATE_CONTROL, 0, 0), bytes_of(file, sizeof(file)), msg));
    TRY(put_state(
        import, page_key_state(STATE_CHECKPOINT, 0, 0),
        bytes_of(&control.checkpoint, sizeof(control.checkpoint)), msg));
    uint64_t next_xid = htole64(control.checkpoint.next_xid);
    TRY(put_state(
        import, page_key_state(STATE_NEXT_XID, 0, 0), bytes_of(&next_xid, sizeof(next_xid)), msg));
    uint32_t multi[] = {
        htole32(control.checkpoint.next_multi), htole32(control.checkpoint.next_multi_offset)};
    return put_state(
        import, page_key_state(STATE_NEXT_MULTI, 0, 0), bytes_of(multi, sizeof(multi)), msg);
}

static err_t import_global_file(
    struct import *import, const char *path, const struct tar_member *member, struct errmsg *msg)
{
    if (strcmp(path, "pg_control") == 0) {
        return import_control(import, member->data, msg);
    }
    if (strcmp(path, "pg_filenode.map") == 0) {
        return import_relmap(import, PG_SPC_GLOBAL, 0, member->data, msg);
    }
    struct page_key key = {.spc = PG_SPC_GLOBAL};
    return import_relation(import, key, path, member, msg);
}

static err_t import_slru_file(
    struct import *import,
    enum state_kind kind,
    const char *path,
    const struct tar_member *member,
    struct errmsg *msg)
{
    uint32_t segment;
    if (!parse_segment(path, &segment)) {
        return ERR_OK;
    }
    struct page_key key = page_key_state(kind, 0, segment * PG_SLRU_PAGES_PER_SEGMENT);
    return put_pages(import, key, member->data, member->name, msg);
}

static err_t import_member(
    struct import *import, const struct tar_member *member, struct errmsg *msg)
{
    const char *path = member->name;
    if (!member->is_file) {
        return ERR_OK;
    }
    if (take_text(&path, "base/")) {
        return import_database_file(import, path, member, msg);
    }
    if (take_text(&path, "global/")) {
        return import_global_file(import, path, member, msg);
    }
    if (take_text(&path, "pg_xact/")) {
        return import_slru_file(import, STATE_CLOG, path, member, msg);
    }
    if (take_text(&path, "pg_multixact/offsets/")) {
        return import_slru_file(import, STATE_MULTI_OFFSETS, path, member, msg);
    }
    if (take_text(&path, "pg_multixact/members/")) {
        return import_slru_file(import, STATE_MULTI_MEMBERS, path, member, msg);
    }
    if (take_text(&path, "pg_commit_ts/")) {
        return import_slru_file(import, STATE_COMMIT_TS, path, member, msg);
    }
    return ERR_OK; /* settings and WAL: a compute gets its own */
}

static err_t import_all(struct import *import, struct bytes archive, struct errmsg *msg)
{
    struct tar_reader reader = {.left = archive};
    struct tar_member member;
    err_t err;
    while ((err = tar_reader_next(&reader, &member, msg)) == ERR_OK) {
        TRY(import_member(import, &member, msg));
    }
    if (err != ERR_NOT_FOUND) {
        return err;
    }
    if (!import->has_control || !import->has_relmap) {
        return err_set(
            msg, ERR_CORRUPT, "no data directory: global/%s is missing",
            import->has_control ? "pg_filenode.map" : "pg_control");
    }
    for (size_t i = 0; i < import->fork_count; i++) {
        TRY(page_import_put_rel_size(
            import->versions, import->forks[i].rel, import->forks[i].blocks, msg));
    }
    return ERR_OK;
}

err_t bootstrap_import(
    const struct bootstrap_options *options,
    struct ingest_position *ret_position,
    struct errmsg *msg)
{
    struct buf archive = {0};
    struct import import = {
        .options = options,
        .versions = page_import_create(options->store, options->timeline, options->start_lsn),
    };
    err_t err = objstore_get(options->objects, options->object, BOOTSTRAP_BYTES_MAX, &archive, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = import_all(&import, buf_view(&archive), msg);
    if (err != ERR_OK) {
        goto out;
    }
    struct ingest_position position = {
        .lsn = options->start_lsn, .prev_record_lsn = import.checkpoint_lsn};
    err = FAULT("bootstrap.before_finish");
    if (err != ERR_OK) {
        err = err_set(msg, err, "injected failure");
        goto out;
    }
    err = page_import_finish(import.versions, &position, msg);
    if (err == ERR_OK) {
        *ret_position = position;
    }
out:
    buf_deinit(&archive);
    page_import_destroy(import.versions);
    mem_free(import.forks);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "bootstrap image %s", options->object);
}
