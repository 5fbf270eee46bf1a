/*
 * page_text.h - one page in words: header, line pointers, what the items say, special space.
 *
 * The kind of page is recognised as Postgres' own tools do it, by the size of the special space and
 * the id in its last two bytes (src/include/access: nbtree.h, hash.h, gist_private.h,
 * spgist_private.h, ginblock.h, brin_page.h; sequences: commands/sequence.c). A page of a
 * visibility map looks like an empty one: say so with `is_map`. Any 8192 bytes are fine: what does
 * not fit the page is said to be out of range. Threads: [any].
 */
#pragma once

#include "common/base/bytes.h"

void page_text(const uint8_t *page, bool is_map, struct buf *to);
