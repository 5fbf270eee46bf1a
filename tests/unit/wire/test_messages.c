/*
 * Every message, from its own field list: what goes in comes out, what is cut short, too long or
 * damaged is refused or harmless, and its bytes are those of the golden file (tests/data/frame).
 * After a change of the protocol on purpose: WRITE_GOLDEN=1 writes the files anew.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/base/str.h"
#include "common/wire/feed_proto.h"
#include "common/wire/hello_proto.h"
#include "common/wire/page_proto.h"
#include "common/wire/status_proto.h"
#include "common/wire/wal_proto.h"
#include "tests/unit/unit.h"

/* A value for each kind of field, different for each field. */
static u8_t sample_u8(unsigned n)
{
    return (u8_t)(n + 1);
}

static u16_t sample_u16(unsigned n)
{
    return (u16_t)(0x0102 + n);
}

static u32_t sample_u32(unsigned n)
{
    return 0x01020304 + n;
}

static u64_t sample_u64(unsigned n)
{
    return 0x0102030405060708 + n;
}

static tail_u64_t sample_tail_u64(unsigned n)
{
    return sample_u64(n);
}

static bytes_t sample_bytes(unsigned n)
{
    static const char text[] = "a piece of WAL or of pages";
    return bytes_of(text, 5 + n);
}

static tenant_t sample_tenant(unsigned n)
{
    return (tenant_t){.bytes = {0x7A, (uint8_t)n}};
}

static timeline_t sample_timeline(unsigned n)
{
    return (timeline_t){.bytes = {0x3F, (uint8_t)n}};
}

static member_list_t sample_member_list(unsigned n)
{
    return (member_list_t){
        .count = 2,
        .items = {
            {.id = 1 + n, .is_old = true, .is_new = true, .host = "127.0.0.1", .port = 7411},
            {.id = 2, .is_new = true, .host = "keeper.example", .port = 7412}}};
}

static term_history_t sample_term_history(unsigned n)
{
    return (term_history_t){.count = 2, .items = {{.term = 1 + n, .lsn = 0x100}, {7 + n, 0x100}}};
}

struct message {
    const char *name;
    uint16_t frame_type;
    size_t struct_size;
    void (*fill)(void *msg);
    size_t (*size)(const void *msg);
    void (*encode)(const void *msg, struct writer *out);
    err_t (*decode)(void *msg, struct reader *in);
    void (*print)(const void *msg, struct buf *to);
};

#define FILL(kind, name) msg->name = sample_##kind(n++);

#define DEFINE_MESSAGE(type, FIELDS)                                                               \
    static void fill_##type(void *to)                                                              \
    {                                                                                              \
        struct type *msg = to;                                                                     \
        unsigned n = 0;                                                                            \
        FIELDS(FILL)                                                                               \
    }                                                                                              \
    static size_t measure_##type(const void *msg)                                                  \
    {                                                                                              \
        return type##_size(msg);                                                                   \
    }                                                                                              \
    static void encode_##type(const void *msg, struct writer *out)                                 \
    {                                                                                              \
        type##_encode(msg, out);                                                                   \
    }                                                                                              \
    static err_t decode_##type(void *msg, struct reader *in)                                       \
    {                                                                                              \
        return type##_decode(msg, in);                                                             \
    }                                                                                              \
    static void show_##type(const void *msg, struct buf *to)                                       \
    {                                                                                              \
        type##_print(msg, to);                                                                     \
    }

