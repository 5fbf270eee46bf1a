/*
 * A catalog and its log in an object store (a directory): what is lost, put back or damaged, and
 * what opening says then.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/io/file.h"
#include "common/wire/codec.h"
#include "control/catalog/catalog.h"
#include "control/catalog/changelog.h"
#include "control/model/name.h"
#include "tests/unit/unit.h"

static char folder[64], disk[96], store_url[112], store_path[96];
static struct errmsg msg;
static struct catalog *catalog;

PRINTF_LIKE(1, 2) static void run(const char *format, ...)
{
    char command[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(command, sizeof command, format, args);
    va_end(args);
    ck_assert_int_eq(system(command), 0);
}

static void begin(void)
{
    log_init("test", LOG_LEVEL_ERROR);
    unit_folder(folder, sizeof(folder), "test_changelog");
    (void)snprintf(disk, sizeof disk, "%s/catalog", folder);
    (void)snprintf(store_path, sizeof store_path, "%s/objects", folder);
    (void)snprintf(store_url, sizeof store_url, "dir:%s", store_path);
}

static void end(void)
{
    catalog_close(catalog);
    catalog = NULL;
    run("rm -rf %s", folder);
}

static struct catalog_options options(void)
{
    return (struct catalog_options){.path = disk, .object_store = store_url, .snapshot_after = 4};
}

static err_t try_open(void)
{
    struct catalog_options with = options();
    catalog = NULL;
    return catalog_open(&with, &catalog, &msg);
}

static void open_catalog(void)
{
    ck_assert_ok(try_open(), &msg);
}

static void close_catalog(void)
{
    catalog_close(catalog);
    catalog = NULL;
}

static union any_row project(unsigned number, uint64_t version)
{
    union any_row row = {0};
    (void)snprintf(row.project.id, sizeof row.project.id, "p%03u", number);
    (void)snprintf(row.project.name, sizeof row.project.name, "version %u", (unsigned)version);
    row.project.seq = number;
    row.project.version = version;
    row.project.tenant.bytes[0] = (uint8_t)number;
    row.project.tenant.bytes[15] = 1;
    return row;
}

static err_t put_row(struct catalog *to, const union any_row *row)
{
    struct catalog_entry entry;
    catalog_entry_put(&entry, ROW_PROJECT, row);
    err_t err = catalog_commit(to, &entry, 1, &msg);
    catalog_entry_deinit(&entry);
    return err;
}

static void put_projects(unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++) {
        union any_row row = project(i, 0);
        ck_assert_ok(put_row(catalog, &row), &msg);
    }
}

static void snapshot(void)
{
    ck_assert(catalog_wants_snapshot(catalog));
    ck_assert_ok(catalog_snapshot(catalog, &msg), &msg);
    ck_assert(!catalog_wants_snapshot(catalog));
}

struct sum {
    unsigned count;
    uint64_t generation_max;
    char names[4096];
};

static err_t add_up(void *context, enum row_kind kind, const union any_row *row, struct errmsg *why)
{
    (void)why;
    struct sum *sum = context;
    ck_assert_uint_eq(kind, ROW_PROJECT);
    size_t used = strlen(sum->names);
    (void)snprintf(
        sum->names + used, sizeof sum->names - used, "%s=%s/%u ", row->project.id,
        row->project.name, (unsigned)row->project.version);
    sum->count++;
    sum->generation_max = MAX_OF(sum->generation_max, row->project.generation);
    return ERR_OK;
}

static struct sum content(void)
{
    struct sum sum = {0};
    ck_assert_ok(catalog_load(catalog, add_up, &sum, &msg), &msg);
    return sum;
}

static err_t rebuild(char *ret_report, size_t size)
{
    struct catalog_options with = options();
    struct buf report = {0};
    err_t err = catalog_rebuild(&with, &report, &msg);
    if (ret_report != NULL) {
        (void)snprintf(ret_report, size, "%s", buf_cstr(&report));
    }
    buf_deinit(&report);
    return err;
}

static void lose_disk(void)
{
    close_catalog();
    run("rm -rf %s", disk);
}

/* An update, a delete, a few snapshots: what the log has to bring back. */
static struct sum live(void)
{
    open_catalog();
    put_projects(1, 6);
    snapshot();
    union any_row changed = project(3, 1), gone = project(5, 1);
    ck_assert_ok(put_row(catalog, &changed), &msg);
    struct catalog_entry entry;
    catalog_entry_delete(&entry, ROW_PROJECT, &gone);
    ck_assert_ok(catalog_commit(catalog, &entry, 1, &msg), &msg);
    catalog_entry_deinit(&entry);
    put_projects(7, 4);
    snapshot();
    put_projects(20, 3);
    return content();
}

