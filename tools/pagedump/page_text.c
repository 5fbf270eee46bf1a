#include "tools/pagedump/page_text.h"

#include "common/pg/page.h"

enum page_kind {
    KIND_HEAP,
    KIND_SEQUENCE,
    KIND_BTREE,
    KIND_HASH,
    KIND_GIST,
    KIND_GIN,
    KIND_SPGIST,
    KIND_BRIN,
    KIND_UNKNOWN
};

/* The id in the last two bytes of the page. */
enum { ID_HASH = 0xFF80, ID_GIST = 0xFF81, ID_SPGIST = 0xFF82, ID_BRIN_FIRST = 0xF091 };
enum { ID_BRIN_LAST = 0xF093, SEQUENCE_MAGIC = 0x1717 };

#define POINTER_SIZE      4
#define TUPLE_HEADER_SIZE 23

static const char *const kind_names[] = {
    [KIND_HEAP] = "heap",     [KIND_SEQUENCE] = "sequence", [KIND_BTREE] = "btree",
    [KIND_HASH] = "hash",     [KIND_GIST] = "gist",         [KIND_GIN] = "gin",
    [KIND_SPGIST] = "spgist", [KIND_BRIN] = "brin",         [KIND_UNKNOWN] = "unknown",
};

static enum page_kind kind_of(const uint8_t *page)
{
    unsigned special = page_u16(page, PAGE_SPECIAL);
    unsigned id = page_u16(page, PAGE_SIZE - 2);
    switch (PAGE_SIZE - (int)special) {
    case 0: return KIND_HEAP;
    case 8:
        if (id == ID_SPGIST) {
            return KIND_SPGIST;
        }
        if (id >= ID_BRIN_FIRST && id <= ID_BRIN_LAST) {
            return KIND_BRIN;
        }
        return page_u32(page, PAGE_SIZE - 8) == SEQUENCE_MAGIC ? KIND_SEQUENCE : KIND_GIN;
    case 16:
        if (id == ID_HASH) {
            return KIND_HASH;
        }
        return id == ID_GIST ? KIND_GIST : KIND_BTREE;
    default: return KIND_UNKNOWN;
    }
}

/* The names of the bits that are set, lowest first; NULL: a bit without a name. */
static void put_bits(struct buf *to, unsigned bits, const char *const *names, unsigned count)
{
    const char *separator = "";
    for (unsigned i = 0; i < count; i++) {
        if (bits >> i & 1 && names[i] != NULL) {
            buf_printf(to, "%s%s", separator, names[i]);
            separator = " ";
        }
    }
}

static void put_heap_tuple(struct buf *to, const uint8_t *tuple)
{
    static const char *const infomask[16] = {
        "has_null",        "has_varwidth", "has_external",   NULL,
        "keyshare_locked", "combo_cid",    "excl_locked",    "lock_only",
        "xmin_committed",  "xmin_invalid", "xmax_committed", "xmax_invalid",
        "xmax_is_multi",   "updated",      "moved_off",      "moved_in",
    };
    unsigned infomask2 = page_u16(tuple, 18);
    buf_printf(
        to, " xmin %u xmax %u field3 %u ctid (%u,%u) natts %u hoff %u [", page_u32(tuple, 0),
        page_u32(tuple, 4), page_u32(tuple, 8),
        (unsigned)page_u16(tuple, 12) << 16 | page_u16(tuple, 14), page_u16(tuple, 16),
        infomask2 & 0x7FF, tuple[22]);
    put_bits(to, page_u16(tuple, 20), infomask, 16);
    buf_printf(
        to, "%s%s%s]", infomask2 & 0x2000 ? " keys_updated" : "",
        infomask2 & 0x4000 ? " hot_updated" : "", infomask2 & 0x8000 ? " heap_only" : "");
}

