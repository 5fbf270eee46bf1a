/*
 * redo_damage.c - damage real pairs of page and record, and run redo on them.
 *
 *   redo_damage [--runs N] [--seed N] FILE_OR_FOLDER...
 *
 * The pairs are what `walreplay --pairs DIR` wrote; a run changes a few bytes of a copy and gives
 * it to tests/fuzz/fuzz_redo.c. It crashes or it does not; ASan and UBSan see more.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/pg/page.h"
#include "tests/fuzz/fuzz.h"

#define PAIR_HEADER_SIZE 36

struct pair {
    uint8_t *data;
    size_t size;
};

struct pairs {
    struct pair *items;
    size_t count;
};

static void load_file(struct pairs *pairs, const char *path)
{
    struct stat stat_buf;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &stat_buf) != 0 || stat_buf.st_size <= 0) {
        fatal("redo_damage: cannot read %s", path);
    }
    struct pair pair = {.data = mem_alloc((size_t)stat_buf.st_size)};
    ssize_t got = read(fd, pair.data, (size_t)stat_buf.st_size);
    (void)close(fd);
    pair.size = (size_t)MAX_OF(got, 0);
    pairs->items = mem_realloc(pairs->items, (pairs->count + 1) * sizeof(pair));
    pairs->items[pairs->count++] = pair;
}

static void load(struct pairs *pairs, const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL) {
        load_file(pairs, path);
        return;
    }
    for (struct dirent *item = NULL; (item = readdir(dir)) != NULL;) {
        char name[4096];
        if (item->d_name[0] != '.') {
            (void)snprintf(name, sizeof(name), "%s/%s", path, item->d_name);
            load_file(pairs, name);
        }
    }
    (void)closedir(dir);
}

/*
 * A place where a field is likely: page header, line pointers, special space, anywhere on the page,
 * begin and end of the record (in between stands an image that is only for comparison).
 */
static size_t pick_place(struct prng *prng, size_t size)
{
    size_t page = PAIR_HEADER_SIZE;
    size_t record = PAIR_HEADER_SIZE + PAGE_SIZE;
    switch (prng_below(prng, 8)) {
    case 0: return page + prng_below(prng, PAGE_HEADER_SIZE);
    case 1: return page + PAGE_HEADER_SIZE + prng_below(prng, 400);
    case 2: return page + PAGE_SIZE - 1 - prng_below(prng, 16);
    case 3: return page + prng_below(prng, PAGE_SIZE);
    case 4:
    case 5: return record + prng_below(prng, MIN_OF(size - record, (size_t)300));
    default: return size - 1 - prng_below(prng, MIN_OF(size - record, (size_t)300));
    }
}

static void damage(struct prng *prng, uint8_t *data, size_t size)
{
    static const uint16_t VALUES[] = {0,    1,    2,      23,     24,     0x7F,   0xFF,
                                      291,  292,  408,    409,    2047,   8168,   8191,
                                      8192, 8193, 0x1FFF, 0x7FFF, 0x8000, 0xFFF8, 0xFFFF};
    size_t at = pick_place(prng, size);
    uint16_t value = VALUES[prng_below(prng, ARRAY_LEN(VALUES))];
    switch (prng_below(prng, 5)) {
    case 0: data[at] ^= (uint8_t)(1u << prng_below(prng, 8)); break;
    case 1: data[at] = (uint8_t)prng_below(prng, 256); break;
    case 2: data[at] = (uint8_t)(data[at] + (prng_below(prng, 2) == 0 ? 1 : -1)); break;
    default:
        if (at + sizeof(value) <= size) {
            memcpy(data + at, &value, sizeof(value));
        }
        break;
    }
}

static void run_damaged(struct prng *prng, const struct pair *pair)
{
    size_t size = pair->size;
    uint8_t *data = mem_dup(pair->data, size); /* of its own, so that a read past the end shows */
    for (uint64_t i = prng_below(prng, 6); i-- > 0;) {
        damage(prng, data, size);
    }
    if (prng_below(prng, 8) == 0) {
        data[1] = (uint8_t)prng_below(prng, 8); /* another block reference */
    }
    (void)LLVMFuzzerTestOneInput(data, size);
    mem_free(data);
}

int main(int argc, char **argv)
{
    struct pairs pairs = {.items = NULL, .count = 0};
    uint64_t runs = 100000;
    uint64_t seed = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--runs") == 0 && i + 1 < argc) {
            runs = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else {
            load(&pairs, argv[i]);
        }
    }
    if (pairs.count == 0) {
        fprintf(stderr, "usage: redo_damage [--runs N] [--seed N] FILE_OR_FOLDER...\n");
        return 2;
    }
    struct prng prng;
    prng_init(&prng, seed);
    for (uint64_t run = 0; run < runs; run++) {
        const struct pair *pair = &pairs.items[prng_below(&prng, pairs.count)];
        if (pair->size > PAIR_HEADER_SIZE + PAGE_SIZE) {
            run_damaged(&prng, pair);
        }
    }
    printf("%zu pairs, %" PRIu64 " runs\n", pairs.count, runs);
    for (size_t i = 0; i < pairs.count; i++) {
        mem_free(pairs.items[i].data);
    }
    mem_free(pairs.items);
    return 0;
}
