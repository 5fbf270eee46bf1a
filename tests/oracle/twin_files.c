#include "tests/oracle/twin_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "common/pg/pg_version.h"

#define SEGMENT_BLOCKS 131072u
#define PATH_MAX_SIZE  4096

_Noreturn static void fail(const char *what, const char *path)
{
    (void)fprintf(stderr, "getpage_compare: %s %s: %m\n", what, path);
    exit(2);
}

void fork_list_add(struct fork_list *list, struct page_key key, uint32_t blocks)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 1024 : 2 * list->capacity;
        list->items = mem_realloc(list->items, list->capacity * sizeof(list->items[0]));
    }
    list->items[list->count++] = (struct fork_item){.key = key, .blocks = blocks};
}

static int by_key(const void *a, const void *b)
{
    const struct fork_item *left = a;
    const struct fork_item *right = b;
    uint8_t left_key[PAGE_KEY_SIZE];
    uint8_t right_key[PAGE_KEY_SIZE];
    page_key_encode(0, left->key, 0, left_key);
    page_key_encode(0, right->key, 0, right_key);
    return memcmp(left_key, right_key, sizeof(left_key));
}

void fork_list_sort(struct fork_list *list)
{
    if (list->count > 0) {
        qsort(list->items, list->count, sizeof(list->items[0]), by_key);
    }
}

void fork_list_read(struct fork_list *list, const char *path)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fail("open", path);
    }
    char line[128];
    while (fgets(line, sizeof(line), file) != NULL) {
        uint32_t field[5];
        char *at = line;
        for (size_t i = 0; i < ARRAY_LEN(field); i++) {
            char *begin = at;
            field[i] = (uint32_t)strtoul(begin, &at, 10);
            if (at == begin) {
                fail("not a line of relations in", path);
            }
        }
        struct page_key key = {
            .spc = field[0], .db = field[1], .rel = field[2], .fork = (uint8_t)field[3]};
        if (key.fork != FORK_FSM) {
            fork_list_add(list, key, field[4]);
        }
    }
    (void)fclose(file);
}

void fork_list_write(const struct fork_list *list, const char *path)
{
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        fail("create", path);
    }
    for (size_t i = 0; i < list->count; i++) {
        struct page_key key = list->items[i].key;
        fprintf(
            file, "%" PRIu32 " %" PRIu32 " %" PRIu32 " %d %" PRIu32 "\n", key.spc, key.db, key.rel,
            key.fork, list->items[i].blocks);
    }
    if (fclose(file) != 0) {
        fail("write", path);
    }
}

const struct fork_item *fork_list_find(const struct fork_list *list, struct page_key key)
{
    struct fork_item wanted = {.key = key};
    return list->count == 0
               ? NULL
               : bsearch(&wanted, list->items, list->count, sizeof(list->items[0]), by_key);
}

void fork_list_deinit(struct fork_list *list)
{
    mem_free(list->items);
    *list = (struct fork_list){0};
}

/* -- the directory -- */

static const char *const suffixes[FORK_COUNT] = {"", "_fsm", "_vm", "_init"};

/* "16384", "16384_vm", "16384_init", each with ".1" and so on behind; false: none of them. */
static bool parse_relation(const char *name, struct page_key *key, uint32_t *ret_segment)
{
    char *end = NULL;
    *ret_segment = 0;
    key->rel = (uint32_t)strtoul(name, &end, 10);
    if (end == name || name[0] < '0' || name[0] > '9') {
        return false;
    }
    size_t size = strcspn(end, ".");
    for (key->fork = 0; key->fork < FORK_COUNT; key->fork++) {
        if (strlen(suffixes[key->fork]) == size && strncmp(end, suffixes[key->fork], size) == 0) {
            break;
        }
    }
    if (key->fork == FORK_COUNT || key->fork == FORK_FSM) {
        return false;
    }
    *ret_segment = end[size] == '.' ? (uint32_t)strtoul(end + size + 1, &end, 10) : 0;
    return true;
}

static struct dirent *next_item(DIR *dir)
{
    return dir == NULL ? NULL : readdir(dir); /* NOLINT(concurrency-mt-unsafe): one thread */
}

