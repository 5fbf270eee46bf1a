#include "pageserver/remote/index.h"

#include <stdio.h>

#include "common/base/prng.h"
#include "common/wire/codec.h"
#include "tests/unit/unit.h"

static struct errmsg msg;

static struct hash128 some_hash(uint8_t byte)
{
    struct hash128 hash;
    memset(hash.bytes, byte, sizeof(hash.bytes));
    return hash;
}

static void encode_sample_of(bool has_lineage, struct buf *to)
{
    static struct remote_position positions[] = {
        {.timeline.bytes = {1},
         .number = 1,
         .lsn = 0x16B3748,
         .lineage = {.start_lsn = 0x16B0000, .membership_generation = 1, .is_deleted = true}},
        {.timeline.bytes = {2},
         .number = 7,
         .lsn = 0x2000000,
         .lineage =
             {.parent.bytes = {1},
              .start_lsn = 0x16B3748,
              .membership_generation = 4,
              .member_count = 3,
              .members = {1, 2, 9}}},
    };
    static struct remote_file files[] = {
        {.name = "000012.sst", .generation = 1, .size = 4096},
        {.name = "000015.sst", .generation = 3, .size = 65536},
    };
    files[0].hash = some_hash(0xAB);
    files[1].hash = some_hash(0x01);
    static struct remote_small_file small_files[] = {
        {.name = "CURRENT"}, {.name = "MANIFEST-000005"}};
    small_files[0].content = bytes_of_str("MANIFEST-000005\n");
    small_files[1].content = bytes_of_str("not a real one");
    struct remote_index index = {
        .tenant.bytes = {0xAA, 0xBB},
        .generation = 3,
        .sequence = 9,
        .created = 1790000000000000,
        .has_lineage = has_lineage,
        .positions = positions,
        .position_count = ARRAY_LEN(positions),
        .files = files,
        .file_count = ARRAY_LEN(files),
        .small_files = small_files,
        .small_file_count = ARRAY_LEN(small_files),
    };
    remote_index_encode(&index, to);
}

static void encode_sample(struct buf *to)
{
    encode_sample_of(true, to);
}

START_TEST(test_index_comes_back_as_it_was)
{
    struct buf bytes = {0};
    struct remote_index index;
    encode_sample(&bytes);
    ck_assert_ok(remote_index_decode(&bytes, &index, &msg), &msg);
    ck_assert_uint_eq(index.generation, 3);
    ck_assert_uint_eq(index.sequence, 9);
    ck_assert_uint_eq(index.position_count, 2);
    ck_assert_uint_eq(index.positions[1].number, 7);
    ck_assert_uint_eq(index.positions[1].lsn, 0x2000000);
    ck_assert(index.has_lineage && index.positions[0].lineage.is_deleted);
    const struct remote_lineage *lineage = &index.positions[1].lineage;
    ck_assert(timeline_id_equal(lineage->parent, index.positions[0].timeline));
    ck_assert_uint_eq(lineage->start_lsn, 0x16B3748);
    ck_assert_uint_eq(lineage->membership_generation, 4);
    ck_assert(!lineage->is_deleted);
    ck_assert_uint_eq(lineage->member_count, 3);
    ck_assert_uint_eq(lineage->members[2], 9);
    ck_assert_uint_eq(index.small_file_count, 2);
    ck_assert(bytes_equal(index.small_files[0].content, bytes_of_str("MANIFEST-000005\n")));
    const struct remote_file *file = remote_index_file(&index, "000015.sst");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(file->size, 65536);
    ck_assert(hash128_equal(file->hash, some_hash(0x01)));
    ck_assert_ptr_null(remote_index_file(&index, "000013.sst"));
    remote_index_deinit(&index);
}
END_TEST

static void compare_with_golden(bool has_lineage, const char *path)
{
    struct buf bytes = {0}, golden = {0};
    encode_sample_of(has_lineage, &bytes);
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    golden.size = fread(buf_extend(&golden, 4096), 1, 4096, file);
    (void)fclose(file);
    ck_assert(bytes_equal(buf_view(&bytes), buf_view(&golden)));
    struct remote_index index;
    ck_assert_ok(remote_index_decode(&bytes, &index, &msg), &msg);
    ck_assert(index.has_lineage == has_lineage);
    remote_index_deinit(&index);
    buf_deinit(&golden);
}

START_TEST(test_bytes_are_those_of_the_golden_files)
{
    compare_with_golden(true, REMOTE_DATA "_2.bin");
    compare_with_golden(false, REMOTE_DATA ".bin"); /* of before the positions had a lineage */
}
END_TEST

