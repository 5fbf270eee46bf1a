/*
 * relation_list.h - every relation fork that is visible at an LSN, as text: for people and tests.
 * Blocking: on workers.
 */
#pragma once

#include "pageserver/store/page_store.h"

#define RELATION_LIST_BYTES_MAX (64 * MIB) /* of the text; more is ERR_FULL */

/* Appends one line "SPC DB REL FORK BLOCKS" a fork, in key order. */
NODISCARD err_t relation_list_at(
    struct page_store *store,
    const struct page_path *path,
    lsn_t lsn,
    struct buf *to,
    struct errmsg *msg);
