/*
 * redo_catalogue.h - the bad-input catalogue of redo as a table: what WAL or a page may say that
 * cannot be. Each row is refused with a typed error that says what is wrong, or accepted because
 * Postgres would do the same and nothing is harmed; never is a byte written beside the page.
 *
 *   test_redo_catalogue.c        heap, pages without a reference, any resource manager
 *   test_redo_catalogue_index.c  B-tree, GIN, GiST, SP-GiST, hash, BRIN
 *
 * What a record is refused for before redo sees it: tests/unit/pg/test_wal_catalogue.c.
 */
#pragma once

#include "tests/unit/redo/redo_fixture.h"

#define HEAP_BLOCK 5

enum { CLOG_0 = 100, MEMBERS_0, VM_0 }; /* implied pages */

struct row {
    const char *entry;
    void (*given)(void);
    unsigned target;  /* block reference, or an implied page */
    const char *says; /* of the refusal; NULL: accepted, as Postgres accepts it */
};

static const struct row *catalogue;

static inline struct page_key target_key(const struct row *row)
{
    switch (row->target) {
    case CLOG_0: return page_key_state(STATE_CLOG, 0, 0);
    case MEMBERS_0: return page_key_state(STATE_MULTI_MEMBERS, 0, 0);
    case VM_0: return vm_key(0);
    case 33: return heap_key(HEAP_BLOCK);
    default: return fixture.record.blocks[row->target].key;
    }
}

START_TEST(test_the_catalogue)
{
    static struct fixture before;
    const struct row *row = &catalogue[_i];
    row->given();
    struct page_key key = target_key(row);
    if (strcmp(row->entry, "reference to another page") == 0) {
        key.block--;
    }
    memcpy(&before, &fixture, sizeof(fixture));
    uint8_t index = row->target < CLOG_0 ? (uint8_t)row->target : VALUE_BLOCK_IMPLIED;

    err_t err = redo_apply(&fixture.record, index, key, fixture.page, &fixture.msg);

    if (row->says == NULL) {
        ck_assert_msg(err == ERR_OK, "%s: %s", row->entry, fixture.msg.text);
        unsigned lower = page_u16(fixture.page, PAGE_LOWER);
        ck_assert_uint_le(lower, page_u16(fixture.page, PAGE_UPPER));
    } else {
        ck_assert_msg(err == ERR_CORRUPT, "%s: %s", row->entry, err_code(err));
        bool says = strstr(fixture.msg.text, row->says) != NULL;
        ck_assert_msg(says, "%s: it says: %s", row->entry, fixture.msg.text);
        ck_assert_ptr_nonnull(strstr(fixture.msg.text, "0/2000100"));
    }
    /* Only the page and the message: not the record, not what lies beside the page. */
    memcpy(before.page, fixture.page, PAGE_SIZE);
    before.msg = fixture.msg;
    ck_assert_mem_eq(&before, &fixture, sizeof(fixture));
}
END_TEST

/* Each row in a process of its own. Returns what main() does. */
static int run_catalogue(const char *name, const struct row *rows, size_t count)
{
    catalogue = rows;
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    tcase_add_loop_test(tcase, test_the_catalogue, 0, (int)count);
    suite_add_tcase(suite, tcase);
    return unit_run_suite(suite);
}
