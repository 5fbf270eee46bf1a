#include "pageserver/remote/index.h"

#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/wire/codec.h"

#define MAGIC         0x58494241u /* "ABIX" */
#define FORMAT_BARE   1           /* positions without lineage */
#define FORMAT        2
#define HEAD_SIZE     (4 + 2 + 2 + 16 + 4 + 8 + 8 + 3 * 4)
#define POSITION_SIZE (16 + 4 + 8)
#define LINEAGE_SIZE  (16 + 8 + 4 + 1 + 1) /* and its members */
#define FILE_SIZE     (REMOTE_FILE_SIZE + 4 + 8 + 16)

void remote_index_deinit(struct remote_index *index)
{
    mem_free(index->positions);
    mem_free(index->files);
    mem_free(index->small_files);
    buf_deinit(&index->bytes);
    *index = (struct remote_index){.generation = 0};
}

static size_t encoded_size(const struct remote_index *index)
{
    size_t size = HEAD_SIZE + index->position_count * POSITION_SIZE +
                  index->file_count * FILE_SIZE + sizeof(uint32_t);
    for (size_t i = 0; i < index->small_file_count; i++) {
        size += REMOTE_FILE_SIZE + size_bytes(index->small_files[i].content);
    }
    for (size_t i = 0; i < index->position_count && index->has_lineage; i++) {
        size += LINEAGE_SIZE + index->positions[i].lineage.member_count * sizeof(uint64_t);
    }
    return size;
}

/* The name and zeros behind it. */
static void put_name(struct writer *out, const char name[REMOTE_FILE_SIZE])
{
    char padded[REMOTE_FILE_SIZE] = {0};
    size_t size = strnlen(name, REMOTE_FILE_SIZE);
    ASSERT(size < REMOTE_FILE_SIZE);
    memcpy(padded, name, size);
    writer_put(out, padded, sizeof(padded));
}

static void put_head(struct writer *out, const struct remote_index *index)
{
    put_u32(out, MAGIC);
    put_u16(out, index->has_lineage ? FORMAT : FORMAT_BARE);
    put_u16(out, 0);
    put_tenant(out, index->tenant);
    put_u32(out, index->generation);
    put_u64(out, index->sequence);
    put_u64(out, (uint64_t)index->created);
    put_u32(out, (uint32_t)index->position_count);
    put_u32(out, (uint32_t)index->file_count);
    put_u32(out, (uint32_t)index->small_file_count);
}

static void put_lineage(struct writer *out, const struct remote_lineage *lineage)
{
    ASSERT(lineage->member_count <= REMOTE_MEMBERS_MAX);
    put_timeline(out, lineage->parent);
    put_u64(out, lineage->start_lsn);
    put_u32(out, lineage->membership_generation);
    put_u8(out, lineage->is_deleted ? 1 : 0);
    put_u8(out, lineage->member_count);
    for (size_t i = 0; i < lineage->member_count; i++) {
        put_u64(out, lineage->members[i]);
    }
}

void remote_index_encode(const struct remote_index *index, struct buf *to)
{
    size_t size = encoded_size(index);
    uint8_t *begin = buf_extend(to, size);
    struct writer out = {.next = begin, .left = size};
    put_head(&out, index);
    for (size_t i = 0; i < index->position_count; i++) {
        put_timeline(&out, index->positions[i].timeline);
        put_u32(&out, index->positions[i].number);
        put_u64(&out, index->positions[i].lsn);
        if (index->has_lineage) {
            put_lineage(&out, &index->positions[i].lineage);
        }
    }
    for (size_t i = 0; i < index->file_count; i++) {
        const struct remote_file *file = &index->files[i];
        put_name(&out, file->name);
        put_u32(&out, file->generation);
        put_u64(&out, file->size);
        writer_put(&out, file->hash.bytes, sizeof(file->hash.bytes));
    }
    for (size_t i = 0; i < index->small_file_count; i++) {
        put_name(&out, index->small_files[i].name);
        put_bytes(&out, index->small_files[i].content);
    }
    put_u32(&out, crc32c(0, begin, size - sizeof(uint32_t)));
    ASSERT(out.left == 0);
}

/*
 * A file name of RocksDB: capitals, small letters, digits, '-', '_', '.'; not hidden, so neither
 * "." nor ".."; zeros behind it.
 */
static bool get_name(struct reader *in, char name[REMOTE_FILE_SIZE])
{
    const uint8_t *from = reader_take(in, REMOTE_FILE_SIZE);
    if (from == NULL) {
        return false;
    }
    memcpy(name, from, REMOTE_FILE_SIZE);
    static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
    size_t size = strnlen(name, REMOTE_FILE_SIZE);
    if (size == 0 || size == REMOTE_FILE_SIZE || name[0] == '.' || strspn(name, good) != size) {
        return false;
    }
    for (size_t i = size; i < REMOTE_FILE_SIZE; i++) {
        if (name[i] != '\0') {
            return false;
        }
    }
    return true;
}

static err_t corrupt(struct errmsg *msg, const char *what)
{
    return err_set(msg, ERR_CORRUPT, "index: %s", what);
}

