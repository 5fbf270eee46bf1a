#include "tests/fuzz/mutate_record.h"

#include "common/pg/cursor.h"
#include "common/pg/page.h"
#include "common/pg/wal_image.h"

enum { XL_TOT_LEN = 0, XL_XID = 4, XL_PREV = 8, XL_INFO = 16, XL_RMID = 17, XL_CRC = 20 };
enum { ID_TOP_XID = 252, ID_ORIGIN = 253, ID_DATA_LONG = 254, ID_DATA_SHORT = 255 };
enum { FORK_MASK = 0x0F, HAS_IMAGE = 0x10, HAS_DATA = 0x20, WILL_INIT = 0x40, SAME_REL = 0x80 };

/* -- reading -- */

struct lengths {
    size_t data[WAL_BLOCKS_MAX + 2], image[WAL_BLOCKS_MAX + 2], main, total;
};

static void read_part(struct cursor *fields, struct record_part *part, size_t *data, size_t *image)
{
    part->fork_flags = cursor_u8(fields);
    *data = cursor_u16(fields);
    *image = 0;
    if ((part->fork_flags & HAS_IMAGE) != 0) {
        *image = cursor_u16(fields);
        part->hole_offset = cursor_u16(fields);
        part->image_flags = cursor_u8(fields);
        bool compressed = (part->image_flags & WAL_IMAGE_COMPRESSED) != 0;
        if (compressed && (part->image_flags & WAL_IMAGE_HAS_HOLE) != 0) {
            part->hole_size = cursor_u16(fields);
        }
    }
    if ((part->fork_flags & SAME_REL) == 0) {
        struct bytes locator = cursor_bytes(fields, sizeof(part->locator));
        if (locator.size > 0) {
            memcpy(part->locator, locator.data, locator.size);
        }
    }
    part->block = cursor_u32(fields);
}

static bool read_headers(struct cursor *fields, struct record_parts *parts, struct lengths *lengths)
{
    while (fields->left > lengths->total) {
        uint8_t id = cursor_u8(fields);
        if (id == ID_DATA_SHORT || id == ID_DATA_LONG) {
            parts->has_main = true;
            parts->long_main = id == ID_DATA_LONG;
            lengths->main = parts->long_main ? cursor_u32(fields) : cursor_u8(fields);
            return cursor_is_good(fields);
        }
        if (id == ID_ORIGIN) {
            parts->has_origin = true;
            parts->origin = cursor_u16(fields);
        } else if (id == ID_TOP_XID) {
            parts->has_top_xid = true;
            parts->top_xid = cursor_u32(fields);
        } else if (parts->part_count < ARRAY_LEN(parts->parts)) {
            size_t i = parts->part_count++;
            parts->parts[i].id = id;
            read_part(fields, &parts->parts[i], &lengths->data[i], &lengths->image[i]);
            lengths->total += lengths->data[i] + lengths->image[i];
        } else {
            return false;
        }
    }
    return cursor_is_good(fields);
}

static void take_payload(struct cursor *fields, struct buf *to, size_t size)
{
    struct bytes payload = cursor_bytes(fields, MIN_OF(size, fields->left));
    buf_append(to, payload.data, payload.size);
}

bool record_parts_parse(struct bytes record, struct record_parts *ret_parts)
{
    struct lengths lengths = {.total = 0};
    *ret_parts = (struct record_parts){.part_count = 0};
    if (record.size < WAL_RECORD_HEADER_SIZE) {
        return false;
    }
    struct cursor fields = cursor_of(record);
    memcpy(ret_parts->header, record.data, WAL_RECORD_HEADER_SIZE);
    cursor_skip(&fields, WAL_RECORD_HEADER_SIZE);
    if (!read_headers(&fields, ret_parts, &lengths)) {
        return false;
    }
    for (size_t i = 0; i < ret_parts->part_count; i++) {
        take_payload(&fields, &ret_parts->parts[i].image, lengths.image[i]);
        take_payload(&fields, &ret_parts->parts[i].data, lengths.data[i]);
    }
    take_payload(&fields, &ret_parts->main, lengths.main);
    return true;
}

static void part_deinit(struct record_part *part)
{
    buf_deinit(&part->data);
    buf_deinit(&part->image);
}

void record_parts_deinit(struct record_parts *parts)
{
    for (size_t i = 0; i < parts->part_count; i++) {
        part_deinit(&parts->parts[i]);
    }
    buf_deinit(&parts->main);
}

/* -- writing -- */

static void put_field(struct buf *to, uint64_t value, size_t size)
{
    buf_append(to, &value, size);
}

