/*
 * unit.h - the main() of a test program: UNIT_MAIN("link", test_a, test_b). Each test runs in a
 * process of its own, so that it may crash, leave handles open or change globals.
 */
#pragma once

#include <assert.h>
#include <check.h>
#include <stdlib.h>

#include "common/base/types.h"

#define UNIT_TIMEOUT_S 30

static inline int unit_run(const char *name, const TTest *const *tests, size_t count)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, UNIT_TIMEOUT_S);
    for (size_t i = 0; i < count; i++) {
        tcase_add_test(tcase, tests[i]);
    }
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#define UNIT_MAIN(name, ...)                                                                       \
    int main(void)                                                                                 \
    {                                                                                              \
        const TTest *const tests[] = {__VA_ARGS__};                                                \
        return unit_run((name), tests, ARRAY_LEN(tests));                                          \
    }                                                                                              \
    static_assert(true, "")

/* ck_assert_int_eq(err, ERR_OK), but a failure prints what the message says. */
#define ck_assert_ok(expression, msg)                                                              \
    do {                                                                                           \
        err_t ok_err = (expression);                                                               \
        ck_assert_msg(ok_err == ERR_OK, "%s: %s", err_code(ok_err), (msg)->text);                  \
    } while (0)
