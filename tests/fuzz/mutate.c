#include "tests/fuzz/mutate.h"

void mutation_init(struct mutation *mutation, unsigned seed)
{
    prng_init(&mutation->prng, seed);
    mutation->hint_count = mutation->item_count = 0;
}

void mutation_hint(struct mutation *mutation, uint32_t value)
{
    if (mutation->hint_count < HINTS_MAX) {
        mutation->hints[mutation->hint_count++] = value;
    }
}

size_t mutation_below(struct mutation *mutation, size_t sides)
{
    return (size_t)prng_below(&mutation->prng, sides);
}

bool mutation_one_in(struct mutation *mutation, size_t sides)
{
    return mutation_below(mutation, sides) == 0;
}

uint32_t mutation_value(struct mutation *mutation)
{
    /* Limits of pages, tuples, posting lists, SLRU pages, block numbers and transaction ids. */
    static const uint32_t limits[] = {
        0,      1,      2,      3,      4,       7,        8,          16,         23,
        24,     32,     33,     0x7F,   0x80,    0xFF,     291,        292,        407,
        408,    409,    819,    820,    1636,    2047,     2048,       2704,       4095,
        4096,   8159,   8160,   8168,   8176,    8191,     8192,       8193,       0x1FFF,
        0x2000, 0x3FFF, 0x4000, 0x7FFF, 0x8000,  0xFFF8,   0xFFFE,     0xFFFF,     0x10000,
        32672,  32768,  52352,  131072, 1048576, 16777216, 0x3FFFFFFF, 0x7FFFFFFF, 0x80000000,
        0xC000, 0xE000, 0xFFF0, 0x7F98, 0x01FF,  0x8001,   0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF};
    uint32_t value = 0;
    if (mutation->hint_count > 0 && mutation_below(mutation, 2) == 0) {
        value = mutation->hints[mutation_below(mutation, mutation->hint_count)];
    } else if (mutation_one_in(mutation, 4)) {
        value = (uint32_t)mutation_below(mutation, 64);
    } else {
        value = limits[mutation_below(mutation, ARRAY_LEN(limits))];
    }
    switch (mutation_below(mutation, 6)) {
    case 0: return value + 1;
    case 1: return value - 1;
    default: return value;
    }
}

void mutate_field(struct mutation *mutation, uint8_t *at, size_t width)
{
    uint64_t value = 0;
    memcpy(&value, at, width);
    switch (mutation_below(mutation, 8)) {
    case 0: value ^= (uint64_t)1 << mutation_below(mutation, width * 8); break;
    case 1: value++; break;
    case 2: value--; break;
    case 3: value = prng_next(&mutation->prng); break;
    case 4: value += mutation_value(mutation); break;
    default: value = mutation_value(mutation); break;
    }
    memcpy(at, &value, width);
}

void mutate_some_field(struct mutation *mutation, uint8_t *data, size_t size)
{
    static const size_t widths[] = {1, 1, 2, 2, 2, 4, 4, 8};
    size_t width = widths[mutation_below(mutation, ARRAY_LEN(widths))];
    if (size == 0) {
        return;
    }
    size_t reach = mutation_one_in(mutation, 2) ? MIN_OF(size, (size_t)40) : size;
    size_t at = mutation_below(mutation, reach);
    if (!mutation_one_in(mutation, 4)) {
        at -= at % width; /* fields are aligned more often than not */
    }
    mutate_field(mutation, data + at, MIN_OF(width, size - at));
}

/* A piece that begins and ends at a multiple of a usual element size. */
static void pick_piece(struct mutation *mutation, size_t size, size_t *ret_begin, size_t *ret_size)
{
    static const size_t steps[] = {1, 2, 4, 6, 8, 8, 12, 16};
    size_t step = steps[mutation_below(mutation, ARRAY_LEN(steps))];
    size_t begin = mutation_below(mutation, size / step + 1) * step;
    size_t count = 1 + mutation_below(mutation, mutation_one_in(mutation, 4) ? 64 : 4);
    *ret_begin = MIN_OF(begin, size);
    *ret_size = MIN_OF(count * step, size - *ret_begin);
}

static void insert_piece(
    struct mutation *mutation, struct buf *payload, size_t size_max, bool is_repeat)
{
    size_t begin = 0, size = 0;
    pick_piece(mutation, payload->size, &begin, &size);
    size_t wanted = is_repeat ? size : 1 + mutation_below(mutation, 16);
    if (wanted == 0 || payload->size + wanted > size_max) {
        return;
    }
    uint8_t *end = buf_extend(payload, wanted);
    uint8_t *at = payload->data + begin;
    memmove(at + wanted, at, (size_t)(end - at));
    for (size_t i = 0; i < wanted && !is_repeat; i++) {
        at[i] = (uint8_t)(mutation_one_in(mutation, 2) ? 0 : prng_next(&mutation->prng));
    }
}

/* More of the same than fits on a page. */
static void repeat_all(struct mutation *mutation, struct buf *payload, size_t size_max)
{
    size_t wanted = MIN_OF(size_max, 1000 + mutation_below(mutation, 9000));
    size_t size = payload->size;
    while (size > 0 && payload->size < wanted) {
        size_t part = MIN_OF(size, wanted - payload->size);
        uint8_t *end = buf_extend(payload, part);
        memcpy(end, payload->data, part);
    }
}

static void remove_piece(struct mutation *mutation, struct buf *payload)
{
    size_t begin = 0, size = 0;
    pick_piece(mutation, payload->size, &begin, &size);
    if (size > 0) {
        uint8_t *at = payload->data + begin;
        memmove(at, at + size, payload->size - begin - size);
        payload->size -= size;
    }
}

void mutate_payload(struct mutation *mutation, struct buf *payload, size_t size_max)
{
    switch (mutation_below(mutation, 12)) {
    case 0: insert_piece(mutation, payload, size_max, true); break;
    case 1: insert_piece(mutation, payload, size_max, false); break;
    case 2: remove_piece(mutation, payload); break;
    case 3: /* its end is missing */
        if (payload->size > 0) {
            payload->size -= 1 + mutation_below(mutation, MIN_OF(payload->size, (size_t)16));
        }
        break;
    case 5:
        if (mutation_one_in(mutation, 16)) {
            repeat_all(mutation, payload, size_max);
        } else {
            mutate_some_field(mutation, payload->data, payload->size);
        }
        break;
    case 4: /* what libFuzzer saw compared */
        if (payload->size > 0 && payload->size <= size_max) {
            size_t room = MIN_OF(size_max, payload->size + 32);
            size_t size = payload->size;
            (void)buf_extend(payload, room - size);
            payload->size = LLVMFuzzerMutate(payload->data, size, room);
        }
        break;
    default: mutate_some_field(mutation, payload->data, payload->size); break;
    }
}
