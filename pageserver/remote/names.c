#include "pageserver/remote/names.h"

#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/parse.h"
#include "common/base/str.h"

#define GENERATION_DIGITS 8
#define SEQUENCE_DIGITS   16
#define HASH_DIGITS       16
#define SUFFIX            ".sst"

static struct remote_name tenant_name(struct tenant_id tenant, const char *rest)
{
    struct remote_name name;
    int size =
        snprintf(name.text, sizeof(name.text), "tenants/%s/%s", tenant_id_text(tenant).text, rest);
    ASSERT(size > 0 && (size_t)size < sizeof(name.text));
    return name;
}

struct remote_name remote_tenant_prefix(struct tenant_id tenant)
{
    return tenant_name(tenant, "");
}

struct remote_name remote_index_prefix(struct tenant_id tenant)
{
    return tenant_name(tenant, "index/");
}

struct remote_name remote_data_prefix(struct tenant_id tenant)
{
    return tenant_name(tenant, "data/");
}

struct remote_name remote_index_name(
    struct tenant_id tenant, generation_t generation, uint64_t sequence)
{
    char rest[REMOTE_NAME_SIZE];
    (void)snprintf(rest, sizeof(rest), "index/%08" PRIx32 "-%016" PRIx64, generation, sequence);
    return tenant_name(tenant, rest);
}

struct remote_name remote_data_name(
    struct tenant_id tenant, generation_t generation, const char *file, struct hash128 hash)
{
    char rest[REMOTE_NAME_SIZE], digits[2 * sizeof(hash.bytes) + 1];
    ASSERT(strlen(file) < REMOTE_FILE_SIZE);
    format_hex(hash.bytes, sizeof(hash.bytes), digits);
    (void)snprintf(
        rest, sizeof(rest), "data/%08" PRIx32 "/%s-%.*s", generation, file, HASH_DIGITS, digits);
    return tenant_name(tenant, rest);
}

/* Exactly `digits` lower-case hex digits at *text; moves it behind them. */
static bool take_hex(const char **text, unsigned digits, uint64_t *ret_value)
{
    uint64_t value = 0;
    const char *at = *text;
    for (unsigned i = 0; i < digits; i++, at++) {
        bool decimal = *at >= '0' && *at <= '9';
        if (!decimal && !(*at >= 'a' && *at <= 'f')) {
            return false;
        }
        value = value << 4 | (uint64_t)(decimal ? *at - '0' : *at - 'a' + 10);
    }
    *text = at;
    *ret_value = value;
    return true;
}

static bool take_text(const char **text, const char *wanted)
{
    bool found = str_starts_with(*text, wanted);
    *text += found ? strlen(wanted) : 0;
    return found;
}

err_t remote_index_name_parse(
    const char *name,
    struct tenant_id tenant,
    generation_t *ret_generation,
    uint64_t *ret_sequence,
    struct errmsg *msg)
{
    const char *at = name;
    uint64_t generation = 0;
    uint64_t sequence = 0;
    if (!take_text(&at, remote_index_prefix(tenant).text) ||
        !take_hex(&at, GENERATION_DIGITS, &generation) || !take_text(&at, "-") ||
        !take_hex(&at, SEQUENCE_DIGITS, &sequence) || *at != '\0') {
        return err_set(msg, ERR_INVALID, "object %s is no index of this tenant", name);
    }
    *ret_generation = (generation_t)generation;
    *ret_sequence = sequence;
    return ERR_OK;
}

static size_t digits_of(const char *text)
{
    return strspn(text, "0123456789");
}

err_t remote_data_name_parse(
    const char *name, struct tenant_id tenant, generation_t *ret_generation, struct errmsg *msg)
{
    const char *at = name;
    uint64_t generation = 0;
    uint64_t hash = 0;
    bool good = take_text(&at, remote_data_prefix(tenant).text) &&
                take_hex(&at, GENERATION_DIGITS, &generation) && take_text(&at, "/");
    size_t digits = good ? digits_of(at) : 0;
    at += digits;
    if (digits == 0 || !take_text(&at, SUFFIX "-") || !take_hex(&at, HASH_DIGITS, &hash) ||
        *at != '\0') {
        return err_set(msg, ERR_INVALID, "object %s is no data of this tenant", name);
    }
    *ret_generation = (generation_t)generation;
    return ERR_OK;
}

bool remote_is_data_file(const char *name)
{
    size_t digits = digits_of(name);
    return digits > 0 && strlen(name) < REMOTE_FILE_SIZE && strcmp(name + digits, SUFFIX) == 0;
}
