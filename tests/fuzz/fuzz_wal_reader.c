/*
 * F1. WAL with valid framing around records of the input's choice, some of it changed afterwards:
 * read whole, in pieces and for record ends only, it is the same; what was not changed comes out as
 * it was put in.
 *
 * The input is a script: u32 seed of the pieces, u16 where the WAL begins, u8 options; then steps,
 * each a u8 operation and its arguments (see `steps`). Records are laid down first; damage is done
 * when all WAL is there, so that a record may be changed together with its checksum.
 */
#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "common/pg/cursor.h"
#include "common/pg/page.h"
#include "common/pg/wal_reader.h"
#include "tests/fuzz/mutate_record.h"
#include "tests/lib/wal_builder.h"

#define SEGMENT      ((uint32_t)(32 * KIB))
#define WAL_MAX      (192 * KIB)
#define RECORDS_MAX  100
#define DAMAGES_MAX  16
#define SCRIPT_BEGIN 7 /* seed, begin, options */

enum { OPTION_ANY_SYSTEM = 1, OPTION_SMALL_LIMIT = 2 };

/* The arguments of each step; RAW and RECORD are followed by as many bytes as their u16 says. */
enum {
    STEP_SMALL,        /* u8 size: a no-op */
    STEP_SIZED,        /* u16 size: a no-op of up to 20,000 bytes */
    STEP_ABORTED,      /* u16 size: it crosses a page and is overwritten there */
    STEP_SWITCH,       /* the rest of the segment is empty */
    STEP_RECORD,       /* u16 size, bytes: a whole record, such as tests/data/wal_records has */
    STEP_RAW,          /* u16 size, bytes: the record behind a good header */
    STEP_PAGE_FIELD,   /* u8 page, u8 field, u32 value: damage to a page header */
    STEP_RECORD_FIELD, /* u8 record, u8 field, u32 value: and the checksum is made right again */
    STEP_BYTE,         /* u32 where, u8 mask: a byte is flipped */
    STEP_ZEROS,        /* u32 where, u16 size / 8: nothing was written there */
    STEP_BACK,         /* u32 where, u16 distance / 8, u16 size / 8: older WAL stands there */
    STEP_CUT,          /* u32 where: the WAL ends there */
    STEP_COUNT
};
static const uint8_t step_sizes[STEP_COUNT] = {1, 2, 2, 0, 2, 2, 6, 6, 5, 6, 8, 4};

struct damage {
    uint8_t step;
    uint8_t args[8];
};

struct script {
    struct wal_builder builder;
    size_t record_count;
    struct {
        lsn_t begin;
        size_t size;
    } records[RECORDS_MAX];
    size_t damage_count;
    struct damage damages[DAMAGES_MAX];
    bool is_decodable; /* so far; and what was laid down until it was not: */
    size_t good_count;
    uint64_t good_digest;
};

struct pass {
    size_t count;
    uint64_t digest;
    err_t err;
    lsn_t record_lsn;
    struct errmsg msg;
};

static struct wal_record decoded;

/* -- building -- */

static void note_record(struct script *script)
{
    struct errmsg msg;
    struct bytes bytes = buf_view(&script->builder.record);
    lsn_t begin = script->builder.last_begin;
    script->records[script->record_count].begin = begin;
    script->records[script->record_count++].size = bytes.size;
    uint8_t rmgr = bytes.data[17];
    script->is_decodable =
        script->is_decodable && (rmgr < RM_COUNT || rmgr >= RM_CUSTOM_MIN) &&
        wal_record_decode(bytes, begin, script->builder.lsn, &decoded, &msg) == ERR_OK;
    if (script->is_decodable) {
        script->good_count++;
        script->good_digest = hash64(bytes.data, bytes.size, script->good_digest);
    }
}

static uint32_t possible_size(uint32_t size)
{
    size = 26 + size % 20000;
    return size > 281 && size < 285 ? 285 : size;
}

