#include "pageserver/read/diff.h"

#include <stdlib.h>

#include "common/base/mem.h"
#include "pageserver/read/reconstruct.h"

/* The pages that may differ: a version on one side only. */
struct candidates {
    struct page_key *items;
    size_t count, capacity;
};

struct differ {
    const struct diff_side *sides;
    struct reconstruct work[2];
    struct candidates candidates;
    struct diff diff;
};

static err_t add_candidate(struct page_key key, void *context, struct errmsg *msg)
{
    struct candidates *candidates = context;
    if (candidates->count == DIFF_PAGES_MAX) {
        return err_set(
            msg, ERR_FULL, "more than %d pages were written on one side only", DIFF_PAGES_MAX);
    }
    if (candidates->count == candidates->capacity) {
        candidates->capacity = candidates->capacity == 0 ? 256 : 2 * candidates->capacity;
        candidates->items =
            mem_realloc(candidates->items, candidates->capacity * sizeof(candidates->items[0]));
    }
    candidates->items[candidates->count++] = key;
    return ERR_OK;
}

/* Up to where a side sees this timeline; 0: not at all. */
static lsn_t limit_of(const struct diff_side *side, uint32_t timeline)
{
    for (size_t i = 0; i < side->path->count; i++) {
        if (side->path->spans[i].timeline == timeline) {
            return MIN_OF(side->lsn, side->path->spans[i].max_lsn);
        }
    }
    return 0;
}

/* What `side` sees on its timelines beyond what the other one sees there. */
static err_t gather_side(struct differ *differ, unsigned side, struct errmsg *msg)
{
    const struct diff_side *own = &differ->sides[side];
    for (size_t i = 0; i < own->path->count; i++) {
        uint32_t timeline = own->path->spans[i].timeline;
        lsn_t from = limit_of(&differ->sides[!side], timeline);
        lsn_t to = limit_of(own, timeline);
        if (from < to) {
            TRY(page_reader_written(
                differ->work[side].reader, i, from, to, add_candidate, &differ->candidates, msg));
        }
    }
    return ERR_OK;
}

static int compare_keys(const void *left, const void *right)
{
    uint8_t a[PAGE_KEY_SIZE], b[PAGE_KEY_SIZE];
    page_key_encode(0, *(const struct page_key *)left, 0, a);
    page_key_encode(0, *(const struct page_key *)right, 0, b);
    return memcmp(a, b, sizeof(a));
}

/* In key order, each once. */
static void sort_candidates(struct candidates *candidates)
{
    if (candidates->count == 0) {
        return;
    }
    qsort(candidates->items, candidates->count, sizeof(candidates->items[0]), compare_keys);
    size_t kept = 1;
    for (size_t i = 1; i < candidates->count; i++) {
        if (!page_key_equal(candidates->items[i], candidates->items[kept - 1])) {
            candidates->items[kept++] = candidates->items[i];
        }
    }
    candidates->count = kept;
}

static void note_page(struct diff_relation *relation, uint32_t block)
{
    if (relation->pages < DIFF_BLOCKS_KEPT) {
        relation->blocks[relation->pages] = block;
    }
    relation->pages++;
}

static bool is_there(const struct fork_size *size, uint32_t block)
{
    return size->exists && block < size->blocks;
}

static err_t compare_page(
    struct differ *differ, struct diff_relation *relation, struct page_key key, struct errmsg *msg)
{
    uint8_t pages[2][PAGE_SIZE];
    bool there[] = {
        is_there(&relation->sizes[0], key.block), is_there(&relation->sizes[1], key.block)};
    if (there[0] != there[1]) {
        note_page(relation, key.block);
        return ERR_OK;
    }
    if (!there[0]) {
        return ERR_OK;
    }
    for (unsigned side = 0; side < 2; side++) {
        TRY(reconstruct_page(&differ->work[side], key, pages[side], NULL, msg));
        page_set_u16(pages[side], PAGE_CHECKSUM, 0);
    }
    differ->diff.pages_compared++;
    if (memcmp(pages[0], pages[1], PAGE_SIZE) != 0) {
        note_page(relation, key.block);
    }
    return ERR_OK;
}

/* Blocks that one side only has, beyond the end of the other, without a version of their own. */
static uint64_t blocks_beyond(const struct diff_relation *relation)
{
    uint32_t a = relation->sizes[0].exists ? relation->sizes[0].blocks : 0;
    uint32_t b = relation->sizes[1].exists ? relation->sizes[1].blocks : 0;
    return a > b ? a - b : b - a;
}

static bool differs(const struct diff_relation *relation)
{
    return relation->pages > 0 || relation->sizes[0].exists != relation->sizes[1].exists ||
           blocks_beyond(relation) > 0;
}

static err_t compare_relation(
    struct differ *differ, const struct page_key *keys, size_t count, struct errmsg *msg)
{
    struct diff *diff = &differ->diff;
    struct diff_relation relation = {.rel = keys[0]};
    relation.rel.block = 0;
    for (unsigned side = 0; side < 2; side++) {
        TRY(page_reader_rel_size(
            differ->work[side].reader, relation.rel, differ->sides[side].lsn, &relation.sizes[side],
            msg));
    }
    for (size_t i = 0; i < count; i++) {
        if (keys[i].block != KEY_BLOCK_SIZE) {
            TRY(compare_page(differ, &relation, keys[i], msg));
        }
    }
    if (!differs(&relation)) {
        return ERR_OK;
    }
    relation.pages = MAX_OF(relation.pages, blocks_beyond(&relation));
    if (diff->count == diff->capacity) {
        diff->capacity = diff->capacity == 0 ? 64 : 2 * diff->capacity;
        diff->relations = mem_realloc(diff->relations, diff->capacity * sizeof(diff->relations[0]));
    }
    diff->relations[diff->count++] = relation;
    return ERR_OK;
}

static bool same_fork(const struct page_key *a, const struct page_key *b)
{
    return a->spc == b->spc && a->db == b->db && a->rel == b->rel && a->fork == b->fork;
}

static err_t compare_all(struct differ *differ, struct errmsg *msg)
{
    const struct page_key *keys = differ->candidates.items;
    size_t count = differ->candidates.count;
    for (size_t begin = 0, end; begin < count; begin = end) {
        end = begin + 1;
        while (end < count && same_fork(&keys[begin], &keys[end])) {
            end++;
        }
        TRY(compare_relation(differ, keys + begin, end - begin, msg));
    }
    return ERR_OK;
}

err_t diff_at(
    struct page_store *store,
    const struct diff_side sides[2],
    struct diff *ret_diff,
    struct errmsg *msg)
{
    struct differ differ = {.sides = sides};
    for (unsigned side = 0; side < 2; side++) {
        reconstruct_init(&differ.work[side], store, sides[side].path, sides[side].lsn);
    }
    err_t err = gather_side(&differ, 0, msg);
    if (err == ERR_OK) {
        err = gather_side(&differ, 1, msg);
    }
    if (err == ERR_OK) {
        sort_candidates(&differ.candidates);
        err = compare_all(&differ, msg);
    }
    for (unsigned side = 0; side < 2; side++) {
        reconstruct_deinit(&differ.work[side]);
    }
    mem_free(differ.candidates.items);
    if (err != ERR_OK) {
        diff_deinit(&differ.diff);
        return err;
    }
    *ret_diff = differ.diff;
    return ERR_OK;
}

void diff_deinit(struct diff *diff)
{
    mem_free(diff->relations);
    *diff = (struct diff){.count = 0};
}
