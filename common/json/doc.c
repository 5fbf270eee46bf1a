/*
 * doc.c - a struct doc is a json_t under another name, so that jansson stays in this file.
 */
#include "common/json/doc.h"

#include <jansson.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

/* jansson's own limit on nesting is 2048 levels; ours keeps printing and freeing shallow too. */
#define DEPTH_MAX 64

__attribute__((constructor)) static void use_our_memory(void)
{
    json_set_alloc_funcs(mem_alloc, mem_free);
}

static json_t *of(const struct doc *doc)
{
    return (json_t *)doc;
}

static struct doc *from(json_t *json)
{
    ASSERT(json != NULL); /* our memory never runs out */
    return (struct doc *)json;
}

/* Nesting outside of strings, counted before jansson recurses into it. */
static bool is_too_deep(struct bytes text)
{
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > DEPTH_MAX) {
                return true;
            }
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

err_t doc_parse(struct bytes text, struct doc **ret_doc, struct errmsg *msg)
{
    if (is_too_deep(text)) {
        return err_set(msg, ERR_INVALID, "JSON is nested deeper than %d levels", DEPTH_MAX);
    }
    json_error_t error;
    json_t *json = json_loadb(
        text.size == 0 ? "" : (const char *)text.data, text.size,
        JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (json == NULL) {
        return err_set(
            msg, ERR_INVALID, "not JSON: line %d, column %d: %s", error.line, error.column,
            error.text);
    }
    *ret_doc = from(json);
    return ERR_OK;
}

static int append_to_buf(const char *text, size_t size, void *context)
{
    buf_append(context, text, size);
    return 0;
}

void doc_print(const struct doc *doc, bool pretty, struct buf *to)
{
    size_t flags = JSON_ENCODE_ANY | (pretty ? JSON_INDENT(2) : JSON_COMPACT);
    int rc = json_dump_callback(of(doc), append_to_buf, to, flags);
    ASSERT(rc == 0);
}

struct doc *doc_ref(struct doc *doc)
{
    return from(json_incref(of(doc)));
}

void doc_unref(struct doc *doc)
{
    json_decref(of(doc)); /* NULL is fine there too */
}

struct doc *doc_copy(const struct doc *doc)
{
    return from(json_deep_copy(of(doc)));
}

bool doc_equal(const struct doc *a, const struct doc *b)
{
    return json_equal(of(a), of(b)) != 0;
}

struct doc *doc_object(void)
{
    return from(json_object());
}

struct doc *doc_array(void)
{
    return from(json_array());
}

struct doc *doc_str(const char *value)
{
    if (value == NULL) {
        return doc_null();
    }
    json_t *json = json_string(value);
    if (json == NULL) { /* not UTF-8: keep what is ASCII */
        char *safe = mem_strdup(value);
        for (char *next = safe; *next != '\0'; next++) {
            if ((uint8_t)*next >= 0x80) {
                *next = '?';
            }
        }
        json = json_string(safe);
        mem_free(safe);
    }
    return from(json);
}

struct doc *doc_int(int64_t value)
{
    return from(json_integer(value));
}

struct doc *doc_real(double value)
{
    json_t *json = json_real(value);
    return json != NULL ? from(json) : doc_null(); /* JSON has no infinity and no NaN */
}

struct doc *doc_bool(bool value)
{
    return from(json_boolean(value));
}

struct doc *doc_null(void)
{
    return from(json_null());
}

struct doc *doc_set(struct doc *object, const char *key, struct doc *value)
{
    ASSERT(json_is_object(of(object)));
    int rc = json_object_set_new(of(object), key, of(value));
    ASSERT(rc == 0); /* keys are ours, so they are UTF-8 */
    return object;
}

struct doc *doc_set_str(struct doc *object, const char *key, const char *value)
{
    return doc_set(object, key, doc_str(value));
}

struct doc *doc_set_int(struct doc *object, const char *key, int64_t value)
{
    return doc_set(object, key, doc_int(value));
}

struct doc *doc_set_bool(struct doc *object, const char *key, bool value)
{
    return doc_set(object, key, doc_bool(value));
}

struct doc *doc_set_lsn(struct doc *object, const char *key, lsn_t lsn)
{
    char text[LSN_TEXT_SIZE];
    (void)snprintf(text, sizeof(text), LSN_FMT, LSN_ARGS(lsn));
    return doc_set_str(object, key, text);
}

struct doc *doc_set_time(struct doc *object, const char *key, wall_us_t time)
{
    return doc_set_str(object, key, time_text(time).text);
}

struct doc *doc_set_tenant(struct doc *object, const char *key, struct tenant_id id)
{
    return doc_set_str(object, key, tenant_id_text(id).text);
}

struct doc *doc_set_timeline(struct doc *object, const char *key, struct timeline_id id)
{
    return doc_set_str(object, key, timeline_id_text(id).text);
}

void doc_remove(struct doc *object, const char *key)
{
    (void)json_object_del(of(object), key);
}

struct doc *doc_push(struct doc *array, struct doc *value)
{
    int rc = json_array_append_new(of(array), of(value));
    ASSERT(rc == 0);
    return array;
}

bool doc_is_object(const struct doc *doc)
{
    return json_is_object(of(doc));
}

bool doc_is_array(const struct doc *doc)
{
    return json_is_array(of(doc));
}

bool doc_is_str(const struct doc *doc)
{
    return json_is_string(of(doc));
}

bool doc_is_null(const struct doc *doc)
{
    return json_is_null(of(doc));
}

size_t doc_count(const struct doc *array)
{
    return json_array_size(of(array));
}

struct doc *doc_at(const struct doc *array, size_t index)
{
    return (struct doc *)json_array_get(of(array), index);
}

struct doc *doc_get(const struct doc *object, const char *key)
{
    return (struct doc *)json_object_get(of(object), key);
}

const char *doc_value_str(const struct doc *doc)
{
    return json_string_value(of(doc));
}

void *doc_iter_first(const struct doc *object)
{
    return json_object_iter(of(object));
}

void *doc_iter_next(const struct doc *object, void *iter)
{
    return json_object_iter_next(of(object), iter);
}

const char *doc_iter_key(void *iter)
{
    return json_object_iter_key(iter);
}

struct doc *doc_iter_value(void *iter)
{
    return (struct doc *)json_object_iter_value(iter);
}

/* Getters: `member` finds the value or says what is wrong; absent and null are the same. */

static err_t wrong_type(const char *key, const char *expected, struct errmsg *msg)
{
    return err_set(msg, ERR_INVALID, "%s: expected %s", key, expected);
}

static err_t member(
    const struct doc *object,
    const char *key,
    const char *expected,
    json_t **ret_value,
    struct errmsg *msg)
{
    if (!json_is_object(of(object))) {
        return err_set(msg, ERR_INVALID, "%s: expected inside of an object", key);
    }
    json_t *value = json_object_get(of(object), key);
    if (value == NULL || json_is_null(value)) {
        return err_set(msg, ERR_INVALID, "%s: missing, expected %s", key, expected);
    }
    *ret_value = value;
    return ERR_OK;
}

static bool is_absent(const struct doc *object, const char *key)
{
    const json_t *value = json_object_get(of(object), key);
    return json_is_object(of(object)) && (value == NULL || json_is_null(value));
}

err_t doc_get_str(
    const struct doc *object, const char *key, const char **ret_value, struct errmsg *msg)
{
    json_t *value = NULL;
    TRY(member(object, key, "a string", &value, msg));
    if (!json_is_string(value)) {
        return wrong_type(key, "a string", msg);
    }
    *ret_value = json_string_value(value);
    return ERR_OK;
}

err_t doc_get_u64(
    const struct doc *object, const char *key, uint64_t *ret_value, struct errmsg *msg)
{
    static const char expected[] = "a whole number from 0 on";
    json_t *value = NULL;
    TRY(member(object, key, expected, &value, msg));
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return wrong_type(key, expected, msg);
    }
    *ret_value = (uint64_t)json_integer_value(value);
    return ERR_OK;
}

