/*
 * unit.h - the main() of a test program: UNIT_MAIN("link", test_a, test_b). Each test runs in a
 * process of its own, so that it may crash, leave handles open or change globals. UNIT_MAIN_WITH():
 * where they share a setup or need more time.
 */
#pragma once

#include <assert.h>
#include <check.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/base/types.h"

#define UNIT_TIMEOUT_S 30

/* What the tests of a program have in common; {0}: nothing, and the usual time. */
struct unit_options {
    SFun setup, teardown; /* before and after each test, in its process; NULL: none */
    int timeout_s;        /* of each test; 0: UNIT_TIMEOUT_S */
};

/* ---- files of a test ---- */

#define UNIT_FOLDER_SIZE 128

/* False: TMPDIR is too long. */
static inline bool unit_template(char *to, size_t size, const char *name)
{
    const char *base = getenv("TMPDIR");
    return snprintf(to, size, "%s/%s.XXXXXX", base == NULL ? "/tmp" : base, name) < (int)size;
}

/*
 * A new folder, or a new empty file that is open. The program removes what its tests leave, also
 * where one is killed.
 */
static inline void unit_folder(char *ret_path, size_t size, const char *name)
{
    ck_assert(unit_template(ret_path, size, name));
    ck_assert_ptr_nonnull(mkdtemp(ret_path));
}

static inline int unit_file(char *ret_path, size_t size, const char *name)
{
    ck_assert(unit_template(ret_path, size, name));
    int fd = mkstemp(ret_path);
    ck_assert_int_ge(fd, 0);
    return fd;
}

static inline int unit_remove(
    const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status;
    (void)kind;
    (void)place;
    (void)remove(path);
    return 0;
}

/* TMPDIR of the tests, which run in processes of their own; other users may look into it, too. */
static inline bool unit_own_tmpdir(char ret_folder[UNIT_FOLDER_SIZE])
{
    return unit_template(ret_folder, UNIT_FOLDER_SIZE, "unit") && mkdtemp(ret_folder) != NULL &&
           chmod(ret_folder, 0755) == 0 && setenv("TMPDIR", ret_folder, 1) == 0;
}

/* Runs and frees a suite that was put together by hand: of tests in loops, say. The exit status. */
static inline int unit_run_suite(Suite *suite)
{
    char folder[UNIT_FOLDER_SIZE];
    SRunner *runner = srunner_create(suite);
    if (!unit_own_tmpdir(folder)) {
        perror("a folder for the tests");
        return EXIT_FAILURE;
    }
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    (void)nftw(folder, unit_remove, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static inline int unit_run(
    const char *name, const struct unit_options *options, const TTest *const *tests, size_t count)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, options->timeout_s == 0 ? UNIT_TIMEOUT_S : options->timeout_s);
    tcase_add_checked_fixture(tcase, options->setup, options->teardown);
    for (size_t i = 0; i < count; i++) {
        tcase_add_test(tcase, tests[i]);
    }
    suite_add_tcase(suite, tcase);
    return unit_run_suite(suite);
}

#define UNIT_MAIN_WITH(options, name, ...)                                                         \
    int main(void)                                                                                 \
    {                                                                                              \
        const TTest *const tests[] = {__VA_ARGS__};                                                \
        return unit_run((name), &(options), tests, ARRAY_LEN(tests));                              \
    }                                                                                              \
    static_assert(true, "")

#define UNIT_MAIN(...) UNIT_MAIN_WITH((struct unit_options){0}, __VA_ARGS__)

/* ck_assert_int_eq(err, ERR_OK), but a failure prints what the message says. */
#define ck_assert_ok(expression, msg)                                                              \
    do {                                                                                           \
        err_t ok_err = (expression);                                                               \
        ck_assert_msg(ok_err == ERR_OK, "%s: %s", err_code(ok_err), (msg)->text);                  \
    } while (0)
