/*
 * fuzz_main.c - a fuzz target without libFuzzer: seeded random inputs, or files and changed copies.
 *
 *   fuzz_wal_record [--rounds=N] [--seed=N] [FILE|DIR...]
 *
 * Without files: N random inputs. With files (all of a DIR): each as it is, and N changed copies of
 * it. The target's own mutator makes them, where it has one; now and then a few bytes change
 * without regard to what they mean.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/bytes.h"
#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/base/str.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_SIZE_MAX (512 * KIB)

/* What is being tried, for on_crash(). */
static struct bytes running;

/* A failed ASSERT or a wild pointer: the input is what is needed to see it again. */
static void on_crash(int number)
{
    int fd = open("fuzz-crash", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    ssize_t written = fd >= 0 ? write(fd, running.data, running.size) : -1;
    (void)written; /* it crashed, and does so now */
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

/* In memory of just its size, so that a read behind the end is seen. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *exact = mem_dup(data, size);
    running = bytes_of(data, size);
    LLVMFuzzerTestOneInput(exact, size);
    mem_free(exact);
}

/* A target has one, or it has not. */
#pragma weak LLVMFuzzerCustomMutator
#pragma weak LLVMFuzzerCustomCrossOver

static struct prng mutate_prng; /* of LLVMFuzzerMutate, which gets no seed */

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_max)
{
    struct prng *prng = &mutate_prng;
    uint64_t changes = prng_below(prng, 5);
    for (uint64_t i = 0; i < changes && size > 0; i++) {
        size_t at = (size_t)prng_below(prng, size);
        uint64_t how = prng_below(prng, 3);
        unsigned value = how == 0 ? (unsigned)prng_below(prng, 256)
                                  : data[at] + (how == 1 ? 1u : 255u); /* one more, one less */
        data[at] = (uint8_t)value;
    }
    if (changes > 0) {
        return size;
    }
    if (size > 0 && prng_below(prng, 2) == 0) {
        return (size_t)prng_below(prng, size);
    }
    size_t longer = MIN_OF(size + 1 + (size_t)prng_below(prng, 16), size_max);
    for (; size < longer; size++) {
        data[size] = (uint8_t)prng_below(prng, 4);
    }
    return size;
}

/* The input, a changed copy, and what the file before held: the other half of a cross-over. */
static uint8_t input[INPUT_SIZE_MAX], changed[INPUT_SIZE_MAX], other[INPUT_SIZE_MAX];
static size_t other_size;
static size_t file_count;

static void run_changed(struct prng *prng, size_t size)
{
    memcpy(changed, input, size);
    mutate_prng = *prng;
    if (LLVMFuzzerCustomCrossOver != NULL && other_size > 0 && prng_below(prng, 8) == 0) {
        size_t made = LLVMFuzzerCustomCrossOver(
            input, size, other, other_size, changed, INPUT_SIZE_MAX, (unsigned)prng_next(prng));
        size = made > 0 ? made : size;
    }
    if (LLVMFuzzerCustomMutator != NULL && prng_below(prng, 8) != 0) {
        uint64_t times = 1 + prng_below(prng, 3);
        for (uint64_t i = 0; i < times; i++) {
            unsigned seed = (unsigned)prng_next(prng);
            size = LLVMFuzzerCustomMutator(changed, size, INPUT_SIZE_MAX, seed);
        }
    } else {
        size = LLVMFuzzerMutate(changed, size, INPUT_SIZE_MAX);
    }
    run(changed, size);
}

static int run_file(const char *path, struct prng *prng, uint64_t rounds)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return 1;
    }
    size_t size = fread(input, 1, INPUT_SIZE_MAX, file);
    fclose(file);
    file_count++;
    run(input, size);
    for (uint64_t i = 0; i < rounds; i++) {
        run_changed(prng, size);
    }
    memcpy(other, input, size);
    other_size = size;
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
    for (uint64_t round = 0; round < rounds; round++) {
        size_t size = (size_t)prng_below(prng, round % 16 == 0 ? 4096 : 200);
        fill(prng, input, size);
        run(input, size);
    }
}

int main(int argc, char **argv)
{
    uint64_t rounds = UINT64_MAX, seed = 1;
    int failed = 0, paths = 0;
    struct prng prng;
    (void)signal(SIGABRT, on_crash);
    (void)signal(SIGSEGV, on_crash);
    prng_init(&prng, seed);
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--rounds=", 9) == 0) {
            rounds = strtoull(argv[i] + 9, NULL, 10);
        } else if (strncmp(argv[i], "--seed=", 7) == 0) {
            seed = strtoull(argv[i] + 7, NULL, 10);
            prng_init(&prng, seed);
        } else {
            failed |= run_path(argv[i], &prng, rounds != UINT64_MAX ? rounds : 300);
            paths++;
        }
    }
    if (paths > 0 && file_count == 0) {
        fprintf(stderr, "no file in there\n");
        failed = 1;
    }
    if (paths == 0) {
        run_random(&prng, rounds != UINT64_MAX ? rounds : 20000);
    }
    return failed;
}
