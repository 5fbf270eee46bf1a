#include "pageserver/read/digest.h"

#include "common/base/checksum.h"
#include "pageserver/read/reconstruct.h"

struct digester {
    struct reconstruct work;
    struct digest digest;
};

static err_t add_relation(struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg)
{
    struct digester *digester = context;
    struct digest *digest = &digester->digest;
    uint32_t head[] = {rel.spc, rel.db, rel.rel, rel.fork, blocks};
    digest->hash = hash64(head, sizeof(head), digest->hash);
    digest->relations++;
    for (rel.block = 0; rel.block < blocks; rel.block++) {
        uint8_t page[PAGE_SIZE];
        TRY(reconstruct_page(&digester->work, rel, page, NULL, msg));
        page_set_u16(page, PAGE_CHECKSUM, 0);
        digest->hash = hash64(page, sizeof(page), digest->hash);
        digest->pages++;
    }
    return ERR_OK;
}

err_t digest_at(
    struct page_store *store,
    const struct page_path *path,
    lsn_t lsn,
    struct digest *ret_digest,
    struct errmsg *msg)
{
    struct digester digester = {.digest = {0}};
    reconstruct_init(&digester.work, store, path, lsn);
    err_t err = page_reader_relations(
        digester.work.reader, KEY_SPC_STATE, 0, lsn, add_relation, &digester, msg);
    reconstruct_deinit(&digester.work);
    if (err == ERR_OK) {
        *ret_digest = digester.digest;
    }
    return err;
}