START_TEST(test_lost_disk_is_rebuilt_with_every_answered_change)
{
    begin();
    struct sum before = live();
    ck_assert_uint_eq(before.count, 12);
    lose_disk();
    ck_assert_int_eq(try_open(), ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(msg.text, "anabranch catalog rebuild"));
    run("rm -rf %s", disk);
    ck_assert_ok(rebuild(NULL, 0), &msg);
    open_catalog();
    ck_assert_str_eq(content().names, before.names);
    put_projects(30, 1);
    end();
}
END_TEST

START_TEST(test_rebuild_refuses_a_disk_that_is_not_empty)
{
    begin();
    (void)live();
    close_catalog();
    ck_assert_int_eq(rebuild(NULL, 0), ERR_EXISTS);
    open_catalog();
    end();
}
END_TEST

START_TEST(test_disk_that_is_a_little_behind_follows)
{
    begin();
    open_catalog();
    put_projects(1, 2);
    close_catalog();
    run("cp -a %s %s.copy", disk, disk);
    open_catalog();
    put_projects(3, 2);
    struct sum before = content();
    lose_disk();
    run("mv %s.copy %s", disk, disk);
    open_catalog();
    ck_assert_str_eq(content().names, before.names);
    end();
}
END_TEST

/* What followed the copy is no longer in the log: two snapshots are. */
START_TEST(test_disk_that_is_an_old_copy_is_replaced)
{
    begin();
    open_catalog();
    put_projects(100, 1);
    close_catalog();
    run("cp -a %s %s.copy", disk, disk);
    struct sum before = live();
    put_projects(40, 4);
    snapshot();
    before = content();
    lose_disk();
    run("mv %s.copy %s", disk, disk);
    open_catalog();
    ck_assert_str_eq(content().names, before.names);
    run("ls -d %s.*.old >%s/kept", disk, folder);
    end();
}
END_TEST

/* The store's folder and the disk's, as they are now, for later. */
static void copy_both(void)
{
    close_catalog();
    run("cp -a %s %s.copy", store_path, store_path);
    run("cp -a %s %s.copy", disk, disk);
}

static void put_back(const char *path)
{
    run("rm -rf %s", path);
    run("mv %s.copy %s", path, path);
}

START_TEST(test_store_that_is_an_old_copy_is_refused)
{
    begin();
    open_catalog();
    put_projects(1, 3);
    copy_both();
    open_catalog();
    put_projects(4, 1);
    close_catalog();
    put_back(store_path);
    ck_assert_int_eq(try_open(), ERR_FAILED);
    ck_assert_ptr_nonnull(strstr(msg.text, "is an older copy"));
    end();
}
END_TEST

START_TEST(test_two_controls_do_not_write_one_log)
{
    begin();
    char second_disk[128];
    struct catalog *second = NULL;
    open_catalog();
    put_projects(1, 3);
    (void)snprintf(second_disk, sizeof second_disk, "%s.second", disk);
    struct catalog_options with = options();
    with.path = second_disk;
    struct buf report = {0};
    ck_assert_ok(catalog_rebuild(&with, &report, &msg), &msg);
    ck_assert_ok(catalog_open(&with, &second, &msg), &msg);
    union any_row row = project(50, 0);
    ck_assert_ok(catalog_confirm(second, &msg), &msg);
    ck_assert_int_eq(catalog_confirm(catalog, &msg), ERR_STALE);
    ck_assert_int_eq(put_row(catalog, &row), ERR_STALE);
    ck_assert_int_eq(put_row(catalog, &row), ERR_STALE); /* and stays so */
    struct buf why = {0};
    catalog_trouble(catalog, &why);
    ck_assert_ptr_nonnull(strstr(buf_cstr(&why), "another control"));
    ck_assert_ok(put_row(second, &row), &msg);
    ck_assert_ok(catalog_confirm(second, &msg), &msg);
    catalog_close(second);
    buf_deinit(&report);
    buf_deinit(&why);
    end();
}
END_TEST

