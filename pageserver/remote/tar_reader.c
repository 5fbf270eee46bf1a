#include "pageserver/remote/tar_reader.h"

#define BLOCK ((size_t)512)

enum {
    AT_NAME = 0,
    AT_SIZE = 124,
    AT_CHECKSUM = 148,
    AT_TYPE = 156,
    AT_MAGIC = 257,
    AT_PREFIX = 345
};
enum { NAME_LENGTH = 100, SIZE_LENGTH = 12, CHECKSUM_LENGTH = 8, PREFIX_LENGTH = 155 };

/* Octal digits, then a space or a NUL; false for anything else (GNU's binary sizes as well). */
static bool parse_octal(const uint8_t *from, size_t length, uint64_t *ret_value)
{
    uint64_t value = 0;
    size_t i = 0;
    while (i < length && from[i] == ' ') {
        i++;
    }
    size_t first = i;
    for (; i < length && from[i] >= '0' && from[i] <= '7'; i++) {
        value = value * 8 + (uint64_t)(from[i] - '0');
    }
    *ret_value = value;
    return i > first && (i == length || from[i] == ' ' || from[i] == '\0');
}

static bool checksum_matches(const uint8_t *header)
{
    uint64_t wanted, sum = 0;
    for (size_t i = 0; i < BLOCK; i++) {
        bool in_field = i >= AT_CHECKSUM && i < AT_CHECKSUM + CHECKSUM_LENGTH;
        sum += in_field ? ' ' : header[i];
    }
    return parse_octal(header + AT_CHECKSUM, CHECKSUM_LENGTH, &wanted) && wanted == sum;
}

static size_t text_length(const uint8_t *from, size_t length_max)
{
    const uint8_t *end = memchr(from, '\0', length_max);
    return end == NULL ? length_max : (size_t)(end - from);
}

static void copy_name(const uint8_t *header, char to[TAR_NAME_SIZE])
{
    size_t at = 0;
    if (memcmp(header + AT_MAGIC, "ustar\0", 6) == 0 && header[AT_PREFIX] != '\0') {
        at = text_length(header + AT_PREFIX, PREFIX_LENGTH);
        memcpy(to, header + AT_PREFIX, at);
        to[at++] = '/';
    }
    size_t length = text_length(header + AT_NAME, NAME_LENGTH);
    memcpy(to + at, header + AT_NAME, length);
    to[at + length] = '\0';
    while (to[0] == '.' && to[1] == '/') {
        memmove(to, to + 2, strlen(to + 2) + 1);
    }
}

static bool is_zero(const uint8_t *block)
{
    for (size_t i = 0; i < BLOCK; i++) {
        if (block[i] != 0) {
            return false;
        }
    }
    return true;
}

err_t tar_reader_next(struct tar_reader *reader, struct tar_member *ret_member, struct errmsg *msg)
{
    for (;;) {
        if (reader->left.size < BLOCK) {
            return err_set(msg, ERR_CORRUPT, "the archive was cut short");
        }
        const uint8_t *header = reader->left.data;
        if (is_zero(header)) {
            return ERR_NOT_FOUND;
        }
        uint64_t size;
        if (!checksum_matches(header) || !parse_octal(header + AT_SIZE, SIZE_LENGTH, &size)) {
            return err_set(msg, ERR_CORRUPT, "the archive has a malformed header");
        }
        size_t room = reader->left.size - BLOCK;
        if (size > room || (size + BLOCK - 1) / BLOCK * BLOCK > room) {
            return err_set(msg, ERR_CORRUPT, "the archive was cut short inside a member");
        }
        size_t taken = BLOCK + (size_t)((size + BLOCK - 1) / BLOCK * BLOCK);
        char type = (char)header[AT_TYPE];
        reader->left = bytes_of(reader->left.data + taken, reader->left.size - taken);
        if (type == 'x' || type == 'g') {
            continue; /* pax attributes: nothing that we need */
        }
        if (type == 'L' || type == 'K') {
            return err_set(msg, ERR_UNSUPPORTED, "the archive has a name of more than 100 bytes");
        }
        copy_name(header, ret_member->name);
        ret_member->is_file = type == '0' || type == '\0';
        ret_member->data = bytes_of(header + BLOCK, (size_t)size);
        return ERR_OK;
    }
}
