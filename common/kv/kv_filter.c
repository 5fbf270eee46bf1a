#include "common/kv/kv_filter.h"

#include "common/kv/kv_private.h"

static const char *name_of_pass(void *state)
{
    (void)state;
    return "kv_filter_pass";
}

static const char *name_of_filter(void *state)
{
    (void)state;
    return "kv_filter";
}

static unsigned char filter_entry(
    void *state,
    int level,
    const char *key,
    size_t key_size,
    const char *value,
    size_t value_size,
    char **ret_value,
    size_t *ret_value_size,
    unsigned char *ret_changed)
{
    (void)level;
    (void)ret_value;
    (void)ret_value_size;
    (void)ret_changed;
    struct kv_filter_pass *pass = state;
    return pass->drops(pass, bytes_of(key, key_size), bytes_of(value, value_size)) ? 1 : 0;
}

static void end_pass(void *state)
{
    struct kv_filter_pass *pass = state;
    pass->end(pass);
}

static rocksdb_compactionfilter_t *begin_pass(
    void *state, rocksdb_compactionfiltercontext_t *context)
{
    (void)context;
    struct kv_filter *filter = state;
    struct kv_filter_pass *pass = filter->begin(filter);
    return pass == NULL
               ? NULL
               : rocksdb_compactionfilter_create(pass, end_pass, filter_entry, name_of_pass);
}

static void end_filter(void *state)
{
    (void)state; /* it is the caller's, and outlives the store */
}

rocksdb_compactionfilterfactory_t *kv_filter_factory(struct kv_filter *filter)
{
    return rocksdb_compactionfilterfactory_create(filter, end_filter, begin_pass, name_of_filter);
}
