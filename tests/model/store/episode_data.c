#include "tests/model/store/episode_private.h"

#include "tests/model/store/subject.h"

/* -- choosing: timelines that users see, LSNs that they may read -- */

bool episode_is_live(size_t timeline)
{
    return !model->timelines[timeline].is_gone && !model->timelines[timeline].is_tombstone;
}

int episode_pick_timeline(uint32_t number)
{
    size_t live = 0;
    for (size_t i = 0; i < model->timeline_count; i++) {
        live += episode_is_live(i) ? 1 : 0;
    }
    size_t wanted = number % live;
    for (size_t i = 0;; i++) {
        if (episode_is_live(i) && wanted-- == 0) {
            return (int)i;
        }
    }
}

/* Any LSN up to the head; often the head, the cutoff, or what something holds. */
lsn_t episode_pick_any_lsn(int timeline, uint32_t number)
{
    lsn_t head = model->timelines[timeline].head;
    lsn_t steps = head / MODEL_LSN_STEP;
    const struct model_hold *hold = &model->holds[number / 64 % MODEL_HOLDS];
    if (number % 16 < 5 && hold->is_used && hold->lsn <= head) {
        return hold->lsn;
    }
    if (number % 16 == 5) {
        return MIN_OF(head, model->timelines[timeline].cutoff);
    }
    return number % 4 == 0 || steps == 0 ? head
                                         : number % (steps + 1) * MODEL_LSN_STEP + number / 4 % 2;
}

/* One that may be read: store and model must agree which those are. */
static bool pick_lsn(int timeline, uint32_t number, lsn_t *ret_lsn)
{
    lsn_t lsn = episode_pick_any_lsn(timeline, number);
    bool may = model_may_read(model, timeline, lsn);
    if (subject_may_read(timeline, lsn) != may) {
        episode_differ(
            "timeline %d at %" PRIx64 " %s, but the store says otherwise", timeline, lsn,
            may ? "may be read" : "is not kept");
    }
    *ret_lsn = lsn;
    return may;
}

/* -- writing: records as a decoder makes them -- */

static void put_life(int timeline, int key, lsn_t lsn, uint32_t dice)
{
    static const uint8_t begins[] = {VALUE_ZERO, VALUE_INIT, VALUE_INIT, VALUE_INIT, VALUE_IMAGE};
    uint8_t tag = begins[dice % ARRAY_LEN(begins)];
    model_put(model, timeline, key, lsn, tag, tag == VALUE_ZERO ? 0 : lsn);
}

static void put_size(int timeline, int rel, lsn_t lsn, int blocks)
{
    uint64_t value = blocks < 0 ? 0 : MODEL_SIZE_EXISTS | (uint64_t)blocks;
    model_put(model, timeline, MODEL_SIZE_0 + rel, lsn, VALUE_STATE, value);
}

static void write_relation(int timeline, lsn_t lsn, const struct op *op)
{
    int rel = (int)(op->b % MODEL_RELS);
    int blocks = model_blocks(model, timeline, rel, lsn);
    uint32_t dice = op->c % 100;
    if (blocks < 0 || (dice < 12 && blocks < MODEL_BLOCKS)) {
        put_life(timeline, rel * MODEL_BLOCKS + MAX_OF(blocks, 0), lsn, op->d);
        put_size(timeline, rel, lsn, MAX_OF(blocks, 0) + 1);
    } else if (dice < 16) {
        put_size(timeline, rel, lsn, (int)(op->d % ((uint32_t)blocks + 1))); /* truncate */
    } else if (dice < 19) {
        put_size(timeline, rel, lsn, -1); /* drop */
    } else if (blocks > 0 && dice < 35) {
        put_life(timeline, rel * MODEL_BLOCKS + (int)(op->d % (uint32_t)blocks), lsn, op->d / 8);
    } else if (blocks > 0) {
        int key = rel * MODEL_BLOCKS + (int)(op->d % (uint32_t)blocks);
        model_put(model, timeline, key, lsn, VALUE_DELTA, lsn);
    }
}

static void write_slru(int timeline, lsn_t lsn, const struct op *op)
{
    int key = MODEL_SLRU_0 + (int)(op->b % MODEL_SLRU_PAGES);
    if (op->c % 8 == 0 || model_newest(model, timeline, key, lsn) == NULL) {
        put_life(timeline, key, lsn, op->d);
    } else {
        model_put(model, timeline, key, lsn, VALUE_DELTA, lsn);
    }
}

/* A clock that often stands still and sometimes jumps back; only later times are stored. */
static void write_commit(int timeline, lsn_t lsn, const struct op *op)
{
    uint64_t newest = model_newest_commit(model, timeline, lsn);
    uint64_t time = newest + 1 + op->b % 7;
    time -= MIN_OF(time - 1, (uint64_t)(op->c % 3 == 0 ? op->d % 20 : 0));
    time += op->c % 64 == 1 ? UINT32_MAX : 0;
    model_put(model, timeline, MODEL_COMMIT, lsn, time > newest ? VALUE_STATE : 0, time);
}

/* Feed the record that ends at `lsn` to the store. */
void episode_ingest(int timeline, size_t first_event, lsn_t lsn)
{
    for (size_t i = first_event; i < model->event_count && model->events[i].lsn == lsn; i++) {
        if (model->events[i].tag != 0) {
            subject_put(model, &model->events[i]);
        }
    }
    subject_commit(model, timeline, lsn);
}

