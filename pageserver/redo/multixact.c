/*
 * multixact.c - redo of the two SLRUs of multixacts: where a multixact's members start, and they.
 *
 * Source: src/backend/access/transam/multixact.c of Postgres 17. Offsets are u32 by multixact id.
 * Members come in groups of four: four bytes of flags, then four xids; what is left of a page
 * behind its last group is unused. A record writes its own offset and the next one's, which may be
 * on the next page (older minor versions did not; redo of a newer one does, and so do we).
 */
#include "pageserver/redo/redo_private.h"

enum {
    MULTI_OP_ZERO_OFFSETS = 0x00,
    MULTI_OP_ZERO_MEMBERS = 0x10,
    MULTI_OP_CREATE = 0x20,
    MULTI_OP_TRUNCATE = 0x30
};

#define OFFSETS_PER_PAGE   (PAGE_SIZE / 4u)
#define MEMBERS_PER_GROUP  4u
#define GROUP_SIZE         (MEMBERS_PER_GROUP * 5u)
#define GROUPS_PER_PAGE    (PAGE_SIZE / GROUP_SIZE)
#define MEMBERS_PER_PAGE   (GROUPS_PER_PAGE * MEMBERS_PER_GROUP)
#define MEMBER_LOGGED_SIZE 8u
#define MEMBER_STATUS_MAX  5u /* MultiXactStatusUpdate */

static void set_offset(struct redo *redo, uint32_t multi, uint32_t offset)
{
    if (multi / OFFSETS_PER_PAGE == redo->key.block) {
        page_set_u32(redo->page, (size_t)(multi % OFFSETS_PER_PAGE) * sizeof(uint32_t), offset);
    }
}

static void set_member(struct redo *redo, uint32_t offset, uint32_t xid, uint32_t status)
{
    if (offset / MEMBERS_PER_PAGE != redo->key.block) {
        return;
    }
    size_t group = (size_t)(offset / MEMBERS_PER_GROUP % GROUPS_PER_PAGE) * (size_t)GROUP_SIZE;
    unsigned in_group = offset % MEMBERS_PER_GROUP;
    redo->page[group + in_group] = (uint8_t)status;
    page_set_u32(redo->page, group + MEMBERS_PER_GROUP + (size_t)in_group * 4, xid);
}

static err_t create(struct redo *redo)
{
    struct cursor fields = cursor_of(redo->record->main_data);
    uint32_t multi = cursor_u32(&fields);
    uint32_t offset = cursor_u32(&fields);
    uint32_t count = cursor_u32(&fields);
    struct bytes members = cursor_array(&fields, count, MEMBER_LOGGED_SIZE);
    if (!cursor_is_good(&fields)) {
        return redo_refuse_short(redo);
    }
    if (redo->key.db == STATE_MULTI_OFFSETS) {
        uint32_t next = multi + 1 == 0 ? 1 : multi + 1;          /* 0 is no multixact */
        uint32_t end = offset + count == 0 ? 1 : offset + count; /* 0 means "not set" */
        set_offset(redo, multi, offset);
        set_offset(redo, next, end);
        return ERR_OK;
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *member = members.data + (size_t)i * MEMBER_LOGGED_SIZE;
        if (le_u32(member + 4) > MEMBER_STATUS_MAX) {
            return redo_refuse(redo, "a member has no such status");
        }
        set_member(redo, offset + i, le_u32(member), le_u32(member + 4));
    }
    return ERR_OK;
}

err_t multixact_redo(struct redo *redo)
{
    bool offsets = redo->key.db == STATE_MULTI_OFFSETS;
    bool members = redo->key.db == STATE_MULTI_MEMBERS;
    if (redo->key.spc != KEY_SPC_STATE || (!offsets && !members)) {
        return redo_refuse_block(redo);
    }
    switch (redo->op) {
    case MULTI_OP_ZERO_OFFSETS:
    case MULTI_OP_ZERO_MEMBERS: memset(redo->page, 0, PAGE_SIZE); return ERR_OK;
    case MULTI_OP_CREATE: return create(redo);
    case MULTI_OP_TRUNCATE: return ERR_OK; /* which pages exist, not what is on them */
    default: return redo_refuse_op(redo);
    }
}
