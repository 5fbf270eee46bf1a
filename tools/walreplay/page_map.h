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

/* The file that holds this page, if it exists; `to` has PATH_SIZE bytes. */
void page_file_path(const char *dir, struct page_key key, char *to);
/* Copies a page out of `dir`; zeros when the file does not reach that far. */
NODISCARD err_t
page_file_read(const char *dir, struct page_key key, uint8_t *to, struct errmsg *msg);

/* readdir() of a folder that may be missing (NULL). */
struct dirent *next_item(DIR *dir);
