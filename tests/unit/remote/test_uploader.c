/*
 * test_uploader.c - a tenant's store goes up and comes down again: real RocksDB, real directory.
 */
#include "pageserver/remote/uploader.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/fault.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "pageserver/remote/downloader.h"
#include "pageserver/remote/index_store.h"
#include "pageserver/remote/remote_state.h"
#include "tests/lib/page_batch.h"
#include "tests/unit/unit.h"

#define TIMELINE 1u
#define PAGES    50u

static const struct tenant_id tenant = {.bytes = {0xAA}};
static const struct timeline_id timeline = {.bytes = {0xBB}};
static struct errmsg msg;
static char root[PATH_SIZE];
static struct objstore *objects;

static void path_of(const char *name, char to[PATH_SIZE])
{
    ck_assert_ok(str_format(to, PATH_SIZE, &msg, "%.200s/%s", root, name), &msg);
}

static void begin(void)
{
    char path[PATH_SIZE];
    unit_folder(root, sizeof(root), "test_uploader");
    path_of("objects", path);
    ck_assert_ok(objstore_open(path, &objects, &msg), &msg);
}

static void end(void)
{
    objstore_close(objects);
    ck_assert_ok(dir_remove(root, &msg), &msg);
}

/* One pageserver's disk. */
struct disk {
    char folder[PATH_SIZE];
    struct page_store *store;
    struct uploader *uploader;
    struct remote_position position;
};

static void disk_open(struct disk *disk, const char *name)
{
    struct page_store_options options = {0};
    path_of(name, disk->folder);
    ck_assert_ok(page_store_open(disk->folder, &options, &disk->store, &msg), &msg);
    disk->uploader = uploader_create(
        &(struct uploader_options){.objects = objects, .tenant = tenant, .folder = disk->folder});
}

static void disk_close(struct disk *disk)
{
    uploader_destroy(disk->uploader);
    page_store_close(disk->store);
}

/* A version of every page at `lsn`, durable. */
static void ingest(struct disk *disk, lsn_t lsn)
{
    struct page_batch *batch = page_batch_create();
    for (uint32_t block = 0; block < PAGES; block++) {
        uint8_t page[PAGE_SIZE];
        memset(page, (int)(lsn % 251), sizeof(page));
        page_batch_put(
            batch, TIMELINE, (struct page_key){.spc = 1663, .db = 5, .rel = 9, .block = block}, lsn,
            VALUE_IMAGE, 0, bytes_of(page, sizeof(page)));
    }
    page_batch_put_position(
        batch, TIMELINE, (struct ingest_position){.lsn = lsn, .prev_record_lsn = lsn - 8});
    ck_assert_ok(page_store_write(disk->store, batch, &msg), &msg);
    page_batch_destroy(batch);
    ck_assert_ok(page_store_flush(disk->store, &msg), &msg);
    disk->position = (struct remote_position){.timeline = timeline, .number = TIMELINE, .lsn = lsn};
}

static err_t upload(struct disk *disk, generation_t generation, struct upload_round *round)
{
    *round = (struct upload_round){
        .store = disk->store,
        .generation = generation,
        .positions = &disk->position,
        .position_count = 1,
    };
    return uploader_run(disk->uploader, round, &msg);
}

static err_t restore(const char *name, generation_t generation, struct download_result *result)
{
    char folder[PATH_SIZE];
    path_of(name, folder);
    return downloader_restore(objects, tenant, generation, folder, result, &msg);
}

/* What a restored disk holds is what was ingested up to `lsn`. */
static void check_content(struct disk *disk, lsn_t lsn)
{
    struct ingest_position position;
    struct page_versions versions = {0};
    ck_assert_ok(page_store_position(disk->store, TIMELINE, &position, &msg), &msg);
    ck_assert_uint_eq(position.lsn, lsn);
    struct page_path *path = mem_zalloc(sizeof(*path) + sizeof(path->spans[0]));
    path->count = 1;
    path->spans[0] = (struct page_span){.timeline = TIMELINE, .max_lsn = UINT64_MAX};
    struct page_reader *reader = page_reader_create(disk->store, path);
    for (uint32_t block = 0; block < PAGES; block++) {
        struct page_key key = {.spc = 1663, .db = 5, .rel = 9, .block = block};
        ck_assert_ok(page_reader_collect(reader, key, lsn, &versions, &msg), &msg);
        ck_assert_uint_eq(versions.count, 1);
        struct bytes page = page_version_value(&versions, &versions.items[0]);
        ck_assert_uint_eq(page.data[PAGE_SIZE - 1], lsn % 251);
    }
    page_reader_destroy(reader);
    page_versions_deinit(&versions);
    mem_free(path);
}

