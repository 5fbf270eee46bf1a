/*
 * redo_pair.h - a page and a record that is applied to it: the input of fuzz_redo, and what
 * `walreplay --pairs` writes.
 *
 *   u8 'P' or 'Q', u8 block index, u8 fork, u8 0, u32 spc, db, rel, block, u64 begin, end LSN;
 *   the page; the record
 *
 * In a 'P' the page is 8192 bytes. In a 'Q' it is runs: u16 zeros, u16 other bytes, those bytes; as
 * many runs as make a page.
 */
#pragma once

#include "common/pg/page.h"
#include "common/pg/page_key.h"

#define PAIR_HEADER_SIZE 36

struct redo_pair {
    uint8_t block_index;
    struct page_key key;
    lsn_t begin_lsn, end_lsn;
    uint8_t page[PAGE_SIZE];
    struct bytes record; /* points into the input */
};

bool redo_pair_read(struct bytes input, struct redo_pair *ret_pair);

/* Appends it as a 'Q'. */
void redo_pair_write(const struct redo_pair *pair, struct buf *to);
