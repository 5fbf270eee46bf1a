/*
 * pack_pairs.c - what `walreplay --pairs` wrote, as small inputs for fuzz_redo.
 *
 *   pack_pairs SIZE_MAX TO_DIR FILE...
 *
 * Zeros of the page become runs, images that are only there for checking go. A file that is still
 * larger than SIZE_MAX is left out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/str.h"
#include "tests/fuzz/mutate_record.h"
#include "tests/fuzz/redo_pair.h"

/* The library of mutators wants one; nothing is changed here. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_max)
{
    (void)data;
    (void)size_max;
    return size;
}

static void read_file(const char *path, struct buf *to)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fatal("open %s: %m", path);
    }
    uint8_t part[4096];
    for (size_t got; (got = fread(part, 1, sizeof(part), file)) > 0;) {
        buf_append(to, part, got);
    }
    fclose(file);
}

static void write_file(const char *path, struct bytes bytes)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(bytes.data, bytes.size, 1, file) != 1 || fclose(file) != 0) {
        fatal("write %s: %m", path);
    }
}

static bool pack(struct bytes input, struct buf *to)
{
    struct redo_pair pair;
    struct record_parts parts;
    struct buf record = {.data = NULL};
    if (!redo_pair_read(input, &pair)) {
        return false;
    }
    bool good = record_parts_parse(pair.record, &parts);
    if (good) {
        record_parts_drop_check_images(&parts);
        record_parts_write(&parts, &record);
        pair.record = buf_view(&record);
        redo_pair_write(&pair, to);
    }
    record_parts_deinit(&parts);
    buf_deinit(&record);
    return good;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: pack_pairs SIZE_MAX TO_DIR FILE...\n");
        return 2;
    }
    size_t size_max = strtoul(argv[1], NULL, 10);
    for (int i = 3; i < argc; i++) {
        struct buf input = {.data = NULL}, packed = {.data = NULL};
        const char *slash = strrchr(argv[i], '/');
        char path[PATH_SIZE];
        read_file(argv[i], &input);
        bool good = pack(buf_view(&input), &packed) && packed.size <= size_max;
        if (good && str_format(
                        path, sizeof(path), NULL, "%s/%s", argv[2],
                        slash != NULL ? slash + 1 : argv[i]) == ERR_OK) {
            write_file(path, buf_view(&packed));
        }
        buf_deinit(&input);
        buf_deinit(&packed);
    }
    return 0;
}
