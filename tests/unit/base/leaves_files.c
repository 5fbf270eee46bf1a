/* No test: it leaves files and dies, as a test does that finds an error. Its check:
 * leaves_nothing.py */
#include "tests/unit/unit.h"

START_TEST(test_that_dies)
{
    char path[UNIT_FOLDER_SIZE];
    unit_folder(path, sizeof(path), "folder");
    (void)unit_file(path, sizeof(path), "file");
    ck_assert_int_eq(setenv("TMPDIR", path, 1), 0); /* of this process only */
    abort();
}
END_TEST

UNIT_MAIN("leaves_files", test_that_dies);