/* Index tuples of btree, hash and gist begin with a TID and a size. */
static void put_index_tuple(struct buf *to, const uint8_t *tuple)
{
    unsigned info = page_u16(tuple, 6);
    buf_printf(
        to, " tid (%u,%u) size %u%s%s", (unsigned)page_u16(tuple, 0) << 16 | page_u16(tuple, 2),
        page_u16(tuple, 4), info & 0x1FFF, info & 0x8000 ? " nulls" : "",
        info & 0x4000 ? " varwidth" : "");
}

static void put_item(
    struct buf *to, const uint8_t *page, enum page_kind kind, unsigned number, uint32_t pointer)
{
    static const char *const states[] = {"unused", "normal", "redirect", "dead"};
    unsigned offset = pointer & 0x7FFF;
    unsigned state = pointer >> 15 & 3;
    unsigned size = pointer >> 17;
    buf_printf(to, "%5u %-8s", number, states[state]);
    if (state == 2) {
        buf_printf(to, " to %u\n", offset);
        return;
    }
    if (size == 0) {
        buf_printf(to, "\n");
        return;
    }
    buf_printf(to, " at %u size %u", offset, size);
    if (offset < PAGE_HEADER_SIZE || offset + size > PAGE_SIZE) {
        buf_printf(to, ": out of range\n");
        return;
    }
    if ((kind == KIND_HEAP || kind == KIND_SEQUENCE) && size >= TUPLE_HEADER_SIZE) {
        put_heap_tuple(to, page + offset);
    } else if ((kind == KIND_BTREE || kind == KIND_HASH || kind == KIND_GIST) && size >= 8) {
        put_index_tuple(to, page + offset);
    }
    buf_printf(to, "\n");
}

/* Meta pages, bitmaps, revmaps and posting lists keep no line pointers where others do. */
static bool has_items(const uint8_t *page, enum page_kind kind)
{
    switch (kind) {
    case KIND_BTREE: return (page_u16(page, PAGE_SIZE - 4) & 0x8) == 0;
    case KIND_HASH: return (page_u16(page, PAGE_SIZE - 4) & 0xC) == 0;
    case KIND_GIN: return (page_u16(page, PAGE_SIZE - 2) & 0x9) == 0;
    case KIND_SPGIST: return (page_u16(page, PAGE_SIZE - 8) & 0x1) == 0;
    case KIND_BRIN: return page_u16(page, PAGE_SIZE - 2) == ID_BRIN_LAST;
    case KIND_HEAP:
    case KIND_SEQUENCE:
    case KIND_GIST:
    case KIND_UNKNOWN: break;
    }
    return true;
}

static void put_items(struct buf *to, const uint8_t *page, enum page_kind kind)
{
    if (!has_items(page, kind)) {
        return;
    }
    unsigned lower = page_u16(page, PAGE_LOWER);
    if (lower < PAGE_HEADER_SIZE || lower > PAGE_SIZE) {
        buf_printf(to, "pd_lower %u is out of range: no line pointers shown\n", lower);
        return;
    }
    unsigned count = (lower - PAGE_HEADER_SIZE) / POINTER_SIZE;
    buf_printf(to, "%u line pointers\n", count);
    for (unsigned number = 1; number <= count; number++) {
        size_t at = PAGE_HEADER_SIZE + (size_t)(number - 1) * POINTER_SIZE;
        put_item(to, page, kind, number, page_u32(page, at));
    }
}

