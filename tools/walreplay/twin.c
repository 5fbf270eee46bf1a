#include "tools/walreplay/twin.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "tools/walreplay/page_mask.h"

#define SHOWN_MAX 20

struct compare {
    const struct twin_options *options;
    struct page_map *map;
    struct twin_result result;
    struct errmsg *msg;
};

static void show_difference(
    struct compare *compare, struct page_key key, const uint8_t *ours, const uint8_t *theirs)
{
    size_t first = 0;
    size_t last = PAGE_SIZE;
    size_t count = 0;
    for (size_t i = 0; i < PAGE_SIZE; i++) {
        if (ours[i] != theirs[i]) {
            first = count == 0 ? i : first;
            last = i;
            count++;
        }
    }
    if (++compare->result.different > SHOWN_MAX) {
        return;
    }
    printf(
        "different: %s, %zu bytes in %zu..%zu; lsn ours " LSN_FMT " twin " LSN_FMT
        ", lower %u/%u upper %u/%u%s\n",
        page_key_text(key).text, count, first, last, LSN_ARGS(page_lsn(ours)),
        LSN_ARGS(page_lsn(theirs)), page_u16(ours, PAGE_LOWER), page_u16(theirs, PAGE_LOWER),
        page_u16(ours, PAGE_UPPER), page_u16(theirs, PAGE_UPPER),
        page_map_touched(compare->map, key) != NULL ? "" : " (not touched)");
    for (size_t i = first; i <= last && i < first + 16; i++) {
        printf(" %zu:%02x/%02x", i, ours[i], theirs[i]);
    }
    printf("\n");
}

/* What a primary writes without a record, or not as the record has it. */
static void mask_unlogged(uint8_t *page, struct page_key key)
{
    enum { SPGIST_CACHE = PAGE_HEADER_SIZE + 4, SPGIST_CACHE_END = SPGIST_CACHE + 64 };
    uint8_t rmgr = page_rmgr(page);
    if (rmgr == RM_SEQ) { /* the WAL is 32 values ahead */
        memset(page, 0, PAGE_SIZE);
        return;
    }
    if (rmgr == RM_SPGIST && key.block == 0) { /* where there was room last */
        memset(page + SPGIST_CACHE, 0, SPGIST_CACHE_END - SPGIST_CACHE);
    }
    page_mask(page, rmgr, key);
}

static err_t compare_page(struct compare *compare, struct page_key key, uint8_t *theirs)
{
    uint8_t base[PAGE_SIZE];
    uint8_t ours[PAGE_SIZE];
    const uint8_t *touched = page_map_touched(compare->map, key);
    if (touched == NULL) {
        TRY(page_file_read(compare->options->base_dir, key, base, compare->msg));
        touched = base;
    }
    compare->result.pages++;
    memcpy(ours, touched, PAGE_SIZE);
    if (key.spc != KEY_SPC_STATE) {
        page_set_u16(ours, PAGE_CHECKSUM, 0);
        page_set_u16(theirs, PAGE_CHECKSUM, 0);
    }
    if (compare->options->ignores_vm_lsn && key.fork == FORK_VM && !page_is_new(ours)) {
        page_set_lsn(ours, page_lsn(theirs));
    }
    if (compare->options->masks && key.spc != KEY_SPC_STATE) {
        mask_unlogged(ours, key);
        mask_unlogged(theirs, key);
    }
    if (memcmp(ours, theirs, PAGE_SIZE) != 0) {
        show_difference(compare, key, ours, theirs);
    }
    return ERR_OK;
}

static err_t compare_file(struct compare *compare, const char *path, struct page_key key)
{
    uint8_t page[PAGE_SIZE];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_set(compare->msg, ERR_IO, "open %s: %m", path);
    }
    compare->result.files++;
    err_t err = ERR_OK;
    while (err == ERR_OK && read(fd, page, PAGE_SIZE) == PAGE_SIZE) {
        err = compare_page(compare, key, page);
        key.block++;
    }
    (void)close(fd);
    return err;
}