/* The length is right; a switch in the record has to end its segment, which the builder knows. */
static void add_record(struct script *script, struct bytes body, bool is_raw)
{
    uint8_t header[WAL_RECORD_HEADER_SIZE] = {[16] = 0x80, [17] = RM_HEAP};
    struct buf record = {.data = NULL};
    if (is_raw || body.size < WAL_RECORD_HEADER_SIZE) {
        buf_append(&record, header, sizeof(header));
    }
    buf_append(&record, body.data, body.size);
    page_set_u32(record.data, 0, (uint32_t)record.size);
    if (record.data[17] == RM_XLOG && (record.data[16] & 0xF0) == 0x40) {
        record.data[16] = 0x20;
    }
    wal_builder_add_bytes(&script->builder, buf_view(&record));
    buf_deinit(&record);
}

static void take_step(struct script *script, uint8_t step, struct cursor *args, struct bytes body)
{
    struct wal_builder *builder = &script->builder;
    switch (step) {
    case STEP_SMALL: wal_builder_add_sized(builder, 26 + cursor_u8(args) % 200u); break;
    case STEP_SIZED: wal_builder_add_sized(builder, possible_size(cursor_u16(args))); break;
    case STEP_ABORTED:
        wal_builder_add_aborted(builder, possible_size(cursor_u16(args)) + WAL_PAGE_SIZE);
        return;
    case STEP_SWITCH: wal_builder_add_switch(builder); break;
    default: add_record(script, body, step == STEP_RAW); break;
    }
    note_record(script);
}

static void build(struct script *script, struct cursor *input)
{
    while (input->left > 0 && script->record_count < RECORDS_MAX &&
           script->builder.wal.size < WAL_MAX) {
        uint8_t step = cursor_u8(input) % STEP_COUNT;
        struct bytes args = cursor_bytes(input, MIN_OF((size_t)step_sizes[step], input->left));
        if (args.size < step_sizes[step]) {
            return;
        }
        struct bytes body = {.data = NULL, .size = 0};
        if (step == STEP_RECORD || step == STEP_RAW) {
            body = cursor_bytes(input, MIN_OF((size_t)le_u16(args.data), input->left));
        }
        if (step < STEP_PAGE_FIELD) {
            struct cursor fields = cursor_of(args);
            take_step(script, step, &fields, body);
        } else if (script->damage_count < DAMAGES_MAX) {
            struct damage *damage = &script->damages[script->damage_count++];
            damage->step = step;
            memcpy(damage->args, args.data, args.size);
        }
    }
}

/* -- damage -- */

/* Copy a record out of the pages that it lies on, or into them. */
static void move_record(struct script *script, size_t index, uint8_t *record, bool out)
{
    struct wal_builder *builder = &script->builder;
    lsn_t lsn = script->records[index].begin;
    for (size_t i = 0; i < script->records[index].size; i++, lsn++) {
        if (lsn % WAL_PAGE_SIZE == 0) {
            lsn += wal_page_header_size(lsn, SEGMENT);
        }
        uint8_t *at = builder->wal.data + (lsn - builder->begin_lsn);
        *(out ? &record[i] : at) = *(out ? at : &record[i]);
    }
}

static void damage_record(struct script *script, uint8_t index, uint8_t field, uint32_t value)
{
    static const struct {
        uint8_t at, size;
    } fields[] = {{0, 4}, {4, 4}, {8, 4}, {12, 4}, {16, 1}, {17, 1}, {24, 1}, {25, 1}, {26, 2}};
    if (script->record_count == 0) {
        return;
    }
    size_t i = index % script->record_count;
    size_t size = script->records[i].size;
    uint8_t *record = mem_alloc(size);
    move_record(script, i, record, true);
    size_t at = fields[field % ARRAY_LEN(fields)].at;
    size_t width = fields[field % ARRAY_LEN(fields)].size;
    if (at + width <= size) {
        memcpy(record + at, &value, width);
        page_set_u32(record, 20, wal_record_crc(bytes_of(record, size)));
        move_record(script, i, record, false);
    }
    mem_free(record);
}