/* One that slept while the other shortened the log finds its next number free again. */
START_TEST(test_control_that_slept_through_snapshots_is_fenced_too)
{
    begin();
    struct catalog *sleeper = NULL;
    open_catalog();
    put_projects(1, 3);
    sleeper = catalog;
    struct catalog_options with = options();
    char second_disk[128];
    struct buf report = {0};
    (void)snprintf(second_disk, sizeof second_disk, "%s.second", disk);
    with.path = second_disk;
    ck_assert_ok(catalog_rebuild(&with, &report, &msg), &msg);
    ck_assert_ok(catalog_open(&with, &catalog, &msg), &msg);
    for (unsigned i = 0; i < 3; i++) {
        put_projects(100 + 10 * i, 5);
        snapshot();
    }
    struct sum before = content();
    ck_assert_int_eq(catalog_confirm(sleeper, &msg), ERR_STALE);
    catalog_close(sleeper);
    ck_assert_str_eq(content().names, before.names);
    buf_deinit(&report);
    end();
}
END_TEST

START_TEST(test_change_of_a_control_that_slept_is_refused)
{
    begin();
    open_catalog();
    put_projects(1, 3);
    struct catalog *sleeper = catalog;
    struct catalog_options with = options();
    char second_disk[128];
    struct buf report = {0};
    (void)snprintf(second_disk, sizeof second_disk, "%s.second", disk);
    with.path = second_disk;
    ck_assert_ok(catalog_rebuild(&with, &report, &msg), &msg);
    ck_assert_ok(catalog_open(&with, &catalog, &msg), &msg);
    for (unsigned i = 0; i < 3; i++) {
        put_projects(100 + 10 * i, 5);
        snapshot();
    }
    union any_row row = project(50, 0);
    ck_assert_int_eq(put_row(sleeper, &row), ERR_STALE);
    ck_assert_int_eq(put_row(sleeper, &row), ERR_STALE);
    catalog_close(sleeper);
    struct sum before = content();
    close_catalog(); /* and what it wrote is no part of the log */
    ck_assert_ok(catalog_open(&with, &catalog, &msg), &msg);
    ck_assert_str_eq(content().names, before.names);
    buf_deinit(&report);
    end();
}
END_TEST

/* The end of the log went its own way: the same numbers, other changes. */
START_TEST(test_log_that_says_something_else_is_refused)
{
    begin();
    open_catalog();
    put_projects(1, 3);
    copy_both();
    open_catalog();
    put_projects(4, 3);
    close_catalog();
    run("mv %s %s.mine", disk, disk);
    put_back(store_path);
    put_back(disk);
    open_catalog();
    put_projects(7, 3);
    close_catalog();
    run("rm -rf %s", disk);
    run("mv %s.mine %s", disk, disk);
    ck_assert_int_eq(try_open(), ERR_FAILED);
    ck_assert_ptr_nonnull(strstr(msg.text, "is not the one that this disk has"));
    end();
}
END_TEST

START_TEST(test_log_of_another_cluster_is_refused)
{
    begin();
    open_catalog();
    put_projects(1, 3);
    close_catalog();
    run("rm -rf %s", disk);
    struct catalog_options without = {.path = disk};
    ck_assert_ok(catalog_open(&without, &catalog, &msg), &msg);
    put_projects(9, 1);
    close_catalog();
    ck_assert_int_eq(try_open(), ERR_FAILED);
    ck_assert_ptr_nonnull(strstr(msg.text, "another cluster"));
    end();
}
END_TEST

