/*
 * fuzz.h - one fuzz target: called with bytes that anybody may have chosen. It may do anything but
 * crash, leak or break an ASSERT. libFuzzer's name for it is kept.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
