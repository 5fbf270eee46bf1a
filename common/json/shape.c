#include "common/json/shape.h"

#include <string.h>

#include "common/base/assert.h"

static size_t take_word(const char **from, const char *ends, char *to, size_t size)
{
    size_t length = strcspn(*from, ends);
    ASSERT(length < size);
    memcpy(to, *from, length);
    to[length] = '\0';
    *from += length;
    return length;
}

bool shape_next(const char **shape, struct shape_field *ret_field)
{
    *ret_field = (struct shape_field){.is_required = false};
    *shape += strspn(*shape, " ");
    if (take_word(shape, ":! ", ret_field->name, sizeof(ret_field->name)) == 0) {
        return false;
    }
    if (**shape == ':') {
        (*shape)++;
        (void)take_word(shape, "! ", ret_field->type, sizeof(ret_field->type));
    }
    if (**shape == '!') {
        (*shape)++;
        ret_field->is_required = true;
    }
    return true;
}

/* By the getters of doc.h, whose messages name the field. */
static err_t check_type(
    const struct shape_field *field, const struct doc *object, struct errmsg *msg)
{
    uint64_t number;
    bool truth;
    const char *text;
    lsn_t lsn;
    struct doc *inner;
    const char *type = field->type;
    if (strcmp(type, "u64") == 0) {
        return doc_get_u64(object, field->name, &number, msg);
    }
    if (strcmp(type, "str") == 0) {
        return doc_get_str(object, field->name, &text, msg);
    }
    if (strcmp(type, "bool") == 0) {
        truth = false;
        return doc_opt_bool(object, field->name, &truth, msg);
    }
    if (strcmp(type, "lsn") == 0) {
        return doc_get_lsn(object, field->name, &lsn, msg);
    }
    if (strcmp(type, "object") == 0) {
        return doc_get_object(object, field->name, &inner, msg);
    }
    ASSERT(strcmp(type, "array") == 0);
    return doc_get_array(object, field->name, &inner, msg);
}

err_t shape_check(const char *shape, const struct doc *object, struct errmsg *msg)
{
    struct shape_field field;
    while (shape_next(&shape, &field)) {
        const struct doc *value = doc_get(object, field.name);
        bool is_there = value != NULL && !doc_is_null(value);
        if (is_there || field.is_required) {
            TRY(check_type(&field, object, msg));
        }
    }
    return ERR_OK;
}
