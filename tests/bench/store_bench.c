/*
 * store_bench FOLDER SHAPE MIB IMAGES - what it costs to turn MIB of WAL into versions on disk.
 *
 * Shapes: `small` (records of 100 bytes), `mix` (3 % page images, 97 % records with 50 to 300 bytes
 * of data); four of five hit a fifth of the pages. Rounds over the same records, each in a
 * folder of its own:
 *   ingest   wal_ingest with loop, executor and tenants as in the pageserver: read, check, decode,
 *            layers, an image of a page after IMAGES records (0: none), flushes, compaction
 *   files    the same keys and values, sorted, in as many files as ingest made, by kv_file
 *            and kv_ingest, and the compaction: what RocksDB alone asks for; once with the images
 *            that ingest made, when it made some, and once without
 *
 * Prints one JSON object. CPU time is that of the whole process until nothing runs any more; what
 * was written is every byte given to write(), compactions included, and version_bytes the keys and
 * values of the records as they are, without images that were made.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/parse.h"
#include "common/base/prng.h"
#include "common/kv/kv.h"
#include "common/pg/wal_record.h"
#include "pageserver/redo/redo.h"
#include "tests/bench/ingest_lab.h"

#define PAGES        100000u
#define SMALL_DATA   50u /* and the piece's head: a record of 100 bytes */
#define PAGE_DATA_AT 8000u

#define LEVEL0_TRIGGER 4 /* as in common/kv */

static size_t layers_max;
static unsigned flushes, files_written; /* a large layer becomes more than one file */

static const struct page_key relation = {.spc = 1663, .db = 5, .rel = 100};

/* -- the records -- */

struct version {
    uint32_t block;
    uint32_t size;
    lsn_t lsn;
    bool is_made; /* an image that ingest made */
    size_t at;    /* of the value in `values` */
};

static struct {
    struct wal_builder builder;
    struct version *versions;
    size_t count, capacity;
    struct buf values;
} made;

/* The images that ingest will make, by the same rule, in the order of their LSNs. */
static struct {
    unsigned after; /* records; 0: none are made */
    struct version *versions;
    size_t count, capacity;
    struct buf values;
    uint8_t (*pages)[PAGE_SIZE]; /* as they are now */
    uint8_t records[PAGES];      /* since the last image */
} images_made;

static uint32_t pick_block(struct prng *prng)
{
    bool hot = prng_below(prng, 5) != 0;
    return (uint32_t)prng_below(prng, hot ? PAGES / 5 : PAGES);
}

static void keep_image(uint32_t block, lsn_t lsn)
{
    if (images_made.count == images_made.capacity) {
        images_made.capacity = MAX_OF(2 * images_made.capacity, (size_t)4096);
        images_made.versions = mem_realloc(
            images_made.versions, images_made.capacity * sizeof(images_made.versions[0]));
    }
    size_t at = images_made.values.size;
    uint8_t tag = VALUE_IMAGE;
    buf_append(&images_made.values, &tag, sizeof(tag));
    buf_append(&images_made.values, images_made.pages[block], PAGE_SIZE);
    images_made.versions[images_made.count++] = (struct version){
        .block = block, .size = 1 + PAGE_SIZE, .lsn = lsn, .is_made = true, .at = at};
}

static void follow_images(uint32_t block, lsn_t lsn, uint8_t tag, struct bytes value)
{
    struct errmsg msg;
    struct wal_record record;
    struct page_key key = relation;
    key.block = block;
    images_made.records[block]++;
    if (tag == VALUE_IMAGE) {
        memcpy(images_made.pages[block], value.data, PAGE_SIZE);
        images_made.records[block] = 0;
        return;
    }
    must(wal_record_decode(value, lsn, lsn, &record, &msg), &msg);
    must(redo_apply(&record, 0, key, images_made.pages[block], &msg), &msg);
    if (images_made.records[block] == images_made.after) {
        keep_image(block, lsn);
        images_made.records[block] = 0;
    }
}

static void note(uint32_t block, lsn_t lsn, uint8_t tag, struct bytes value)
{
    if (images_made.after > 0) {
        follow_images(block, lsn, tag, value);
    }
    if (made.count == made.capacity) {
        made.capacity = MAX_OF(2 * made.capacity, (size_t)65536);
        made.versions = mem_realloc(made.versions, made.capacity * sizeof(made.versions[0]));
    }
    size_t at = made.values.size;
    uint8_t head[] = {tag, 0};
    buf_append(&made.values, head, tag == VALUE_IMAGE ? 1 : 2);
    buf_append(&made.values, value.data, value.size);
    made.versions[made.count++] = (struct version){
        .block = block, .size = (uint32_t)(made.values.size - at), .lsn = lsn, .at = at};
}

