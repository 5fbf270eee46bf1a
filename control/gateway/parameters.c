#include "control/gateway/parameters.h"

#include <strings.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

#define VALUE_SIZE_MAX 1000

static const char *const names[PARAMETER_COUNT] = {
#define PARAMETER_NAME(name) #name,
    PARAMETERS(PARAMETER_NAME)
#undef PARAMETER_NAME
};

void parameters_deinit(struct parameters *parameters)
{
    for (size_t i = 0; i < PARAMETER_COUNT; i++) {
        mem_free(parameters->values[i]);
        parameters->values[i] = NULL;
    }
}

const char *parameter_name(enum parameter parameter)
{
    return names[parameter];
}

enum parameter parameter_find(const char *name)
{
    size_t i = 0;
    while (i < PARAMETER_COUNT && strcasecmp(names[i], name) != 0) {
        i++;
    }
    return (enum parameter)i;
}

void parameters_set(struct parameters *parameters, enum parameter parameter, const char *value)
{
    ASSERT(parameter < PARAMETER_COUNT);
    char *copy = mem_strdup(value); /* `value` may be the one that is replaced */
    mem_free(parameters->values[parameter]);
    parameters->values[parameter] = copy;
}

void parameters_complete(struct parameters *parameters, const struct parameters *defaults)
{
    for (size_t i = 0; i < PARAMETER_COUNT; i++) {
        if (parameters->values[i] == NULL && defaults->values[i] != NULL) {
            parameters->values[i] = mem_strdup(defaults->values[i]);
        }
    }
}

/* As E'..', which means the same under both values of standard_conforming_strings. */
static void put_quoted(struct buf *sql, const char *value)
{
    buf_append(sql, "E'", 2);
    for (const char *c = value; *c != '\0'; c++) {
        if (*c == '\'' || *c == '\\') {
            buf_append(sql, c, 1);
        }
        buf_append(sql, c, 1);
    }
    buf_append(sql, "'", 1);
}

void parameters_put_changes(
    const struct parameters *client, const struct parameters *server, struct buf *sql)
{
    for (size_t i = 0; i < PARAMETER_COUNT; i++) {
        const char *wanted = client->values[i];
        const char *is = server->values[i];
        if (wanted == NULL || is == NULL || strcmp(wanted, is) == 0) {
            continue;
        }
        if (i == PARAMETER_search_path) { /* a list: SET would take it for one name */
            buf_printf(sql, "SELECT pg_catalog.set_config('%s',", names[i]);
            put_quoted(sql, wanted);
            buf_printf(sql, ",false);");
        } else {
            buf_printf(sql, "SET %s TO ", names[i]);
            put_quoted(sql, wanted);
            buf_printf(sql, ";");
        }
    }
}

void parameters_put_key(const struct parameters *parameters, struct buf *key)
{
    for (size_t i = 0; i < PARAMETER_COUNT; i++) {
        bool matters =
            i != PARAMETER_application_name && i != PARAMETER_default_transaction_read_only;
        const char *value = parameters->values[i];
        if (matters && value != NULL) {
            buf_append(key, value, strlen(value));
        }
        *buf_extend(key, 1) = 0;
    }
}

bool parameter_value_is_sane(const char *value)
{
    size_t size = 0;
    while (size <= VALUE_SIZE_MAX && value[size] >= ' ' && value[size] <= '~') {
        size++;
    }
    return value[size] == '\0' && size <= VALUE_SIZE_MAX;
}