struct counted {
    size_t count;
    char last[512]; /* the name of the last one */
};

static err_t count_one(const struct objstore_entry *entry, void *context, struct errmsg *ret_msg)
{
    struct counted *counted = context;
    counted->count++;
    return str_copy(counted->last, sizeof(counted->last), entry->name, ret_msg);
}

static struct counted objects_under(struct remote_name prefix)
{
    struct counted counted = {.count = 0};
    struct objstore_query query = {.prefix = prefix.text};
    ck_assert_ok(objstore_list(objects, &query, count_one, &counted, &msg), &msg);
    return counted;
}

/* Every object that an index of generation 1 names is there. */
static void check_indexes_are_complete(size_t expected_count)
{
    struct index_id *ids = NULL;
    size_t count = 0;
    ck_assert_ok(index_list(objects, tenant, 1, &ids, &count, &msg), &msg);
    ck_assert_uint_eq(count, expected_count);
    for (size_t i = 0; i < count; i++) {
        struct remote_index index;
        ck_assert_ok(index_load(objects, tenant, ids[i], &index, &msg), &msg);
        for (size_t k = 0; k < index.file_count; k++) {
            struct remote_file *file = &index.files[k];
            struct objstore_info info;
            struct remote_name name =
                remote_data_name(tenant, file->generation, file->name, file->hash);
            ck_assert_ok(objstore_head(objects, name.text, &info, &msg), &msg);
        }
        remote_index_deinit(&index);
    }
    mem_free(ids);
}

START_TEST(test_an_empty_disk_becomes_what_was_uploaded)
{
    struct disk first, second;
    struct upload_round round;
    struct download_result result;
    begin();
    disk_open(&first, "first");
    ingest(&first, 1000);
    ck_assert_ok(upload(&first, 1, &round), &msg);
    ck_assert_uint_eq(round.sequence, 1);
    ck_assert_uint_gt(round.files, 0);
    ingest(&first, 2000);
    ck_assert_ok(upload(&first, 1, &round), &msg);
    ck_assert_uint_eq(round.sequence, 2);
    disk_close(&first);
    ck_assert_ok(restore("second", 2, &result), &msg);
    ck_assert(result.found);
    ck_assert_uint_eq(result.sequence, 2);
    disk_open(&second, "second");
    check_content(&second, 2000);
    /* It goes on from there: nothing that is up there is uploaded again. */
    second.position = first.position;
    ck_assert_ok(upload(&second, 2, &round), &msg);
    ck_assert_uint_eq(round.sequence, 1); /* of the new generation */
    ck_assert_uint_le(round.files, 1);    /* at most the rows that opening it has written */
    disk_close(&second);
    end();
}
END_TEST

START_TEST(test_a_tenant_that_was_never_uploaded_is_not_found)
{
    struct download_result result;
    char folder[PATH_SIZE];
    begin();
    ck_assert_ok(restore("nothing", 1, &result), &msg);
    ck_assert(!result.found);
    path_of("nothing", folder);
    ck_assert(!file_exists(folder));
    end();
}
END_TEST

START_TEST(test_a_replaced_owner_is_told_so)
{
    struct disk old, new;
    struct upload_round round;
    struct download_result result;
    begin();
    disk_open(&old, "old");
    ingest(&old, 1000);
    ck_assert_ok(upload(&old, 1, &round), &msg);
    ck_assert_ok(restore("new", 2, &result), &msg);
    disk_open(&new, "new");
    ingest(&new, 2000);
    ck_assert_ok(upload(&new, 2, &round), &msg);
    /* The old one wakes up. It knows its own index and puts another one: of its own generation. */
    ingest(&old, 1500);
    ck_assert_ok(upload(&old, 1, &round), &msg);
    /* A process that looks first hears that it was replaced. */
    uploader_destroy(old.uploader);
    old.uploader = uploader_create(
        &(struct uploader_options){.objects = objects, .tenant = tenant, .folder = old.folder});
    ck_assert_int_eq(upload(&old, 1, &round), ERR_STALE);
    disk_close(&old);
    disk_close(&new);
    /* Whatever it did, the newest generation's index is the one that counts. */
    struct disk third;
    ck_assert_ok(restore("third", 3, &result), &msg);
    ck_assert_uint_eq(result.generation, 2);
    disk_open(&third, "third");
    check_content(&third, 2000);
    disk_close(&third);
    end();
}
END_TEST

