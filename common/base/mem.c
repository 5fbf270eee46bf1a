#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"

static void *checked(void *pointer, size_t size)
{
    if (pointer == NULL) {
        fatal("out of memory: %zu bytes", size);
    }
    return pointer;
}

void *mem_alloc(size_t size)
{
    return checked(malloc(size > 0 ? size : 1), size);
}

void *mem_zalloc(size_t size)
{
    return checked(calloc(1, size > 0 ? size : 1), size);
}

void *mem_zalloc_array(size_t count, size_t size)
{
    return checked(calloc(count > 0 ? count : 1, size), count);
}

void *mem_realloc(void *pointer, size_t size)
{
    return checked(realloc(pointer, size > 0 ? size : 1), size);
}

void *mem_dup(const void *data, size_t size)
{
    void *copy = mem_alloc(size);
    if (size > 0) {
        memcpy(copy, data, size);
    }
    return copy;
}

char *mem_strdup(const char *text)
{
    return mem_dup(text, strlen(text) + 1);
}

void mem_free(void *pointer)
{
    free(pointer);
}
