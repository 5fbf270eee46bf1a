#include "pageserver/read/tar_writer.h"
#include "pageserver/remote/tar_reader.h"

#include "tests/unit/unit.h"

static struct errmsg msg;

static void make_archive(struct buf *tar)
{
    tar_add_dir(tar, "base");
    tar_add_file(tar, "base/PG_VERSION", bytes_of_str("17\n"));
    tar_add_file(tar, "empty", (struct bytes){0});
    tar_finish(tar);
}

START_TEST(test_members_come_back_in_order)
{
    struct buf tar = {0};
    struct tar_member member;
    make_archive(&tar);
    struct tar_reader reader = {.left = buf_view(&tar)};
    ck_assert_ok(tar_reader_next(&reader, &member, &msg), &msg);
    ck_assert_str_eq(member.name, "base");
    ck_assert(!member.is_file);
    ck_assert_ok(tar_reader_next(&reader, &member, &msg), &msg);
    ck_assert_str_eq(member.name, "base/PG_VERSION");
    ck_assert(member.is_file);
    ck_assert(bytes_equal(member.data, bytes_of_str("17\n")));
    ck_assert_ok(tar_reader_next(&reader, &member, &msg), &msg);
    ck_assert_uint_eq(member.data.size, 0);
    ck_assert_int_eq(tar_reader_next(&reader, &member, &msg), ERR_NOT_FOUND);
    buf_deinit(&tar);
}
END_TEST

START_TEST(test_archive_that_was_cut_short_is_corrupt)
{
    struct buf tar = {0};
    make_archive(&tar);
    for (size_t size = 0; size < tar.size - 512; size += 100) {
        struct tar_reader reader = {.left = bytes_of(tar.data, size)};
        struct tar_member member;
        err_t err;
        while ((err = tar_reader_next(&reader, &member, &msg)) == ERR_OK) {
        }
        ck_assert_msg(
            err == ERR_CORRUPT || size >= tar.size - 1024, "%zu bytes: %s", size, err_code(err));
    }
    buf_deinit(&tar);
}
END_TEST

START_TEST(test_changed_header_is_corrupt)
{
    struct buf tar = {0};
    struct tar_member member;
    make_archive(&tar);
    for (size_t at = 0; at < 500; at++) {
        if (at == 155) {
            continue; /* the byte behind the checksum's digits means nothing */
        }
        uint8_t before = tar.data[at];
        tar.data[at] ^= 0x15;
        struct tar_reader reader = {.left = buf_view(&tar)};
        ck_assert_int_eq(tar_reader_next(&reader, &member, &msg), ERR_CORRUPT);
        tar.data[at] = before;
    }
    buf_deinit(&tar);
}
END_TEST

START_TEST(test_equal_content_makes_equal_archives)
{
    struct buf one = {0}, two = {0};
    make_archive(&one);
    make_archive(&two);
    ck_assert(bytes_equal(buf_view(&one), buf_view(&two)));
    buf_deinit(&one);
    buf_deinit(&two);
}
END_TEST

UNIT_MAIN(
    "tar",
    test_members_come_back_in_order,
    test_archive_that_was_cut_short_is_corrupt,
    test_changed_header_is_corrupt,
    test_equal_content_makes_equal_archives);
