#include "tools/anabranch/catalog.h"

#include <stdio.h>

#include "common/base/log.h"
#include "common/io/file.h"
#include "control/catalog/catalog.h"
#include "tools/anabranch/cluster.h"
#include "tools/anabranch/output.h"
#include "tools/anabranch/process.h"

struct places {
    char catalog[PATH_SIZE], object_store[PATH_SIZE];
};

static err_t places_of_cluster(
    const struct context *context,
    struct cluster *cluster,
    struct places *places,
    struct errmsg *msg)
{
    TRY(str_copy(cluster->data_dir, sizeof cluster->data_dir, context->data_dir, msg));
    TRY(cluster_load(cluster, msg));
    const struct process *control = cluster_process_of(cluster, PROCESS_CONTROL);
    if (process_is_running(control)) {
        return err_set(
            msg, ERR_BUSY, "control runs (pid %d): its catalog is not lost; stop it first",
            control->pid);
    }
    TRY(str_format(places->catalog, sizeof places->catalog, msg, "%.900s/catalog", control->dir));
    TRY(dir_create(control->dir, msg));
    return cluster_object_store(cluster, places->object_store, msg);
}

static err_t find_places(struct context *context, struct places *places, struct errmsg *msg)
{
    const char *catalog = args_flag(context->args, "catalog");
    const char *store = args_flag(context->args, "object-store");
    TRY(args_check_used(context->args, msg));
    if ((catalog == NULL) != (store == NULL)) {
        return err_set(
            msg, ERR_INVALID,
            "--catalog and --object-store go together; without them it is the "
            "catalog of the local cluster");
    }
    if (catalog != NULL) {
        TRY(str_copy(places->catalog, sizeof places->catalog, catalog, msg));
        return str_copy(places->object_store, sizeof places->object_store, store, msg);
    }
    struct cluster cluster = {.lock_fd = -1};
    TRY(cluster_lock(&cluster, context->data_dir, msg));
    err_t err = places_of_cluster(context, &cluster, places, msg);
    cluster_unlock(&cluster);
    return err;
}

err_t catalog_command(struct context *context, struct errmsg *msg)
{
    const char *verb = args_word(context->args, 1);
    struct places places;
    struct buf report = {0};
    if (verb == NULL || strcmp(verb, "rebuild") != 0) {
        return err_set(msg, ERR_INVALID, "expected anabranch catalog rebuild");
    }
    TRY(find_places(context, &places, msg));
    err_t err = catalog_rebuild(
        &(struct catalog_options){.path = places.catalog, .object_store = places.object_store},
        &report, msg);
    if (err == ERR_OK) {
        fputs(buf_cstr(&report), stdout);
    }
    buf_deinit(&report);
    return err;
}
