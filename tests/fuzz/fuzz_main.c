/*
 * fuzz_main.c - a fuzz target without libFuzzer: seeded random inputs, or files and damaged copies.
 *
 *   fuzz_wal_record [--rounds=N] [--seed=N] [FILE|DIR...]
 *
 * Without files: N random inputs. With files (all of a DIR): each as it is, and N copies of it in
 * which a few bytes are changed or the end is cut off.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/base/str.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_SIZE_MAX 65536

/* In memory of just its size, so that a read behind the end is seen. */
static void run(const uint8_t *input, size_t size)
{
    uint8_t *exact = mem_dup(input, size);
    LLVMFuzzerTestOneInput(exact, size);
    mem_free(exact);
}

static void run_damaged(struct prng *prng, const uint8_t *input, size_t size)
{
    uint8_t *damaged = mem_dup(input, size);
    uint64_t changes = prng_below(prng, 5);
    for (uint64_t i = 0; i < changes && size > 0; i++) {
        size_t at = (size_t)prng_below(prng, size);
        uint64_t how = prng_below(prng, 3);
        unsigned value = how == 0 ? (unsigned)prng_below(prng, 256)
                                  : damaged[at] + (how == 1 ? 1u : 255u); /* one more, one less */
        damaged[at] = (uint8_t)value;
    }
    run(damaged, changes == 0 && size > 0 ? (size_t)prng_below(prng, size) : size);
    mem_free(damaged);
}

static int run_file(const char *path, struct prng *prng, uint64_t rounds)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return 1;
    }
    uint8_t *input = mem_alloc(INPUT_SIZE_MAX);
    size_t size = fread(input, 1, INPUT_SIZE_MAX, file);
    fclose(file);
    run(input, size);
    for (uint64_t i = 0; i < rounds; i++) {
        run_damaged(prng, input, size);
    }
    mem_free(input);
    return 0;
}

static int run_path(const char *path, struct prng *prng, uint64_t rounds)
{
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    if (count < 0) {
        return run_file(path, prng, rounds);
    }
    int failed = 0;
    for (int i = 0; i < count; i++) {
        char name[PATH_SIZE];
        bool fits =
            str_format(name, sizeof(name), NULL, "%s/%s", path, entries[i]->d_name) == ERR_OK;
        if (entries[i]->d_name[0] != '.' && fits) {
            failed |= run_file(name, prng, rounds);
        }
        free(entries[i]);
    }
    free(entries);
    return failed;
}

/* Mostly small numbers: lengths and counts that are nearly right find more than noise. */
static void fill(struct prng *prng, uint8_t *to, size_t size)
{
    uint64_t style = prng_below(prng, 3);
    for (size_t i = 0; i < size; i++) {
        bool is_small = style == 1 || (style == 2 && prng_below(prng, 4) != 0);
        to[i] = (uint8_t)prng_below(prng, is_small ? 4 : 256);
    }
}

static void run_random(struct prng *prng, uint64_t rounds)
{
    uint8_t *input = mem_alloc(4096);
    for (uint64_t round = 0; round < rounds; round++) {
        size_t size = (size_t)prng_below(prng, round % 16 == 0 ? 4096 : 200);
        fill(prng, input, size);
        run(input, size);
    }
    mem_free(input);
}

int main(int argc, char **argv)
{
    uint64_t rounds = 0, seed = 1;
    int failed = 0, paths = 0;
    struct prng prng;
    prng_init(&prng, seed);
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--rounds=", 9) == 0) {
            rounds = strtoull(argv[i] + 9, NULL, 10);
        } else if (strncmp(argv[i], "--seed=", 7) == 0) {
            seed = strtoull(argv[i] + 7, NULL, 10);
            prng_init(&prng, seed);
        } else {
            failed |= run_path(argv[i], &prng, rounds > 0 ? rounds : 300);
            paths++;
        }
    }
    if (paths == 0) {
        run_random(&prng, rounds > 0 ? rounds : 20000);
    }
    return failed;
}