static bool exists(const char *folder, unsigned rel, const char *suffix)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%s/%u%s", folder, rel, suffix);
    return access(path, F_OK) == 0;
}

static err_t compare_folder(
    struct compare *compare, const char *folder, uint32_t spc, uint32_t db, uint32_t slru)
{
    DIR *dir = opendir(folder);
    err_t err = ERR_OK;
    for (struct dirent *item = next_item(dir); item != NULL && err == ERR_OK;
         item = next_item(dir)) {
        char path[PATH_SIZE];
        struct page_key key = {.spc = spc, .db = db};
        if (item->d_name[0] == '.' ||
            snprintf(path, sizeof(path), "%s/%s", folder, item->d_name) >= PATH_SIZE) {
            continue;
        }
        if (slru != 0) {
            key = page_key_state(slru, 0, (uint32_t)strtoul(item->d_name, NULL, 16) * 32);
        } else if (
            !page_file_parse(item->d_name, &key) || key.fork == FORK_FSM ||
            (key.fork != FORK_INIT && exists(folder, key.rel, "_init"))) {
            continue;
        }
        err = compare_file(compare, path, key);
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return err;
}

/* Folders of databases below `parent`: base/5, pg_tblspc/16390/PG_17_202406281/5. */
static err_t compare_databases(struct compare *compare, const char *parent, uint32_t spc)
{
    DIR *dir = opendir(parent);
    err_t err = ERR_OK;
    for (struct dirent *item = next_item(dir); item != NULL && err == ERR_OK;
         item = next_item(dir)) {
        char path[PATH_SIZE];
        uint32_t db = (uint32_t)strtoul(item->d_name, NULL, 10);
        if (db != 0 && snprintf(path, sizeof(path), "%s/%s", parent, item->d_name) < PATH_SIZE) {
            err = compare_folder(compare, path, spc, db, 0);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return err;
}

static err_t compare_tablespaces(struct compare *compare)
{
    char parent[PATH_SIZE];
    (void)snprintf(parent, sizeof(parent), "%s/pg_tblspc", compare->options->twin_dir);
    DIR *dir = opendir(parent);
    err_t err = ERR_OK;
    for (struct dirent *item = next_item(dir); item != NULL && err == ERR_OK;
         item = next_item(dir)) {
        char path[PATH_SIZE];
        uint32_t spc = (uint32_t)strtoul(item->d_name, NULL, 10);
        if (spc != 0 &&
            snprintf(path, sizeof(path), "%s/%s/PG_17_202406281", parent, item->d_name) <
                PATH_SIZE) {
            err = compare_databases(compare, path, spc);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return err;
}

err_t twin_compare(
    const struct twin_options *options,
    struct page_map *map,
    struct twin_result *ret_result,
    struct errmsg *msg)
{
    char path[PATH_SIZE];
    const char *twin_dir = options->twin_dir;
    struct compare compare = {.options = options, .map = map, .msg = msg};
    const struct {
        const char *folder;
        uint32_t kind;
    } slrus[] = {
        {"pg_xact", STATE_CLOG},
        {"pg_multixact/offsets", STATE_MULTI_OFFSETS},
        {"pg_multixact/members", STATE_MULTI_MEMBERS},
        {"pg_commit_ts", STATE_COMMIT_TS},
    };
    (void)snprintf(path, sizeof(path), "%s/global", twin_dir);
    TRY(compare_folder(&compare, path, 1664, 0, 0));
    (void)snprintf(path, sizeof(path), "%s/base", twin_dir);
    TRY(compare_databases(&compare, path, 1663));
    TRY(compare_tablespaces(&compare));
    for (size_t i = 0; i < ARRAY_LEN(slrus); i++) {
        if (slrus[i].kind == STATE_COMMIT_TS && !options->commit_ts) {
            continue;
        }
        (void)snprintf(path, sizeof(path), "%s/%s", twin_dir, slrus[i].folder);
        TRY(compare_folder(&compare, path, 0, 0, slrus[i].kind));
    }
    *ret_result = compare.result;
    return ERR_OK;
}
