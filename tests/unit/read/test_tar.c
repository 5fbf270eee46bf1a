#include "pageserver/read/tar_writer.h"
#include "pageserver/remote/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>

#include "common/base/mem.h"
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

/* As the agent's libarchive reads it. */
static void check_sparse(struct bytes data, size_t archive_size_max)
{
    struct buf tar = {0};
    uint8_t *got = MEM_ARRAY(uint8_t, data.size + 1);
    struct archive_entry *entry = NULL;
    tar_add_sparse_file(&tar, "pg_wal/1", data);
    tar_add_file(&tar, "behind", bytes_of_str("it"));
    tar_finish(&tar);
    ck_assert_uint_le(tar.size, archive_size_max);
    struct archive *archive = archive_read_new();
    ck_assert_int_eq(archive_read_support_format_tar(archive), ARCHIVE_OK);
    ck_assert_int_eq(archive_read_open_memory(archive, tar.data, tar.size), ARCHIVE_OK);
    ck_assert_int_eq(archive_read_next_header(archive, &entry), ARCHIVE_OK);
    ck_assert_str_eq(archive_entry_pathname(entry), "pg_wal/1");
    ck_assert_int_eq(archive_entry_size(entry), (la_int64_t)data.size);
    const void *piece = NULL;
    size_t size = 0;
    la_int64_t at = 0;
    int rc;
    while ((rc = archive_read_data_block(archive, &piece, &size, &at)) == ARCHIVE_OK) {
        ck_assert_uint_le((size_t)at + size, data.size);
        memcpy(got + at, piece, size);
    }
    ck_assert_int_eq(rc, ARCHIVE_EOF);
    ck_assert(bytes_equal(bytes_of(got, data.size), data));
    ck_assert_int_eq(archive_read_next_header(archive, &entry), ARCHIVE_OK);
    ck_assert_str_eq(archive_entry_pathname(entry), "behind");
    ck_assert_int_eq(archive_read_free(archive), ARCHIVE_OK);
    mem_free(got);
    buf_deinit(&tar);
}

START_TEST(test_zeros_take_no_space_in_a_sparse_file)
{
    const size_t size = 8 * MIB + 123;
    const size_t small = 16 * 1024;
    uint8_t *data = MEM_ARRAY(uint8_t, size);
    check_sparse((struct bytes){0}, small);
    check_sparse(bytes_of(data, size), small);
    data[40] = 1;
    data[5 * MIB + 3] = 2;
    check_sparse(bytes_of(data, size), small);
    data[size - 1] = 3; /* to the end */
    check_sparse(bytes_of(data, size), small);
    for (size_t at = 0; at < 20; at++) { /* more pieces than a header holds */
        data[at * 10000] = 4;
    }
    check_sparse(bytes_of(data, size), size + small);
    memset(data, 5, size);
    check_sparse(bytes_of(data, size), size + small);
    mem_free(data);
}
END_TEST

UNIT_MAIN(
    "tar",
    test_members_come_back_in_order,
    test_archive_that_was_cut_short_is_corrupt,
    test_changed_header_is_corrupt,
    test_equal_content_makes_equal_archives,
    test_zeros_take_no_space_in_a_sparse_file);
