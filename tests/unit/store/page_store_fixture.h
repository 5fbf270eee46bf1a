/*
 * page_store_fixture.h - a page store in a temporary folder, a root and a branch of it, and what a
 * read of them collects, for tests. A page is relation and block; LSNs are small numbers; a path is
 * the caller's until a read takes it. Who calls begin() calls end().
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/file.h"
#include "pageserver/store/page_store.h"
#include "tests/lib/page_batch.h"
#include "tests/unit/unit.h"

#define ROOT  1u
#define CHILD 2u

static char folder[64];
static struct page_store *store;
static struct errmsg msg;
static struct page_versions versions;
static struct page_store_options store_options; /* a test may set them before it begins */

/* The path of a timeline without a parent, and of a branch of it. */
static inline struct page_path *make_path(size_t count, const struct page_span *spans)
{
    struct page_path *path = mem_zalloc(sizeof(*path) + count * sizeof(spans[0]));
    path->count = count;
    memcpy(path->spans, spans, count * sizeof(spans[0]));
    return path;
}

static inline struct page_path *root_path(void)
{
    struct page_span spans[] = {{.timeline = ROOT, .max_lsn = UINT64_MAX}};
    return make_path(1, spans);
}

static inline struct page_path *child_path(lsn_t branch_lsn)
{
    struct page_span spans[] = {
        {.timeline = CHILD, .max_lsn = UINT64_MAX}, {.timeline = ROOT, .max_lsn = branch_lsn}};
    return make_path(2, spans);
}

static inline void make_folder(void)
{
    unit_folder(folder, sizeof(folder), "test_page_store");
}

static inline struct page_store *open_in_folder(void)
{
    struct page_store *opened = NULL;
    ck_assert_ok(page_store_open(folder, &store_options, &opened, &msg), &msg);
    return opened;
}

static inline void begin(void)
{
    make_folder();
    store = open_in_folder();
}

static inline void end(void)
{
    page_versions_deinit(&versions);
    page_store_close(store);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}

static inline struct page_key page_of(uint32_t rel, uint32_t block)
{
    return (struct page_key){.spc = 1663, .db = 5, .rel = rel, .block = block};
}

static inline void put(
    struct page_store *to,
    uint32_t timeline,
    struct page_key key,
    lsn_t lsn,
    uint8_t tag,
    const char *text)
{
    struct page_batch *batch = page_batch_create();
    uint8_t page[PAGE_SIZE] = {0};
    struct bytes value = bytes_of_str(text);
    if (tag == VALUE_IMAGE) {
        memcpy(page, text, strlen(text));
        value = bytes_of(page, sizeof(page));
    }
    page_batch_put(batch, timeline, key, lsn, tag, 3, value);
    ck_assert_ok(page_store_write(to, batch, &msg), &msg);
    page_batch_destroy(batch);
}

/* "D30 D20 I10": tags and LSNs, newest first. */
static inline const char *read_by(struct page_reader *reader, struct page_key key, lsn_t lsn)
{
    static struct buf text;
    ck_assert_ok(page_reader_collect(reader, key, lsn, &versions, &msg), &msg);
    buf_clear(&text);
    for (size_t i = 0; i < versions.count; i++) {
        buf_printf(
            &text, "%s%c%" PRIu64, i == 0 ? "" : " ", versions.items[i].tag, versions.items[i].lsn);
    }
    return buf_cstr(&text);
}

/* By a reader of its own; takes the path. */
static inline const char *collected(struct page_path *path, struct page_key key, lsn_t lsn)
{
    struct page_reader *reader = page_reader_create(store, path);
    const char *text = read_by(reader, key, lsn);
    page_reader_destroy(reader);
    mem_free(path);
    return text;
}

static inline void put_size(
    uint32_t timeline, struct page_key rel, lsn_t lsn, bool exists, uint32_t blocks)
{
    struct page_batch *batch = page_batch_create();
    page_batch_put_rel_size(batch, timeline, rel, lsn, exists, blocks);
    ck_assert_ok(page_store_write(store, batch, &msg), &msg);
    page_batch_destroy(batch);
}

static inline struct fork_size size_at(struct page_path *path, struct page_key rel, lsn_t lsn)
{
    struct fork_size size = {.blocks = 999};
    struct page_reader *reader = page_reader_create(store, path);
    ck_assert_ok(page_reader_rel_size(reader, rel, lsn, &size, &msg), &msg);
    page_reader_destroy(reader);
    mem_free(path);
    return size;
}

static inline void put_with_position(struct page_store *to, struct page_key key, lsn_t lsn)
{
    struct page_batch *batch = page_batch_create();
    page_batch_put(batch, ROOT, key, lsn, VALUE_ZERO, 0, (struct bytes){0});
    page_batch_put_position(
        batch, ROOT, (struct ingest_position){.lsn = lsn, .prev_record_lsn = lsn - 8});
    if (page_store_write(to, batch, &msg) != ERR_OK) {
        _exit(1);
    }
    page_batch_destroy(batch);
}

static inline void flush(void)
{
    ck_assert_ok(page_store_flush(store, &msg), &msg);
}

static inline int64_t counter(const char *name)
{
    struct buf text = {0};
    char line[80];
    (void)snprintf(line, sizeof(line), "\n%s ", name);
    metric_print_all(&text);
    const char *at = strstr(buf_cstr(&text), line);
    ck_assert_ptr_nonnull(at);
    int64_t value = strtoll(strchr(at + 1, ' '), NULL, 10);
    buf_deinit(&text);
    return value;
}