#define MESSAGES(X)                                                                                \
    X(hello, HELLO_FIELDS, FRAME_HELLO)                                                            \
    X(hello_reply, HELLO_REPLY_FIELDS, FRAME_HELLO_REPLY)                                          \
    X(error_reply, ERROR_REPLY_FIELDS, FRAME_ERROR)                                                \
    X(vote_request, VOTE_REQUEST_FIELDS, FRAME_VOTE_REQUEST)                                       \
    X(vote_reply, VOTE_REPLY_FIELDS, FRAME_VOTE_REPLY)                                             \
    X(elected, ELECTED_FIELDS, FRAME_ELECTED)                                                      \
    X(append, APPEND_FIELDS, FRAME_APPEND)                                                         \
    X(append_reply, APPEND_REPLY_FIELDS, FRAME_APPEND_REPLY)                                       \
    X(read_wal, READ_WAL_FIELDS, FRAME_READ_WAL)                                                   \
    X(read_wal_reply, READ_WAL_REPLY_FIELDS, FRAME_READ_WAL_REPLY)                                 \
    X(membership_notice, MEMBERSHIP_NOTICE_FIELDS, FRAME_MEMBERSHIP)                               \
    X(feed_start, FEED_START_FIELDS, FRAME_FEED_START)                                             \
    X(feed_wal, FEED_WAL_FIELDS, FRAME_FEED_WAL)                                                   \
    X(feed_status, FEED_STATUS_FIELDS, FRAME_FEED_STATUS)                                          \
    X(feed_feedback, FEED_FEEDBACK_FIELDS, FRAME_FEED_FEEDBACK)                                    \
    X(feed_window, FEED_WINDOW_FIELDS, FRAME_FEED_WINDOW)                                          \
    X(status_watch, STATUS_WATCH_FIELDS, FRAME_STATUS_WATCH)                                       \
    X(status_unwatch, STATUS_UNWATCH_FIELDS, FRAME_STATUS_UNWATCH)                                 \
    X(status_report, STATUS_REPORT_FIELDS, FRAME_STATUS_REPORT)                                    \
    X(status_list, STATUS_LIST_FIELDS, FRAME_STATUS_REPORT)                                        \
    X(get_page, GET_PAGE_FIELDS, FRAME_GET_PAGE)                                                   \
    X(get_page_reply, GET_PAGE_REPLY_FIELDS, FRAME_GET_PAGE_REPLY)                                 \
    X(put_working_set, PUT_WORKING_SET_FIELDS, FRAME_PUT_WORKING_SET)                              \
    X(put_working_set_reply, PUT_WORKING_SET_REPLY_FIELDS, FRAME_PUT_WORKING_SET_REPLY)            \
    X(get_working_set, GET_WORKING_SET_FIELDS, FRAME_GET_WORKING_SET)                              \
    X(get_working_set_reply, GET_WORKING_SET_REPLY_FIELDS, FRAME_GET_WORKING_SET_REPLY)            \
    X(rel_size, REL_SIZE_FIELDS, FRAME_REL_SIZE)                                                   \
    X(rel_size_reply, REL_SIZE_REPLY_FIELDS, FRAME_REL_SIZE_REPLY)                                 \
    X(db_size, DB_SIZE_FIELDS, FRAME_DB_SIZE)                                                      \
    X(db_size_reply, DB_SIZE_REPLY_FIELDS, FRAME_DB_SIZE_REPLY)

#define X(type, FIELDS, number) DEFINE_MESSAGE(type, FIELDS)
MESSAGES(X)
#undef X

static const struct message messages[] = {
#define X(type, FIELDS, number)                                                                    \
    {#type,          number,        sizeof(struct type), fill_##type,                              \
     measure_##type, encode_##type, decode_##type,       show_##type},
    MESSAGES(X)
#undef X
};

static struct errmsg msg;

/* The sample of a message, encoded into memory of exactly its size, so that ASan sees each end. */
static struct bytes encode_sample(const struct message *message)
{
    void *sample = mem_zalloc(message->struct_size);
    message->fill(sample);
    size_t size = message->size(sample);
    uint8_t *data = mem_alloc(size);
    struct writer out = {.next = data, .left = size};
    message->encode(sample, &out);
    ck_assert_uint_eq(out.left, 0);
    mem_free(sample);
    return bytes_of(data, size);
}

static void free_bytes(struct bytes bytes)
{
    mem_free((void *)(uintptr_t)bytes.data);
}

static err_t decode(const struct message *message, void *to, struct bytes from)
{
    struct reader in = reader_of(from);
    return message->decode(to, &in);
}

START_TEST(test_every_message_comes_back_as_it_went)
{
    for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
        const struct message *message = &messages[i];
        struct bytes wire = encode_sample(message);
        void *back = mem_zalloc(message->struct_size);
        void *sample = mem_zalloc(message->struct_size);
        message->fill(sample);
        ck_assert_int_eq(decode(message, back, wire), ERR_OK);
        struct buf text = {0};
        struct buf expected = {0};
        message->print(back, &text);
        message->print(sample, &expected);
        ck_assert_str_eq(buf_cstr(&text), buf_cstr(&expected));
        ck_assert(str_starts_with(buf_cstr(&text), message->name));
        ck_assert_uint_eq(message->size(back), wire.size);
        buf_clear(&text);
        struct writer out = {.next = buf_extend(&text, wire.size), .left = wire.size};
        message->encode(back, &out);
        ck_assert(bytes_equal(buf_view(&text), wire));
        buf_deinit(&text);
        buf_deinit(&expected);
        mem_free(back);
        mem_free(sample);
        free_bytes(wire);
    }
}
END_TEST

/* What an older protocol does not have is left out; no other end of a message is one. */
static bool is_older(const struct message *message, size_t size, size_t whole_size)
{
    return message->frame_type == FRAME_VOTE_REPLY && size == whole_size - sizeof(uint64_t);
}