START_TEST(test_damaged_snapshot_is_not_the_only_one)
{
    begin();
    struct sum before = live();
    lose_disk();
    run("f=$(ls -d %s/catalog/snapshot/* | tail -n 1); echo rot > $f/0000000000000000", store_path);
    ck_assert_ok(rebuild(NULL, 0), &msg);
    open_catalog();
    ck_assert_str_eq(content().names, before.names);
    end();
}
END_TEST

START_TEST(test_hole_in_the_log_is_named)
{
    begin();
    (void)live();
    lose_disk();
    run("cd %s/catalog/log && rm $(ls | tail -n 2 | head -n 1)", store_path);
    ck_assert_int_eq(rebuild(NULL, 0), ERR_CORRUPT);
    ck_assert_ptr_nonnull(strstr(msg.text, "is not in the object store, but"));
    end();
}
END_TEST

START_TEST(test_rot_in_the_log_is_named)
{
    begin();
    (void)live();
    lose_disk();
    run("cd %s/catalog/log && echo rot > $(ls | tail -n 1)", store_path);
    ck_assert_int_eq(rebuild(NULL, 0), ERR_CORRUPT);
    ck_assert_ptr_nonnull(strstr(msg.text, "object catalog/log/"));
    end();
}
END_TEST

START_TEST(test_catalog_of_before_the_log_is_in_its_first_record)
{
    begin();
    struct catalog_options without = {.path = disk};
    ck_assert_ok(catalog_open(&without, &catalog, &msg), &msg);
    put_projects(1, 5);
    struct sum before = content();
    close_catalog();
    open_catalog();
    ck_assert_str_eq(content().names, before.names);
    lose_disk();
    ck_assert_ok(rebuild(NULL, 0), &msg);
    open_catalog();
    ck_assert_str_eq(content().names, before.names);
    end();
}
END_TEST

/* Its log is lost with it, and what the tenants' objects say is all that is left. */
START_TEST(test_generation_that_has_written_is_not_issued_again)
{
    char report[2048], tenant[64];
    begin();
    open_catalog();
    put_projects(1, 2);
    lose_disk();
    union any_row row = project(2, 0);
    (void)snprintf(tenant, sizeof tenant, "%s", tenant_id_text(row.project.tenant).text);
    struct objstore *store = NULL;
    char name[160];
    ck_assert_ok(objstore_open(store_url, &store, &msg), &msg);
    (void)snprintf(
        name, sizeof name, "tenants/%s/data/00000007/000001.sst-0011223344556677", tenant);
    ck_assert_ok(objstore_put(store, name, bytes_of_str("x"), &msg), &msg);
    (void)snprintf(name, sizeof name, "tenants/%032d/index/00000001-0000000000000001", 77);
    ck_assert_ok(objstore_put(store, name, bytes_of_str("x"), &msg), &msg);
    objstore_close(store);
    ck_assert_ok(rebuild(report, sizeof report), &msg);
    ck_assert_ptr_nonnull(strstr(report, "project p002: generation 7 has written objects"));
    ck_assert_ptr_nonnull(strstr(report, "has objects and no project"));
    open_catalog();
    ck_assert_uint_eq(content().generation_max, 8);
    lose_disk(); /* and the log knows it too */
    ck_assert_ok(rebuild(NULL, 0), &msg);
    open_catalog();
    ck_assert_uint_eq(content().generation_max, 8);
    end();
}
END_TEST

/* -- timelines that no branch knows -- */

static const struct timeline_id known = {.bytes = {1}}, lost = {.bytes = {2}},
                                lost_child = {.bytes = {3}}, deleted = {.bytes = {4}},
                                homeless = {.bytes = {5}}, nobody = {.bytes = {6}};

