#include "control/catalog/catalog.h"

#include <regex.h>
#include <stdio.h>

#include "control/act/head.h"
#include "control/model/model.h"
#include "control/model/name.h"
#include "tests/unit/unit.h"

static char path[64];
static struct catalog *catalog;
static struct errmsg msg;

static void open_catalog(void)
{
    ck_assert_ok(catalog_open(&(struct catalog_options){.path = path}, &catalog, &msg), &msg);
}

static void new_catalog(void)
{
    unit_folder(path, sizeof(path), "test_catalog");
    open_catalog();
}

static void end_catalog(void)
{
    char command[128];
    catalog_close(catalog);
    (void)snprintf(command, sizeof command, "rm -rf %s", path);
    ck_assert_int_eq(system(command), 0);
}

static err_t put(enum row_kind kind, const union any_row *row)
{
    struct catalog_entry entry;
    catalog_entry_put(&entry, kind, row);
    err_t err = catalog_commit(catalog, &entry, 1, &msg);
    catalog_entry_deinit(&entry);
    return err;
}

static union any_row project_row(const char *id, uint64_t seq)
{
    union any_row row = {0};
    (void)snprintf(row.project.id, sizeof row.project.id, "%s", id);
    (void)snprintf(row.project.name, sizeof row.project.name, "name of %s", id);
    row.project.seq = seq;
    row.project.tenant = name_tenant();
    return row;
}

static union any_row branch_row(const char *project, const char *id, uint64_t seq)
{
    union any_row row = {0};
    (void)snprintf(row.branch.id, sizeof row.branch.id, "%s", id);
    (void)snprintf(row.branch.project_id, sizeof row.branch.project_id, "%s", project);
    (void)snprintf(row.branch.name, sizeof row.branch.name, "%s", id);
    row.branch.seq = seq;
    row.branch.timeline = name_timeline();
    return row;
}

static err_t into_model(
    void *context, enum row_kind kind, const union any_row *row, struct errmsg *why)
{
    void *object = NULL;
    return model_apply(context, kind, row, &object, why);
}

/* ---- rows ---- */

START_TEST(test_row_comes_back_from_its_json_with_every_field)
{
    union any_row row = branch_row("p", "br-a-b-1", 7), back;
    row.branch.state = BRANCH_DELETING;
    row.branch.start_lsn = 0x123456789A8;
    row.branch.is_default = true;
    row.branch.membership_generation = 3;
    row.branch.safekeepers = (struct node_set){.ids = {5, 6, 7}, .count = 3};
    row.branch.created_at = 1700000000123456;
    row.branch.roles = doc_push(doc_array(), doc_set_str(doc_object(), "name", "app"));
    struct doc *doc = row_encode(ROW_BRANCH, &row);
    ck_assert_ok(row_decode(ROW_BRANCH, doc, &back, &msg), &msg);
    ck_assert_str_eq(back.branch.id, "br-a-b-1");
    ck_assert(timeline_id_equal(back.branch.timeline, row.branch.timeline));
    ck_assert_uint_eq(back.branch.state, BRANCH_DELETING);
    ck_assert_uint_eq(back.branch.start_lsn, row.branch.start_lsn);
    ck_assert(back.branch.is_default && !back.branch.is_protected);
    ck_assert(node_set_has(&back.branch.safekeepers, 6));
    ck_assert_uint_eq(back.branch.safekeepers.count, 3);
    ck_assert_int_eq(back.branch.created_at, 1700000000123456);
    ck_assert_uint_eq(doc_count(back.branch.roles), 1);
    row_unref(ROW_BRANCH, &row);
    row_unref(ROW_BRANCH, &back);
    doc_unref(doc);
}
END_TEST

START_TEST(test_row_of_another_release_is_read)
{
    union any_row row;
    struct doc *doc = doc_set_str(doc_object(), "id", "calm-sea-1");
    doc_set_int(doc, "a_field_of_tomorrow", 1);
    ck_assert_ok(row_decode(ROW_PROJECT, doc, &row, &msg), &msg);
    ck_assert_str_eq(row.project.id, "calm-sea-1");
    ck_assert_uint_eq(row.project.generation, 0);
    doc_set_str(doc, "state", "no such state");
    ck_assert_int_eq(row_decode(ROW_PROJECT, doc, &row, &msg), ERR_CORRUPT);
    doc_unref(doc);
}
END_TEST

/* ---- the catalog ---- */

START_TEST(test_restart_finds_everything_that_was_committed)
{
    struct model model;
    new_catalog();
    union any_row project = project_row("calm-sea-1", 1);
    union any_row root = branch_row("calm-sea-1", "br-z-root-1", 2);
    union any_row child = branch_row("calm-sea-1", "br-a-child-1", 3); /* sorts before its parent */
    (void)snprintf(child.branch.parent_id, sizeof child.branch.parent_id, "br-z-root-1");
    ck_assert_ok(put(ROW_BRANCH, &root), &msg);
    ck_assert_ok(put(ROW_BRANCH, &child), &msg);
    ck_assert_ok(put(ROW_PROJECT, &project), &msg);
    catalog_close(catalog);
    open_catalog();
    model_init(&model);
    ck_assert_ok(catalog_load(catalog, into_model, &model, &msg), &msg);
    ck_assert_ok(model_link_all(&model, &msg), &msg);
    const struct branch *found = model_branch(&model, "br-a-child-1");
    ck_assert_ptr_nonnull(found);
    ck_assert_str_eq(found->parent->row.id, "br-z-root-1");
    ck_assert_uint_eq(found->row.version, 1);
    ck_assert_uint_eq(model.seq_last, 3);
    ck_assert_ptr_eq(project_branch_named(found->project, "br-a-child-1"), found);
    model_deinit(&model);
    end_catalog();
}
END_TEST

