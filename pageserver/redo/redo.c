#include "pageserver/redo/redo.h"

#include "common/base/mark.h"
#include "pageserver/redo/redo_private.h"

typedef err_t redo_fn(struct redo *redo);

/* NULL: records of this resource manager touch no page that we keep, or are not understood yet. */
static redo_fn *const redo_functions[RM_COUNT] = {
    [RM_XLOG] = xlog_redo,
    [RM_XACT] = xact_redo,
    [RM_SMGR] = smgr_redo,
    [RM_CLOG] = clog_redo,
    [RM_MULTIXACT] = multixact_redo,
    [RM_COMMIT_TS] = commit_ts_redo,
    [RM_HEAP] = heap_redo,
    [RM_HEAP2] = heap2_redo,
    [RM_BTREE] = btree_redo,
    [RM_HASH] = hash_redo,
    [RM_GIN] = gin_redo,
    [RM_GIST] = gist_redo,
    [RM_SEQ] = seq_redo,
    [RM_SPGIST] = spgist_redo,
    [RM_BRIN] = brin_redo,
    [RM_GENERIC] = generic_redo,
};

err_t redo_refuse(struct redo *redo, const char *what)
{
    return err_set(redo->msg, ERR_CORRUPT, "%s", what);
}

err_t redo_refuse_short(struct redo *redo)
{
    MARK("redo.refuse.short");
    return redo_refuse(redo, "the record is too short for its fields");
}

err_t redo_refuse_block(struct redo *redo)
{
    MARK("redo.refuse.block");
    return err_set(
        redo->msg, ERR_CORRUPT, "the record does not change block reference %u", redo->block_index);
}

err_t redo_refuse_op(struct redo *redo)
{
    MARK("redo.refuse.op");
    return err_set(redo->msg, ERR_UNSUPPORTED, "operation %#x is not known", redo->op);
}

/*
 * A page image is the page. Postgres puts pd_lsn into it, except when the image is of a page that
 * was never initialised: there it would be the only thing on the page.
 */
static err_t restore_image(struct redo *redo)
{
    TRY(wal_block_restore_image(redo->block, redo->page, redo->msg));
    redo->keep_lsn = page_is_new(redo->page);
    switch (redo->record->rmgr) {
    case RM_HASH: return hash_redo_after_image(redo);
    case RM_GIST: return gist_redo_after_image(redo);
    default: return ERR_OK;
    }
}

static err_t apply(struct redo *redo)
{
    const struct wal_record *record = redo->record;
    redo_fn *function = record->rmgr < RM_COUNT ? redo_functions[record->rmgr] : NULL;
    if (redo->block_index == VALUE_BLOCK_IMPLIED) {
        redo->keep_lsn = true;
        return function != NULL ? function(redo) : redo_refuse_block(redo);
    }
    if (redo->block_index >= record->block_count || !record->blocks[redo->block_index].in_use) {
        return redo_refuse_block(redo);
    }
    const struct wal_block *block = &record->blocks[redo->block_index];
    redo->block = block;
    if (block->key.block != redo->key.block || block->key.rel != redo->key.rel ||
        block->key.fork != redo->key.fork) {
        return redo_refuse(redo, "the block reference names another page");
    }
    if (block->has_image && block->apply_image) {
        return restore_image(redo);
    }
    if (!block->will_init) {
        if (page_is_new(redo->page) && redo->key.fork != FORK_VM && record->rmgr != RM_XLOG) {
            return redo_refuse(redo, "the page was never initialised");
        }
        if (page_lsn(redo->page) >= record->end_lsn) {
            redo->keep_lsn = true; /* it has this change already */
            return ERR_OK;
        }
    }
    if (function == NULL) {
        return err_set(redo->msg, ERR_UNSUPPORTED, "no redo for this resource manager");
    }
    return function(redo);
}

err_t redo_apply(
    const struct wal_record *record,
    uint8_t block_index,
    struct page_key key,
    uint8_t *page,
    struct errmsg *msg)
{
    struct redo redo = {
        .record = record,
        .block_index = block_index,
        .op = record->info & REDO_OP_MASK,
        .key = key,
        .page = page,
        .msg = msg,
    };
    err_t err = apply(&redo);
    if (err != ERR_OK) {
        MARK("redo.refused");
        return err_wrap(
            msg, err, "redo of %s at " LSN_FMT " on %s", wal_record_text(record).text,
            LSN_ARGS(record->lsn), page_key_text(key).text);
    }
    if (!redo.keep_lsn) {
        page_set_lsn(page, record->end_lsn);
    }
    return ERR_OK;
}