err_t doc_get_bool(const struct doc *object, const char *key, bool *ret_value, struct errmsg *msg)
{
    json_t *value = NULL;
    TRY(member(object, key, "true or false", &value, msg));
    if (!json_is_boolean(value)) {
        return wrong_type(key, "true or false", msg);
    }
    *ret_value = json_is_true(value);
    return ERR_OK;
}

err_t doc_get_lsn(const struct doc *object, const char *key, lsn_t *ret_value, struct errmsg *msg)
{
    const char *text = NULL;
    TRY(doc_get_str(object, key, &text, msg));
    err_t err = parse_lsn(text, ret_value, msg);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "%s", key);
}

err_t doc_get_object(
    const struct doc *object, const char *key, struct doc **ret_value, struct errmsg *msg)
{
    json_t *value = NULL;
    TRY(member(object, key, "an object", &value, msg));
    if (!json_is_object(value)) {
        return wrong_type(key, "an object", msg);
    }
    *ret_value = from(value);
    return ERR_OK;
}

err_t doc_get_array(
    const struct doc *object, const char *key, struct doc **ret_value, struct errmsg *msg)
{
    json_t *value = NULL;
    TRY(member(object, key, "an array", &value, msg));
    if (!json_is_array(value)) {
        return wrong_type(key, "an array", msg);
    }
    *ret_value = from(value);
    return ERR_OK;
}

err_t doc_opt_str(const struct doc *object, const char *key, const char **value, struct errmsg *msg)
{
    return is_absent(object, key) ? ERR_OK : doc_get_str(object, key, value, msg);
}

err_t doc_opt_u64(const struct doc *object, const char *key, uint64_t *value, struct errmsg *msg)
{
    return is_absent(object, key) ? ERR_OK : doc_get_u64(object, key, value, msg);
}

err_t doc_opt_i64(const struct doc *object, const char *key, int64_t *value, struct errmsg *msg)
{
    json_t *found = NULL;
    if (is_absent(object, key)) {
        return ERR_OK;
    }
    TRY(member(object, key, "an integer", &found, msg));
    if (!json_is_integer(found)) {
        return wrong_type(key, "an integer", msg);
    }
    *value = json_integer_value(found);
    return ERR_OK;
}

err_t doc_opt_real(const struct doc *object, const char *key, double *value, struct errmsg *msg)
{
    json_t *found = NULL;
    if (is_absent(object, key)) {
        return ERR_OK;
    }
    TRY(member(object, key, "a number", &found, msg));
    if (!json_is_number(found)) {
        return wrong_type(key, "a number", msg);
    }
    *value = json_number_value(found);
    return ERR_OK;
}

err_t doc_opt_bool(const struct doc *object, const char *key, bool *value, struct errmsg *msg)
{
    return is_absent(object, key) ? ERR_OK : doc_get_bool(object, key, value, msg);
}

err_t doc_opt_lsn(const struct doc *object, const char *key, lsn_t *value, struct errmsg *msg)
{
    return is_absent(object, key) ? ERR_OK : doc_get_lsn(object, key, value, msg);
}