START_TEST(test_change_of_an_old_version_is_refused)
{
    new_catalog();
    union any_row row = project_row("calm-sea-1", 1);
    ck_assert_ok(put(ROW_PROJECT, &row), &msg);
    ck_assert_int_eq(put(ROW_PROJECT, &row), ERR_STALE); /* it says: there is none yet */
    row.head.version = 1;
    ck_assert_ok(put(ROW_PROJECT, &row), &msg);
    ck_assert_int_eq(put(ROW_PROJECT, &row), ERR_STALE);
    end_catalog();
}
END_TEST

START_TEST(test_refused_commit_writes_none_of_its_rows)
{
    struct model model;
    new_catalog();
    union any_row first = project_row("calm-sea-1", 1), second = project_row("calm-sea-2", 2);
    second.head.version = 9; /* there is no such row */
    struct catalog_entry entries[2];
    catalog_entry_put(&entries[0], ROW_PROJECT, &first);
    catalog_entry_put(&entries[1], ROW_PROJECT, &second);
    ck_assert_int_eq(catalog_commit(catalog, entries, 2, &msg), ERR_STALE);
    catalog_entry_deinit(&entries[0]);
    catalog_entry_deinit(&entries[1]);
    model_init(&model);
    ck_assert_ok(catalog_load(catalog, into_model, &model, &msg), &msg);
    ck_assert_uint_eq(model.projects.count, 0);
    model_deinit(&model);
    end_catalog();
}
END_TEST

START_TEST(test_deleted_row_is_gone)
{
    struct model model;
    struct catalog_entry entry;
    new_catalog();
    union any_row row = project_row("calm-sea-1", 1);
    ck_assert_ok(put(ROW_PROJECT, &row), &msg);
    row.head.version = 1;
    catalog_entry_delete(&entry, ROW_PROJECT, &row);
    ck_assert_ok(catalog_commit(catalog, &entry, 1, &msg), &msg);
    catalog_entry_deinit(&entry);
    model_init(&model);
    ck_assert_ok(catalog_load(catalog, into_model, &model, &msg), &msg);
    ck_assert_uint_eq(model.projects.count, 0);
    model_deinit(&model);
    end_catalog();
}
END_TEST

/* ---- ids ---- */

static void check_shape(const char *id, const char *pattern)
{
    regex_t regex;
    ck_assert_int_eq(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    ck_assert_msg(regexec(&regex, id, 0, NULL, 0) == 0, "%s does not match %s", id, pattern);
    regfree(&regex);
}

START_TEST(test_ids_have_the_shape_that_clients_know)
{
    for (int i = 0; i < 1000; i++) {
        row_id_t id;
        char password[PASSWORD_SIZE];
        name_project(id);
        check_shape(id, "^[a-z]+-[a-z]+-[0-9]{8}$");
        name_branch(id);
        check_shape(id, "^br-[a-z]+-[a-z]+-[a-z0-9]{8}$");
        name_endpoint(id);
        check_shape(id, "^ep-[a-z]+-[a-z]+-[a-z0-9]{8}$");
        name_operation(id);
        check_shape(id, "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$");
        name_password(password);
        check_shape(password, "^[A-Za-z0-9]{24}$");
    }
}
END_TEST

/* ---- the head of a branch ---- */

START_TEST(test_head_is_what_a_majority_holds_even_before_it_was_told)
{
    bool settled = false;
    struct head_position all[3] = {
        {.answered = true, .tail_term = 4, .record_lsn = 1000, .commit_lsn = 800},
        {.answered = true, .tail_term = 4, .record_lsn = 960, .commit_lsn = 800},
        {.answered = true, .tail_term = 4, .record_lsn = 800, .commit_lsn = 720}};
    ck_assert_uint_eq(head_of(all, 3, &settled), 960);
    ck_assert(settled);
    all[1].tail_term = 3; /* an older term's tail proves nothing */
    ck_assert_uint_eq(head_of(all, 3, &settled), 800);
}
END_TEST

START_TEST(test_head_needs_a_majority_and_waits_for_the_news_of_a_commit)
{
    bool settled = true;
    struct head_position some[3] = {
        {.answered = true, .tail_term = 4, .record_lsn = 1000, .commit_lsn = 800}};
    ck_assert_uint_eq(head_of(some, 3, &settled), LSN_NONE);
    some[1] = (struct head_position){
        .answered = true, .tail_term = 4, .record_lsn = 800, .commit_lsn = 800};
    ck_assert_uint_eq(head_of(some, 3, &settled), 800);
    ck_assert(!settled); /* the silent one may hold 1000 too: then it was acknowledged */
    some[1].commit_lsn = 1000;
    ck_assert_uint_eq(head_of(some, 3, &settled), 1000);
    ck_assert(settled);
}
END_TEST

UNIT_MAIN(
    "catalog",
    test_row_comes_back_from_its_json_with_every_field,
    test_row_of_another_release_is_read,
    test_restart_finds_everything_that_was_committed,
    test_change_of_an_old_version_is_refused,
    test_refused_commit_writes_none_of_its_rows,
    test_deleted_row_is_gone,
    test_ids_have_the_shape_that_clients_know,
    test_head_is_what_a_majority_holds_even_before_it_was_told,
    test_head_needs_a_majority_and_waits_for_the_news_of_a_commit);
