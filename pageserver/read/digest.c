#include "pageserver/read/digest.h"

#include "common/base/checksum.h"
#include "common/base/fault.h"
#include "pageserver/read/reconstruct.h"

struct digester {
    struct reconstruct work;
    struct digest digest;
};

static err_t add_page(struct digester *digester, struct page_key key, struct errmsg *msg)
{
    uint8_t page[PAGE_SIZE];
    TRY(reconstruct_page(&digester->work, key, page, NULL, msg));
    page_set_u16(page, PAGE_CHECKSUM, 0);
    digester->digest.hash = hash64(page, sizeof(page), digester->digest.hash);
    digester->digest.pages++;
    return ERR_OK;
}

static err_t add_relation(struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg)
{
    struct digester *digester = context;
    struct digest *digest = &digester->digest;
    uint32_t head[] = {rel.spc, rel.db, rel.rel, rel.fork, blocks};
    digest->hash = hash64(head, sizeof(head), digest->hash);
    digest->relations++;
    for (rel.block = 0; rel.block < blocks; rel.block++) {
        TRY(add_page(digester, rel, msg));
    }
    return ERR_OK;
}

static err_t add_forks(
    struct digester *digester, enum digest_scope scope, struct page_key key, struct errmsg *msg)
{
    uint8_t begin = scope == DIGEST_RELATION ? 0 : key.fork;
    uint8_t end = scope == DIGEST_RELATION ? FORK_COUNT : key.fork + 1;
    struct page_key fork = key;
    fork.block = 0;
    for (fork.fork = begin; fork.fork < end; fork.fork++) {
        struct fork_size size;
        TRY(page_reader_rel_size(digester->work.reader, fork, digester->work.lsn, &size, msg));
        if (size.exists && scope != DIGEST_BLOCK) {
            TRY(add_relation(fork, size.blocks, digester, msg));
        } else if (size.exists && key.block < size.blocks) {
            TRY(add_page(digester, key, msg));
        }
    }
    if (digester->digest.relations + digester->digest.pages == 0) {
        return err_set(
            msg, ERR_NOT_FOUND, "%s: not there at " LSN_FMT, page_key_text(key).text,
            LSN_ARGS(digester->work.lsn));
    }
    return ERR_OK;
}

err_t digest_at(
    struct page_store *store,
    const struct page_path *path,
    lsn_t lsn,
    enum digest_scope scope,
    struct page_key key,
    struct digest *ret_digest,
    struct errmsg *msg)
{
    struct digester digester = {.digest = {0}};
    err_t fault = FAULT("digest.work");
    if (fault != ERR_OK) {
        return err_set(msg, fault, "failpoint digest.work");
    }
    reconstruct_init(&digester.work, store, path, lsn);
    err_t err = scope != DIGEST_ALL ? add_forks(&digester, scope, key, msg)
                                    : page_reader_relations(
                                          digester.work.reader, KEY_SPC_STATE, 0, lsn, add_relation,
                                          &digester, msg);
    reconstruct_deinit(&digester.work);
    if (err == ERR_OK) {
        *ret_digest = digester.digest;
    }
    return err;
}
