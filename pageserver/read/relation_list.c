#include "pageserver/read/relation_list.h"

#include <inttypes.h>

static err_t add_relation(struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg)
{
    struct buf *to = context;
    buf_printf(
        to, "%" PRIu32 " %" PRIu32 " %" PRIu32 " %d %" PRIu32 "\n", rel.spc, rel.db, rel.rel,
        rel.fork, blocks);
    return to->size <= RELATION_LIST_BYTES_MAX
               ? ERR_OK
               : err_set(
                     msg, ERR_FULL, "list of relations: more than %zu bytes",
                     (size_t)RELATION_LIST_BYTES_MAX);
}

err_t relation_list_at(
    struct page_store *store,
    const struct page_path *path,
    lsn_t lsn,
    struct buf *to,
    struct errmsg *msg)
{
    struct page_reader *reader = page_reader_create(store, path);
    err_t err = page_reader_relations(reader, KEY_SPC_STATE, 0, lsn, add_relation, to, msg);
    page_reader_destroy(reader);
    return err;
}
