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

static void add_header(struct buf *tar, const char *name, char type, unsigned mode, size_t size)
{
    struct header header = {.type = type, .magic = "ustar", .version = {'0', '0'}};
    ASSERT(strlen(name) < sizeof(header.name));
    memcpy(header.name, name, strlen(name));
    (void)snprintf(header.mode, sizeof(header.mode), "%07o", mode);
    (void)snprintf(header.uid, sizeof(header.uid), "%07o", 0u);
    (void)snprintf(header.gid, sizeof(header.gid), "%07o", 0u);
    (void)snprintf(header.size, sizeof(header.size), "%011zo", size);
    (void)snprintf(header.mtime, sizeof(header.mtime), "%011o", 0u);
    memset(header.checksum, ' ', sizeof(header.checksum));
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof(header); i++) {
        sum += ((const uint8_t *)&header)[i];
    }
    (void)snprintf(header.checksum, sizeof(header.checksum), "%06o", sum);
    buf_append(tar, &header, sizeof(header));
}

void tar_add_dir(struct buf *tar, const char *name)
{
    add_header(tar, name, '5', 0700, 0);
}

void tar_add_file(struct buf *tar, const char *name, struct bytes data)
{
    ASSERT(data.size < 8 * GIB); /* what 11 octal digits hold */
    add_header(tar, name, '0', 0600, data.size);
    buf_append(tar, data.data, data.size);
    size_t rest = (BLOCK - data.size % BLOCK) % BLOCK;
    memset(buf_extend(tar, rest), 0, rest);
}

void tar_finish(struct buf *tar)
{
    memset(buf_extend(tar, 2 * BLOCK), 0, 2 * BLOCK);
}
