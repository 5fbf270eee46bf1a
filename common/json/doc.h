/*
 * doc.h - JSON values (jansson behind an opaque type). Strict: UTF-8, no duplicate keys, depth and
 * size bounded by the parser; integers are int64.
 *
 * Builders abort on out of memory like all allocation here. Setters take over the value. Getters
 * name the key in their error: "body.branch.parent_lsn: expected a string".
 * Threads: a value belongs to one thread at a time.
 */
#pragma once

#include "common/base/bytes.h"
#include "common/base/id.h"

struct doc;

NODISCARD err_t doc_parse(struct bytes text, struct doc **ret_doc, struct errmsg *msg);
void doc_print(const struct doc *doc, bool pretty, struct buf *to);
struct doc *doc_ref(struct doc *doc);
void doc_unref(struct doc *doc); /* NULL is fine */
struct doc *doc_copy(const struct doc *doc);
bool doc_equal(const struct doc *a, const struct doc *b); /* the order of members does not count */

struct doc *doc_object(void);
struct doc *doc_array(void);
struct doc *doc_str(const char *value); /* NULL gives null; invalid UTF-8 is replaced */
struct doc *doc_int(int64_t value);
struct doc *doc_real(double value);
struct doc *doc_bool(bool value);
struct doc *doc_null(void);

/* All return `object`, so that calls chain. */
struct doc *doc_set(struct doc *object, const char *key, struct doc *value);
struct doc *doc_set_str(struct doc *object, const char *key, const char *value);
struct doc *doc_set_int(struct doc *object, const char *key, int64_t value);
struct doc *doc_set_bool(struct doc *object, const char *key, bool value);
struct doc *doc_set_lsn(struct doc *object, const char *key, lsn_t lsn);       /* "0/16B3748" */
struct doc *doc_set_time(struct doc *object, const char *key, wall_us_t time); /* RFC 3339 */
struct doc *doc_set_tenant(struct doc *object, const char *key, struct tenant_id id);
struct doc *doc_set_timeline(struct doc *object, const char *key, struct timeline_id id);
void doc_remove(struct doc *object, const char *key);
struct doc *doc_push(struct doc *array, struct doc *value); /* returns `array` */

bool doc_is_object(const struct doc *doc);
bool doc_is_array(const struct doc *doc);
bool doc_is_str(const struct doc *doc);
bool doc_is_null(const struct doc *doc);
size_t doc_count(const struct doc *array);                      /* 0 for anything else */
struct doc *doc_at(const struct doc *array, size_t index);      /* borrowed */
struct doc *doc_get(const struct doc *object, const char *key); /* borrowed; NULL: absent */
const char *doc_value_str(const struct doc *doc);               /* NULL: not a string */

/* Iterate over an object: DOC_FOR_EACH(object, key, value) { ... } */
void *doc_iter_first(const struct doc *object);
void *doc_iter_next(const struct doc *object, void *iter);
const char *doc_iter_key(void *iter);
struct doc *doc_iter_value(void *iter);
#define DOC_FOR_EACH(object, key, value)                                                           \
    for (void *doc_iter_ = doc_iter_first(object); doc_iter_ != NULL;                              \
         doc_iter_ = doc_iter_next((object), doc_iter_))                                           \
        for (const char *key = doc_iter_key(doc_iter_); key != NULL; key = NULL)                   \
            for (struct doc *value = doc_iter_value(doc_iter_); value != NULL; value = NULL)

/* Required members. The texts live as long as the object. */
NODISCARD err_t
doc_get_str(const struct doc *object, const char *key, const char **ret_value, struct errmsg *msg);
NODISCARD err_t
doc_get_u64(const struct doc *object, const char *key, uint64_t *ret_value, struct errmsg *msg);
NODISCARD err_t
doc_get_bool(const struct doc *object, const char *key, bool *ret_value, struct errmsg *msg);
NODISCARD err_t
doc_get_lsn(const struct doc *object, const char *key, lsn_t *ret_value, struct errmsg *msg);
NODISCARD err_t doc_get_object(
    const struct doc *object, const char *key, struct doc **ret_value, struct errmsg *msg);
NODISCARD err_t doc_get_array(
    const struct doc *object, const char *key, struct doc **ret_value, struct errmsg *msg);

/* Optional members: absent or null leaves `*value` as it is; another type is ERR_INVALID. */
NODISCARD err_t
doc_opt_str(const struct doc *object, const char *key, const char **value, struct errmsg *msg);
NODISCARD err_t
doc_opt_u64(const struct doc *object, const char *key, uint64_t *value, struct errmsg *msg);
NODISCARD err_t
doc_opt_i64(const struct doc *object, const char *key, int64_t *value, struct errmsg *msg);
/* A number, whole or not. */
NODISCARD err_t
doc_opt_real(const struct doc *object, const char *key, double *value, struct errmsg *msg);
NODISCARD err_t
doc_opt_bool(const struct doc *object, const char *key, bool *value, struct errmsg *msg);
NODISCARD err_t
doc_opt_lsn(const struct doc *object, const char *key, lsn_t *value, struct errmsg *msg);
