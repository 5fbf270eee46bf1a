/*
 * names.h - the names of a tenant's objects in the object store.
 *
 *   tenants/TENANT/index/GENERATION-SEQUENCE        what there is, at one moment (index.h)
 *   tenants/TENANT/data/GENERATION/FILE-HASH        a sorted file of the tenant's store
 *
 * TENANT is 32 hex digits, GENERATION 8, SEQUENCE 16, HASH the first 16 digits of the content's
 * xxh3-128, FILE the number that RocksDB gave the file ("000123.sst"). Two owners never share a
 * generation, so they never share a name; the hash keeps a number that was used twice apart.
 * Index names order by (generation, sequence). Threads: [any].
 */
#pragma once

#include "common/base/checksum.h"
#include "common/base/id.h"

#define REMOTE_FILE_SIZE 32  /* of a file's own name with its NUL */
#define REMOTE_NAME_SIZE 160 /* of an object's name with its NUL */

struct remote_name {
    char text[REMOTE_NAME_SIZE];
};

struct remote_name remote_tenant_prefix(struct tenant_id tenant); /* "tenants/TENANT/" */
struct remote_name remote_index_prefix(struct tenant_id tenant);
struct remote_name remote_data_prefix(struct tenant_id tenant);
struct remote_name remote_index_name(
    struct tenant_id tenant, generation_t generation, uint64_t sequence);
/* `file` is shorter than REMOTE_FILE_SIZE. */
struct remote_name remote_data_name(
    struct tenant_id tenant, generation_t generation, const char *file, struct hash128 hash);

/* ERR_INVALID: no name of an index of this tenant. */
NODISCARD err_t remote_index_name_parse(
    const char *name,
    struct tenant_id tenant,
    generation_t *ret_generation,
    uint64_t *ret_sequence,
    struct errmsg *msg);
/* The generation that wrote a data object; ERR_INVALID: no name of one of this tenant. */
NODISCARD err_t remote_data_name_parse(
    const char *name, struct tenant_id tenant, generation_t *ret_generation, struct errmsg *msg);
/* A name that RocksDB gives a sorted file: digits, ".sst". */
bool remote_is_data_file(const char *name);