static void damage_page(struct script *script, uint8_t index, uint8_t field, uint32_t value)
{
    static const struct {
        uint8_t at, size;
    } fields[] = {{0, 2},  {2, 2},  {4, 4},  {8, 4},  {12, 4},
                  {16, 4}, {24, 4}, {28, 4}, {32, 4}, {36, 4}};
    struct wal_builder *builder = &script->builder;
    size_t first = (size_t)(-builder->begin_lsn % WAL_PAGE_SIZE);
    size_t at = first + (size_t)index % 32 * WAL_PAGE_SIZE + fields[field % ARRAY_LEN(fields)].at;
    size_t width = fields[field % ARRAY_LEN(fields)].size;
    if (at + width <= builder->wal.size) {
        memcpy(builder->wal.data + at, &value, width);
    }
}

static void do_damage(struct script *script, const struct damage *damage)
{
    struct buf *wal = &script->builder.wal;
    struct cursor args = cursor_of(bytes_of(damage->args, sizeof(damage->args)));
    if (damage->step == STEP_PAGE_FIELD || damage->step == STEP_RECORD_FIELD) {
        uint8_t index = cursor_u8(&args);
        uint8_t field = cursor_u8(&args);
        uint32_t value = cursor_u32(&args);
        if (damage->step == STEP_PAGE_FIELD) {
            damage_page(script, index, field, value);
        } else {
            damage_record(script, index, field, value);
        }
        return;
    }
    if (wal->size == 0) {
        return;
    }
    size_t at = cursor_u32(&args) % wal->size;
    size_t words = cursor_u16(&args);
    switch (damage->step) {
    case STEP_BYTE: wal->data[at] ^= (uint8_t)words; break;
    case STEP_ZEROS: memset(wal->data + at, 0, MIN_OF(words * 8, wal->size - at)); break;
    case STEP_BACK: {
        size_t distance = MIN_OF(words * 8, at);
        size_t size = MIN_OF((size_t)cursor_u16(&args) * 8, wal->size - at);
        memmove(wal->data + at, wal->data + at - distance, size);
        break;
    }
    default: /* only at the end, or records would be looked for behind it */ break;
    }
}

static void do_cuts(struct script *script)
{
    struct buf *wal = &script->builder.wal;
    for (size_t i = 0; i < script->damage_count; i++) {
        if (script->damages[i].step == STEP_CUT && wal->size > 0) {
            wal->size = le_u32(script->damages[i].args) % wal->size;
        }
    }
}

/* -- reading -- */

static err_t take_all(struct wal_reader *reader, struct pass *pass)
{
    const struct wal_record *record;
    err_t err;
    while ((err = wal_reader_next(reader, &record, &pass->msg)) == ERR_OK) {
        pass->count++;
        pass->digest = hash64(record->bytes.data, record->bytes.size, pass->digest);
    }
    return err;
}

static size_t piece_size(uint64_t *seed, size_t left)
{
    if (*seed == 0) { /* all at once */
        return left;
    }
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    uint64_t size = *seed >> 63 != 0 ? *seed >> 32 & 63 : *seed >> 32 & 8191;
    return MIN_OF((size_t)size + 1, left);
}

