/* CRC32C against the vectors of RFC 3720 B.4, and in pieces. */
#include "common/base/checksum.h"

#include "common/base/prng.h"
#include "tests/unit/unit.h"

START_TEST(test_vectors_of_rfc_3720)
{
    uint8_t data[32] = {0};
    ck_assert_uint_eq(crc32c(0, data, 32), 0x8A9136AA);
    memset(data, 0xFF, 32);
    ck_assert_uint_eq(crc32c(0, data, 32), 0x62A8AB43);
    for (int i = 0; i < 32; i++) {
        data[i] = (uint8_t)i;
    }
    ck_assert_uint_eq(crc32c(0, data, 32), 0x46DD794E);
    for (int i = 0; i < 32; i++) {
        data[i] = (uint8_t)(31 - i);
    }
    ck_assert_uint_eq(crc32c(0, data, 32), 0x113FDB5C);
    ck_assert_uint_eq(crc32c(0, "123456789", 9), 0xE3069283);
    ck_assert_uint_eq(crc32c(0, "", 0), 0);
}
END_TEST

START_TEST(test_pieces_give_the_same_as_the_whole)
{
    uint8_t data[300];
    struct prng prng;
    prng_init(&prng, 5);
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)prng_next(&prng);
    }
    uint32_t whole = crc32c(0, data, sizeof(data));
    for (size_t cut = 0; cut <= sizeof(data); cut++) {
        uint32_t first = crc32c(0, data, cut);
        ck_assert_uint_eq(crc32c(first, data + cut, sizeof(data) - cut), whole);
    }
}
END_TEST

/* Bit by bit, as the polynomial says. */
static uint32_t by_definition(const uint8_t *data, size_t size)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < 8 * size; i++) {
        uint32_t bit = (crc ^ data[i / 8] >> i % 8) & 1;
        crc = crc >> 1 ^ (bit != 0 ? 0x82F63B78u : 0);
    }
    return ~crc;
}

/* Long inputs take another way, in rounds of about a thousand bytes; so do pieces of one sum. */
START_TEST(test_long_inputs_give_what_the_polynomial_says)
{
    static uint8_t data[9001];
    struct prng prng;
    prng_init(&prng, 7);
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)prng_next(&prng);
    }
    for (size_t size = 900; size <= sizeof(data); size += 81) {
        uint32_t whole = by_definition(data, size);
        ck_assert_uint_eq(crc32c(0, data, size), whole);
        size_t cut = prng_below(&prng, size);
        ck_assert_uint_eq(crc32c(crc32c(0, data, cut), data + cut, size - cut), whole);
    }
}
END_TEST

START_TEST(test_hash_depends_on_content_and_seed)
{
    ck_assert_uint_eq(hash64("a", 1, 0), hash64("a", 1, 0));
    ck_assert_uint_ne(hash64("a", 1, 0), hash64("b", 1, 0));
    ck_assert_uint_ne(hash64("a", 1, 0), hash64("a", 1, 1));
}
END_TEST

/* The expected values are those of xxhsum -H128. */
START_TEST(test_hash128_is_canonical_xxh3)
{
    const uint8_t content[16] = {0x91, 0x7e, 0x12, 0x74, 0x27, 0x4f, 0xc1, 0x95,
                                 0xb2, 0x7a, 0x2d, 0x23, 0x88, 0xd9, 0x56, 0x8c};
    ck_assert_mem_eq(hash128(bytes_of_str("content")).bytes, content, sizeof(content));
    ck_assert(!hash128_equal(hash128(bytes_of_str("content")), hash128(bytes_of_str("contenu"))));
}
END_TEST

START_TEST(test_hash128_of_pieces_is_that_of_the_whole)
{
    uint8_t data[1000];
    struct prng prng;
    prng_init(&prng, 6);
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)prng_next(&prng);
    }
    struct hash128 whole = hash128(bytes_of(data, sizeof(data)));
    for (size_t cut = 0; cut <= sizeof(data); cut += 50) {
        struct hash128_stream *stream = hash128_start();
        hash128_feed(stream, bytes_of(data, cut));
        hash128_feed(stream, bytes_of(data + cut, sizeof(data) - cut));
        ck_assert(hash128_equal(hash128_finish(stream), whole));
    }
}
END_TEST

UNIT_MAIN(
    "checksum",
    test_vectors_of_rfc_3720,
    test_pieces_give_the_same_as_the_whole,
    test_long_inputs_give_what_the_polynomial_says,
    test_hash_depends_on_content_and_seed,
    test_hash128_is_canonical_xxh3,
    test_hash128_of_pieces_is_that_of_the_whole);
