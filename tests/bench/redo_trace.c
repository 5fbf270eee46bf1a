#include "tests/bench/redo_trace.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/pg/pg_control.h"
#include "common/pg/wal_reader.h"
#include "pageserver/redo/redo.h"

#define FEED_BYTES  (1 * MIB)
#define CHUNK_BYTES (4 * MIB)

/* -- the walk -- */

static err_t read_control(
    const struct wal_source *source, struct pg_control *ret_control, struct errmsg *msg)
{
    char path[PATH_SIZE];
    uint8_t file[PG_CONTROL_FILE_SIZE];
    (void)snprintf(path, sizeof(path), "%s/global/pg_control", source->base_dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_set(msg, ERR_IO, "open %s: %m", path);
    }
    ssize_t got = read(fd, file, sizeof(file));
    (void)close(fd);
    return pg_control_parse(bytes_of(file, (size_t)MAX_OF(got, 0)), ret_control, msg);
}

err_t wal_source_system_id(
    const struct wal_source *source, uint64_t *ret_system_id, struct errmsg *msg)
{
    struct pg_control control;
    TRY(read_control(source, &control, msg));
    *ret_system_id = control.system_id;
    return ERR_OK;
}

static err_t feed(
    const struct wal_source *source,
    uint32_t segment_size,
    struct wal_reader *reader,
    uint8_t *room,
    struct errmsg *msg)
{
    char path[PATH_SIZE];
    lsn_t lsn = wal_reader_next_lsn(reader);
    (void)snprintf(
        path, sizeof(path), "%s/%s", source->wal_dir, wal_segment_name(lsn, segment_size).text);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_set(msg, ERR_NOT_FOUND, "open %s: %m", path);
    }
    off_t at = (off_t)(lsn % segment_size);
    ssize_t got = pread(fd, room, MIN_OF(FEED_BYTES, segment_size - (size_t)at), at);
    (void)close(fd);
    if (got <= 0) {
        return err_set(msg, ERR_NOT_FOUND, "read %s: %m", path);
    }
    return wal_reader_feed(reader, bytes_of(room, (size_t)got), msg);
}

err_t wal_walk(const struct wal_source *source, struct wal_visitor *visitor, struct errmsg *msg)
{
    struct pg_control control;
    TRY(read_control(source, &control, msg));
    struct wal_reader_options options = {
        .start_lsn = control.checkpoint.redo,
        .segment_size = control.wal_segment_size,
        .system_id = control.system_id,
        .record_size_max = 64 * MIB,
    };
    uint8_t *room = mem_alloc(FEED_BYTES);
    struct wal_reader *reader = wal_reader_create(&options);
    err_t err = ERR_OK;
    while (err == ERR_OK && wal_reader_record_lsn(reader) < source->end_lsn) {
        const struct wal_record *record = NULL;
        err = wal_reader_next(reader, &record, msg);
        if (err == ERR_NOT_FOUND) {
            err = feed(source, control.wal_segment_size, reader, room, msg);
        } else if (err == ERR_OK) {
            err = visitor->visit(visitor, record, msg);
        }
    }
    wal_reader_destroy(reader);
    mem_free(room);
    return err;
}

/* -- changes -- */

err_t change_apply(const struct change *change, uint8_t *page, struct errmsg *msg)
{
    switch (change->tag) {
    case VALUE_IMAGE: memcpy(page, change->image, PAGE_SIZE); return ERR_OK;
    case VALUE_ZERO: memset(page, 0, PAGE_SIZE); return ERR_OK;
    case VALUE_INIT: memset(page, 0, PAGE_SIZE); break;
    default: break;
    }
    return redo_apply(change->record, change->block_index, change->key, page, msg);
}

struct trace_chunk {
    struct trace_chunk *next;
    size_t used, size;
    _Alignas(max_align_t) uint8_t bytes[];
};

static void *trace_room(struct trace *trace, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    struct trace_chunk *chunk = trace->chunks;
    if (chunk == NULL || chunk->size - chunk->used < size) {
        size_t chunk_size = MAX_OF(CHUNK_BYTES, size);
        chunk = mem_alloc(sizeof(*chunk) + chunk_size);
        *chunk = (struct trace_chunk){.next = trace->chunks, .size = chunk_size};
        trace->chunks = chunk;
    }
    void *room = chunk->bytes + chunk->used;
    chunk->used += size;
    return room;
}

/* A copy of the record's bytes, decoded; the blocks that it has not are not stored. */
static err_t keep_record(
    struct trace *trace,
    const struct wal_record *record,
    const struct wal_record **ret_record,
    struct errmsg *msg)
{
    static struct wal_record copy; /* large, and one thread */
    uint8_t *bytes = trace_room(trace, record->bytes.size);
    memcpy(bytes, record->bytes.data, record->bytes.size);
    TRY(wal_record_decode(
        bytes_of(bytes, record->bytes.size), record->lsn, record->end_lsn, &copy, msg));
    size_t size = offsetof(struct wal_record, blocks) + copy.block_count * sizeof(struct wal_block);
    void *room = trace_room(trace, size);
    memcpy(room, &copy, size);
    *ret_record = room;
    return ERR_OK;
}