static struct pass read_in_pieces(
    const struct script *script, uint8_t options, uint64_t seed, bool ends_only)
{
    const struct wal_builder *builder = &script->builder;
    struct wal_reader *reader = wal_reader_create(&(struct wal_reader_options){
        .start_lsn = builder->begin_lsn,
        .segment_size = SEGMENT,
        .system_id = options & OPTION_ANY_SYSTEM ? 0 : builder->system_id,
        .record_size_max = options & OPTION_SMALL_LIMIT ? 4 * KIB : 128 * KIB,
        .ends_only = ends_only,
    });
    struct pass pass = {.err = ERR_NOT_FOUND};
    for (size_t at = 0; at < builder->wal.size && pass.err == ERR_NOT_FOUND;) {
        size_t size = piece_size(&seed, builder->wal.size - at);
        uint8_t *copy = mem_dup(builder->wal.data + at, size);
        pass.err = wal_reader_feed(reader, bytes_of(copy, size), &pass.msg);
        if (pass.err == ERR_OK) {
            pass.err = ends_only ? ERR_NOT_FOUND : take_all(reader, &pass);
        }
        mem_free(copy);
        at += size;
    }
    pass.record_lsn = wal_reader_record_lsn(reader);
    wal_reader_destroy(reader);
    return pass;
}

