/*
 * page_map.h - every page that replay has touched, over a data directory that stays as it is.
 *
 * A page that was not touched comes from the base directory; one that is not there either is zeros.
 * Also finds files: relation segments, SLRU segments. Threads: one owner.
 */
#pragma once

#include <dirent.h>

#include "common/pg/page.h"
#include "common/pg/page_key.h"

#define PATH_SIZE 4096

struct page_map;

struct page_map *page_map_create(const char *base_dir);
void page_map_destroy(struct page_map *map);

/* The page, to be read and changed in place. */
NODISCARD err_t
page_map_page(struct page_map *map, struct page_key key, uint8_t **ret_page, struct errmsg *msg);
/* NULL: not touched. */
const uint8_t *page_map_touched(const struct page_map *map, struct page_key key);
/* The relation fork now ends before `blocks`: touched pages behind are zeros again. */
void page_map_truncate(struct page_map *map, struct page_key rel, uint32_t blocks);

/*
 * Every page of database {from.spc, from.db} becomes one of {to.spc, to.db}, too. Free space maps
 * are left out. What the base directory has of relations that are gone is copied with the rest:
 * nobody compares it.
 */
NODISCARD err_t page_map_copy_database(
    struct page_map *map, struct page_key from, struct page_key to, struct errmsg *msg);

/* The file that holds this page, if it exists; `to` has PATH_SIZE bytes. */
void page_file_path(const char *dir, struct page_key key, char *to);
/* Copies a page out of `dir`; zeros when the file does not reach that far. */
NODISCARD err_t
page_file_read(const char *dir, struct page_key key, uint8_t *to, struct errmsg *msg);

/* "16384", "16384_vm", "16384_init", each with ".1" and so on: sets rel, fork and the first block.
 */
bool page_file_parse(const char *name, struct page_key *key);

/* readdir() of a folder that may be missing (NULL). */
struct dirent *next_item(DIR *dir);
