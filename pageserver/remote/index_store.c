#include "pageserver/remote/index_store.h"

#include "common/base/mem.h"

struct listing {
    struct tenant_id tenant;
    generation_t generation_max;
    struct index_id *ids;
    size_t count, capacity;
};

/* Listings come in order of name, which is the order of (generation, sequence). */
static err_t list_one(const struct objstore_entry *entry, void *context, struct errmsg *msg)
{
    struct listing *listing = context;
    struct index_id id;
    (void)msg;
    if (remote_index_name_parse(entry->name, listing->tenant, &id.generation, &id.sequence, NULL) !=
            ERR_OK ||
        id.generation > listing->generation_max) {
        return ERR_OK;
    }
    if (listing->count == listing->capacity) {
        listing->capacity = listing->capacity == 0 ? 16 : 2 * listing->capacity;
        listing->ids = mem_realloc(listing->ids, listing->capacity * sizeof(listing->ids[0]));
    }
    listing->ids[listing->count++] = id;
    return ERR_OK;
}

err_t index_list(
    struct objstore *objects,
    struct tenant_id tenant,
    generation_t generation_max,
    struct index_id **ret_ids,
    size_t *ret_count,
    struct errmsg *msg)
{
    struct listing listing = {.tenant = tenant, .generation_max = generation_max};
    struct remote_name prefix = remote_index_prefix(tenant);
    struct objstore_query query = {.prefix = prefix.text};
    err_t err = objstore_list(objects, &query, list_one, &listing, msg);
    if (err != ERR_OK) {
        mem_free(listing.ids);
        return err;
    }
    *ret_ids = listing.ids;
    *ret_count = listing.count;
    return ERR_OK;
}

err_t index_load(
    struct objstore *objects,
    struct tenant_id tenant,
    struct index_id id,
    struct remote_index *ret_index,
    struct errmsg *msg)
{
    struct remote_name name = remote_index_name(tenant, id.generation, id.sequence);
    struct buf bytes = {0};
    struct remote_index index;
    err_t err = objstore_get(objects, name.text, REMOTE_INDEX_BYTES_MAX, &bytes, msg);
    if (err != ERR_OK) {
        buf_deinit(&bytes);
        return err;
    }
    err = remote_index_decode(&bytes, &index, msg);
    if (err != ERR_OK) {
        return err_wrap(msg, err, "object %s", name.text);
    }
    if (!tenant_id_equal(index.tenant, tenant) || index.generation != id.generation ||
        index.sequence != id.sequence) {
        remote_index_deinit(&index);
        return err_set(msg, ERR_CORRUPT, "object %s: is the index of something else", name.text);
    }
    *ret_index = index;
    return ERR_OK;
}

err_t index_put(struct objstore *objects, const struct remote_index *index, struct errmsg *msg)
{
    struct remote_name name = remote_index_name(index->tenant, index->generation, index->sequence);
    struct buf bytes = {0};
    remote_index_encode(index, &bytes);
    err_t err = objstore_put(objects, name.text, buf_view(&bytes), msg);
    buf_deinit(&bytes);
    return err;
}
