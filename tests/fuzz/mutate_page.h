/*
 * mutate_page.h - a page of any access method with one thing changed: header, line pointers, the
 * headers of tuples, special space, or bytes that only one of them understands.
 */
#pragma once

#include "common/pg/page.h"
#include "tests/fuzz/mutate.h"

/* Numbers of this page that a record may name: how many items, where they begin and end. */
void mutation_hint_page(struct mutation *mutation, const uint8_t *page);

/* Whatever in these fields of the record may be the number of an item on the page. */
void mutation_hint_items(struct mutation *mutation, const uint8_t *page, struct bytes fields);

/* One change. */
void mutate_page(struct mutation *mutation, uint8_t *page);
