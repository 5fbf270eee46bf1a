#include "tools/walreplay/decoded.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "pageserver/ingest/wal_decode.h"

/* A size or another state value: few enough for one growing table with linear probing. */
struct entry {
    struct page_key key;
    struct buf value;
    bool used;
};

struct decoded {
    struct wal_state_source source;
    struct wal_sink sink;
    struct wal_state *state;
    struct page_map *map;
    const char *base_dir;
    struct entry *entries;
    size_t count, capacity;
    struct decoded_version *versions;
    size_t version_count, version_capacity;
    struct buf values; /* of the versions; their `value` holds offsets until all are put */
};

static struct entry *find(const struct decoded *decoded, struct page_key key)
{
    uint64_t hash = ((uint64_t)key.rel << 32 | key.block) ^ (uint64_t)key.db << 20 ^
                    (uint64_t)key.spc << 40 ^ (uint64_t)key.fork << 60;
    hash *= 0x9E3779B97F4A7C15u;
    size_t at = (hash ^ hash >> 31) & (decoded->capacity - 1);
    while (decoded->entries[at].used && !page_key_equal(decoded->entries[at].key, key)) {
        at = (at + 1) & (decoded->capacity - 1);
    }
    return &decoded->entries[at];
}

static void put_entry(struct decoded *decoded, struct page_key key, struct bytes value)
{
    if ((decoded->count + 1) * 2 > decoded->capacity) {
        struct entry *old = decoded->entries;
        size_t old_capacity = decoded->capacity;
        decoded->capacity *= 2;
        decoded->entries = MEM_ARRAY(struct entry, decoded->capacity);
        for (size_t i = 0; i < old_capacity; i++) {
            if (old[i].used) {
                *find(decoded, old[i].key) = old[i];
            }
        }
        mem_free(old);
    }
    struct entry *entry = find(decoded, key);
    decoded->count += !entry->used;
    entry->used = true;
    entry->key = key;
    buf_clear(&entry->value);
    buf_append(&entry->value, value.data, value.size);
}

/* The size of a fork in a data directory: its segments. */
static bool file_blocks(const char *dir, struct page_key rel, uint32_t *ret_blocks)
{
    bool exists = false;
    *ret_blocks = 0;
    for (rel.block = 0;; rel.block += 131072) {
        char path[PATH_SIZE];
        struct stat stat_buf;
        page_file_path(dir, rel, path);
        if (stat(path, &stat_buf) != 0) {
            return exists;
        }
        exists = true;
        *ret_blocks += (uint32_t)(stat_buf.st_size / PAGE_SIZE);
    }
}

err_t decoded_rel_size(
    struct decoded *decoded, struct page_key rel, uint32_t *ret_blocks, struct errmsg *msg)
{
    (void)msg;
    const struct entry *entry = find(decoded, page_key_size_of(rel));
    if (entry->used) {
        if (entry->value.size != REL_SIZE_VALUE_SIZE - 1 || entry->value.data[0] == 0) {
            return ERR_NOT_FOUND;
        }
        memcpy(ret_blocks, entry->value.data + 1, sizeof(uint32_t));
        return ERR_OK;
    }
    bool exists = file_blocks(decoded->base_dir, rel, ret_blocks);
    uint8_t value[REL_SIZE_VALUE_SIZE - 1] = {exists}; /* remembered: the base does not change */
    memcpy(value + 1, ret_blocks, sizeof(uint32_t));
    put_entry(decoded, page_key_size_of(rel), bytes_of(value, sizeof(value)));
    return exists ? ERR_OK : ERR_NOT_FOUND;
}

static err_t source_rel_size(
    struct wal_state_source *source, struct page_key rel, uint32_t *ret_blocks, struct errmsg *msg)
{
    return decoded_rel_size(CONTAINER_OF(source, struct decoded, source), rel, ret_blocks, msg);
}

static err_t source_state(
    struct wal_state_source *source, struct page_key key, struct buf *to, struct errmsg *msg)
{
    struct decoded *decoded = CONTAINER_OF(source, struct decoded, source);
    const struct entry *entry = find(decoded, key);
    char path[PATH_SIZE];
    if (entry->used) {
        buf_append(to, entry->value.data, entry->value.size);
        return ERR_OK;
    }
    if (key.db == STATE_CONTROL) {
        (void)snprintf(path, sizeof(path), "%s/global/pg_control", decoded->base_dir);
    } else if (key.db == STATE_RELMAP && key.rel == 0) {
        (void)snprintf(path, sizeof(path), "%s/global/pg_filenode.map", decoded->base_dir);
    } else if (key.db == STATE_RELMAP) {
        (void)snprintf(
            path, sizeof(path), "%s/base/%u/pg_filenode.map", decoded->base_dir, key.rel);
    } else {
        return ERR_NOT_FOUND;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_set(msg, ERR_NOT_FOUND, "open %s: %m", path);
    }
    uint8_t *room = buf_extend(to, PAGE_SIZE);
    ssize_t got = read(fd, room, PAGE_SIZE);
    (void)close(fd);
    to->size -= (size_t)(PAGE_SIZE - MAX_OF(got, 0));
    return got > 0 ? ERR_OK : err_set(msg, ERR_IO, "read %s: %m", path);
}

