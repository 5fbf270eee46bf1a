#include "tests/model/store/model.h"

#include "common/base/assert.h"

void model_init(struct model *model)
{
    model->event_count = 0;
    model->timeline_count = 1;
    model->next_lsn = 0x1000;
    memset(model->holds, 0, sizeof(model->holds));
    model->timelines[0] = (struct model_timeline){.parent = -1, .number = 1};
}

struct page_key model_key(int key)
{
    ASSERT(key < MODEL_COMMIT);
    struct page_key rel = {.spc = 1663, .db = 5};
    if (key < MODEL_SIZE_0) {
        rel.rel = 100 + (uint32_t)(key / MODEL_BLOCKS);
        rel.block = (uint32_t)(key % MODEL_BLOCKS);
        return rel;
    }
    if (key < MODEL_SLRU_0) {
        rel.rel = 100 + (uint32_t)(key - MODEL_SIZE_0);
        return page_key_size_of(rel);
    }
    if (key < MODEL_STATE_0) {
        return page_key_state(STATE_CLOG, 0, (uint32_t)(key - MODEL_SLRU_0));
    }
    return page_key_state(STATE_RELMAP, (uint32_t)(key - MODEL_STATE_0), 0);
}

int model_owner(const struct model *model, int timeline, lsn_t lsn)
{
    while (lsn < model->timelines[timeline].start) {
        timeline = model->timelines[timeline].parent;
    }
    return timeline;
}

bool model_is_in_window(const struct model *model, int timeline, lsn_t lsn)
{
    const struct model_timeline *owner = &model->timelines[model_owner(model, timeline, lsn)];
    return !owner->is_tombstone && lsn >= owner->cutoff;
}

bool model_may_read(const struct model *model, int timeline, lsn_t lsn)
{
    int owner = model_owner(model, timeline, lsn);
    bool may = model_is_in_window(model, timeline, lsn);
    for (size_t i = 0; i < MODEL_HOLDS; i++) {
        const struct model_hold *hold = &model->holds[i];
        may |=
            hold->is_used && hold->lsn == lsn && model_owner(model, hold->timeline, lsn) == owner;
    }
    return may;
}

bool model_is_needed(const struct model *model, int timeline)
{
    bool needed = model->holds[0].is_used && model->holds[0].timeline == timeline;
    for (size_t i = 0; i < model->timeline_count; i++) {
        needed |= model->timelines[i].parent == timeline && !model->timelines[i].is_gone;
    }
    return needed;
}

void model_put(struct model *model, int timeline, int key, lsn_t lsn, uint8_t tag, uint64_t value)
{
    ASSERT(model->event_count < MODEL_EVENTS);
    model->events[model->event_count++] = (struct model_event){
        .lsn = lsn,
        .value = value,
        .timeline = (uint8_t)timeline,
        .key = (uint8_t)key,
        .tag = tag,
    };
}

/* Visit what `timeline` sees of a key at `lsn`, newest first; *at begins as event_count. */
static const struct model_event *next_older(
    const struct model *model, int *timeline, int key, lsn_t *lsn, size_t *at)
{
    while (*timeline >= 0) {
        while (*at > 0) {
            const struct model_event *event = &model->events[--*at];
            if (event->key == key && event->timeline == *timeline && event->lsn <= *lsn) {
                return event;
            }
        }
        *lsn = MIN_OF(*lsn, model->timelines[*timeline].start);
        *timeline = model->timelines[*timeline].parent;
        *at = model->event_count;
    }
    return NULL;
}

const struct model_event *model_newest(const struct model *model, int timeline, int key, lsn_t lsn)
{
    size_t at = model->event_count;
    return next_older(model, &timeline, key, &lsn, &at);
}

uint64_t model_mix(uint64_t content, uint64_t value)
{
    content = (content ^ value) * 0x9E3779B97F4A7C15u;
    return content ^ content >> 29;
}

struct model_page model_read(const struct model *model, int timeline, int key, lsn_t lsn)
{
    static const struct model_event *seen[MODEL_EVENTS];
    size_t at = model->event_count, count = 0;
    const struct model_event *event;
    while ((event = next_older(model, &timeline, key, &lsn, &at)) != NULL) {
        seen[count++] = event;
        if (event->tag != VALUE_DELTA) {
            break;
        }
    }
    struct model_page page = {0};
    if (count > 0) {
        page.lsn = seen[0]->lsn;
        page.timeline = seen[0]->timeline;
    }
    while (count-- > 0) {
        switch (seen[count]->tag) {
        case VALUE_ZERO: page.content = 0; break;
        case VALUE_INIT: page.content = model_mix(0, seen[count]->value); break;
        case VALUE_DELTA: page.content = model_mix(page.content, seen[count]->value); break;
        default: page.content = seen[count]->value;
        }
    }
    return page;
}

int model_blocks(const struct model *model, int timeline, int rel, lsn_t lsn)
{
    const struct model_event *size = model_newest(model, timeline, MODEL_SIZE_0 + rel, lsn);
    return size == NULL || (size->value & MODEL_SIZE_EXISTS) == 0 ? -1 : (int)(uint32_t)size->value;
}

lsn_t model_commit_after(const struct model *model, int timeline, uint64_t time, lsn_t lsn)
{
    lsn_t first = 0;
    size_t at = model->event_count;
    const struct model_event *event;
    while ((event = next_older(model, &timeline, MODEL_COMMIT, &lsn, &at)) != NULL) {
        if (event->value > time) {
            first = event->lsn - MODEL_LSN_STEP;
        }
    }
    return first;
}

uint64_t model_newest_commit(const struct model *model, int timeline, lsn_t lsn)
{
    uint64_t newest = 0;
    size_t at = model->event_count;
    const struct model_event *event;
    while ((event = next_older(model, &timeline, MODEL_COMMIT, &lsn, &at)) != NULL) {
        newest = MAX_OF(newest, event->value);
    }
    return newest;
}