static void put_position(
    struct writer *out,
    struct timeline_id id,
    struct timeline_id parent,
    lsn_t start_lsn,
    bool is_deleted)
{
    put_timeline(out, id);
    put_u32(out, 7);
    put_u64(out, start_lsn + 0x1000);
    put_timeline(out, parent);
    put_u64(out, start_lsn);
    put_u32(out, 2);
    put_u8(out, is_deleted ? 1 : 0);
    put_u8(out, 3);
    for (uint64_t safekeeper = 4; safekeeper < 7; safekeeper++) {
        put_u64(out, safekeeper);
    }
}

/* docs/protocol/remote_index.md, with children before their parents. */
static void put_index(struct tenant_id tenant)
{
    uint8_t image[1024];
    char name[160];
    struct writer out = {.next = image, .left = sizeof image};
    put_u32(&out, 0x58494241);
    put_u16(&out, 2);
    put_u16(&out, 0);
    put_tenant(&out, tenant);
    put_u32(&out, 1);
    put_u64(&out, 1);
    put_u64(&out, 0);
    put_u32(&out, 5);
    put_u32(&out, 0);
    put_u32(&out, 0);
    put_position(&out, lost_child, lost, 0x3000, false);
    put_position(&out, lost, known, 0x2000, false);
    put_position(&out, known, (struct timeline_id){0}, 0x1000, false);
    put_position(&out, deleted, known, 0x2000, true);
    put_position(&out, homeless, nobody, 0x2000, false);
    put_u32(&out, crc32c(0, image, sizeof image - out.left));
    struct objstore *store = NULL;
    (void)snprintf(
        name, sizeof name, "tenants/%s/index/00000001-0000000000000001",
        tenant_id_text(tenant).text);
    ck_assert_ok(objstore_open(store_url, &store, &msg), &msg);
    ck_assert_ok(objstore_put(store, name, bytes_of(image, sizeof image - out.left), &msg), &msg);
    objstore_close(store);
}

static void put_known_branch(void)
{
    struct catalog_entry entry;
    union any_row row = {.branch = {.seq = 9, .state = BRANCH_READY, .timeline = known}};
    (void)snprintf(row.branch.id, sizeof row.branch.id, "br-known");
    (void)snprintf(row.branch.project_id, sizeof row.branch.project_id, "p002");
    row.branch.roles = doc_push(doc_array(), doc_set_str(doc_object(), "name", "keeper"));
    catalog_entry_put(&entry, ROW_BRANCH, &row);
    ck_assert_ok(catalog_commit(catalog, &entry, 1, &msg), &msg);
    catalog_entry_deinit(&entry);
    row_unref(ROW_BRANCH, &row);
}

struct found {
    unsigned branches;
    row_id_t lost_id, parent_of_child;
};

static err_t look(void *context, enum row_kind kind, const union any_row *row, struct errmsg *why)
{
    (void)why;
    struct found *found = context;
    if (kind != ROW_BRANCH) {
        return ERR_OK;
    }
    const struct branch_row *branch = &row->branch;
    found->branches++;
    if (timeline_id_equal(branch->timeline, known)) {
        ck_assert(!branch->is_found && branch->state == BRANCH_READY);
        return ERR_OK;
    }
    ck_assert(branch->is_found && branch->is_protected && branch->state == BRANCH_INIT);
    ck_assert(!branch->is_cut_off); /* quarantine */
    ck_assert_str_eq(branch->project_id, "p002");
    ck_assert_uint_eq(branch->membership_generation, 2);
    ck_assert_uint_eq(branch->safekeepers.count, 3);
    ck_assert_uint_eq(branch->safekeepers.ids[2], 6);
    ck_assert_uint_eq(branch->confirmed.count, 3); /* so that none is made to hold it */
    ck_assert_str_eq(doc_value_str(doc_get(doc_at(branch->roles, 0), "name")), "keeper");
    if (timeline_id_equal(branch->timeline, lost)) {
        ck_assert_str_eq(branch->name, "found-02000000000000000000000000000000");
        ck_assert_str_eq(branch->parent_id, "br-known");
        ck_assert_uint_eq(branch->start_lsn, 0x2000);
        memcpy(found->lost_id, branch->id, sizeof found->lost_id);
    } else {
        ck_assert(timeline_id_equal(branch->timeline, lost_child));
        memcpy(found->parent_of_child, branch->parent_id, sizeof found->parent_of_child);
    }
    return ERR_OK;
}