static void put_special(struct buf *to, const uint8_t *page, enum page_kind kind)
{
    static const char *const btree[] = {
        "leaf",      "root",        "deleted",          "meta",       "half_dead",
        "split_end", "has_garbage", "incomplete_split", "has_fullxid"};
    static const char *const gist[] = {
        "leaf", "deleted", "tuples_deleted", "follow_right", "has_garbage"};
    static const char *const gin[] = {"data", "leaf",         "deleted",          "meta",
                                      "list", "list_fullrow", "incomplete_split", "compressed"};
    static const char *const spgist[] = {"meta", "deleted", "leaf", "nulls"};
    const uint8_t *special = page + page_u16(page, PAGE_SPECIAL);
    switch (kind) {
    case KIND_BTREE:
        buf_printf(
            to, "btree: left %u right %u level %u cycle %u [", page_u32(special, 0),
            page_u32(special, 4), page_u32(special, 8), page_u16(special, 14));
        put_bits(to, page_u16(special, 12), btree, 9);
        break;
    case KIND_HASH:
        buf_printf(
            to, "hash: prev %u next %u bucket %u [flags %#x", page_u32(special, 0),
            page_u32(special, 4), page_u32(special, 8), page_u16(special, 12));
        break;
    case KIND_GIST:
        buf_printf(
            to, "gist: nsn " LSN_FMT " right %u [",
            LSN_ARGS((lsn_t)page_u32(special, 0) << 32 | page_u32(special, 4)),
            page_u32(special, 8));
        put_bits(to, page_u16(special, 12), gist, 5);
        break;
    case KIND_GIN:
        buf_printf(to, "gin: right %u maxoff %u [", page_u32(special, 0), page_u16(special, 4));
        put_bits(to, page_u16(special, 6), gin, 8);
        break;
    case KIND_SPGIST:
        buf_printf(
            to, "spgist: redirections %u placeholders %u [", page_u16(special, 2),
            page_u16(special, 4));
        put_bits(to, page_u16(special, 0), spgist, 4);
        break;
    case KIND_BRIN:
        buf_printf(
            to, "brin: [%s%s",
            page_u16(page, PAGE_SIZE - 2) == ID_BRIN_FIRST       ? "meta"
            : page_u16(page, PAGE_SIZE - 2) == ID_BRIN_FIRST + 1 ? "revmap"
                                                                 : "regular",
            page_u16(page, PAGE_SIZE - 4) & 1 ? " evacuate" : "");
        break;
    case KIND_HEAP:
    case KIND_SEQUENCE:
    case KIND_UNKNOWN: return;
    }
    buf_printf(to, "]\n");
}

/* Two bits a heap block: all-visible, all-frozen. */
static void put_map(struct buf *to, const uint8_t *page)
{
    unsigned visible = 0;
    unsigned frozen = 0;
    for (size_t at = PAGE_HEADER_SIZE; at < PAGE_SIZE; at++) {
        for (unsigned shift = 0; shift < 8; shift += 2) {
            visible += page[at] >> shift & 1;
            frozen += page[at] >> shift >> 1 & 1;
        }
    }
    buf_printf(
        to, "visibility map of %u heap blocks: %u all-visible, %u all-frozen\n",
        (PAGE_SIZE - PAGE_HEADER_SIZE) * 4, visible, frozen);
}

void page_text(const uint8_t *page, bool is_map, struct buf *to)
{
    static const char *const flags[] = {"has_free_lines", "page_full", "all_visible"};
    if (page_is_new(page)) {
        buf_printf(to, "never initialised (pd_upper is 0)\n");
        return;
    }
    enum page_kind kind = kind_of(page);
    buf_printf(
        to, "%s page: lsn " LSN_FMT " checksum %u lower %u upper %u special %u prune_xid %u [",
        is_map ? "visibility map" : kind_names[kind], LSN_ARGS(page_lsn(page)),
        page_u16(page, PAGE_CHECKSUM), page_u16(page, PAGE_LOWER), page_u16(page, PAGE_UPPER),
        page_u16(page, PAGE_SPECIAL), page_u32(page, PAGE_PRUNE_XID));
    put_bits(to, page_u16(page, PAGE_FLAGS), flags, 3);
    buf_printf(to, "]\n");
    if (page_u16(page, PAGE_VERSION) != (PAGE_SIZE | 4)) {
        buf_printf(
            to, "size and version %#x: expected %#x\n", page_u16(page, PAGE_VERSION),
            PAGE_SIZE | 4);
    }
    if (is_map) {
        put_map(to, page);
        return;
    }
    put_special(to, page, kind);
    put_items(to, page, kind);
}
