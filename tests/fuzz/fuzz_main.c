/*
 * fuzz_main.c - a fuzz target without libFuzzer: run the files given, or seeded random inputs.
 *
 *   fuzz_wal_record [--rounds=N] [--seed=N] [FILE...]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/mem.h"
#include "common/base/prng.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_SIZE_MAX 65536

static int run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return 1;
    }
    uint8_t *input = mem_alloc(INPUT_SIZE_MAX);
    size_t size = fread(input, 1, INPUT_SIZE_MAX, file);
    fclose(file);
    uint8_t *exact = mem_dup(input, size); /* so that a read behind the end is seen */
    LLVMFuzzerTestOneInput(exact, size);
    mem_free(exact);
    mem_free(input);
    return 0;
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

static void run_random(uint64_t seed, uint64_t rounds)
{
    struct prng prng;
    prng_init(&prng, seed);
    for (uint64_t round = 0; round < rounds; round++) {
        size_t size = (size_t)prng_below(&prng, round % 16 == 0 ? 4096 : 200);
        uint8_t *input = mem_alloc(size + 1);
        fill(&prng, input, size);
        uint8_t *exact = mem_dup(input, size);
        LLVMFuzzerTestOneInput(exact, size);
        mem_free(exact);
        mem_free(input);
    }
}

int main(int argc, char **argv)
{
    uint64_t rounds = 50000, seed = 1;
    int failed = 0, files = 0;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--rounds=", 9) == 0) {
            rounds = strtoull(argv[i] + 9, NULL, 10);
        } else if (strncmp(argv[i], "--seed=", 7) == 0) {
            seed = strtoull(argv[i] + 7, NULL, 10);
        } else {
            failed |= run_file(argv[i]);
            files++;
        }
    }
    if (files == 0) {
        run_random(seed, rounds);
    }
    return failed;
}