START_TEST(test_an_index_never_goes_back_behind_another_owners)
{
    struct disk behind, ahead;
    struct upload_round round;
    struct download_result result;
    begin();
    disk_open(&behind, "behind");
    ingest(&behind, 1000);
    ck_assert_ok(upload(&behind, 1, &round), &msg);
    ck_assert_ok(restore("ahead", 2, &result), &msg);
    disk_open(&ahead, "ahead");
    ingest(&ahead, 3000);
    ck_assert_ok(upload(&ahead, 2, &round), &msg);
    /* The first disk is attached again, with a newer generation than the other's. */
    uploader_destroy(behind.uploader);
    behind.uploader = uploader_create(
        &(struct uploader_options){.objects = objects, .tenant = tenant, .folder = behind.folder});
    ck_assert_int_eq(upload(&behind, 3, &round), ERR_BUSY);
    ingest(&behind, 3000); /* it caught up */
    ck_assert_ok(upload(&behind, 3, &round), &msg);
    disk_close(&behind);
    disk_close(&ahead);
    struct disk third;
    ck_assert_ok(restore("third", 4, &result), &msg);
    ck_assert_uint_eq(result.generation, 3);
    disk_open(&third, "third");
    check_content(&third, 3000);
    disk_close(&third);
    end();
}
END_TEST

/* Files that compaction has replaced go once two indexes do without them, and not before. */
START_TEST(test_what_two_indexes_do_without_is_deleted)
{
    struct disk disk;
    struct upload_round round;
    begin();
    disk_open(&disk, "disk");
    for (lsn_t lsn = 1000; lsn < 1012; lsn++) {
        ingest(&disk, lsn);
        ck_assert_ok(upload(&disk, 1, &round), &msg);
    }
    ck_assert_uint_gt(uploader_doomed(disk.uploader), 0);
    ck_assert_ok(uploader_delete(disk.uploader, &msg), &msg);
    ck_assert_uint_eq(uploader_doomed(disk.uploader), 0);
    ck_assert_uint_eq(objects_under(remote_index_prefix(tenant)).count, 2);
    check_indexes_are_complete(2); /* both that are left can be restored */
    disk_close(&disk);
    end();
}
END_TEST

static void object_path(const char *name, char to[PATH_SIZE])
{
    ck_assert_ok(str_format(to, PATH_SIZE, &msg, "%.200s/objects/%s", root, name), &msg);
}

static void overwrite_middle(const char *name)
{
    char path[PATH_SIZE];
    object_path(name, path);
    FILE *file = fopen(path, "r+b");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fseek(file, 100, SEEK_SET), 0);
    ck_assert_uint_eq(fwrite("damaged", 1, 7, file), 7);
    ck_assert_int_eq(fclose(file), 0);
}

START_TEST(test_a_damaged_index_is_passed_over_for_the_one_before)
{
    struct disk disk, restored;
    struct upload_round round;
    struct download_result result;
    begin();
    disk_open(&disk, "disk");
    ingest(&disk, 1000);
    ck_assert_ok(upload(&disk, 1, &round), &msg);
    ingest(&disk, 2000);
    ck_assert_ok(upload(&disk, 1, &round), &msg);
    disk_close(&disk);
    overwrite_middle(remote_index_name(tenant, 1, 2).text);
    ck_assert_ok(restore("restored", 2, &result), &msg);
    ck_assert_uint_eq(result.sequence, 1);
    disk_open(&restored, "restored");
    check_content(&restored, 1000);
    disk_close(&restored);
    overwrite_middle(remote_index_name(tenant, 1, 1).text);
    ck_assert_int_eq(restore("none", 2, &result), ERR_CORRUPT);
    char folder[PATH_SIZE];
    path_of("none", folder);
    ck_assert(!file_exists(folder));
    end();
}
END_TEST

START_TEST(test_a_killed_round_loses_nothing_and_is_repeated)
{
    static const char *const places[] = {"uploader.before_index=io*1", "uploader.after_index=io*1"};
    struct disk disk, restored;
    struct upload_round round;
    struct download_result result;
    fault_enable();
    begin();
    disk_open(&disk, "disk");
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        ingest(&disk, 1000 + i);
        ck_assert_ok(fault_arm(places[i], &msg), &msg);
        ck_assert_int_eq(upload(&disk, 1, &round), ERR_IO);
        ck_assert_ok(upload(&disk, 1, &round), &msg);
    }
    disk_close(&disk);
    ck_assert_ok(restore("restored", 2, &result), &msg);
    disk_open(&restored, "restored");
    check_content(&restored, 1001);
    disk_close(&restored);
    end();
}
END_TEST

