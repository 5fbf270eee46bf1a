/*
 * page_store_private.h - what page_store.c and page_reader.c share.
 */
#pragma once

#include <stdatomic.h>

#include "common/kv/kv.h"
#include "pageserver/store/page_store.h"

struct page_store {
    struct kv *kv;
    _Atomic uint64_t unflushed_bytes;
};
