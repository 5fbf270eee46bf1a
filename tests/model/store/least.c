#include "tests/model/store/least.h"

#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/wire/codec.h"

void least_version_set_value(struct least_version *version, struct bytes value)
{
    struct reader in = reader_of(value);
    version->tag = get_u8(&in);
    version->bytes = PAGE_KEY_SIZE + (uint32_t)value.size;
    if (version->key.spc != KEY_SPC_STATE && version->key.block == KEY_BLOCK_SIZE) {
        version->is_absent = get_u8(&in) == 0;
        version->blocks = get_u32(&in);
    } else if (version->tag == VALUE_STATE) {
        version->is_absent = in.left == 0;
    }
}

static int compare_keys(const struct page_key *a, const struct page_key *b)
{
    const uint32_t left[] = {a->spc, a->db, a->rel, a->fork, a->block};
    const uint32_t right[] = {b->spc, b->db, b->rel, b->fork, b->block};
    for (size_t i = 0; i < ARRAY_LEN(left); i++) {
        if (left[i] != right[i]) {
            return left[i] < right[i] ? -1 : 1;
        }
    }
    return 0;
}

int least_version_order(const void *left, const void *right)
{
    const struct least_version *a = left, *b = right;
    if (a->timeline != b->timeline) {
        return a->timeline < b->timeline ? -1 : 1;
    }
    int order = compare_keys(&a->key, &b->key);
    return order != 0 ? order : a->lsn > b->lsn ? -1 : a->lsn < b->lsn;
}

/* -- walking back on the path of a timeline -- */

static const struct least_timeline *find_timeline(const struct least_world *world, uint32_t number)
{
    for (size_t i = 0; i < world->timeline_count; i++) {
        if (world->timelines[i].number == number) {
            return &world->timelines[i];
        }
    }
    return NULL;
}

struct walk {
    struct least_world *world;
    const struct least_timeline *timeline; /* NULL: behind the last ancestor */
    struct page_key key;
    lsn_t lsn; /* the next version is not above it */
};