static err_t decode_copy(struct bytes from)
{
    struct buf copy = {0};
    struct remote_index index;
    buf_append(&copy, from.data, from.size);
    err_t err = remote_index_decode(&copy, &index, &msg);
    if (err == ERR_OK) {
        remote_index_deinit(&index);
    }
    return err;
}

START_TEST(test_every_flipped_bit_and_every_cut_is_refused)
{
    struct buf bytes = {0};
    encode_sample(&bytes);
    for (size_t size = 0; size < bytes.size; size++) {
        ck_assert_int_eq(decode_copy(bytes_of(bytes.data, size)), ERR_CORRUPT);
    }
    for (size_t bit = 0; bit < 8 * bytes.size; bit++) {
        bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        ck_assert_int_eq(decode_copy(buf_view(&bytes)), ERR_CORRUPT);
        bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    buf_deinit(&bytes);
}
END_TEST

static void fix_checksum(struct buf *bytes)
{
    size_t body = bytes->size - sizeof(uint32_t);
    struct writer out = {.next = bytes->data + body, .left = sizeof(uint32_t)};
    put_u32(&out, crc32c(0, bytes->data, body));
}

/* The checksum is right, what it covers is not: nothing that such an index says is believed. */
START_TEST(test_index_with_a_good_checksum_may_still_lie)
{
    struct buf good = {0};
    encode_sample(&good);
    struct prng prng;
    prng_init(&prng, 1);
    for (int run = 0; run < 20000; run++) {
        struct buf bad = {0};
        buf_append(&bad, good.data, good.size);
        for (uint64_t n = prng_below(&prng, 4); n < 4; n++) {
            bad.data[prng_below(&prng, bad.size)] = (uint8_t)prng_next(&prng);
        }
        fix_checksum(&bad);
        err_t err = decode_copy(buf_view(&bad));
        ck_assert(err == ERR_OK || err == ERR_CORRUPT || err == ERR_UNSUPPORTED);
        buf_deinit(&bad);
    }
    static const char *const names[] = {"../../etc/passwd", "..", "", "000012.sst/", "000012.sss"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct buf bad = {0};
        buf_append(&bad, good.data, good.size);
        uint8_t *name = memmem(bad.data, bad.size, "000012.sst", 10);
        memset(name, 0, REMOTE_FILE_SIZE);
        memcpy(name, names[i], strlen(names[i]));
        fix_checksum(&bad);
        ck_assert_msg(decode_copy(buf_view(&bad)) == ERR_CORRUPT, "%s", names[i]);
        buf_deinit(&bad);
    }
    buf_deinit(&good);
}
END_TEST

START_TEST(test_names_are_taken_apart_as_they_were_made)
{
    struct tenant_id tenant = {.bytes = {0xAA}};
    struct tenant_id other = {.bytes = {0xAB}};
    generation_t generation = 0;
    uint64_t sequence = 0;
    struct remote_name name = remote_index_name(tenant, 0x1F, 0x123456789A);
    ck_assert_str_eq(
        name.text, "tenants/aa000000000000000000000000000000/index/0000001f-000000123456789a");
    ck_assert_ok(remote_index_name_parse(name.text, tenant, &generation, &sequence, &msg), &msg);
    ck_assert_uint_eq(generation, 0x1F);
    ck_assert_uint_eq(sequence, 0x123456789A);
    ck_assert_int_eq(
        remote_index_name_parse(name.text, other, &generation, &sequence, &msg), ERR_INVALID);
    name = remote_data_name(tenant, 2, "000123.sst", some_hash(0xCD));
    ck_assert_str_eq(
        name.text,
        "tenants/aa000000000000000000000000000000/data/00000002/000123.sst-cdcdcdcdcdcdcdcd");
    ck_assert_ok(remote_data_name_parse(name.text, tenant, &generation, &msg), &msg);
    ck_assert_uint_eq(generation, 2);
    for (size_t size = strlen(name.text); size-- > 0;) {
        name.text[size] = '\0';
        ck_assert_int_eq(remote_data_name_parse(name.text, tenant, &generation, &msg), ERR_INVALID);
    }
}
END_TEST

UNIT_MAIN(
    "remote_index",
    test_index_comes_back_as_it_was,
    test_bytes_are_those_of_the_golden_files,
    test_every_flipped_bit_and_every_cut_is_refused,
    test_index_with_a_good_checksum_may_still_lie,
    test_names_are_taken_apart_as_they_were_made);
