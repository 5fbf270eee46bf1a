/*
 * mem.h - allocation that never returns NULL: out of memory aborts the process.
 *
 * Therefore everything that a peer can grow must have a limit before it gets here.
 * Threads: [any].
 */
#pragma once

#include "common/base/types.h"

void *mem_alloc(size_t size) __attribute__((malloc, alloc_size(1)));
void *mem_zalloc(size_t size) __attribute__((malloc, alloc_size(1)));
void *mem_realloc(void *pointer, size_t size) __attribute__((alloc_size(2)));
void *mem_dup(const void *data, size_t size) __attribute__((malloc, alloc_size(2)));
char *mem_strdup(const char *text) __attribute__((malloc));
void mem_free(void *pointer); /* NULL is fine */

/* Overflow-checked element counts: MEM_ARRAY(struct item, count). Zeroed. */
void *mem_zalloc_array(size_t count, size_t size) __attribute__((malloc));

#define MEM_NEW(type)          ((type *)mem_zalloc(sizeof(type)))
#define MEM_ARRAY(type, count) ((type *)mem_zalloc_array((count), sizeof(type)))
