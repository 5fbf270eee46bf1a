/*
 * page_mask.h - make two pages comparable that a primary and its replay may have differently.
 *
 * A primary sets hint bits without logging them, and clears no hole. What is masked is what the
 * rm_mask functions of Postgres 17 mask, less what should be equal: visibility map pages are
 * compared whole (Postgres' own check overlooks all of their bits), so is PD_ALL_VISIBLE.
 */
#pragma once

#include "common/pg/page.h"
#include "common/pg/wal_record.h"

void page_mask(uint8_t *page, uint8_t rmgr, struct page_key key);
