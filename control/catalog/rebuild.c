/*
 * rebuild.c - a catalog for an empty disk, out of the object store.
 *
 * The log has every change that was ever answered. What it cannot know is what a pageserver did in
 * the name of a generation that was lost with the log's end (a bucket that was put back from a
 * copy): the tenants' own objects tell. A project is given a generation above all of them, and
 * timelines that no branch knows become branches (adopt.h), or are reported.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "common/io/file.h"
#include "control/catalog/adopt.h"
#include "control/catalog/catalog_private.h"
#include "control/catalog/join.h"
#include "control/catalog/leftovers.h"

static err_t make_kv(
    const struct catalog_options *options,
    struct objstore *store,
    struct changelog_position *ret_position,
    struct errmsg *msg)
{
    char fresh[PATH_SIZE];
    struct kv *kv = NULL;
    TRY(str_format(fresh, sizeof fresh, msg, "%.900s.new", options->path));
    TRY(dir_remove(fresh, msg));
    TRY(dir_create(fresh, msg));
    TRY(kv_open(fresh, &(struct kv_options){0}, &kv, msg));
    err_t err = changelog_load(store, kv, ret_position, msg);
    kv_close(kv);
    if (err == ERR_OK) {
        err = file_rename_durably(fresh, options->path, msg);
    } else {
        struct errmsg second;
        err_ignore(dir_remove(fresh, &second), "the first error counts");
    }
    return err;
}

static err_t refuse(const char *name, void *context, struct errmsg *msg)
{
    return err_set(
        msg, ERR_EXISTS, "%s is not empty (it has %s): move it away first", (const char *)context,
        name);
}

/* A folder that is there and empty is in the way of the rename. */
static err_t make_room(const char *path, struct errmsg *msg)
{
    if (!file_exists(path)) {
        return ERR_OK;
    }
    TRY(dir_list(path, refuse, (void *)path, msg));
    return dir_remove(path, msg);
}

struct rebuilding {
    struct catalog *catalog;
    struct leftovers *leftovers;
    struct adopter *adopter;
    struct buf *report;
    size_t counts[ROW_KIND_COUNT];
};

/* K3: a generation is never issued twice, whatever end of the log was lost. */
static err_t renew(
    struct rebuilding *rebuilding, const union any_row *row, uint64_t used, struct errmsg *msg)
{
    union any_row newer = {.project = row->project}; /* a row is as large as its kind */
    struct catalog_entry entry;
    newer.project.generation = used + 1;
    catalog_entry_put(&entry, ROW_PROJECT, &newer);
    err_t err = catalog_commit(rebuilding->catalog, &entry, 1, msg);
    catalog_entry_deinit(&entry);
    buf_printf(
        rebuilding->report,
        "project %s: generation %" PRIu64 " has written objects, the catalog knew %" PRIu64
        ": now %" PRIu64 "\n",
        row->head.id, used, row->project.generation, used + 1);
    return err;
}

static err_t on_row(void *context, enum row_kind kind, const union any_row *row, struct errmsg *msg)
{
    struct rebuilding *rebuilding = context;
    rebuilding->counts[kind]++;
    adopter_note(rebuilding->adopter, kind, row);
    if (kind == ROW_PROJECT) {
        uint64_t used = leftovers_claim_tenant(rebuilding->leftovers, row->project.tenant);
        return used > row->project.generation ? renew(rebuilding, row, used, msg) : ERR_OK;
    }
    if (kind == ROW_BRANCH) {
        leftovers_claim_timeline(rebuilding->leftovers, row->branch.timeline);
    }
    return ERR_OK;
}

static err_t compare_with_tenants(
    const struct catalog_options *options, struct buf *report, struct errmsg *msg)
{
    struct rebuilding rebuilding = {.report = report};
    TRY(catalog_open(options, &rebuilding.catalog, msg));
    rebuilding.adopter = adopter_create();
    err_t err = leftovers_find(rebuilding.catalog->objects, &rebuilding.leftovers, msg);
    if (err == ERR_OK) {
        err = catalog_load(rebuilding.catalog, on_row, &rebuilding, msg);
    }
    if (err == ERR_OK) {
        buf_printf(
            report, "%zu projects, %zu branches, %zu endpoints, %zu operations\n",
            rebuilding.counts[ROW_PROJECT], rebuilding.counts[ROW_BRANCH],
            rebuilding.counts[ROW_ENDPOINT], rebuilding.counts[ROW_OPERATION]);
        err =
            adopter_run(rebuilding.adopter, rebuilding.catalog, rebuilding.leftovers, report, msg);
    }
    if (err == ERR_OK) {
        leftovers_report(rebuilding.leftovers, report);
    }
    adopter_destroy(rebuilding.adopter);
    leftovers_destroy(rebuilding.leftovers);
    catalog_close(rebuilding.catalog);
    return err;
}

err_t catalog_rebuild(const struct catalog_options *options, struct buf *report, struct errmsg *msg)
{
    struct objstore *store = NULL;
    struct changelog_position position;
    TRY(make_room(options->path, msg));
    TRY(objstore_open(options->object_store, &store, msg));
    err_t err = make_kv(options, store, &position, msg);
    objstore_close(store);
    if (err == ERR_OK) {
        buf_printf(
            report, "%s: as of change %" PRIu64 " of the log\n", options->path, position.seq);
        err = compare_with_tenants(options, report, msg);
    }
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "rebuild the catalog %s", options->path);
}
