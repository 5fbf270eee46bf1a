/* Unified diffs: exact for small ones, and any diff turns the old text into the new one. */
#include "control/api/text_diff.h"

#include <stdio.h>
#include <string.h>

#include "common/base/prng.h"
#include "tests/unit/unit.h"

static struct buf diff;

static const char *diff_of(const char *old_text, const char *new_text)
{
    buf_clear(&diff);
    text_diff(old_text, new_text, "a", "b", &diff);
    return buf_cstr(&diff);
}

START_TEST(test_equal_texts_have_no_diff)
{
    ck_assert_str_eq(diff_of("", ""), "");
    ck_assert_str_eq(diff_of("x\ny\n", "x\ny\n"), "");
}
END_TEST

START_TEST(test_one_changed_line_with_its_surroundings)
{
    ck_assert_str_eq(
        diff_of("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nfive\n6\n7\n8\n9\n"),
        "--- a\n+++ b\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n");
}
END_TEST

START_TEST(test_from_nothing_and_to_nothing)
{
    ck_assert_str_eq(diff_of("", "x\ny\n"), "--- a\n+++ b\n@@ -0,0 +1,2 @@\n+x\n+y\n");
    ck_assert_str_eq(diff_of("x\n", ""), "--- a\n+++ b\n@@ -1 +0,0 @@\n-x\n");
}
END_TEST

START_TEST(test_distant_changes_are_hunks_of_their_own)
{
    ck_assert_str_eq(
        diff_of("a\n1\n2\n3\n4\n5\n6\n7\nz\n", "A\n1\n2\n3\n4\n5\n6\n7\nZ\n"),
        "--- a\n+++ b\n@@ -1,4 +1,4 @@\n-a\n+A\n 1\n 2\n 3\n@@ -6,4 +6,4 @@\n 5\n 6\n 7\n-z\n+Z\n");
    /* Six lines between two changes: their surroundings touch. */
    ck_assert_str_eq(
        diff_of("a\n1\n2\n3\n4\n5\n6\nz\n", "A\n1\n2\n3\n4\n5\n6\nZ\n"),
        "--- a\n+++ b\n@@ -1,8 +1,8 @@\n-a\n+A\n 1\n 2\n 3\n 4\n 5\n 6\n-z\n+Z\n");
}
END_TEST

/* Applies a diff strictly: context and removed lines must be what the old text has there. */
static void apply(const char *old_text, const char *patch, struct buf *to)
{
    size_t old_line = 0;
    const char *old_at = old_text;
    if (*patch == '\0') {
        buf_printf(to, "%s", old_text);
        return;
    }
    patch = strchr(strchr(patch, '\n') + 1, '\n') + 1; /* the two names */
    while (*patch != '\0') {
        size_t size = strcspn(patch, "\n");
        if (*patch == '@') {
            unsigned begin = 0, count = 1;
            ck_assert_int_ge(sscanf(patch, "@@ -%u,%u", &begin, &count), 1);
            for (size_t until = count == 0 ? begin : begin - 1; old_line < until; old_line++) {
                size_t whole = strcspn(old_at, "\n") + 1;
                buf_append(to, old_at, whole);
                old_at += whole;
            }
        } else if (*patch == '+') {
            buf_append(to, patch + 1, size);
        } else {
            ck_assert(*patch == ' ' || *patch == '-');
            ck_assert_int_eq(strncmp(old_at, patch + 1, size), 0);
            if (*patch == ' ') {
                buf_append(to, old_at, size);
            }
            old_at += size;
            old_line++;
        }
        patch += size + 1;
    }
    buf_printf(to, "%s", old_at);
}

static void make_lines(struct prng *prng, size_t count, unsigned kinds, struct buf *to)
{
    for (size_t i = 0; i < count; i++) {
        buf_printf(to, "line %u\n", (unsigned)prng_below(prng, kinds));
    }
}

START_TEST(test_applied_to_the_old_text_it_gives_the_new_one)
{
    struct prng prng;
    prng_init(&prng, 7);
    for (int round = 0; round < 2000; round++) {
        struct buf old_text = {0}, new_text = {0}, got = {0};
        unsigned kinds = 1 + (unsigned)prng_below(&prng, 12);
        make_lines(&prng, prng_below(&prng, 40), kinds, &old_text);
        make_lines(&prng, prng_below(&prng, 40), kinds, &new_text);
        apply(buf_cstr(&old_text), diff_of(buf_cstr(&old_text), buf_cstr(&new_text)), &got);
        ck_assert_str_eq(buf_cstr(&got), buf_cstr(&new_text));
        buf_deinit(&old_text);
        buf_deinit(&new_text);
        buf_deinit(&got);
    }
}
END_TEST

START_TEST(test_more_edits_than_the_limit_are_one_replacement)
{
    struct buf old_text = {0}, new_text = {0}, got = {0};
    for (unsigned i = 0; i < DIFF_EDITS_MAX + 10; i++) {
        buf_printf(&old_text, "old %u\n", i);
        buf_printf(&new_text, "new %u\n", i);
    }
    apply(buf_cstr(&old_text), diff_of(buf_cstr(&old_text), buf_cstr(&new_text)), &got);
    ck_assert_str_eq(buf_cstr(&got), buf_cstr(&new_text));
    ck_assert_ptr_null(strstr(buf_cstr(&diff) + 20, "@@ -")); /* one hunk */
    buf_deinit(&old_text);
    buf_deinit(&new_text);
    buf_deinit(&got);
}
END_TEST

UNIT_MAIN(
    "text_diff",
    test_equal_texts_have_no_diff,
    test_one_changed_line_with_its_surroundings,
    test_from_nothing_and_to_nothing,
    test_distant_changes_are_hunks_of_their_own,
    test_applied_to_the_old_text_it_gives_the_new_one,
    test_more_edits_than_the_limit_are_one_replacement);