START_TEST(test_an_index_comes_after_all_that_it_names)
{
    struct disk disk;
    struct upload_round round;
    fault_enable();
    begin();
    disk_open(&disk, "disk");
    ingest(&disk, 1000);
    ck_assert_ok(upload(&disk, 1, &round), &msg);
    ingest(&disk, 2000);
    ck_assert_ok(fault_arm("uploader.before_file=io*1", &msg), &msg);
    ck_assert_int_eq(upload(&disk, 1, &round), ERR_IO);
    check_indexes_are_complete(1);
    ck_assert_ok(upload(&disk, 1, &round), &msg);
    check_indexes_are_complete(2);
    disk_close(&disk);
    end();
}
END_TEST

static void forget_index(const struct disk *disk)
{
    char path[PATH_SIZE];
    ck_assert_ok(
        str_format(path, sizeof(path), &msg, "%.200s/" REMOTE_STATE_FILE, disk->folder), &msg);
    ck_assert_ok(file_remove(path, &msg), &msg);
}

/* With more timelines than could be compared each with each in a test. */
START_TEST(test_positions_of_another_owner_are_compared_by_their_timeline)
{
    enum { MANY = 200000 };
    struct disk disk, other;
    struct download_result result;
    struct remote_position *positions = MEM_ARRAY(struct remote_position, MANY);
    begin();
    disk_open(&disk, "disk");
    ingest(&disk, 1000);
    for (uint32_t i = 0; i < MANY; i++) {
        positions[i] = (struct remote_position){.number = i + 2, .lsn = 1000 + i};
        uint32_t id = i * 2654435761u; /* in no order, each once */
        memcpy(positions[i].timeline.bytes, &id, sizeof(id));
    }
    struct upload_round round = {
        .store = disk.store, .generation = 1, .positions = positions, .position_count = MANY};
    ck_assert_ok(uploader_run(disk.uploader, &round, &msg), &msg);
    ck_assert_ok(restore("other", 2, &result), &msg);
    disk_open(&other, "other");
    forget_index(&other); /* it does not know that what it has is from there */
    round.store = other.store;
    round.generation = 2;
    positions[MANY / 3].lsn--;
    ck_assert_int_eq(uploader_run(other.uploader, &round, &msg), ERR_BUSY);
    positions[MANY / 3].lsn++;
    ck_assert_ok(uploader_run(other.uploader, &round, &msg), &msg);
    disk_close(&disk);
    disk_close(&other);
    mem_free(positions);
    end();
}
END_TEST

/* Files of the two newest indexes, each once. */
static size_t files_of_newest_indexes(void)
{
    struct index_id *ids = NULL;
    size_t count = 0;
    struct remote_index newest, previous;
    ck_assert_ok(index_list(objects, tenant, 1, &ids, &count, &msg), &msg);
    ck_assert_uint_eq(count, 2);
    ck_assert_ok(index_load(objects, tenant, ids[1], &newest, &msg), &msg);
    ck_assert_ok(index_load(objects, tenant, ids[0], &previous, &msg), &msg);
    size_t files = newest.file_count;
    for (size_t i = 0; i < previous.file_count; i++) {
        const struct remote_file *same = remote_index_file(&newest, previous.files[i].name);
        files += same == NULL || !hash128_equal(same->hash, previous.files[i].hash) ? 1 : 0;
    }
    remote_index_deinit(&newest);
    remote_index_deinit(&previous);
    mem_free(ids);
    return files;
}

START_TEST(test_what_a_dead_process_did_not_delete_is_deleted_by_the_next)
{
    struct disk disk;
    struct upload_round round;
    fault_enable();
    begin();
    for (int deletions = 0; deletions < 3; deletions++) { /* before it dies */
        disk_open(&disk, "disk");
        for (lsn_t lsn = 1000; lsn < 1004; lsn++) {
            ingest(&disk, lsn + 100 * (lsn_t)deletions);
            ck_assert_ok(page_store_compact(disk.store, &msg), &msg);
            ck_assert_ok(upload(&disk, 1, &round), &msg);
        }
        ck_assert_uint_gt(uploader_doomed(disk.uploader), 3);
        for (int i = 0; i < deletions; i++) {
            ck_assert_ok(fault_arm("uploader.after_delete=io*1", &msg), &msg);
            ck_assert_int_eq(uploader_delete(disk.uploader, &msg), ERR_IO);
        }
        disk_close(&disk);
    }
    disk_open(&disk, "disk");
    disk.position = (struct remote_position){.timeline = timeline, .number = TIMELINE, .lsn = 1203};
    ck_assert_ok(upload(&disk, 1, &round), &msg);
    ck_assert_ok(uploader_delete(disk.uploader, &msg), &msg);
    ck_assert_uint_eq(objects_under(remote_data_prefix(tenant)).count, files_of_newest_indexes());
    disk_close(&disk);
    end();
}
END_TEST