START_TEST(test_every_truncated_message_is_refused)
{
    for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
        struct bytes wire = encode_sample(&messages[i]);
        void *back = mem_zalloc(messages[i].struct_size);
        for (size_t size = 0; size < wire.size; size++) {
            uint8_t *cut = mem_dup(wire.data, size);
            err_t expected = is_older(&messages[i], size, wire.size) ? ERR_OK : ERR_CORRUPT;
            ck_assert_int_eq(decode(&messages[i], back, bytes_of(cut, size)), expected);
            mem_free(cut);
        }
        mem_free(back);
        free_bytes(wire);
    }
}
END_TEST

START_TEST(test_bytes_behind_a_message_are_refused)
{
    for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
        struct bytes wire = encode_sample(&messages[i]);
        void *back = mem_zalloc(messages[i].struct_size);
        uint8_t *longer = mem_zalloc(wire.size + 1);
        memcpy(longer, wire.data, wire.size);
        ck_assert_int_eq(decode(&messages[i], back, bytes_of(longer, wire.size + 1)), ERR_CORRUPT);
        mem_free(longer);
        mem_free(back);
        free_bytes(wire);
    }
}
END_TEST

START_TEST(test_flipped_bits_and_garbage_never_read_beyond)
{
    struct prng prng;
    prng_init(&prng, 11);
    for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
        struct bytes wire = encode_sample(&messages[i]);
        uint8_t *damaged = mem_dup(wire.data, wire.size);
        void *back = mem_zalloc(messages[i].struct_size);
        struct buf text = {0};
        for (size_t bit = 0; bit < wire.size * 8; bit++) {
            damaged[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (decode(&messages[i], back, bytes_of(damaged, wire.size)) == ERR_OK) {
                buf_clear(&text);
                messages[i].print(back, &text);
                ck_assert_uint_eq(messages[i].size(back), wire.size);
            }
            damaged[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (int round = 0; round < 500; round++) {
            for (size_t at = 0; at < wire.size; at++) {
                damaged[at] = (uint8_t)prng_next(&prng);
            }
            err_ignore(
                decode(&messages[i], back, bytes_of(damaged, wire.size)),
                "only memory errors matter here");
        }
        buf_deinit(&text);
        mem_free(damaged);
        mem_free(back);
        free_bytes(wire);
    }
}
END_TEST

START_TEST(test_lengths_that_a_peer_chose_are_not_believed)
{
    uint8_t data[64] = {0};
    struct error_reply reply;
    memset(data + 4, 0xFF, 4); /* the size of the message text */
    struct reader in = reader_of(bytes_of(data, sizeof(data)));
    ck_assert_int_eq(error_reply_decode(&reply, &in), ERR_CORRUPT);
    ck_assert_uint_eq(reply.message.size, 0);
}
END_TEST

START_TEST(test_a_vote_without_the_followed_term_is_that_of_protocol_2)
{
    struct vote_reply vote = {.term = 7, .history = {.count = 1}, .followed_term = 6}, back;
    struct buf wire = {0};
    size_t size = vote_reply_size(&vote);
    struct writer out = {.next = buf_extend(&wire, size), .left = size};
    vote_reply_encode(&vote, &out);
    vote.followed_term = 0;
    ck_assert_uint_eq(vote_reply_size(&vote), size - 8);
    struct reader in = reader_of(bytes_of(wire.data, size - 8));
    ck_assert_int_eq(vote_reply_decode(&back, &in), ERR_OK);
    ck_assert_uint_eq(back.term, 7);
    ck_assert_uint_eq(back.followed_term, 0);

    memset(wire.data + size - 8, 0, 8); /* said, and nothing said: one message, two encodings */
    in = reader_of(buf_view(&wire));
    ck_assert_int_eq(vote_reply_decode(&back, &in), ERR_CORRUPT);
    buf_deinit(&wire);
}
END_TEST

START_TEST(test_term_history_is_bounded_and_ascends)
{
    struct elected elected = {.history = {.count = TERM_HISTORY_MAX}};
    for (uint32_t i = 0; i < TERM_HISTORY_MAX; i++) {
        elected.history.items[i] = (struct term_start){.term = i + 1, .lsn = 8 * (lsn_t)i};
    }
    struct buf wire = {0};
    size_t size = elected_size(&elected);
    struct writer out = {.next = buf_extend(&wire, size), .left = size};
    elected_encode(&elected, &out);
    struct elected back;
    struct reader in = reader_of(buf_view(&wire));
    ck_assert_int_eq(elected_decode(&back, &in), ERR_OK);
    ck_assert_uint_eq(back.history.count, TERM_HISTORY_MAX);

    size_t count_at = size - TERM_HISTORY_MAX * 16 - 4;
    wire.data[count_at + 1] = 2; /* 512 entries */
    in = reader_of(buf_view(&wire));
    ck_assert_int_eq(elected_decode(&back, &in), ERR_CORRUPT);
    wire.data[count_at + 1] = 1;
    wire.data[count_at + 4] = 9; /* the first term is no longer below the second */
    in = reader_of(buf_view(&wire));
    ck_assert_int_eq(elected_decode(&back, &in), ERR_CORRUPT);
    buf_deinit(&wire);
}
END_TEST

/* What is decoded is encoded to the same bytes: nothing of a name is lost on the way. */
START_TEST(test_members_that_cannot_be_are_refused)
{
    struct membership_notice notice = {.generation = 2, .members = sample_member_list(0)}, back;
    struct buf wire = {0};
    size_t size = membership_notice_size(&notice);
    struct writer out = {.next = buf_extend(&wire, size), .left = size};
    membership_notice_encode(&notice, &out);
    size_t sets_at = 4 + 4 + 8, host_at = sets_at + 1 + 4;
    struct reader in = reader_of(buf_view(&wire));
    ck_assert_int_eq(membership_notice_decode(&back, &in), ERR_OK);
    wire.data[host_at + 3] = 0; /* "127" and a rest that no text shows */
    in = reader_of(buf_view(&wire));
    ck_assert_int_eq(membership_notice_decode(&back, &in), ERR_CORRUPT);
    wire.data[host_at + 3] = '.';
    wire.data[sets_at] = 4; /* a third set */
    in = reader_of(buf_view(&wire));
    ck_assert_int_eq(membership_notice_decode(&back, &in), ERR_CORRUPT);
    wire.data[sets_at] = 3;
    wire.data[4] = MEMBER_LIST_MAX + 1;
    in = reader_of(buf_view(&wire));
    ck_assert_int_eq(membership_notice_decode(&back, &in), ERR_CORRUPT);
    buf_deinit(&wire);
}
END_TEST

/* -- golden files -- */

static void sample_frame(const struct message *message, struct buf *to)
{
    struct bytes payload = encode_sample(message);
    struct frame frame = {
        .type = message->frame_type,
        .version = message->frame_type == FRAME_HELLO ? 0 : 1,
        .channel = message->frame_type == FRAME_HELLO ? 0 : 3,
        .request_id = 0x1122334455667788,
        .payload = payload,
    };
    frame_append(to, &frame);
    free_bytes(payload);
}

START_TEST(test_bytes_on_the_wire_are_those_of_the_golden_files)
{
    for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
        char path[512];
        struct buf frame = {0};
        struct buf golden = {0};
        (void)snprintf(path, sizeof(path), "%s/%s.bin", DATA_DIR, messages[i].name);
        sample_frame(&messages[i], &frame);
        if (getenv("WRITE_GOLDEN") != NULL) {
            FILE *file = fopen(path, "we");
            ck_assert_ptr_nonnull(file);
            ck_assert_uint_eq(fwrite(frame.data, 1, frame.size, file), frame.size);
            (void)fclose(file);
        }
        FILE *file = fopen(path, "re");
        ck_assert_msg(file != NULL, "%s is missing", path);
        golden.size = fread(buf_extend(&golden, 4096), 1, 4096, file);
        (void)fclose(file);
        ck_assert_msg(
            bytes_equal(buf_view(&frame), buf_view(&golden)),
            "%s is written otherwise than before: peers of another version will not understand",
            messages[i].name);
        struct frame parsed;
        size_t taken = 0;
        ck_assert_ok(frame_parse(buf_view(&golden), &parsed, &taken, &msg), &msg);
        ck_assert_uint_eq(taken, golden.size);
        ck_assert_uint_eq(parsed.type, messages[i].frame_type);
        void *back = mem_zalloc(messages[i].struct_size);
        ck_assert_int_eq(decode(&messages[i], back, parsed.payload), ERR_OK);
        mem_free(back);
        buf_deinit(&frame);
        buf_deinit(&golden);
    }
}
END_TEST

UNIT_MAIN(
    "messages",
    test_every_message_comes_back_as_it_went,
    test_every_truncated_message_is_refused,
    test_bytes_behind_a_message_are_refused,
    test_flipped_bits_and_garbage_never_read_beyond,
    test_lengths_that_a_peer_chose_are_not_believed,
    test_a_vote_without_the_followed_term_is_that_of_protocol_2,
    test_term_history_is_bounded_and_ascends,
    test_members_that_cannot_be_are_refused,
    test_bytes_on_the_wire_are_those_of_the_golden_files);