struct visit {
    err_t (*visit)(struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg);
    void *context;
};

/* Relations of the base that nothing was put for yet. */
static err_t visit_files(
    struct decoded *decoded,
    uint32_t spc,
    uint32_t db,
    const struct visit *visit,
    struct errmsg *msg)
{
    static const char *const suffixes[FORK_COUNT] = {"", "_fsm", "_vm", "_init"};
    char folder[PATH_SIZE];
    page_file_path(decoded->base_dir, (struct page_key){.spc = spc, .db = db}, folder);
    *strrchr(folder, '/') = '\0';
    DIR *dir = opendir(folder);
    err_t err = ERR_OK;
    for (struct dirent *item = next_item(dir); item != NULL && err == ERR_OK;
         item = next_item(dir)) {
        char *end = NULL;
        struct page_key rel = {.spc = spc, .db = db};
        uint32_t blocks = 0;
        rel.rel = (uint32_t)strtoul(item->d_name, &end, 10);
        while (rel.fork < FORK_COUNT && strcmp(end, suffixes[rel.fork]) != 0) {
            rel.fork++;
        }
        if (end == item->d_name || rel.fork == FORK_COUNT ||
            find(decoded, page_key_size_of(rel))->used ||
            !file_blocks(decoded->base_dir, rel, &blocks)) {
            continue;
        }
        err = visit->visit(rel, blocks, visit->context, msg);
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return err;
}

static err_t source_relations(
    struct wal_state_source *source,
    uint32_t spc,
    uint32_t db,
    err_t (*visit)(struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg)
{
    struct decoded *decoded = CONTAINER_OF(source, struct decoded, source);
    struct visit visitor = {.visit = visit, .context = context};
    TRY(visit_files(decoded, spc, db, &visitor, msg));
    for (size_t i = 0; i < decoded->capacity; i++) {
        const struct entry *entry = &decoded->entries[i];
        uint32_t blocks = 0;
        if (!entry->used || entry->key.spc != spc || entry->key.db != db ||
            decoded_rel_size(decoded, entry->key, &blocks, msg) != ERR_OK) {
            continue;
        }
        struct page_key rel = entry->key;
        rel.block = 0;
        TRY(visit(rel, blocks, context, msg));
    }
    return ERR_OK;
}

static err_t source_page(
    struct wal_state_source *source, struct page_key key, uint8_t *to, struct errmsg *msg)
{
    struct decoded *decoded = CONTAINER_OF(source, struct decoded, source);
    char path[PATH_SIZE];
    page_file_path(decoded->base_dir, key, path);
    if (page_map_touched(decoded->map, key) == NULL && access(path, F_OK) != 0) {
        return ERR_NOT_FOUND;
    }
    uint8_t *page = NULL;
    TRY(page_map_page(decoded->map, key, &page, msg));
    memcpy(to, page, PAGE_SIZE);
    return ERR_OK;
}

static void sink_put(
    struct wal_sink *sink,
    struct page_key key,
    uint8_t tag,
    uint8_t block_index,
    struct bytes value)
{
    struct decoded *decoded = CONTAINER_OF(sink, struct decoded, sink);
    if (decoded->version_count == decoded->version_capacity) {
        decoded->version_capacity = MAX_OF((size_t)64, decoded->version_capacity * 2);
        decoded->versions =
            mem_realloc(decoded->versions, decoded->version_capacity * sizeof(*decoded->versions));
    }
    bool is_record = tag == VALUE_INIT || tag == VALUE_DELTA;
    decoded->versions[decoded->version_count++] = (struct decoded_version){
        .key = key,
        .tag = tag,
        .block_index = block_index,
        .value = {.data = NULL, .size = is_record ? 0 : value.size},
    };
    if (!is_record && value.size > 0) {
        buf_append(&decoded->values, value.data, value.size);
    }
}

err_t decoded_create(
    const char *base_dir, struct page_map *map, struct decoded **ret_decoded, struct errmsg *msg)
{
    struct decoded *decoded = MEM_NEW(struct decoded);
    decoded->source = (struct wal_state_source){
        .rel_size = source_rel_size,
        .state = source_state,
        .relations = source_relations,
        .page = source_page,
    };
    decoded->sink.put = sink_put;
    decoded->map = map;
    decoded->base_dir = base_dir;
    decoded->capacity = 1 << 14;
    decoded->entries = MEM_ARRAY(struct entry, decoded->capacity);
    err_t err = wal_state_create(&decoded->source, &decoded->state, msg);
    if (err != ERR_OK) {
        decoded_destroy(decoded);
        return err;
    }
    *ret_decoded = decoded;
    return ERR_OK;
}

void decoded_destroy(struct decoded *decoded)
{
    if (decoded == NULL) {
        return;
    }
    wal_state_destroy(decoded->state);
    for (size_t i = 0; i < decoded->capacity; i++) {
        buf_deinit(&decoded->entries[i].value);
    }
    mem_free(decoded->entries);
    mem_free(decoded->versions);
    buf_deinit(&decoded->values);
    mem_free(decoded);
}

err_t decoded_record(
    struct decoded *decoded,
    const struct wal_record *record,
    const struct decoded_version **ret_versions,
    size_t *ret_count,
    struct errmsg *msg)
{
    decoded->version_count = 0;
    buf_clear(&decoded->values);
    TRY(wal_decode(decoded->state, record, &decoded->sink, msg));
    size_t at = 0;
    for (size_t i = 0; i < decoded->version_count; i++) {
        decoded->versions[i].value.data = decoded->values.data + at;
        at += decoded->versions[i].value.size;
    }
    *ret_versions = decoded->versions;
    *ret_count = decoded->version_count;
    return ERR_OK;
}

void decoded_apply_state(struct decoded *decoded, const struct decoded_version *version)
{
    if (version->key.block == KEY_BLOCK_SIZE && version->key.spc != KEY_SPC_STATE &&
        version->value.size == REL_SIZE_VALUE_SIZE - 1) {
        uint32_t blocks = 0;
        memcpy(&blocks, version->value.data + 1, sizeof(blocks));
        blocks = version->value.data[0] != 0 ? blocks : 0;
        uint32_t old_blocks = 0;
        bool existed = decoded_rel_size(decoded, version->key, &old_blocks, NULL) == ERR_OK;
        if (existed && blocks < old_blocks) {
            struct page_key rel = version->key;
            rel.block = blocks;
            page_map_truncate(decoded->map, rel, blocks);
        }
    }
    put_entry(decoded, version->key, version->value);
}

/* pg_filenode.map of a database in one of its tablespaces, or of the cluster. */
static void relmap_path(const char *dir, struct page_key key, char *to)
{
    if (key.rel == 0) {
        (void)snprintf(to, PATH_SIZE, "%s/global/pg_filenode.map", dir);
        return;
    }
    page_file_path(dir, (struct page_key){.spc = key.block, .db = key.rel}, to);
    char *name = strrchr(to, '/') + 1;
    (void)snprintf(name, (size_t)(to + PATH_SIZE - name), "pg_filenode.map");
}

static bool relmap_is_same(const struct entry *entry, const char *twin_dir)
{
    char path[PATH_SIZE];
    uint8_t file[PAGE_SIZE];
    relmap_path(twin_dir, entry->key, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return entry->value.size == 0;
    }
    ssize_t got = read(fd, file, sizeof(file));
    (void)close(fd);
    return got > 0 && (size_t)got == entry->value.size &&
           memcmp(file, entry->value.data, entry->value.size) == 0;
}

err_t decoded_compare_sizes(
    struct decoded *decoded, const char *twin_dir, uint64_t *ret_different, struct errmsg *msg)
{
    uint64_t different = 0;
    for (size_t i = 0; i < decoded->capacity; i++) {
        const struct entry *entry = &decoded->entries[i];
        uint32_t ours = 0;
        uint32_t theirs = 0;
        if (entry->used && entry->key.spc == KEY_SPC_STATE && entry->key.db == STATE_RELMAP &&
            !relmap_is_same(entry, twin_dir)) {
            printf("map of catalogs: %s differs\n", page_key_text(entry->key).text);
            different++;
        }
        if (!entry->used || entry->key.spc == KEY_SPC_STATE || entry->key.fork == FORK_FSM ||
            entry->key.block != KEY_BLOCK_SIZE) {
            continue;
        }
        bool exists = decoded_rel_size(decoded, entry->key, &ours, msg) == ERR_OK;
        bool has_file = file_blocks(twin_dir, entry->key, &theirs);
        bool both_empty = ours == 0 && theirs == 0;
        if (both_empty || (exists == has_file && ours == theirs)) {
            continue;
        }
        different++;
        if (different <= 20) {
            printf(
                "size: %s: ours %s %u, twin %s %u\n", page_key_text(entry->key).text,
                exists ? "exists" : "none", ours, has_file ? "exists" : "none", theirs);
        }
    }
    *ret_different = different;
    return ERR_OK;
}