START_TEST(test_timelines_that_no_branch_knows_become_branches)
{
    char report[4096];
    begin();
    open_catalog();
    put_projects(1, 2);
    put_known_branch();
    put_index(project(2, 0).project.tenant);
    lose_disk();
    ck_assert_ok(rebuild(report, sizeof report), &msg);
    for (int run = 0; run < 2; run++) { /* the log knows them too: nothing is found twice */
        struct found found = {0};
        open_catalog();
        ck_assert_ok(catalog_load(catalog, look, &found, &msg), &msg);
        ck_assert_uint_eq(found.branches, 3);
        ck_assert_str_eq(found.parent_of_child, found.lost_id);
        lose_disk();
        ck_assert_ok(rebuild(NULL, 0), &msg);
    }
    ck_assert_ptr_nonnull(strstr(report, "timeline 05000000000000000000000000000000 of tenant"));
    ck_assert_ptr_null(strstr(report, timeline_id_text(deleted).text));
    end();
}
END_TEST

static void *commit_in_thread(void *context)
{
    union any_row row = project(60, 0);
    *(err_t *)context = put_row(catalog, &row);
    return NULL;
}

static void wait_for_trouble(void)
{
    struct buf why = {0};
    while (why.size == 0) {
        (void)usleep(1000);
        catalog_trouble(catalog, &why);
    }
    buf_deinit(&why);
}

START_TEST(test_commit_waits_for_a_store_that_is_away)
{
    pthread_t thread;
    err_t result = ERR_FAILED;
    begin();
    open_catalog();
    put_projects(1, 1);
    run("mv %s %s.away", store_path, store_path);
    run("touch %s", store_path);
    ck_assert_int_eq(pthread_create(&thread, NULL, commit_in_thread, &result), 0);
    wait_for_trouble();
    ck_assert_uint_eq(content().count, 1); /* nothing that is not in the log */
    run("rm %s", store_path);
    run("mv %s.away %s", store_path, store_path);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(result, ERR_OK);
    ck_assert_uint_eq(content().count, 2);
    end();
}
END_TEST

START_TEST(test_waiting_commit_can_be_canceled_and_is_made_or_not_at_the_next_start)
{
    pthread_t thread;
    err_t result = ERR_OK;
    begin();
    open_catalog();
    put_projects(1, 1);
    run("mv %s %s.away", store_path, store_path);
    run("touch %s", store_path);
    ck_assert_int_eq(pthread_create(&thread, NULL, commit_in_thread, &result), 0);
    wait_for_trouble();
    catalog_cancel(catalog);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(result, ERR_CANCELED);
    close_catalog();
    run("rm %s", store_path);
    run("mv %s.away %s", store_path, store_path);
    open_catalog();
    ck_assert_uint_eq(content().count, 1);
    end();
}
END_TEST

UNIT_MAIN(
    "changelog",
    test_lost_disk_is_rebuilt_with_every_answered_change,
    test_rebuild_refuses_a_disk_that_is_not_empty,
    test_disk_that_is_a_little_behind_follows,
    test_disk_that_is_an_old_copy_is_replaced,
    test_store_that_is_an_old_copy_is_refused,
    test_two_controls_do_not_write_one_log,
    test_control_that_slept_through_snapshots_is_fenced_too,
    test_change_of_a_control_that_slept_is_refused,
    test_log_that_says_something_else_is_refused,
    test_log_of_another_cluster_is_refused,
    test_damaged_snapshot_is_not_the_only_one,
    test_hole_in_the_log_is_named,
    test_rot_in_the_log_is_named,
    test_catalog_of_before_the_log_is_in_its_first_record,
    test_generation_that_has_written_is_not_issued_again,
    test_timelines_that_no_branch_knows_become_branches,
    test_commit_waits_for_a_store_that_is_away,
    test_waiting_commit_can_be_canceled_and_is_made_or_not_at_the_next_start);
