/*
 * tenant_fixture.h - a loop, workers and the tenants of a temporary folder, for tests. Requests are
 * waited for by running the loop until they are done.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include "common/io/file.h"
#include "pageserver/timeline/tenant.h"
#include "tests/lib/page_batch.h"
#include "tests/unit/unit.h"

#define START_LSN ((lsn_t)0x1000000)

static struct {
    char folder[64];
    struct loop *loop;
    struct executor *executor, *rows, *elsewhere;
    struct tenants *tenants;
    struct tenants_user user;
    unsigned timelines_seen, timelines_gone, rewritten;
    err_t result;
    bool done;
} fixture;
static struct errmsg msg;

static inline void fixture_on_timeline(struct tenants_user *user, struct timeline *tl)
{
    (void)user;
    (void)tl;
    fixture.timelines_seen++;
}

static inline void fixture_on_gone(struct tenants_user *user, struct timeline *tl)
{
    (void)user;
    (void)tl;
    fixture.timelines_gone++;
}

static inline void fixture_on_flushed(struct tenants_user *user, struct tenant *tenant)
{
    (void)user;
    (void)tenant;
}

static inline void fixture_on_rewritten(struct tenants_user *user, struct tenant *tenant)
{
    (void)user;
    (void)tenant;
    fixture.rewritten++;
}

/* A test may set them before it begins. */
static uint64_t fixture_flush_bytes = 1 * MIB;
static size_t fixture_layers_bytes = 64 * MIB;
static uint64_t fixture_gc_period_ms;
static uint64_t fixture_disk_reserve_bytes;
static uint64_t fixture_slot_wal_keep_max;

static inline void fixture_open_tenants(void)
{
    fixture.user = (struct tenants_user){
        .on_timeline = fixture_on_timeline,
        .on_timeline_gone = fixture_on_gone,
        .on_flushed = fixture_on_flushed,
        .on_rewritten = fixture_on_rewritten,
    };
    struct tenants_options options = {
        .loop = fixture.loop,
        .executor = fixture.executor,
        .rows = fixture.rows,
        .elsewhere = fixture.elsewhere,
        .data_dir = fixture.folder,
        .flush_bytes = fixture_flush_bytes,
        .flush_age_ms = 3600 * 1000,
        .layers_bytes = fixture_layers_bytes,
        .gc_period_ms = fixture_gc_period_ms,
        .disk_reserve_bytes = fixture_disk_reserve_bytes,
        .slot_wal_keep_max = fixture_slot_wal_keep_max,
        .user = &fixture.user,
    };
    ck_assert_ok(tenants_open(&options, &fixture.tenants, &msg), &msg);
}

static inline void fixture_begin(void)
{
    unit_folder(fixture.folder, sizeof(fixture.folder), "test_tenant");
    ck_assert_ok(loop_create(&fixture.loop, &msg), &msg);
    ck_assert_ok(executor_create(fixture.loop, 2, &fixture.executor, &msg), &msg);
    ck_assert_ok(executor_create(fixture.loop, 1, &fixture.rows, &msg), &msg);
    ck_assert_ok(executor_create(fixture.loop, 2, &fixture.elsewhere, &msg), &msg);
    fixture_open_tenants();
}

static inline void fixture_on_stop_timer(struct timer *timer)
{
    (void)timer;
    loop_stop(fixture.loop);
}

static inline void fixture_work_for(uint64_t ms)
{
    struct timer timer = {.on_fire = fixture_on_stop_timer};
    timer_start(fixture.loop, &timer, ms);
    loop_run(fixture.loop);
    timer_stop(&timer); /* a stop that was asked for before ends the loop early */
}

/* Let the loop work until the tenants have nothing to do. */
static inline void fixture_settle(void)
{
    do {
        fixture_work_for(30);
    } while (!tenants_are_idle(fixture.tenants));
}

static inline void fixture_reopen(void)
{
    fixture_settle();
    tenants_close(fixture.tenants);
    fixture_open_tenants();
}

static inline void fixture_end(void)
{
    fixture_settle();
    tenants_close(fixture.tenants);
    executor_destroy(fixture.executor);
    executor_destroy(fixture.rows);
    executor_destroy(fixture.elsewhere);
    loop_destroy(fixture.loop);
    ck_assert_ok(dir_remove(fixture.folder, &msg), &msg);
}

static inline void fixture_done(err_t result)
{
    fixture.result = result;
    fixture.done = true;
    loop_stop(fixture.loop);
}

static inline err_t fixture_run(void)
{
    fixture.done = false;
    loop_run(fixture.loop);
    ck_assert(fixture.done);
    return fixture.result;
}