static void list_relations(const char *folder, uint32_t spc, uint32_t db, struct fork_list *list)
{
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        fail("open", folder);
    }
    for (struct dirent *item = next_item(dir); item != NULL; item = next_item(dir)) {
        struct page_key key = {.spc = spc, .db = db};
        uint32_t segment;
        char path[PATH_MAX_SIZE];
        struct stat status;
        if (!parse_relation(item->d_name, &key, &segment)) {
            continue;
        }
        (void)snprintf(path, sizeof(path), "%s/%s", folder, item->d_name);
        if (stat(path, &status) != 0) {
            fail("stat", path);
        }
        fork_list_add(list, key, (uint32_t)(status.st_size / PAGE_SIZE));
    }
    (void)closedir(dir);
}

/* Calls list_relations for each database folder below `parent`. */
static void list_databases(const char *parent, uint32_t spc, struct fork_list *list)
{
    DIR *dir = opendir(parent);
    for (struct dirent *item = next_item(dir); item != NULL; item = next_item(dir)) {
        char path[PATH_MAX_SIZE];
        uint32_t db = (uint32_t)strtoul(item->d_name, NULL, 10);
        if (db != 0) {
            (void)snprintf(path, sizeof(path), "%s/%s", parent, item->d_name);
            list_relations(path, spc, db, list);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
}

static void list_tablespaces(const char *data_dir, struct fork_list *list)
{
    char parent[PATH_MAX_SIZE];
    (void)snprintf(parent, sizeof(parent), "%s/pg_tblspc", data_dir);
    DIR *dir = opendir(parent);
    for (struct dirent *item = next_item(dir); item != NULL; item = next_item(dir)) {
        char path[2 * PATH_MAX_SIZE];
        uint32_t spc = (uint32_t)strtoul(item->d_name, NULL, 10);
        if (spc != 0) {
            (void)snprintf(path, sizeof(path), "%s/%s/" PG_TABLESPACE_DIR, parent, item->d_name);
            list_databases(path, spc, list);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
}

/* The segments of a fork are neighbours after sorting: one item, their sizes added. */
static void join_segments(struct fork_list *list)
{
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (kept > 0 && page_key_equal(list->items[kept - 1].key, list->items[i].key)) {
            list->items[kept - 1].blocks += list->items[i].blocks;
        } else {
            list->items[kept++] = list->items[i];
        }
    }
    list->count = kept;
}

void twin_files_list(const char *dir, struct fork_list *list)
{
    char path[PATH_MAX_SIZE];
    (void)snprintf(path, sizeof(path), "%s/global", dir);
    list_relations(path, PG_SPC_GLOBAL, 0, list);
    (void)snprintf(path, sizeof(path), "%s/base", dir);
    list_databases(path, PG_SPC_DEFAULT, list);
    list_tablespaces(dir, list);
    fork_list_sort(list);
    join_segments(list);
}

static void relation_path(const char *dir, struct page_key key, char path[PATH_MAX_SIZE])
{
    char folder[128];
    uint32_t segment = key.block / SEGMENT_BLOCKS;
    if (key.spc == PG_SPC_GLOBAL) {
        (void)snprintf(folder, sizeof(folder), "global");
    } else if (key.spc == PG_SPC_DEFAULT) {
        (void)snprintf(folder, sizeof(folder), "base/%" PRIu32, key.db);
    } else {
        (void)snprintf(
            folder, sizeof(folder), "pg_tblspc/%" PRIu32 "/" PG_TABLESPACE_DIR "/%" PRIu32, key.spc,
            key.db);
    }
    int size = snprintf(
        path, PATH_MAX_SIZE, "%s/%s/%" PRIu32 "%s", dir, folder, key.rel, suffixes[key.fork]);
    if (segment > 0) {
        (void)snprintf(path + size, PATH_MAX_SIZE - (size_t)size, ".%" PRIu32, segment);
    }
}

bool twin_files_read(const char *dir, struct page_key key, uint8_t page[PAGE_SIZE])
{
    static char open_path[PATH_MAX_SIZE];
    static int fd = -1;
    char path[PATH_MAX_SIZE];
    relation_path(dir, key, path);
    if (fd < 0 || strcmp(path, open_path) != 0) {
        if (fd >= 0) {
            (void)close(fd);
        }
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            fail("open", path);
        }
        (void)snprintf(open_path, sizeof(open_path), "%s", path);
    }
    off_t at = (off_t)(key.block % SEGMENT_BLOCKS) * PAGE_SIZE;
    return pread(fd, page, PAGE_SIZE, at) == PAGE_SIZE;
}
