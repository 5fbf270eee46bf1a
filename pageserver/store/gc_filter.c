#include "pageserver/store/gc_filter.h"

#include "common/base/assert.h"
#include "common/base/mem.h"

#define NO_IMAGE UINT64_MAX

const struct gc_keep *gc_horizon_find(const struct gc_horizon *horizon, uint32_t timeline)
{
    size_t begin = 0, end = horizon->keep_count;
    while (begin < end) {
        size_t middle = begin + (end - begin) / 2;
        if (horizon->keeps[middle].timeline < timeline) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    bool found = begin < horizon->keep_count && horizon->keeps[begin].timeline == timeline;
    return found ? &horizon->keeps[begin] : NULL;
}

void gc_filter_init(
    struct gc_filter *filter, const struct gc_horizon *horizon, struct gc_lookup *lookup)
{
    size_t points_max = 0;
    for (size_t i = 0; i < horizon->keep_count; i++) {
        points_max = MAX_OF(points_max, horizon->keeps[i].point_count);
    }
    *filter = (struct gc_filter){
        .horizon = horizon,
        .lookup = lookup,
        .blocks = MEM_ARRAY(uint32_t, points_max + 1),
        .lsns = MEM_ARRAY(lsn_t, points_max + 1),
    };
}

void gc_filter_deinit(struct gc_filter *filter)
{
    mem_free(filter->blocks);
    mem_free(filter->lsns);
    *filter = (struct gc_filter){0};
}

/* -- the LSNs below or at the cutoff where the timeline is read -- */

static size_t read_count(const struct gc_keep *keep)
{
    return keep->point_count + (keep->cutoff == GC_NO_CUTOFF ? 0 : 1);
}

static lsn_t read_lsn(const struct gc_keep *keep, size_t index)
{
    return index < keep->point_count ? keep->points[index] : keep->cutoff;
}

static size_t first_read_at(const struct gc_keep *keep, lsn_t lsn)
{
    size_t begin = 0, end = read_count(keep);
    while (begin < end) {
        size_t middle = begin + (end - begin) / 2;
        if (read_lsn(keep, middle) < lsn) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    return begin;
}

/* Is there a read in [begin, end)? */
static bool is_read_within(const struct gc_keep *keep, lsn_t begin, lsn_t end)
{
    size_t first = first_read_at(keep, begin);
    return first < read_count(keep) && read_lsn(keep, first) < end;
}

/* -- lives of blocks -- */

static bool same_fork(struct page_key a, struct page_key b)
{
    return a.rel == b.rel && a.fork == b.fork && a.db == b.db && a.spc == b.spc;
}

static void load_blocks(struct gc_filter *filter)
{
    const struct gc_keep *keep = filter->keep;
    struct page_key fork = filter->page;
    fork.block = 0;
    if (filter->has_blocks && same_fork(filter->fork, fork)) {
        return;
    }
    size_t count = read_count(keep);
    for (size_t i = 0; i < count; i++) {
        filter->lsns[i] = read_lsn(keep, i);
    }
    filter->fork = fork;
    filter->has_blocks = true;
    filter->blocks_known = filter->lookup->blocks_at(
        filter->lookup, keep->timeline, fork, filter->lsns, count, filter->blocks);
}

static bool has_lives(struct page_key page)
{
    return page.spc != KEY_SPC_STATE && page.block != KEY_BLOCK_SIZE;
}

/* Does what the key names exist at the read with this index? */
static bool exists_at(struct gc_filter *filter, size_t index)
{
    if (!has_lives(filter->page)) {
        return true;
    }
    load_blocks(filter);
    return !filter->blocks_known || filter->page.block < filter->blocks[index];
}

/* -- the rule -- */

static bool version_is_needed(struct gc_filter *filter, lsn_t lsn)
{
    const struct gc_keep *keep = filter->keep;
    if (lsn > keep->cutoff) {
        return true;
    }
    size_t count = read_count(keep);
    for (size_t i = first_read_at(keep, lsn); i < count; i++) {
        if (read_lsn(keep, i) >= filter->image_lsn) {
            return false; /* this read and all later ones stop at the image */
        }
        if (exists_at(filter, i)) {
            return true;
        }
    }
    return false;
}

static bool commit_time_is_needed(struct gc_filter *filter, lsn_t lsn)
{
    const struct gc_keep *keep = filter->keep;
    lsn_t next;
    if (lsn > keep->cutoff ||
        !filter->lookup->next_commit(filter->lookup, keep->timeline, filter->page, &next)) {
        return true;
    }
    return is_read_within(keep, lsn, next);
}

static bool ends_a_read(struct bytes value)
{
    uint8_t tag = value.size > 0 ? value.data[0] : 0;
    return tag == VALUE_IMAGE || tag == VALUE_ZERO || tag == VALUE_INIT || tag == VALUE_STATE;
}

static bool says_not_there(struct page_key page, struct bytes value)
{
    if (value.size == 0 || value.data[0] != VALUE_STATE) {
        return false;
    }
    return page.spc == KEY_SPC_STATE ? value.size == 1
                                     : page.block == KEY_BLOCK_SIZE &&
                                           value.size == REL_SIZE_VALUE_SIZE && value.data[1] == 0;
}

static bool hides_something(struct gc_filter *filter, lsn_t lsn)
{
    bool hides = true;
    bool known = filter->lookup->hides_something(
        filter->lookup, filter->keep->timeline, filter->page, lsn, &hides);
    return !known || hides;
}

static bool is_needed(struct gc_filter *filter, lsn_t lsn, struct bytes value)
{
    if (filter->page.spc == KEY_SPC_STATE && filter->page.db == STATE_INGEST_LSN) {
        return lsn == 0 || filter->image_lsn == NO_IMAGE;
    }
    if (filter->page.spc == KEY_SPC_STATE && filter->page.db == STATE_COMMIT_TIME) {
        return commit_time_is_needed(filter, lsn);
    }
    if (!version_is_needed(filter, lsn)) {
        return false;
    }
    if (lsn > filter->keep->cutoff || !says_not_there(filter->page, value)) {
        return true;
    }
    bool hides = hides_something(filter, lsn);
    filter->hiding += hides ? 1 : 0;
    return hides;
}

static void enter_timeline(struct gc_filter *filter, uint32_t timeline)
{
    if (filter->has_timeline && filter->timeline == timeline) {
        return;
    }
    filter->has_timeline = true;
    filter->timeline = timeline;
    filter->has_page = filter->has_blocks = false;
    filter->is_foreign = timeline == 0 || timeline >= filter->horizon->next_number;
    filter->keep = filter->is_foreign ? NULL : gc_horizon_find(filter->horizon, timeline);
}

bool gc_filter_drops(struct gc_filter *filter, struct bytes key, struct bytes value)
{
    uint32_t timeline;
    struct page_key page;
    lsn_t lsn;
    filter->seen++;
    if (page_key_decode(key, &timeline, &page, &lsn) != ERR_OK) {
        return false;
    }
    enter_timeline(filter, timeline);
    if (filter->is_foreign) {
        return false;
    }
    bool drops = true;
    if (filter->keep != NULL) {
        if (!filter->has_page || !page_key_equal(filter->page, page)) {
            filter->has_page = true;
            filter->page = page;
            filter->image_lsn = NO_IMAGE;
        }
        drops = !is_needed(filter, lsn, value);
        if (ends_a_read(value)) {
            filter->image_lsn = lsn;
        }
    }
    if (drops) {
        filter->hid += says_not_there(page, value) ? 1 : 0;
        filter->dropped++;
        filter->dropped_bytes += key.size + value.size;
    }
    return drops;
}