/* Its files are replaced by a compaction before the round that could have named them. */
START_TEST(test_what_a_failed_round_has_put_for_nothing_is_deleted)
{
    struct disk disk;
    struct upload_round round;
    fault_enable();
    begin();
    disk_open(&disk, "disk");
    ingest(&disk, 1000);
    ck_assert_ok(upload(&disk, 1, &round), &msg);
    ingest(&disk, 2000);
    ck_assert_ok(fault_arm("uploader.before_index=io*1", &msg), &msg);
    ck_assert_int_eq(upload(&disk, 1, &round), ERR_IO);
    ck_assert_ok(page_store_compact(disk.store, &msg), &msg);
    ck_assert_ok(upload(&disk, 1, &round), &msg);
    ck_assert_uint_gt(objects_under(remote_data_prefix(tenant)).count, files_of_newest_indexes());
    ck_assert_ok(uploader_delete(disk.uploader, &msg), &msg);
    ck_assert_uint_eq(objects_under(remote_data_prefix(tenant)).count, files_of_newest_indexes());
    check_indexes_are_complete(2);
    disk_close(&disk);
    end();
}
END_TEST

START_TEST(test_scrub_repairs_what_is_missing_or_damaged_and_finds_what_leaked)
{
    struct disk disk, restored;
    struct upload_round round;
    struct download_result download;
    struct scrub_result scrub;
    char path[PATH_SIZE];
    begin();
    disk_open(&disk, "disk");
    ingest(&disk, 1000);
    ck_assert_ok(upload(&disk, 1, &round), &msg);
    ingest(&disk, 2000);
    ck_assert_ok(upload(&disk, 1, &round), &msg);
    struct counted data = objects_under(remote_data_prefix(tenant));
    ck_assert_uint_ge(data.count, 2);
    object_path(data.last, path);
    ck_assert_int_eq(unlink(path), 0);
    struct remote_name leak = remote_data_name(tenant, 1, "999999.sst", (struct hash128){{7}});
    ck_assert_ok(objstore_put(objects, leak.text, bytes_of_str("nobody's"), &msg), &msg);
    round = (struct upload_round){
        .store = disk.store, .generation = 1, .positions = &disk.position, .position_count = 1};
    ck_assert_ok(uploader_scrub(disk.uploader, &round, 0, &scrub, &msg), &msg);
    ck_assert_uint_eq(scrub.dangling, 1);
    ck_assert_uint_eq(scrub.repaired, 1);
    ck_assert_uint_ge(scrub.leaked, 1);
    ck_assert_ok(uploader_delete(disk.uploader, &msg), &msg);
    bool exists = true;
    ck_assert_ok(objstore_exists(objects, leak.text, &exists, &msg), &msg);
    ck_assert(!exists);
    /* The same with damage in place of absence: the trailer no longer fits. */
    object_path(objects_under(remote_data_prefix(tenant)).last, path);
    ck_assert_int_eq(truncate(path, 50), 0);
    ck_assert_ok(uploader_scrub(disk.uploader, &round, 0, &scrub, &msg), &msg);
    ck_assert_uint_eq(scrub.dangling, 1);
    ck_assert_uint_eq(scrub.repaired, 1);
    disk_close(&disk);
    ck_assert_ok(restore("restored", 2, &download), &msg);
    disk_open(&restored, "restored");
    check_content(&restored, 2000);
    disk_close(&restored);
    end();
}
END_TEST

UNIT_MAIN(
    "uploader",
    test_an_empty_disk_becomes_what_was_uploaded,
    test_a_tenant_that_was_never_uploaded_is_not_found,
    test_a_replaced_owner_is_told_so,
    test_an_index_never_goes_back_behind_another_owners,
    test_what_two_indexes_do_without_is_deleted,
    test_a_damaged_index_is_passed_over_for_the_one_before,
    test_a_killed_round_loses_nothing_and_is_repeated,
    test_an_index_comes_after_all_that_it_names,
    test_positions_of_another_owner_are_compared_by_their_timeline,
    test_what_a_failed_round_has_put_for_nothing_is_deleted,
    test_what_a_dead_process_did_not_delete_is_deleted_by_the_next,
    test_scrub_repairs_what_is_missing_or_damaged_and_finds_what_leaked);
