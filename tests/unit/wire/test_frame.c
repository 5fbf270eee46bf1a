/* The frame around every message: any damage is noticed, any cut means "more is needed". */
#include <string.h>

#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/wire/hello_proto.h"
#include "tests/unit/unit.h"

static struct errmsg msg;
static struct buf wire;
static struct frame frame;
static size_t taken;

static void make(const char *payload)
{
    buf_clear(&wire);
    frame_append(
        &wire, &(struct frame){
                   .type = FRAME_APPEND,
                   .version = 1,
                   .channel = 0x01020304,
                   .request_id = 42,
                   .payload = bytes_of_str(payload)});
}

/* A header as a peer may make it, with a checksum that is right. */
static void resign(void)
{
    uint32_t crc = crc32c(0, wire.data, 28);
    crc = htole32(crc32c(crc, wire.data + 32, wire.size - 32));
    memcpy(wire.data + 28, &crc, sizeof(crc));
}

START_TEST(test_layout_is_as_documented)
{
    make("x");
    static const uint8_t expected[28] = {
        'A', 'N', 'B', '1', 1, 0, 0, 0, 19, 0, 1, 0, 4, 3, 2, 1, 42,
    };
    ck_assert_uint_eq(wire.size, 33);
    ck_assert_mem_eq(wire.data, expected, sizeof(expected));
}
END_TEST

START_TEST(test_frames_are_taken_one_at_a_time)
{
    make("first");
    frame_append(&wire, &(struct frame){.type = FRAME_HELLO, .request_id = 43});
    ck_assert_ok(frame_parse(buf_view(&wire), &frame, &taken, &msg), &msg);
    ck_assert_uint_eq(taken, 37);
    ck_assert_uint_eq(frame.channel, 0x01020304);
    ck_assert(bytes_equal(frame.payload, bytes_of_str("first")));
    buf_consume(&wire, taken);
    ck_assert_ok(frame_parse(buf_view(&wire), &frame, &taken, &msg), &msg);
    ck_assert_uint_eq(frame.request_id, 43);
    ck_assert_uint_eq(frame.payload.size, 0);
    ck_assert_uint_eq(taken, 32);
}
END_TEST

START_TEST(test_every_cut_asks_for_more)
{
    make("a payload");
    for (size_t size = 0; size < wire.size; size++) {
        uint8_t *cut = mem_dup(wire.data, size);
        ck_assert_ok(frame_parse(bytes_of(cut, size), &frame, &taken, &msg), &msg);
        ck_assert_uint_eq(taken, 0);
        mem_free(cut);
    }
}
END_TEST

START_TEST(test_every_flipped_bit_is_noticed)
{
    make("a payload");
    for (size_t bit = 0; bit < wire.size * 8; bit++) {
        wire.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        err_t err = frame_parse(buf_view(&wire), &frame, &taken, &msg);
        /* A size that grew means "more is needed"; whatever comes then has the wrong checksum. */
        ck_assert(err == ERR_CORRUPT || (taken == 0 && bit / 8 >= 4 && bit / 8 < 8));
        wire.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}
END_TEST

START_TEST(test_garbage_is_refused_from_its_first_word)
{
    ck_assert_int_eq(frame_parse(bytes_of_str("GET "), &frame, &taken, &msg), ERR_CORRUPT);
    ck_assert_ptr_nonnull(strstr(msg.text, "ANB1"));
    struct prng prng;
    prng_init(&prng, 3);
    for (int round = 0; round < 5000; round++) {
        uint8_t noise[100];
        for (size_t i = 0; i < sizeof(noise); i++) {
            noise[i] = (uint8_t)prng_next(&prng);
        }
        if (round % 2 == 0) {
            memcpy(noise, "ANB1", 4);
            noise[6] = noise[7] = 0;
        }
        err_t err = frame_parse(bytes_of(noise, sizeof(noise)), &frame, &taken, &msg);
        ck_assert(err == ERR_CORRUPT || taken == 0);
    }
}
END_TEST

START_TEST(test_size_over_the_limit_is_refused_at_once)
{
    make("");
    uint32_t size = htole32((uint32_t)FRAME_PAYLOAD_MAX + 1);
    memcpy(wire.data + 4, &size, sizeof(size));
    resign();
    ck_assert_int_eq(frame_parse(buf_view(&wire), &frame, &taken, &msg), ERR_CORRUPT);
    ck_assert_ptr_nonnull(strstr(msg.text, "limit"));
}
END_TEST

START_TEST(test_largest_frame_passes)
{
    struct buf payload = {0};
    memset(buf_extend(&payload, FRAME_PAYLOAD_MAX), 'x', FRAME_PAYLOAD_MAX);
    buf_clear(&wire);
    frame_append(&wire, &(struct frame){.type = FRAME_APPEND, .payload = buf_view(&payload)});
    ck_assert_uint_eq(wire.size, MIB);
    ck_assert_ok(frame_parse(buf_view(&wire), &frame, &taken, &msg), &msg);
    ck_assert_uint_eq(taken, MIB);
    buf_deinit(&payload);
}
END_TEST

START_TEST(test_flags_of_the_future_are_refused)
{
    make("x");
    wire.data[11] = 1;
    resign();
    ck_assert_int_eq(frame_parse(buf_view(&wire), &frame, &taken, &msg), ERR_CORRUPT);
    make("x");
    wire.data[24] = 1;
    resign();
    ck_assert_int_eq(frame_parse(buf_view(&wire), &frame, &taken, &msg), ERR_CORRUPT);
}
END_TEST

START_TEST(test_message_is_encoded_straight_into_its_frame)
{
    struct error_reply reply = {.code = 3, .message = bytes_of_str("why")};
    buf_clear(&wire);
    FRAME_APPEND_MESSAGE(
        &wire, error_reply, &reply, .type = FRAME_ERROR, .channel = 5, .request_id = 6);
    ck_assert_ok(frame_parse(buf_view(&wire), &frame, &taken, &msg), &msg);
    struct error_reply back;
    struct reader in = reader_of(frame.payload);
    ck_assert_int_eq(error_reply_decode(&back, &in), ERR_OK);
    ck_assert(bytes_equal(back.message, reply.message));
    ck_assert_str_eq(frame_type_name(frame.type), "FRAME_ERROR");
    ck_assert_str_eq(frame_type_name(9999), "unknown");
}
END_TEST

UNIT_MAIN(
    "frame",
    test_layout_is_as_documented,
    test_frames_are_taken_one_at_a_time,
    test_every_cut_asks_for_more,
    test_every_flipped_bit_is_noticed,
    test_garbage_is_refused_from_its_first_word,
    test_size_over_the_limit_is_refused_at_once,
    test_largest_frame_passes,
    test_flags_of_the_future_are_refused,
    test_message_is_encoded_straight_into_its_frame);
