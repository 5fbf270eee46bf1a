/*
 * fuzz.h - one fuzz target: called with bytes that anybody may have chosen. It may do anything but
 * crash, leak or break an ASSERT. libFuzzer's names are kept; fuzz_main.c calls the same functions
 * where there is no libFuzzer.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* NOLINTBEGIN(readability-identifier-naming) */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * A target that knows the structure of its input changes it here, so that lengths and checksums
 * stay right and the change gets deep. In place; `size_max` is the room; returns the new size.
 * Without one the input is changed as plain bytes.
 */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed);

/* Two inputs into one. Returns the size; 0: nothing came of it. */
size_t LLVMFuzzerCustomCrossOver(
    const uint8_t *data1,
    size_t size1,
    const uint8_t *data2,
    size_t size2,
    uint8_t *out,
    size_t out_size_max,
    unsigned seed);

/* Changes plain bytes in place; libFuzzer's knows which comparisons failed. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_max);

/* NOLINTEND(readability-identifier-naming) */
