#include "tools/walreplay/page_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/mem.h"

#define SEGMENT_BLOCKS      131072u
#define SLRU_SEGMENT_BLOCKS 32u
#define SPC_DEFAULT         1663u
#define SPC_GLOBAL          1664u
#define TABLESPACE_VERSION  "PG_17_202406281"

struct entry {
    struct page_key key;
    uint8_t *page; /* NULL: free slot */
};

struct page_map {
    const char *base_dir;
    struct entry *entries;
    size_t count, capacity; /* a power of two */
};

struct page_map *page_map_create(const char *base_dir)
{
    struct page_map *map = MEM_NEW(struct page_map);
    map->base_dir = base_dir;
    map->capacity = 1 << 16;
    map->entries = MEM_ARRAY(struct entry, map->capacity);
    return map;
}

void page_map_destroy(struct page_map *map)
{
    if (map == NULL) {
        return;
    }
    for (size_t i = 0; i < map->capacity; i++) {
        mem_free(map->entries[i].page);
    }
    mem_free(map->entries);
    mem_free(map);
}

static uint64_t key_hash(struct page_key key)
{
    uint64_t hash = (uint64_t)key.rel << 32 | key.block;
    hash ^= (uint64_t)key.db << 17 ^ (uint64_t)key.spc << 45 ^ (uint64_t)key.fork << 61;
    hash *= 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 29;
}

static struct entry *find(const struct page_map *map, struct page_key key)
{
    size_t at = key_hash(key) & (map->capacity - 1);
    while (map->entries[at].page != NULL && !page_key_equal(map->entries[at].key, key)) {
        at = (at + 1) & (map->capacity - 1);
    }
    return &map->entries[at];
}

static void grow(struct page_map *map)
{
    struct entry *old = map->entries;
    size_t old_capacity = map->capacity;
    map->capacity *= 2;
    map->entries = MEM_ARRAY(struct entry, map->capacity);
    for (size_t i = 0; i < old_capacity; i++) {
        if (old[i].page != NULL) {
            *find(map, old[i].key) = old[i];
        }
    }
    mem_free(old);
}

static const char *slru_folder(uint32_t kind)
{
    switch (kind) {
    case STATE_CLOG: return "pg_xact";
    case STATE_MULTI_OFFSETS: return "pg_multixact/offsets";
    case STATE_MULTI_MEMBERS: return "pg_multixact/members";
    case STATE_COMMIT_TS: return "pg_commit_ts";
    default: return "no_such_folder";
    }
}

void page_file_path(const char *dir, struct page_key key, char *to)
{
    static const char *const suffixes[FORK_COUNT] = {"", "_fsm", "_vm", "_init"};
    char segment[16] = "";
    if (key.spc == KEY_SPC_STATE) {
        (void)snprintf(
            to, PATH_SIZE, "%s/%s/%04X", dir, slru_folder(key.db), key.block / SLRU_SEGMENT_BLOCKS);
        return;
    }
    const char *fork = key.fork < FORK_COUNT ? suffixes[key.fork] : "_none";
    if (key.block >= SEGMENT_BLOCKS) {
        (void)snprintf(segment, sizeof(segment), ".%u", key.block / SEGMENT_BLOCKS);
    }
    if (key.spc == SPC_GLOBAL) {
        (void)snprintf(to, PATH_SIZE, "%s/global/%u%s%s", dir, key.rel, fork, segment);
    } else if (key.spc == SPC_DEFAULT) {
        (void)snprintf(to, PATH_SIZE, "%s/base/%u/%u%s%s", dir, key.db, key.rel, fork, segment);
    } else {
        (void)snprintf(
            to, PATH_SIZE, "%s/pg_tblspc/%u/%s/%u/%u%s%s", dir, key.spc, TABLESPACE_VERSION, key.db,
            key.rel, fork, segment);
    }
}

err_t page_file_read(const char *dir, struct page_key key, uint8_t *to, struct errmsg *msg)
{
    char path[PATH_SIZE];
    page_file_path(dir, key, path);
    memset(to, 0, PAGE_SIZE);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT || errno == ENOTDIR ? ERR_OK
                                                   : err_set(msg, ERR_IO, "open %s: %m", path);
    }
    uint32_t per_segment = key.spc == KEY_SPC_STATE ? SLRU_SEGMENT_BLOCKS : SEGMENT_BLOCKS;
    ssize_t got = pread(fd, to, PAGE_SIZE, (off_t)(key.block % per_segment) * PAGE_SIZE);
    (void)close(fd);
    return got >= 0 ? ERR_OK : err_set(msg, ERR_IO, "read %s: %m", path);
}