static void check_same(const struct pass *a, const struct pass *b)
{
    ASSERT(a->count == b->count && a->digest == b->digest);
    ASSERT(a->record_lsn == b->record_lsn);
    ASSERT(a->err == b->err);
    ASSERT(IMPLIES(a->err != ERR_NOT_FOUND, strcmp(a->msg.text, b->msg.text) == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cursor input = cursor_of(bytes_of(data, size));
    uint32_t seed = cursor_u32(&input);
    lsn_t begin = SEGMENT + (lsn_t)(cursor_u16(&input) % (SEGMENT / 8)) * 8;
    uint8_t options = cursor_u8(&input);
    static struct script script;
    memset(&script, 0, sizeof(script));
    script.is_decodable = true;
    /* No record begins inside a page header. */
    wal_builder_init(&script.builder, lsn_canonical(begin, SEGMENT), SEGMENT);
    build(&script, &input);
    for (size_t i = 0; i < script.damage_count; i++) {
        do_damage(&script, &script.damages[i]);
    }
    do_cuts(&script);

    struct pass whole = read_in_pieces(&script, options, 0, false);
    struct pass pieces = read_in_pieces(&script, options, (uint64_t)seed << 20 | 1, false);
    check_same(&whole, &pieces);
    if (script.damage_count == 0 && !(options & OPTION_SMALL_LIMIT)) {
        ASSERT(whole.count == script.good_count && whole.digest == script.good_digest);
        ASSERT((whole.err == ERR_NOT_FOUND) == script.is_decodable);
    }
    struct pass ends = read_in_pieces(&script, options, seed, true);
    ASSERT(ends.record_lsn >= whole.record_lsn); /* it does not look at checksums */
    ASSERT(IMPLIES(whole.err == ERR_NOT_FOUND, ends.record_lsn == whole.record_lsn));
    wal_builder_deinit(&script.builder);
    return 0;
}

/* -- the mutator: steps come, go and change -- */

/* Where the steps of a script begin. */
struct step_list {
    size_t count;
    size_t at[RECORDS_MAX + DAMAGES_MAX];
};

static size_t step_size(const uint8_t *data, size_t size, size_t at)
{
    uint8_t step = data[at] % STEP_COUNT;
    size_t length = 1u + step_sizes[step];
    if ((step == STEP_RECORD || step == STEP_RAW) && at + length <= size) {
        length += page_u16(data, at + 1);
    }
    return MIN_OF(length, size - at);
}

static struct step_list list_steps(const uint8_t *data, size_t size)
{
    struct step_list list = {.count = 0};
    for (size_t at = SCRIPT_BEGIN; at < size && list.count < ARRAY_LEN(list.at);) {
        list.at[list.count++] = at;
        at += step_size(data, size, at);
    }
    return list;
}

static void make_step(struct mutation *mutation, struct buf *to)
{
    uint8_t step = (uint8_t)mutation_below(mutation, STEP_COUNT);
    *buf_extend(to, 1) = step;
    uint8_t *args = buf_extend(to, step_sizes[step]);
    for (size_t i = 0; i < step_sizes[step]; i++) {
        args[i] = (uint8_t)mutation_below(mutation, mutation_one_in(mutation, 2) ? 16 : 256);
    }
    if (step == STEP_PAGE_FIELD || step == STEP_RECORD_FIELD) {
        page_set_u32(args, 2, mutation_value(mutation));
    } else if (step == STEP_RECORD || step == STEP_RAW) {
        size_t size = mutation_below(mutation, 80);
        page_set_u16(args, 0, (uint16_t)size);
        uint8_t *body = buf_extend(to, size);
        for (size_t i = 0; i < size; i++) {
            body[i] = (uint8_t)mutation_below(mutation, mutation_one_in(mutation, 2) ? 4 : 256);
        }
    }
}

/* A real record stays one that decodes, mostly: its parts are changed. */
static void change_step(struct mutation *mutation, struct buf *step)
{
    uint8_t kind = step->data[0] % STEP_COUNT;
    size_t head = 1u + step_sizes[kind];
    if (kind == STEP_RECORD && step->size >= head) {
        uint8_t room[16 * KIB];
        size_t size = MIN_OF(step->size - head, sizeof(room));
        memcpy(room, step->data + head, size);
        size = mutate_record(mutation, room, size, sizeof(room));
        step->size = head;
        buf_append(step, room, size);
        page_set_u16(step->data, 1, (uint16_t)size);
    } else if (kind == STEP_RAW && step->size > head) {
        mutate_some_field(mutation, step->data + head, step->size - head);
    } else {
        mutate_some_field(mutation, step->data + 1, step->size - 1);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed)
{
    struct mutation mutation;
    mutation_init(&mutation, seed);
    if (size < SCRIPT_BEGIN || mutation_one_in(&mutation, 16)) {
        return LLVMFuzzerMutate(data, size, size_max);
    }
    if (mutation_one_in(&mutation, 8)) {
        mutate_some_field(&mutation, data, SCRIPT_BEGIN);
        return size;
    }
    struct step_list list = list_steps(data, size);
    size_t begin = list.count > 0 ? list.at[mutation_below(&mutation, list.count)] : size;
    size_t end = begin < size ? begin + step_size(data, size, begin) : size;
    struct buf step = {.data = NULL};
    buf_append(&step, data + begin, end - begin);
    switch (mutation_below(&mutation, 6)) {
    case 0: buf_clear(&step); break;                             /* it goes */
    case 1: buf_append(&step, data + begin, end - begin); break; /* it is done twice */
    case 2:
    case 3: make_step(&mutation, &step); break; /* one comes behind it */
    default:
        if (step.size > 0) {
            change_step(&mutation, &step);
        }
    }
    size_t made = begin + step.size + (size - end);
    if (made <= size_max) {
        memmove(data + begin + step.size, data + end, size - end);
        if (step.size > 0) {
            memcpy(data + begin, step.data, step.size);
        }
    }
    buf_deinit(&step);
    return made <= size_max ? made : size;
}

/* The first steps of one script, the last ones of another. */
size_t LLVMFuzzerCustomCrossOver(
    const uint8_t *data1,
    size_t size1,
    const uint8_t *data2,
    size_t size2,
    uint8_t *out,
    size_t out_size_max,
    unsigned seed)
{
    struct mutation mutation;
    mutation_init(&mutation, seed);
    struct step_list first = list_steps(data1, size1), second = list_steps(data2, size2);
    if (first.count == 0 || second.count == 0) {
        return 0;
    }
    size_t end = first.at[mutation_below(&mutation, first.count)];
    size_t begin = second.at[mutation_below(&mutation, second.count)];
    if (end + size2 - begin > out_size_max) {
        return 0;
    }
    memcpy(out, data1, end);
    memcpy(out + end, data2 + begin, size2 - begin);
    return end + size2 - begin;
}
