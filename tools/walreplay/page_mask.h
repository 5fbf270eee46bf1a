/*
 * page_mask.h - make two pages comparable that a primary and its replay may have differently.
 *
 * A primary sets hint bits without logging them, and clears no hole. What is masked is what the
 * rm_mask functions of Postgres 17 mask, less what should be equal:
 *
 *   visibility map   compared whole; heap_mask takes all of its bits for a hole
 *   PD_ALL_VISIBLE   compared: our replay never skips a record because of a page's LSN
 *   heap infomask    only the four hint bits and the combo command id are masked; Postgres also
 * masks locks, multixact and update flags of tuples that are not frozen BRIN, SP-GiST    as there:
 * the hole of a revmap page is its contents, and is compared
 *
 * In one place it is more than there: the combo command id of a frozen tuple, which redo never
 * knows (COPY FREEZE and DELETE in one transaction).
 */
#pragma once

#include "common/pg/page.h"
#include "common/pg/wal_record.h"

/* Whose page this is, by its special space: RM_HEAP when it has none. */
uint8_t page_rmgr(const uint8_t *page);

void page_mask(uint8_t *page, uint8_t rmgr, struct page_key key);