static void write_part(const struct record_part *part, struct buf *to)
{
    put_field(to, part->id, 1);
    put_field(to, part->fork_flags, 1);
    put_field(to, part->data.size + (size_t)part->data_lie, 2);
    if ((part->fork_flags & HAS_IMAGE) != 0) {
        put_field(to, part->image.size + (size_t)part->image_lie, 2);
        put_field(to, part->hole_offset, 2);
        put_field(to, part->image_flags, 1);
        bool compressed = (part->image_flags & WAL_IMAGE_COMPRESSED) != 0;
        if (compressed && (part->image_flags & WAL_IMAGE_HAS_HOLE) != 0) {
            put_field(to, part->hole_size, 2);
        }
    }
    if ((part->fork_flags & SAME_REL) == 0) {
        buf_append(to, part->locator, sizeof(part->locator));
    }
    put_field(to, part->block, 4);
}

void record_parts_write(const struct record_parts *parts, struct buf *to)
{
    struct buf record = {.data = NULL};
    buf_append(&record, parts->header, sizeof(parts->header));
    for (size_t i = 0; i < parts->part_count; i++) {
        write_part(&parts->parts[i], &record);
    }
    if (parts->has_origin) {
        put_field(&record, ID_ORIGIN, 1);
        put_field(&record, parts->origin, 2);
    }
    if (parts->has_top_xid) {
        put_field(&record, ID_TOP_XID, 1);
        put_field(&record, parts->top_xid, 4);
    }
    if (parts->has_main || parts->main.size > 0) {
        bool is_long = parts->long_main || parts->main.size > UINT8_MAX;
        put_field(&record, is_long ? ID_DATA_LONG : ID_DATA_SHORT, 1);
        put_field(&record, parts->main.size + (size_t)parts->main_lie, is_long ? 4 : 1);
    }
    for (size_t i = 0; i < parts->part_count; i++) {
        buf_append(&record, parts->parts[i].image.data, parts->parts[i].image.size);
        buf_append(&record, parts->parts[i].data.data, parts->parts[i].data.size);
    }
    buf_append(&record, parts->main.data, parts->main.size);
    page_set_u32(record.data, XL_TOT_LEN, (uint32_t)record.size);
    page_set_u32(record.data, XL_CRC, wal_record_crc(buf_view(&record)));
    buf_append(to, record.data, record.size);
    buf_deinit(&record);
}

void record_parts_drop_check_images(struct record_parts *parts)
{
    enum { CHECK_CONSISTENCY = 0x02 };
    for (size_t i = 0; i < parts->part_count; i++) {
        struct record_part *part = &parts->parts[i];
        if ((part->fork_flags & HAS_IMAGE) != 0 && (part->image_flags & WAL_IMAGE_APPLY) == 0) {
            part->fork_flags &= (uint8_t)~HAS_IMAGE;
            buf_clear(&part->image);
        }
    }
    parts->header[XL_INFO] &= (uint8_t)~CHECK_CONSISTENCY;
}

/* -- changing -- */

static int some_lie(struct mutation *mutation)
{
    static const int lies[] = {1, -1, 2, -2, 8, -8, 256, 8192};
    return lies[mutation_below(mutation, ARRAY_LEN(lies))];
}

static void mutate_header(struct mutation *mutation, struct record_parts *parts)
{
    uint8_t *header = parts->header;
    switch (mutation_below(mutation, 6)) {
    case 0: mutate_field(mutation, header + XL_XID, 4); break;
    case 1: mutate_field(mutation, header + XL_PREV, 8); break;
    case 2: header[XL_RMID] = (uint8_t)mutation_below(mutation, RM_COUNT + 2u); break;
    case 3: mutate_field(mutation, header + XL_INFO, 1); break;
    default: /* another operation of the same resource manager */
        header[XL_INFO] = (uint8_t)((header[XL_INFO] & 0x0F) | mutation_below(mutation, 16) << 4);
    }
}

static void mutate_special(struct mutation *mutation, struct record_parts *parts)
{
    switch (mutation_below(mutation, 5)) {
    case 0: parts->has_origin = !parts->has_origin; break;
    case 1: parts->has_top_xid = !parts->has_top_xid; break;
    case 2: mutate_field(mutation, (uint8_t *)&parts->origin, sizeof(parts->origin)); break;
    case 3: mutate_field(mutation, (uint8_t *)&parts->top_xid, sizeof(parts->top_xid)); break;
    default: parts->main_lie = some_lie(mutation); break;
    }
}

static void mutate_image(struct mutation *mutation, struct record_part *part)
{
    switch (mutation_below(mutation, 8)) {
    case 0: part->fork_flags ^= HAS_IMAGE; break;
    case 1: mutate_field(mutation, (uint8_t *)&part->hole_offset, 2); break;
    case 2: mutate_field(mutation, (uint8_t *)&part->hole_size, 2); break;
    case 3: part->image_flags ^= (uint8_t)(1u << mutation_below(mutation, 8)); break;
    case 4: part->image_lie = some_lie(mutation); break;
    case 5: /* a whole page of the data */
        part->fork_flags |= HAS_IMAGE;
        part->image_flags = WAL_IMAGE_APPLY;
        part->hole_offset = part->hole_size = 0;
        buf_clear(&part->image);
        memset(buf_extend(&part->image, PAGE_SIZE), (int)mutation_below(mutation, 3), PAGE_SIZE);
        break;
    default: mutate_payload(mutation, &part->image, PAGE_SIZE + 16);
    }
}

