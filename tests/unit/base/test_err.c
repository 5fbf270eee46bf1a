/* Failures: the code for the caller, the text for people. */
#include "common/base/err.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/unit.h"

static struct errmsg msg;

START_TEST(test_set_describes_and_returns_the_code)
{
    errno = ENOSPC;
    ck_assert_int_eq(err_set(&msg, ERR_IO, "write %s: %m", "/data"), ERR_IO);
    ck_assert_str_eq(msg.text, "write /data: No space left on device");
    ck_assert_int_eq(err_set(NULL, ERR_IO, "nobody listens"), ERR_IO);
}
END_TEST

START_TEST(test_wrap_puts_the_outer_layer_first)
{
    (void)!err_set(&msg, ERR_IO, "disk on fire");
    ck_assert_int_eq(err_wrap(&msg, ERR_IO, "open %d", 7), ERR_IO);
    ck_assert_str_eq(msg.text, "open 7: disk on fire");
    ck_assert_int_eq(err_wrap(NULL, ERR_IO, "x"), ERR_IO);
}
END_TEST

START_TEST(test_long_texts_are_cut_and_terminated)
{
    char text[1000];
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    (void)!err_set(&msg, ERR_IO, "%s", text);
    ck_assert_uint_eq(strlen(msg.text), sizeof(msg.text) - 1);
    (void)!err_wrap(&msg, ERR_IO, "%s", text);
    ck_assert_uint_eq(strlen(msg.text), sizeof(msg.text) - 1);
}
END_TEST

START_TEST(test_every_code_has_a_name_and_a_stable_text)
{
    for (int err = 0; err < ERR_COUNT; err++) {
        ck_assert_str_ne(err_name((err_t)err), "unknown");
        ck_assert_int_eq(strncmp(err_code((err_t)err), "ERR_", 4), 0);
    }
    ck_assert_str_eq(err_code(ERR_STALE), "ERR_STALE");
    ck_assert_str_eq(err_name((err_t)99), "unknown");
}
END_TEST

START_TEST(test_codes_travel_on_the_wire_and_never_change)
{
    ck_assert_int_eq(ERR_NOT_FOUND, 1);
    ck_assert_int_eq(ERR_STALE, 8);
    ck_assert_int_eq(ERR_RANGE, 13);
    ck_assert_int_eq(ERR_UNSUPPORTED, 14);
}
END_TEST

START_TEST(test_errno_tells_full_from_broken)
{
    ck_assert_int_eq(err_from_errno(ENOSPC), ERR_FULL);
    ck_assert_int_eq(err_from_errno(ENOENT), ERR_NOT_FOUND);
    ck_assert_int_eq(err_from_errno(EEXIST), ERR_EXISTS);
    ck_assert_int_eq(err_from_errno(EMFILE), ERR_BUSY);
    ck_assert_int_eq(err_from_errno(EIO), ERR_IO);
}
END_TEST

UNIT_MAIN(
    "err",
    test_set_describes_and_returns_the_code,
    test_wrap_puts_the_outer_layer_first,
    test_long_texts_are_cut_and_terminated,
    test_every_code_has_a_name_and_a_stable_text,
    test_codes_travel_on_the_wire_and_never_change,
    test_errno_tells_full_from_broken);