static err_t get_head(struct reader *in, struct remote_index *index, struct errmsg *msg)
{
    uint32_t magic = get_u32(in);
    unsigned format = get_u16(in);
    (void)get_u16(in);
    if (in->bad || magic != MAGIC) {
        return corrupt(msg, "does not begin as one");
    }
    index->has_lineage = format == FORMAT;
    if (format != FORMAT && format != FORMAT_BARE) {
        return err_set(
            msg, ERR_UNSUPPORTED, "index: format %u, this version knows %d", format, FORMAT);
    }
    index->tenant = get_tenant(in);
    index->generation = get_u32(in);
    index->sequence = get_u64(in);
    index->created = (wall_us_t)get_u64(in);
    index->position_count = get_u32(in);
    index->file_count = get_u32(in);
    index->small_file_count = get_u32(in);
    if (in->bad || index->position_count > REMOTE_POSITIONS_MAX ||
        index->file_count > REMOTE_FILES_MAX || index->small_file_count > REMOTE_SMALL_FILES_MAX) {
        return corrupt(msg, "counts are out of range");
    }
    size_t position_size = POSITION_SIZE + (index->has_lineage ? LINEAGE_SIZE : 0);
    size_t least = index->position_count * position_size + index->file_count * FILE_SIZE +
                   index->small_file_count * (REMOTE_FILE_SIZE + sizeof(uint32_t));
    return least <= in->left ? ERR_OK : corrupt(msg, "shorter than its counts say");
}

static err_t get_files(struct reader *in, struct remote_index *index, struct errmsg *msg)
{
    for (size_t i = 0; i < index->file_count; i++) {
        struct remote_file *file = &index->files[i];
        if (!get_name(in, file->name) || !remote_is_data_file(file->name)) {
            return err_set(msg, ERR_CORRUPT, "index: file %zu has no good name", i);
        }
        file->generation = get_u32(in);
        file->size = get_u64(in);
        const uint8_t *hash = reader_take(in, sizeof(file->hash.bytes));
        if (hash != NULL) {
            memcpy(file->hash.bytes, hash, sizeof(file->hash.bytes));
        }
        if (i > 0 && strcmp(index->files[i - 1].name, file->name) >= 0) {
            return err_set(msg, ERR_CORRUPT, "index: %s stands out of order", file->name);
        }
        if (file->generation > index->generation) {
            return err_set(msg, ERR_CORRUPT, "index: %s is of a later generation", file->name);
        }
    }
    return ERR_OK;
}

static err_t get_lineage(struct reader *in, struct remote_lineage *lineage, struct errmsg *msg)
{
    lineage->parent = get_timeline(in);
    lineage->start_lsn = get_u64(in);
    lineage->membership_generation = get_u32(in);
    unsigned deleted = get_u8(in);
    lineage->is_deleted = deleted == 1;
    lineage->member_count = get_u8(in);
    if (deleted > 1 || lineage->member_count > REMOTE_MEMBERS_MAX) {
        return corrupt(msg, "a timeline's lineage is none");
    }
    for (size_t i = 0; i < lineage->member_count; i++) {
        lineage->members[i] = get_u64(in);
    }
    return ERR_OK;
}

static err_t get_body(struct reader *in, struct remote_index *index, struct errmsg *msg)
{
    index->positions = MEM_ARRAY(struct remote_position, index->position_count);
    index->files = MEM_ARRAY(struct remote_file, index->file_count);
    index->small_files = MEM_ARRAY(struct remote_small_file, index->small_file_count);
    for (size_t i = 0; i < index->position_count; i++) {
        index->positions[i].timeline = get_timeline(in);
        index->positions[i].number = get_u32(in);
        index->positions[i].lsn = get_u64(in);
        if (index->has_lineage) {
            TRY(get_lineage(in, &index->positions[i].lineage, msg));
        }
    }
    TRY(get_files(in, index, msg));
    for (size_t i = 0; i < index->small_file_count; i++) {
        struct remote_small_file *file = &index->small_files[i];
        if (!get_name(in, file->name) || remote_is_data_file(file->name)) {
            return err_set(msg, ERR_CORRUPT, "index: small file %zu has no good name", i);
        }
        file->content = get_bytes(in);
    }
    return in->bad || in->left > 0 ? corrupt(msg, "does not end with its last file") : ERR_OK;
}

static err_t decode(struct remote_index *index, struct errmsg *msg)
{
    struct bytes all = buf_view(&index->bytes);
    if (all.size < HEAD_SIZE + sizeof(uint32_t)) {
        return corrupt(msg, "too short");
    }
    struct bytes body = bytes_of(all.data, all.size - sizeof(uint32_t));
    struct reader tail = reader_of(bytes_of(body.data + body.size, sizeof(uint32_t)));
    if (get_u32(&tail) != crc32c(0, body.data, body.size)) {
        return corrupt(msg, "checksum does not match");
    }
    struct reader in = reader_of(body);
    err_t err = get_head(&in, index, msg);
    return err == ERR_OK ? get_body(&in, index, msg) : err;
}

err_t remote_index_decode(struct buf *bytes, struct remote_index *ret_index, struct errmsg *msg)
{
    struct remote_index index = {.bytes = *bytes};
    *bytes = (struct buf){0};
    err_t err = decode(&index, msg);
    if (err != ERR_OK) {
        remote_index_deinit(&index);
        return err;
    }
    *ret_index = index;
    return ERR_OK;
}

static int compare_names(const void *name, const void *file)
{
    return strcmp(name, ((const struct remote_file *)file)->name);
}

const struct remote_file *remote_index_file(const struct remote_index *index, const char *name)
{
    return index->file_count == 0
               ? NULL
               : bsearch(
                     name, index->files, index->file_count, sizeof(index->files[0]), compare_names);
}