/* Half of a page is noise: what lz4 makes of real ones. */
static void fill_page(struct prng *prng, uint8_t page[PAGE_SIZE])
{
    memset(page, 0, PAGE_SIZE);
    page_set_u16(page, PAGE_LOWER, PAGE_DATA_AT);
    page_set_u16(page, PAGE_UPPER, PAGE_SIZE);
    page_set_u16(page, PAGE_SPECIAL, PAGE_SIZE);
    page_set_u16(page, PAGE_VERSION, PAGE_SIZE | 4);
    for (size_t i = PAGE_SIZE / 2; i < PAGE_DATA_AT; i += sizeof(uint64_t)) {
        uint64_t noise = prng_next(prng);
        memcpy(page + i, &noise, sizeof(noise));
    }
}

/* The first record of a page makes it. */
static void add_first_record(struct page_key key)
{
    uint16_t piece[] = {PAGE_LOWER, 8, PAGE_DATA_AT, PAGE_SIZE, PAGE_SIZE, PAGE_SIZE | 4};
    lsn_t lsn = wal_builder_add(
        &made.builder,
        &(struct wal_builder_record){
            .rmgr = RM_GENERIC,
            .blocks = {{.key = key, .will_init = true, .data = bytes_of(piece, sizeof(piece))}},
            .block_count = 1});
    note(key.block, lsn, VALUE_INIT, buf_view(&made.builder.record));
}

static void add_record(struct prng *prng, bool mix)
{
    static uint8_t page[PAGE_SIZE], data[512];
    static bool known[PAGES];
    struct page_key key = relation;
    key.block = pick_block(prng);
    if (mix && prng_below(prng, 100) < 3) {
        fill_page(prng, page);
        lsn_t lsn = wal_builder_add(
            &made.builder, &(struct wal_builder_record){
                               .rmgr = RM_XLOG,
                               .info = 0xB0, /* XLOG_FPI */
                               .blocks = {{.key = key, .image = bytes_of(page, sizeof(page))}},
                               .block_count = 1});
        note(key.block, lsn, VALUE_IMAGE, bytes_of(page, sizeof(page)));
        known[key.block] = true;
        return;
    }
    if (!known[key.block]) {
        known[key.block] = true;
        add_first_record(key);
        return;
    }
    /* A piece of generic WAL: offset, size, bytes. */
    size_t size = 4 + (mix ? 50 + prng_below(prng, 251) : SMALL_DATA);
    uint16_t head[] = {
        (uint16_t)(PAGE_HEADER_SIZE + prng_below(prng, PAGE_DATA_AT - 400)), (uint16_t)(size - 4)};
    memcpy(data, head, sizeof(head));
    for (size_t i = sizeof(head); i < size; i += 16) {
        uint64_t noise = prng_next(prng);
        memcpy(data + i, &noise, sizeof(noise)); /* every other eight bytes */
    }
    lsn_t lsn = wal_builder_add(
        &made.builder, &(struct wal_builder_record){
                           .rmgr = RM_GENERIC,
                           .blocks = {{.key = key, .data = bytes_of(data, size)}},
                           .block_count = 1});
    note(key.block, lsn, VALUE_DELTA, buf_view(&made.builder.record));
}

static void make_records(bool mix, size_t bytes)
{
    struct prng prng;
    prng_init(&prng, 20261126);
    wal_builder_init(&made.builder, LAB_START_LSN, LAB_SEGMENT_SIZE);
    while (made.builder.wal.size < bytes) {
        add_record(&prng, mix);
    }
}

/* -- ingest, as in the pageserver -- */

static unsigned files_so_far(void)
{
    struct buf text = {0};
    metric_print_all(&text);
    const char *at = strstr(buf_cstr(&text), "\npageserver_store_files_total ");
    unsigned count = at == NULL ? 0 : (unsigned)strtoul(strchr(at + 1, ' '), NULL, 10);
    buf_deinit(&text);
    return count;
}

static struct cost run_ingest(const char *folder, unsigned images)
{
    const struct ingest_lab *lab = ingest_lab_open_empty(folder, relation, PAGES, images);
    unsigned files = files_so_far();
    struct cost begin = cost_now();
    ingest_lab_run(buf_view(&made.builder.wal), made.builder.lsn);
    ingest_lab_flush();
    struct cost used = cost_since(begin);
    layers_max = lab->layers_max;
    flushes = lab->flushes;
    files_written = files_so_far() - files;
    ingest_lab_close();
    return used;
}

/* -- files alone -- */

static int compare_versions(const void *left, const void *right)
{
    const struct version *a = left, *b = right;
    if (a->block != b->block) {
        return a->block < b->block ? -1 : 1;
    }
    return a->lsn > b->lsn ? -1 : a->lsn < b->lsn;
}

/* Of both lists, the images in place of the records at their LSNs. */
struct both {
    size_t next_record, next_image;
    bool with_images;
};