void episode_write(const struct op *op)
{
    if (model->event_count + 4 > MODEL_EVENTS) {
        return;
    }
    int timeline = episode_pick_timeline(op->a);
    lsn_t lsn = model->next_lsn += MODEL_LSN_STEP;
    size_t first = model->event_count;
    switch (op->a / 64 % 8) {
    case 0: write_slru(timeline, lsn, op); break;
    case 1:
        model_put(
            model, timeline, MODEL_STATE_0 + (int)(op->b % MODEL_STATES), lsn, VALUE_STATE, lsn);
        break;
    case 2: write_commit(timeline, lsn, op); break;
    default: write_relation(timeline, lsn, op); break;
    }
    if (model->event_count > first) {
        model->timelines[timeline].head = lsn;
        episode_ingest(timeline, first, lsn);
    }
}

/* -- reading -- */

static void count_check(void)
{
    episode->checks++;
    episode->beside += subject_is_compacting() ? 1 : 0;
}

static void compare_page(int timeline, int key, lsn_t lsn)
{
    count_check();
    struct model_page expected = model_read(model, timeline, key, lsn);
    struct model_page found = subject_read(key, lsn);
    if (found.lsn != expected.lsn || found.content != expected.content) {
        episode_differ(
            "%s on timeline %d at %" PRIx64 ": version %" PRIx64 " content %" PRIx64
            ", expected version %" PRIx64 " content %" PRIx64,
            page_key_text(model_key(key)).text, timeline, lsn, found.lsn, found.content,
            expected.lsn, expected.content);
    }
}

/* As a read does: the size first, then a block that exists. */
void episode_compare(int timeline, uint32_t number, lsn_t lsn)
{
    int key = (int)(number % (MODEL_SIZE_0 + MODEL_SLRU_PAGES + MODEL_STATES));
    if (key >= MODEL_SIZE_0) {
        compare_page(timeline, key + MODEL_RELS, lsn);
        return;
    }
    int rel = key / MODEL_BLOCKS;
    count_check();
    int expected = model_blocks(model, timeline, rel, lsn), found = subject_blocks(rel, lsn);
    if (found != expected) {
        episode_differ(
            "relation %d on timeline %d at %" PRIx64 " has %d blocks, expected %d", rel, timeline,
            lsn, found, expected);
    }
    if (key % MODEL_BLOCKS < expected) {
        compare_page(timeline, key, lsn);
    }
}

void episode_read(const struct op *op)
{
    int timeline = episode_pick_timeline(op->a);
    subject_reader_open(model, timeline);
    for (uint32_t i = 0; i < 4; i++) {
        lsn_t lsn;
        if (pick_lsn(timeline, op->b + i % 2 * 0x1234567, &lsn)) {
            episode_compare(timeline, op->c + i * 7, lsn);
        }
    }
    subject_reader_close();
}

void episode_list(const struct op *op)
{
    int timeline = episode_pick_timeline(op->a);
    lsn_t lsn;
    if (!pick_lsn(timeline, op->b, &lsn)) {
        return;
    }
    unsigned expected = 0;
    count_check();
    for (int rel = 0; rel < MODEL_RELS; rel++) {
        expected |= model_blocks(model, timeline, rel, lsn) < 0 ? 0 : 1u << rel;
    }
    subject_reader_open(model, timeline);
    unsigned found = subject_relations(lsn);
    subject_reader_close();
    if (found != expected) {
        episode_differ(
            "timeline %d at %" PRIx64 " lists relations %x, expected %x", timeline, lsn, found,
            expected);
    }
}

void episode_time(const struct op *op)
{
    int timeline = episode_pick_timeline(op->a);
    lsn_t lsn;
    if (!pick_lsn(timeline, op->b, &lsn)) {
        return;
    }
    count_check();
    uint64_t newest = model_newest_commit(model, timeline, lsn);
    uint64_t time = newest - MIN_OF(newest, (uint64_t)(op->c % 64));
    lsn_t after = model_commit_after(model, timeline, time, lsn);
    subject_reader_open(model, timeline);
    uint64_t found_newest = subject_newest_commit(lsn);
    lsn_t found = subject_commit_after(time, lsn);
    subject_reader_close();
    /* A time before what is kept must not lead into what is. */
    bool is_lost = after != 0 && !model_is_in_window(model, timeline, after) && found != 0 &&
                   !model_is_in_window(model, timeline, found);
    if (found_newest != newest || (found != after && !is_lost)) {
        episode_differ(
            "timeline %d at %" PRIx64 ": newest commit %" PRIu64 " expected %" PRIu64
            ", first after %" PRIu64 " at %" PRIx64 " expected %" PRIx64,
            timeline, lsn, found_newest, newest, time, found, after);
    }
}

/* A read left an image of what it made, in place of the newest version that it used. */
void episode_image(const struct op *op)
{
    int timeline = episode_pick_timeline(op->a);
    int key = (int)(op->b % (MODEL_SIZE_0 + MODEL_SLRU_PAGES));
    key += key >= MODEL_SIZE_0 ? MODEL_RELS : 0;
    lsn_t lsn;
    if (!pick_lsn(timeline, op->c, &lsn)) {
        return;
    }
    struct model_page page = model_read(model, timeline, key, lsn);
    bool exists = key >= MODEL_SIZE_0 ||
                  key % MODEL_BLOCKS < model_blocks(model, timeline, key / MODEL_BLOCKS, lsn);
    if (page.lsn != 0 && exists) {
        subject_put_image(model, key, page);
    }
}
