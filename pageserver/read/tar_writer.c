#include "pageserver/read/tar_writer.h"

#include <stdio.h>

#include "common/base/assert.h"

#define BLOCK 512

struct header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type;
    char link_name[100], magic[6], version[2], user[32], group[32], dev_major[8], dev_minor[8];
    char prefix[155], padding[12];
};
static_assert(sizeof(struct header) == BLOCK, "a header is one block");

/* GNU's sparse file: where data lies, from byte 386 of the header on. */
struct sparse_piece {
    char begin[12], size[12];
};
struct sparse {
    struct sparse_piece pieces[4];
    char is_extended, real_size[12];
};
#define SPARSE_AT 386
static_assert(SPARSE_AT + sizeof(struct sparse) <= BLOCK, "it lies in the header");

static void print_octal(char to[12], size_t value)
{
    (void)snprintf(to, 12, "%011zo", value);
}

static void fill_header(
    struct header *header, const char *name, char type, unsigned mode, size_t size)
{
    *header = (struct header){.type = type, .magic = "ustar", .version = {'0', '0'}};
    ASSERT(strlen(name) < sizeof(header->name));
    memcpy(header->name, name, strlen(name));
    (void)snprintf(header->mode, sizeof(header->mode), "%07o", mode);
    (void)snprintf(header->uid, sizeof(header->uid), "%07o", 0u);
    (void)snprintf(header->gid, sizeof(header->gid), "%07o", 0u);
    print_octal(header->size, size);
    print_octal(header->mtime, 0);
}

static void append_header(struct buf *tar, struct header *header)
{
    memset(header->checksum, ' ', sizeof(header->checksum));
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof(*header); i++) {
        sum += ((const uint8_t *)header)[i];
    }
    (void)snprintf(header->checksum, sizeof(header->checksum), "%06o", sum);
    buf_append(tar, header, sizeof(*header));
}

static void append_padding(struct buf *tar, size_t size)
{
    size_t rest = (BLOCK - size % BLOCK) % BLOCK;
    memset(buf_extend(tar, rest), 0, rest);
}

void tar_add_dir(struct buf *tar, const char *name)
{
    struct header header;
    fill_header(&header, name, '5', 0700, 0);
    append_header(tar, &header);
}

void tar_add_file(struct buf *tar, const char *name, struct bytes data)
{
    ASSERT(data.size < 8 * GIB); /* what 11 octal digits hold */
    struct header header;
    fill_header(&header, name, '0', 0600, data.size);
    append_header(tar, &header);
    buf_append(tar, data.data, data.size);
    append_padding(tar, data.size);
}

static bool is_zero(struct bytes data)
{
    return data.size == 0 ||
           (data.data[0] == 0 && memcmp(data.data, data.data + 1, data.size - 1) == 0);
}

struct extent {
    size_t begin, end;
};

/* The runs of blocks that are not all zeros; what comes behind the last place is all in it. */
static size_t find_extents(struct bytes data, struct extent extents[], size_t max)
{
    size_t count = 0;
    for (size_t at = 0; at < data.size; at += BLOCK) {
        size_t size = MIN_OF((size_t)BLOCK, data.size - at);
        if (is_zero(bytes_of(data.data + at, size))) {
            continue;
        }
        if (count == max || (count > 0 && extents[count - 1].end == at)) {
            extents[count - 1].end = at + size;
        } else {
            extents[count++] = (struct extent){.begin = at, .end = at + size};
        }
    }
    return count;
}

void tar_add_sparse_file(struct buf *tar, const char *name, struct bytes data)
{
    struct sparse sparse = {0};
    struct extent extents[ARRAY_LEN(sparse.pieces)];
    size_t size = 0;
    ASSERT(data.size < 8 * GIB);
    size_t count = find_extents(data, extents, ARRAY_LEN(extents));
    for (size_t i = 0; i < count; i++) {
        print_octal(sparse.pieces[i].begin, extents[i].begin);
        print_octal(sparse.pieces[i].size, extents[i].end - extents[i].begin);
        size += extents[i].end - extents[i].begin;
    }
    if (count < ARRAY_LEN(sparse.pieces)) { /* an empty one at the end tells where that is */
        print_octal(sparse.pieces[count].begin, data.size);
        print_octal(sparse.pieces[count].size, 0);
    }
    print_octal(sparse.real_size, data.size);

    struct header header;
    fill_header(&header, name, 'S', 0600, size);
    memcpy(header.magic, "ustar ", sizeof(header.magic)); /* with " ": GNU's */
    memcpy(header.version, " ", sizeof(header.version));
    memcpy((uint8_t *)&header + SPARSE_AT, &sparse, sizeof(sparse));
    append_header(tar, &header);
    for (size_t i = 0; i < count; i++) {
        buf_append(tar, data.data + extents[i].begin, extents[i].end - extents[i].begin);
    }
    append_padding(tar, size);
}

void tar_finish(struct buf *tar)
{
    memset(buf_extend(tar, 2 * BLOCK), 0, 2 * BLOCK);
}