static struct version next_version(struct both *both, bool *ret_more)
{
    bool image = both->with_images && both->next_image < images_made.count &&
                 (both->next_record == made.count || images_made.versions[both->next_image].lsn <=
                                                         made.versions[both->next_record].lsn);
    *ret_more = image || both->next_record < made.count;
    if (!*ret_more) {
        return (struct version){0};
    }
    if (!image) {
        return made.versions[both->next_record++];
    }
    struct version version = images_made.versions[both->next_image++];
    both->next_record +=
        both->next_record < made.count && made.versions[both->next_record].lsn == version.lsn ? 1
                                                                                              : 0;
    return version;
}

static struct bytes value_of(const struct version *version)
{
    bool is_image = version->is_made;
    const uint8_t *values = is_image ? images_made.values.data : made.values.data;
    return bytes_of(values + version->at, version->size);
}

static void write_file(struct kv *kv, const char *path, struct version *versions, size_t count)
{
    struct errmsg msg;
    struct kv_file *file = NULL;
    qsort(versions, count, sizeof(versions[0]), compare_versions);
    must(kv_file_create(kv, path, &file, &msg), &msg);
    for (size_t i = 0; i < count; i++) {
        uint8_t bytes[PAGE_KEY_SIZE];
        struct page_key key = relation;
        key.block = versions[i].block;
        page_key_encode(1, key, versions[i].lsn, bytes);
        must(kv_file_put(file, bytes_of(bytes, sizeof(bytes)), value_of(&versions[i]), &msg), &msg);
    }
    must(kv_file_finish(file, &msg), &msg);
    kv_file_destroy(file);
    must(kv_ingest(kv, &path, 1, &msg), &msg);
    /* Ingest leaves compaction the time to merge four files at once; without this, there would be
     * more of them each time, and fewer times. */
    while (kv_level0_files(kv) >= LEVEL0_TRIGGER || kv_is_compacting(kv)) {
        pause_ms(5);
    }
}

static struct cost run_files(const char *folder, bool with_images)
{
    struct errmsg msg;
    struct kv *kv = NULL;
    char path[512], file[600];
    (void)snprintf(path, sizeof(path), "%s/files%d", folder, with_images);
    (void)snprintf(file, sizeof(file), "%s/incoming.sst", folder);
    struct kv_options options = {.prefix_size = PAGE_KEY_PREFIX_SIZE, .write_buffer_bytes = MIB};
    must(kv_open(path, &options, &kv, &msg), &msg);
    struct cost begin = cost_now();
    /* As many files as ingest made: so both have as much to compact. */
    size_t all = made.values.size + (with_images ? images_made.values.size : 0);
    size_t count = 0, bytes = 0, written = 0;
    struct version *versions = MEM_ARRAY(struct version, made.count + images_made.count);
    struct both both = {.with_images = with_images};
    bool more = true;
    while (more) {
        struct version version = next_version(&both, &more);
        if (more) {
            versions[count++] = version;
            bytes += version.size;
        }
        /* The images take the places of some records: the last file is a little smaller. */
        bool is_full =
            bytes >= (written + 1) * (all / files_written) && written + 1 < files_written;
        if (count > 0 && (!more || is_full)) {
            write_file(kv, file, versions, count);
            written++;
            count = 0;
        }
    }
    mem_free(versions);
    pause_ms(400); /* as ingest: old files go */
    struct cost used = cost_since(begin);
    kv_close(kv);
    return used;
}

static void print_cost(const char *name, struct cost cost)
{
    printf(
        ", \"%s_cpu_s\": %.3f, \"%s_compaction_cpu_s\": %.3f, \"%s_written\": %" PRIu64, name,
        cost.cpu, name, cost.compaction, name, cost.written);
}

int main(int argc, char **argv)
{
    uint64_t mib = 0, images = 0;
    bool mix = argc == 5 && strcmp(argv[2], "mix") == 0;
    if (argc != 5 || (!mix && strcmp(argv[2], "small") != 0) ||
        parse_u64(argv[3], 1, 4096, &mib, NULL) != ERR_OK ||
        parse_u64(argv[4], 0, 254, &images, NULL) != ERR_OK) {
        (void)fprintf(stderr, "usage: store_bench FOLDER small|mix MIB IMAGES\n");
        return 2;
    }
    images_made.after = (unsigned)images;
    images_made.pages = images == 0 ? NULL : mem_zalloc((size_t)PAGES * PAGE_SIZE);
    make_records(mix, (size_t)mib * MIB);
    mem_free(images_made.pages);
    struct cost ingest = run_ingest(argv[1], (unsigned)images);
    struct cost files = run_files(argv[1], false);
    struct cost same = images == 0 ? files : run_files(argv[1], true);
    printf(
        "{\"records\": %zu, \"wal_bytes\": %zu, \"version_bytes\": %zu, \"images\": %zu, "
        "\"layers_max_bytes\": %zu, \"flushes\": %u, \"files\": %u",
        made.count, made.builder.wal.size, made.values.size + made.count * PAGE_KEY_SIZE,
        images_made.count, layers_max, flushes, files_written);
    print_cost("ingest", ingest);
    print_cost("files", files);
    print_cost("same_files", same);
    printf("}\n");
    return 0;
}
