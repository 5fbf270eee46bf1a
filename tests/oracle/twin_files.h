/*
 * twin_files.h - the relation forks of a data directory that Postgres left, and their pages.
 *
 * Left out are free space maps (hints that are never logged) and temporary relations. Nothing is
 * cached but one open file. Trouble with the directory ends the program. One thread.
 */
#pragma once

#include "common/pg/page.h"
#include "common/pg/page_key.h"

struct fork_list {
    struct fork_item {
        struct page_key key; /* block 0 */
        uint32_t blocks;
    } * items;
    size_t count, capacity;
};

void fork_list_add(struct fork_list *list, struct page_key key, uint32_t blocks);
void fork_list_sort(struct fork_list *list);
/* Lines "SPC DB REL FORK BLOCKS"; appended. Free space maps are left out. */
void fork_list_read(struct fork_list *list, const char *path);
void fork_list_write(const struct fork_list *list, const char *path);
/* The item with this key, or NULL; the list must be sorted. */
const struct fork_item *fork_list_find(const struct fork_list *list, struct page_key key);
void fork_list_deinit(struct fork_list *list);

/* Every fork below `dir`, sorted. */
void twin_files_list(const char *dir, struct fork_list *list);

/* One page of one fork; false when the file ends before it. */
bool twin_files_read(const char *dir, struct page_key key, uint8_t page[PAGE_SIZE]);
