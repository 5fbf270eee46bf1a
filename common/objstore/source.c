#include "common/objstore/source.h"

#include "common/base/assert.h"
#include "common/io/file.h"

#define HASH_CHUNK (1 * MIB)

void source_of_bytes(struct source *source, struct bytes data)
{
    *source = (struct source){.size = data.size, .data = data, .fd = -1};
}

err_t source_open_file(struct source *source, const char *path, struct errmsg *msg)
{
    *source = (struct source){.fd = -1, .path = path};
    TRY(file_open(&source->fd, path, FILE_READ, msg));
    err_t err = file_size(source->fd, path, &source->size, msg);
    if (err != ERR_OK) {
        source_close(source);
    }
    return err;
}

void source_close(struct source *source)
{
    file_close(&source->fd);
    buf_deinit(&source->room);
}

err_t source_read(
    struct source *source, uint64_t begin, size_t size, struct bytes *ret_piece, struct errmsg *msg)
{
    ASSERT(begin <= source->size && size <= source->size - begin);
    if (source->fd < 0) {
        *ret_piece = size == 0 ? (struct bytes){0} : bytes_of(source->data.data + begin, size);
        return ERR_OK;
    }
    buf_clear(&source->room);
    uint8_t *to = buf_extend(&source->room, size);
    TRY(file_read_at(source->fd, source->path, to, size, begin, msg));
    *ret_piece = bytes_of(to, size);
    return ERR_OK;
}

err_t source_hash(struct source *source, struct hash128 *ret_hash, struct errmsg *msg)
{
    struct hash128_stream *stream = hash128_start();
    err_t err = ERR_OK;
    for (uint64_t at = 0; at < source->size && err == ERR_OK;) {
        size_t size = (size_t)MIN_OF(source->size - at, HASH_CHUNK);
        struct bytes piece = {0};
        err = source_read(source, at, size, &piece, msg);
        hash128_feed(stream, piece);
        at += size;
    }
    struct hash128 hash = hash128_finish(stream);
    if (err == ERR_OK) {
        *ret_hash = hash;
    }
    return err;
}