err_t page_map_page(
    struct page_map *map, struct page_key key, uint8_t **ret_page, struct errmsg *msg)
{
    struct entry *entry = find(map, key);
    if (entry->page == NULL) {
        uint8_t *page = mem_alloc(PAGE_SIZE);
        err_t err = page_file_read(map->base_dir, key, page, msg);
        if (err != ERR_OK) {
            mem_free(page);
            return err;
        }
        *entry = (struct entry){.key = key, .page = page};
        map->count++;
        *ret_page = page;
        if (map->count * 2 > map->capacity) {
            grow(map);
        }
        return ERR_OK;
    }
    *ret_page = entry->page;
    return ERR_OK;
}

const uint8_t *page_map_touched(const struct page_map *map, struct page_key key)
{
    return find(map, key)->page;
}

void page_map_truncate(struct page_map *map, struct page_key rel, uint32_t blocks)
{
    for (size_t i = 0; i < map->capacity; i++) {
        struct entry *entry = &map->entries[i];
        struct page_key key = entry->key;
        key.block = rel.block;
        if (entry->page != NULL && page_key_equal(key, rel) && entry->key.block >= blocks) {
            memset(entry->page, 0, PAGE_SIZE);
        }
    }
}

bool page_file_parse(const char *name, struct page_key *key)
{
    static const char *const suffixes[FORK_COUNT] = {"", "_fsm", "_vm", "_init"};
    char *end = NULL;
    key->rel = (uint32_t)strtoul(name, &end, 10);
    if (end == name) {
        return false;
    }
    key->fork = FORK_MAIN;
    for (uint8_t fork = 1; fork < FORK_COUNT; fork++) {
        if (strncmp(end, suffixes[fork], strlen(suffixes[fork])) == 0) {
            key->fork = fork;
            end += strlen(suffixes[fork]);
        }
    }
    key->block = *end == '.' ? (uint32_t)strtoul(end + 1, &end, 10) * SEGMENT_BLOCKS : 0;
    return *end == '\0';
}

static err_t copy_page(
    struct page_map *map, struct page_key from, struct page_key to, struct errmsg *msg)
{
    uint8_t copy[PAGE_SIZE];
    uint8_t *page = NULL;
    to.rel = from.rel;
    to.fork = from.fork;
    to.block = from.block;
    TRY(page_map_page(map, from, &page, msg));
    memcpy(copy, page, PAGE_SIZE);
    TRY(page_map_page(map, to, &page, msg));
    memcpy(page, copy, PAGE_SIZE);
    return ERR_OK;
}

/* Pages that only the base directory has: after this they are touched. */
static err_t load_file(
    struct page_map *map, const char *path, struct page_key key, struct errmsg *msg)
{
    struct stat file;
    uint8_t *page = NULL;
    if (stat(path, &file) != 0) {
        return err_set(msg, ERR_IO, "stat %s: %m", path);
    }
    for (off_t at = 0; at < file.st_size; at += PAGE_SIZE, key.block++) {
        TRY(page_map_page(map, key, &page, msg));
    }
    return ERR_OK;
}

static err_t load_database(struct page_map *map, struct page_key from, struct errmsg *msg)
{
    char folder[PATH_SIZE];
    page_file_path(map->base_dir, from, folder);
    *strrchr(folder, '/') = '\0';
    DIR *dir = opendir(folder);
    err_t err = ERR_OK;
    for (struct dirent *item = next_item(dir); item != NULL && err == ERR_OK;
         item = next_item(dir)) {
        char path[PATH_SIZE];
        struct page_key key = from;
        if (page_file_parse(item->d_name, &key) && key.fork != FORK_FSM &&
            snprintf(path, sizeof(path), "%s/%s", folder, item->d_name) < PATH_SIZE) {
            err = load_file(map, path, key, msg);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return err;
}

err_t page_map_copy_database(
    struct page_map *map, struct page_key from, struct page_key to, struct errmsg *msg)
{
    TRY(load_database(map, from, msg));
    struct page_key *keys = MEM_ARRAY(struct page_key, map->count + 1);
    size_t count = 0;
    for (size_t i = 0; i < map->capacity; i++) {
        const struct page_key *key = &map->entries[i].key;
        if (map->entries[i].page != NULL && key->spc == from.spc && key->db == from.db) {
            keys[count++] = *key;
        }
    }
    err_t err = ERR_OK;
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        err = copy_page(map, keys[i], to, msg);
    }
    mem_free(keys);
    return err;
}

struct dirent *next_item(DIR *dir)
{
    return dir != NULL ? readdir(dir) : NULL; // NOLINT(concurrency-mt-unsafe): there is one thread
}