static void mutate_part(struct mutation *mutation, struct record_part *part, size_t size_max)
{
    switch (mutation_below(mutation, 12)) {
    case 0: part->id = (uint8_t)mutation_below(mutation, WAL_BLOCKS_MAX + 3u); break;
    case 1: part->fork_flags ^= (uint8_t)(1u << mutation_below(mutation, 8)); break;
    case 2:
        part->fork_flags = (uint8_t)((part->fork_flags & ~FORK_MASK) | mutation_below(mutation, 6));
        break;
    case 3: mutate_some_field(mutation, part->locator, sizeof(part->locator)); break;
    case 4:
    case 5: mutate_field(mutation, (uint8_t *)&part->block, sizeof(part->block)); break;
    case 6: part->data_lie = some_lie(mutation); break;
    case 7:
    case 8: mutate_image(mutation, part); break;
    default: mutate_payload(mutation, &part->data, size_max); break;
    }
    part->fork_flags =
        (uint8_t)((part->fork_flags & ~HAS_DATA) | (part->data.size > 0 ? HAS_DATA : 0));
}

static void copy_part(struct record_part *to, const struct record_part *from)
{
    *to = *from;
    to->data = to->image = (struct buf){.data = NULL};
    buf_append(&to->data, from->data.data, from->data.size);
    buf_append(&to->image, from->image.data, from->image.size);
}

/* One block reference more or less, or two change places. */
static void mutate_part_list(struct mutation *mutation, struct record_parts *parts)
{
    size_t count = parts->part_count;
    size_t i = count > 0 ? mutation_below(mutation, count) : 0;
    switch (mutation_below(mutation, 4)) {
    case 0:
        if (count > 0) {
            part_deinit(&parts->parts[i]);
            parts->part_count--;
            memmove(
                &parts->parts[i], &parts->parts[i + 1], (count - i - 1) * sizeof(parts->parts[0]));
        }
        break;
    case 1:
        if (count > 1) {
            struct record_part swapped = parts->parts[i];
            parts->parts[i] = parts->parts[0];
            parts->parts[0] = swapped;
        }
        break;
    default:
        if (count < ARRAY_LEN(parts->parts)) {
            struct record_part *added = &parts->parts[parts->part_count++];
            *added = (struct record_part){.locator = {0x7F, 6, 0, 0, 5, 0, 0, 0, 0, 0x40}};
            if (count > 0) {
                copy_part(added, &parts->parts[i]);
            }
            added->id = (uint8_t)(count > 0 ? parts->parts[count - 1].id + 1 : 0);
            added->block += (uint32_t)mutation_below(mutation, 3);
        }
    }
}

void mutate_record_payload(
    struct mutation *mutation, struct record_parts *parts, size_t part_index, size_t size_max)
{
    if (part_index < parts->part_count && mutation_below(mutation, 2) == 0) {
        struct record_part *part = &parts->parts[part_index];
        mutate_payload(mutation, &part->data, size_max);
        unsigned has_data = part->data.size > 0 ? HAS_DATA : 0;
        part->fork_flags = (uint8_t)((part->fork_flags & ~HAS_DATA) | has_data);
    } else {
        mutate_payload(mutation, &parts->main, size_max);
    }
}

void mutate_record_parts(
    struct mutation *mutation, struct record_parts *parts, size_t payload_size_max)
{
    size_t i = parts->part_count > 0 ? mutation_below(mutation, parts->part_count) : 0;
    switch (mutation_below(mutation, 16)) {
    case 0:
    case 1: mutate_header(mutation, parts); break;
    case 2: mutate_special(mutation, parts); break;
    case 3: mutate_part_list(mutation, parts); break;
    case 4:
    case 5:
    case 6:
    case 7:
    case 8:
        if (parts->part_count > 0) {
            mutate_part(mutation, &parts->parts[i], payload_size_max);
        }
        break;
    default: mutate_record_payload(mutation, parts, i, payload_size_max); break;
    }
}

size_t mutate_record(struct mutation *mutation, uint8_t *data, size_t size, size_t size_max)
{
    struct record_parts parts;
    struct buf out = {.data = NULL};
    if (record_parts_parse(bytes_of(data, size), &parts)) {
        mutation_hint(mutation, (uint32_t)parts.main.size);
        mutation_hint(mutation, (uint32_t)size);
        for (size_t i = 0; i <= mutation_below(mutation, 4); i++) {
            mutate_record_parts(mutation, &parts, size_max);
        }
        record_parts_write(&parts, &out);
    } else {
        buf_append(&out, data, size);
        size_t room = MIN_OF(size_max, size + 64);
        (void)buf_extend(&out, room - size);
        out.size = LLVMFuzzerMutate(out.data, size, room);
    }
    size_t made = MIN_OF(out.size, size_max);
    memcpy(data, out.data, made);
    record_parts_deinit(&parts);
    buf_deinit(&out);
    return made;
}