/* The newest version of the key on one timeline at or below `lsn`; NULL: none. */
static struct least_version *newest_of(
    struct least_world *world, uint32_t timeline, struct page_key key, lsn_t lsn)
{
    struct least_version wanted = {.timeline = timeline, .key = key, .lsn = lsn};
    size_t begin = 0, end = world->version_count;
    while (begin < end) {
        size_t middle = begin + (end - begin) / 2;
        if (least_version_order(&world->versions[middle], &wanted) < 0) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    struct least_version *found = &world->versions[begin];
    bool is_same = begin < world->version_count && found->timeline == timeline &&
                   compare_keys(&found->key, &key) == 0;
    return is_same ? found : NULL;
}

static struct least_version *walk_next(struct walk *walk)
{
    while (walk->timeline != NULL) {
        struct least_version *found =
            newest_of(walk->world, walk->timeline->number, walk->key, walk->lsn);
        if (found != NULL) {
            walk->lsn = found->lsn - 1;
            return found;
        }
        walk->lsn = MIN_OF(walk->lsn, walk->timeline->start);
        walk->timeline = find_timeline(walk->world, walk->timeline->parent);
    }
    return NULL;
}

/* -- what a read uses -- */

/* A read that found nothing because a version says so: whether it needs that one comes last. */
struct absence {
    struct least_version *version;
    struct walk older;
};

struct marking {
    struct least_world *world;
    struct page_key *keys; /* of everything, each once */
    size_t key_count;
    struct absence *absences;
    size_t absence_count, absence_capacity;
};

static void note_absence(
    struct marking *marking, struct least_version *version, const struct walk *older)
{
    if (marking->absence_count == marking->absence_capacity) {
        marking->absence_capacity = MAX_OF(2 * marking->absence_capacity, (size_t)256);
        marking->absences = mem_realloc(
            marking->absences, marking->absence_capacity * sizeof(marking->absences[0]));
    }
    marking->absences[marking->absence_count++] =
        (struct absence){.version = version, .older = *older};
}

static bool exists_at(
    struct marking *marking, const struct least_timeline *timeline, struct page_key key, lsn_t lsn)
{
    if (key.spc == KEY_SPC_STATE || key.block == KEY_BLOCK_SIZE) {
        return true;
    }
    struct walk walk = {
        .world = marking->world, .timeline = timeline, .key = page_key_size_of(key), .lsn = lsn};
    const struct least_version *size = walk_next(&walk);
    return size != NULL && !size->is_absent && key.block < size->blocks;
}

static void play_read(
    struct marking *marking, const struct least_timeline *timeline, struct page_key key, lsn_t lsn)
{
    if (!exists_at(marking, timeline, key, lsn)) {
        return;
    }
    struct walk walk = {.world = marking->world, .timeline = timeline, .key = key, .lsn = lsn};
    struct least_version *version = walk_next(&walk);
    if (version != NULL && version->is_absent) {
        note_absence(marking, version, &walk);
        return;
    }
    while (version != NULL) {
        version->is_needed = true;
        version = version->tag == VALUE_DELTA ? walk_next(&walk) : NULL;
    }
}

static bool is_commit_time(const struct page_key *key)
{
    return key->spc == KEY_SPC_STATE && key->db == STATE_COMMIT_TIME;
}

static bool is_position(const struct page_key *key)
{
    return key->spc == KEY_SPC_STATE && key->db == STATE_INGEST_LSN;
}

/* Commit times are keys of their own: the newest of all of them. */
static void play_time_read(
    struct marking *marking, const struct least_timeline *timeline, lsn_t lsn)
{
    struct least_world *world = marking->world;
    for (; timeline != NULL; timeline = find_timeline(world, timeline->parent)) {
        struct least_version *newest = NULL;
        for (size_t i = 0; i < world->version_count; i++) {
            struct least_version *version = &world->versions[i];
            if (version->timeline == timeline->number && is_commit_time(&version->key) &&
                version->lsn <= lsn && (newest == NULL || version->lsn > newest->lsn)) {
                newest = version;
            }
        }
        if (newest != NULL) {
            newest->is_needed = true;
            return;
        }
        lsn = MIN_OF(lsn, timeline->start);
    }
}

/* Everything there is, as of one LSN. */
static void play_state(struct marking *marking, const struct least_timeline *timeline, lsn_t lsn)
{
    for (size_t i = 0; i < marking->key_count; i++) {
        play_read(marking, timeline, marking->keys[i], lsn);
    }
    play_time_read(marking, timeline, lsn);
}

/* What was written within the window is read at the LSN at which it was written. */
static void play_window(struct marking *marking, const struct least_timeline *timeline)
{
    struct least_world *world = marking->world;
    for (size_t i = 0; i < world->version_count; i++) {
        struct least_version *version = &world->versions[i];
        if (version->timeline != timeline->number || version->lsn <= timeline->cutoff ||
            is_position(&version->key)) {
            continue;
        }
        if (is_commit_time(&version->key)) {
            version->is_needed = true;
        } else {
            play_read(marking, timeline, version->key, version->lsn);
        }
    }
}

/* Newest first: the first one met is the one that counts. */
static void mark_positions(struct least_world *world)
{
    uint32_t last = 0;
    for (size_t i = 0; i < world->version_count; i++) {
        struct least_version *version = &world->versions[i];
        if (is_position(&version->key) && version->timeline != last &&
            find_timeline(world, version->timeline) != NULL) {
            version->is_needed = true;
            last = version->timeline;
        }
    }
}

/* Where something that is kept anyway would show through. One that is kept may be needed to hide
 * what an older one hid: until nothing changes. */
static void mark_absences(struct marking *marking)
{
    bool changed = true;
    while (changed) {
        changed = false;
        for (size_t i = 0; i < marking->absence_count; i++) {
            struct absence *absence = &marking->absences[i];
            struct walk walk = absence->older;
            const struct least_version *older = walk_next(&walk);
            while (older != NULL && !older->is_needed) {
                older = walk_next(&walk);
            }
            if (!absence->version->is_needed && older != NULL && !older->is_absent) {
                absence->version->is_needed = changed = true;
            }
        }
    }
}

static int order_of_keys(const void *left, const void *right)
{
    return compare_keys(left, right);
}

static void gather_keys(struct marking *marking)
{
    const struct least_world *world = marking->world;
    marking->keys = MEM_ARRAY(struct page_key, world->version_count + 1);
    for (size_t i = 0; i < world->version_count; i++) {
        if (!is_commit_time(&world->versions[i].key) && !is_position(&world->versions[i].key)) {
            marking->keys[marking->key_count++] = world->versions[i].key;
        }
    }
    qsort(marking->keys, marking->key_count, sizeof(marking->keys[0]), order_of_keys);
    size_t kept = 0;
    for (size_t i = 0; i < marking->key_count; i++) {
        if (kept == 0 || compare_keys(&marking->keys[kept - 1], &marking->keys[i]) != 0) {
            marking->keys[kept++] = marking->keys[i];
        }
    }
    marking->key_count = kept;
}

void least_mark(struct least_world *world)
{
    struct marking marking = {.world = world};
    qsort(world->versions, world->version_count, sizeof(world->versions[0]), least_version_order);
    gather_keys(&marking);
    mark_positions(world);
    for (size_t i = 0; i < world->timeline_count; i++) {
        const struct least_timeline *timeline = &world->timelines[i];
        if (!timeline->is_deleted) {
            play_state(&marking, timeline, timeline->cutoff);
            play_window(&marking, timeline);
        }
    }
    for (size_t i = 0; i < world->lease_count; i++) {
        const struct least_timeline *timeline = find_timeline(world, world->leases[i].timeline);
        ASSERT(timeline != NULL);
        play_state(&marking, timeline, world->leases[i].lsn);
    }
    mark_absences(&marking);
    mem_free(marking.keys);
    mem_free(marking.absences);
}
