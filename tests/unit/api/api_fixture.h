/*
 * api_fixture.h - the loop and the catalog of an API in a temporary folder, for tests: what a
 * handler and a mutation find. No server, no nodes and no reconciler: who needs one adds it.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include "common/base/log.h"
#include "common/io/file.h"
#include "control/api/api_private.h"
#include "control/model/name.h"
#include "tests/unit/unit.h"

static char folder[64];
static struct errmsg msg;
static struct executor *executor;
static struct api api;

static inline void api_begin(void)
{
    const struct catalog_options catalog = {.path = folder};
    log_init("test", LOG_LEVEL_ERROR);
    unit_folder(folder, sizeof(folder), "test_api");
    ck_assert_ok(loop_create(&api.loop, &msg), &msg);
    ck_assert_ok(executor_create(api.loop, 1, &executor, &msg), &msg);
    ck_assert_ok(store_open(api.loop, executor, &catalog, &api.store, &msg), &msg);
    api.model = store_model(api.store);
    list_init(&api.keyed);
}

/* Nothing of the loop's may be open but what api_begin() made. */
static inline void api_end(void)
{
    executor_destroy(executor);
    store_close(api.store);
    loop_destroy(api.loop);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
