/*
 * Text from people and peers: JSON, numbers, LSNs, times, ids, failpoints. What is taken prints as
 * something that is taken again and means the same.
 */
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/id.h"
#include "common/base/ip_range.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/json/doc.h"
#include "tests/fuzz/fuzz.h"

static void try_json(struct bytes text)
{
    struct doc *doc = NULL;
    struct doc *again = NULL;
    struct errmsg msg;
    if (doc_parse(text, &doc, &msg) != ERR_OK) {
        return;
    }
    struct buf printed = {0};
    doc_print(doc, false, &printed);
    err_t err = doc_parse(buf_view(&printed), &again, &msg);
    ASSERT(err == ERR_OK);
    ASSERT(doc_equal(doc, again));
    const char *value = NULL;
    err_ignore(doc_get_str(doc, "a", &value, &msg), "only that it returns");
    buf_deinit(&printed);
    doc_unref(again);
    doc_unref(doc);
}

static void try_lsn(const char *text)
{
    lsn_t lsn = 0;
    lsn_t again = 0;
    char printed[LSN_TEXT_SIZE];
    if (parse_lsn(text, &lsn, NULL) == ERR_OK) {
        (void)snprintf(printed, sizeof(printed), LSN_FMT, LSN_ARGS(lsn));
        err_t err = parse_lsn(printed, &again, NULL);
        ASSERT(err == ERR_OK && again == lsn);
    }
}

static void try_time(const char *text)
{
    wall_us_t time = 0;
    wall_us_t again = 0;
    /* Zones may lead before 1970, which is not written by us and not taken. */
    if (parse_time(text, &time, NULL) == ERR_OK && time >= 0 && time < 253402300800000000) {
        err_t err = parse_time(time_text(time).text, &again, NULL);
        ASSERT(err == ERR_OK && again == time);
    }
}

static void try_id(const char *text)
{
    struct timeline_id id;
    struct timeline_id again;
    if (timeline_id_parse(text, &id, NULL) == ERR_OK) {
        err_t err = timeline_id_parse(timeline_id_text(id).text, &again, NULL);
        ASSERT(err == ERR_OK && timeline_id_equal(id, again));
    }
}

static void try_range(const char *text)
{
    struct ip_range range;
    struct errmsg msg;
    if (ip_range_parse(text, &range, &msg) == ERR_OK) {
        ASSERT(memcmp(range.first, range.last, range.is_v6 ? 16 : 4) <= 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = mem_dup(data, size);
    try_json(bytes_of(copy, size));
    mem_free(copy);
    struct buf text = {0};
    buf_append(&text, data, size);
    const char *line = buf_cstr(&text);
    uint64_t number = 0;
    bool flag = false;
    struct errmsg msg;
    try_lsn(line);
    try_time(line);
    try_id(line);
    try_range(line);
    err_ignore(parse_u64(line, 0, UINT64_MAX, &number, &msg), "only that it returns");
    err_ignore(parse_size(line, &number, &msg), "only that it returns");
    err_ignore(parse_duration(line, &number, &msg), "only that it returns");
    err_ignore(parse_bool(line, &flag, &msg), "only that it returns");
    buf_deinit(&text);
    return 0;
}
