/*
 * kv_private.h - shared by kv.c and kv_filter.c.
 */
#pragma once

#include <rocksdb/c.h>

#include "common/kv/kv_filter.h"

rocksdb_compactionfilterfactory_t *kv_filter_factory(struct kv_filter *filter);