static const uint8_t *keep_image(struct trace *trace, const uint8_t *image)
{
    return memcpy(trace_room(trace, PAGE_SIZE), image, PAGE_SIZE);
}

static void keep_change(struct trace *trace, struct change change)
{
    if (trace->count == trace->capacity) {
        trace->capacity = MAX_OF((size_t)1024, trace->capacity * 2);
        trace->changes = mem_realloc(trace->changes, trace->capacity * sizeof(trace->changes[0]));
    }
    if (change.tag == VALUE_IMAGE) {
        change.image = keep_image(trace, change.image);
    }
    change.number = (uint32_t)trace->count;
    trace->changes[trace->count++] = change;
}

static void free_chunks(struct trace_chunk *chunks)
{
    while (chunks != NULL) {
        struct trace_chunk *chunk = chunks;
        chunks = chunk->next;
        mem_free(chunk);
    }
}

void trace_deinit(struct trace *trace)
{
    free_chunks(trace->chunks);
    mem_free(trace->changes);
    *trace = (struct trace){0};
}

static int compare_u32(uint32_t a, uint32_t b)
{
    return (a > b) - (a < b);
}

static int compare_changes(const void *left, const void *right)
{
    const struct change *a = left;
    const struct change *b = right;
    int order = compare_u32(a->key.spc, b->key.spc);
    order = order != 0 ? order : compare_u32(a->key.db, b->key.db);
    order = order != 0 ? order : compare_u32(a->key.rel, b->key.rel);
    order = order != 0 ? order : compare_u32(a->key.fork, b->key.fork);
    order = order != 0 ? order : compare_u32(a->key.block, b->key.block);
    return order != 0 ? order : compare_u32(a->number, b->number);
}

err_t trace_sort(struct trace *trace, struct errmsg *msg)
{
    struct trace_chunk *unsorted = trace->chunks;
    err_t err = ERR_OK;
    trace->chunks = NULL;
    qsort(trace->changes, trace->count, sizeof(trace->changes[0]), compare_changes);
    for (size_t i = 0; i < trace->count && err == ERR_OK; i++) {
        struct change *change = &trace->changes[i];
        if (change->tag == VALUE_IMAGE) {
            change->image = keep_image(trace, change->image);
        }
        err = keep_record(trace, change->record, &change->record, msg);
    }
    free_chunks(unsorted);
    return err;
}

/* -- replay in WAL order -- */

static err_t replay_change(
    struct replayer *replayer, const struct change *change, struct errmsg *msg)
{
    uint8_t *page = NULL;
    TRY(page_map_page(replayer->map, change->key, &page, msg));
    if (replayer->before != NULL) {
        replayer->before(replayer, change, page);
    }
    replayer->changes++;
    return change_apply(change, page, msg);
}

/* Commit times are only appended, one a transaction: the decoder never asks for them again. */
static void apply_state(struct decoded *decoded, const struct decoded_version *version)
{
    if (version->key.spc != KEY_SPC_STATE || version->key.db != STATE_COMMIT_TIME) {
        decoded_apply_state(decoded, version);
    }
}

static err_t replay_record(
    struct wal_visitor *visitor, const struct wal_record *record, struct errmsg *msg)
{
    struct replayer *replayer = CONTAINER_OF(visitor, struct replayer, visitor);
    const struct decoded_version *versions = NULL;
    const struct wal_record *kept = NULL;
    size_t count = 0;
    replayer->records++;
    replayer->bytes += record->total_size;
    TRY(decoded_record(replayer->decoded, record, &versions, &count, msg));
    for (size_t i = 0; i < count; i++) {
        if (versions[i].tag == VALUE_STATE) {
            apply_state(replayer->decoded, &versions[i]);
            continue;
        }
        struct change change = {
            .key = versions[i].key,
            .tag = versions[i].tag,
            .block_index = versions[i].block_index,
            .record = record,
            .image = versions[i].value.data,
        };
        TRY(replay_change(replayer, &change, msg));
        if (replayer->trace != NULL) {
            if (kept == NULL) {
                TRY(keep_record(replayer->trace, record, &kept, msg));
            }
            change.record = kept;
            keep_change(replayer->trace, change);
        }
    }
    return ERR_OK;
}

err_t replayer_init(struct replayer *replayer, const char *base_dir, struct errmsg *msg)
{
    *replayer = (struct replayer){.visitor.visit = replay_record};
    replayer->map = page_map_create(base_dir);
    err_t err = decoded_create(base_dir, replayer->map, &replayer->decoded, msg);
    if (err != ERR_OK) {
        replayer_deinit(replayer);
    }
    return err;
}

void replayer_deinit(struct replayer *replayer)
{
    decoded_destroy(replayer->decoded);
    page_map_destroy(replayer->map);
    *replayer = (struct replayer){.map = NULL};
}