static inline void fixture_on_request(struct tenant_request *request, err_t result)
{
    (void)request;
    fixture_done(result);
}

static inline struct tenant_id tenant_number(uint8_t number)
{
    return (struct tenant_id){.bytes = {number}};
}

static inline struct timeline_id timeline_number_id(uint8_t number)
{
    return (struct timeline_id){.bytes = {number}};
}

static inline err_t attach(uint8_t tenant, generation_t generation)
{
    struct tenant_request request = {.done = fixture_on_request};
    tenant_attach(fixture.tenants, &request, tenant_number(tenant), generation);
    return fixture_run();
}

static inline struct tenant *the_tenant(void)
{
    struct tenant *tenant = tenants_find(fixture.tenants, tenant_number(1));
    ck_assert_ptr_nonnull(tenant);
    return tenant;
}

static inline struct timeline *find(uint8_t id)
{
    return tenant_find_timeline(the_tenant(), timeline_number_id(id));
}

static inline struct timeline_info info_of(uint8_t id, uint8_t parent, lsn_t start_lsn)
{
    struct timeline_info info = {
        .id = timeline_number_id(id),
        .parent = timeline_number_id(parent),
        .pg_version = 17,
        .system_id = 77,
        .start_lsn = start_lsn,
        .generation = 1,
        .membership_generation = 1,
        .safekeepers = "1@127.0.0.1:1",
    };
    info.bootstrap_object = parent == 0 ? "object" : "";
    return info;
}

static inline err_t put_info(const struct timeline_info *info)
{
    struct tenant_request request = {.done = fixture_on_request};
    tenant_put_timeline(the_tenant(), &request, info);
    err_t result = fixture_run();
    msg = request.msg;
    return result;
}

static inline err_t put_timeline_(uint8_t id, uint8_t parent, lsn_t start_lsn)
{
    struct timeline_info info = info_of(id, parent, start_lsn);
    return put_info(&info);
}

static inline err_t delete_timeline_(uint8_t id)
{
    struct tenant_request request = {.done = fixture_on_request};
    tenant_delete_timeline(the_tenant(), &request, find(id), false);
    return fixture_run();
}

/* As if the bootstrap image had been written. */
static inline void import_root(uint8_t id)
{
    struct timeline *tl = find(id);
    struct ingest_position position = {.lsn = timeline_info(tl)->start_lsn};
    struct page_batch *batch = page_batch_create();
    page_batch_put_position(batch, timeline_number(tl), position);
    ck_assert_ok(page_store_write(timeline_store(tl), batch, &msg), &msg);
    page_batch_destroy(batch);
    struct tenant_request request = {.done = fixture_on_request};
    tenant_timeline_imported(the_tenant(), &request, tl, position);
    ck_assert_int_eq(fixture_run(), ERR_OK);
}

/* As if WAL up to `lsn` had been ingested. */
static inline void ingest_until(struct timeline *tl, lsn_t lsn)
{
    struct ingest_position position = {.lsn = lsn, .prev_record_lsn = lsn - 8};
    struct page_batch *batch = page_batch_create();
    page_batch_put_position(batch, timeline_number(tl), position);
    ck_assert_ok(page_store_write(timeline_store(tl), batch, &msg), &msg);
    page_batch_destroy(batch);
    timeline_advance(tl, position);
    tenant_written(timeline_tenant(tl));
}

static inline void fill_layer(struct tenant *tenant, size_t bytes)
{
    static const uint8_t page[PAGE_SIZE];
    struct timeline *tl = tenant_first_timeline(tenant);
    struct page_batch *batch = page_batch_create();
    for (uint32_t block = 0; block * PAGE_SIZE < bytes; block++) {
        struct page_key key = {.spc = 1663, .db = 5, .rel = 100, .block = block};
        page_batch_put(
            batch, timeline_number(tl), key, START_LSN + 8, VALUE_IMAGE, 0,
            bytes_of(page, sizeof(page)));
    }
    ck_assert_ok(page_store_write(timeline_store(tl), batch, &msg), &msg);
    page_batch_destroy(batch);
    tenant_written(tenant);
}

static inline uint64_t open_bytes(struct tenant *tenant)
{
    return page_store_open_bytes(timeline_store(tenant_first_timeline(tenant)));
}

/* One tenant with one imported root, timeline 1. */
static inline void fixture_begin_with_root(void)
{
    fixture_begin();
    ck_assert_int_eq(attach(1, 1), ERR_OK);
    ck_assert_int_eq(put_timeline_(1, 0, START_LSN), ERR_OK);
    import_root(1);
}
