#include "control/api/bodies.h"

#include <stdio.h>

#include "common/base/parse.h"
#include "common/base/str.h"

#define NAME_MAX_BYTES  127
#define UNITS_MAX       56
#define LEASE_MAX       (30 * 24 * 3600)
#define RETENTION_MAX   3024000
#define KEEP_MIN        3600
#define KEEP_MAX        ((int64_t)100 * 366 * 24 * 3600)
#define NESTED_MAX      32 /* objects in one body that are still to be looked at */
#define PATH_BYTES_MAX  96
#define ENDPOINTS_MAX   20
#define ANY_BYTES_MAX   (64 * KIB) /* as JSON: it is kept in memory and shown in lists */
#define RULES_MAX       10
#define SAFE_NUMBER_MAX 9007199254740991 /* 2^53 - 1: exact in every JSON reader */

/* ---- the tables ---- */

#define END                                                                                        \
    {                                                                                              \
        .name = NULL                                                                               \
    }
#define STR(name_, ...)                                                                            \
    {                                                                                              \
        .name = (name_), .type = BODY_STR, __VA_ARGS__                                             \
    }
#define FIELD(name_, type_, ...)                                                                   \
    {                                                                                              \
        .name = (name_), .type = (type_), __VA_ARGS__                                              \
    }
#define NAME(name_, ...) STR(name_, .max = NAME_MAX_BYTES, .code = "NAME_INVALID", __VA_ARGS__)
#define OBJECT(name_, fields_, ...)                                                                \
    {                                                                                              \
        .name = (name_), .type = BODY_OBJECT, .fields = (fields_), __VA_ARGS__                     \
    }

static const char *const endpoint_types[] = {"read_write", "read_only", NULL};
static const char *const frequencies[] = {"hourly", "daily", "weekly", "monthly", "yearly", NULL};

static const struct body_field endpoint_settings[] = {
    FIELD("pg_settings", BODY_ANY, .min = 0),
    END,
};

#define ENDPOINT_COMMON                                                                            \
    STR("name", .max = NAME_MAX_BYTES), FIELD("pg_settings", BODY_ANY, .min = 0),                  \
        OBJECT("settings", endpoint_settings, .min = 0),                                           \
        FIELD("suspend_timeout_seconds", BODY_INT, .min = -1, .max = 604800),                      \
        FIELD("autoscaling_limit_min_cu", BODY_REAL, .min = 0, .max = UNITS_MAX),                  \
        FIELD("autoscaling_limit_max_cu", BODY_REAL, .min = 0, .max = UNITS_MAX)

static const struct body_field first_endpoint[] = {ENDPOINT_COMMON, END};
static const struct body_field branch_endpoint[] = {
    STR("type", .choices = endpoint_types), ENDPOINT_COMMON, END};
static const struct body_field endpoint_new[] = {
    STR("branch_id", .required = true),
    STR("type", .choices = endpoint_types),
    FIELD("lsn", BODY_LSN, .min = 0),
    FIELD("timestamp", BODY_TIME, .min = 0),
    FIELD("lease_seconds", BODY_INT, .min = 0, .max = LEASE_MAX),
    ENDPOINT_COMMON,
    END,
};
static const struct body_field endpoint_patch[] = {
    FIELD("lease_seconds", BODY_INT, .min = 0, .max = LEASE_MAX), ENDPOINT_COMMON, END};
static const struct body_field post_endpoint[] = {
    OBJECT("endpoint", endpoint_new, .required = true), END};
static const struct body_field patch_endpoint[] = {
    OBJECT("endpoint", endpoint_patch, .required = true), END};

static const struct body_field root_branch[] = {
    NAME("name", .min = 0), STR("role_name", .max = 63), STR("database_name", .max = 63), END};
static const struct body_field project_new[] = {
    NAME("name", .min = 0),
    STR("region_id", .max = NAME_MAX_BYTES),
    FIELD("pg_version", BODY_INT, .min = 0),
    FIELD(
        "history_retention_seconds",
        BODY_INT,
        .min = 0,
        .max = RETENTION_MAX,
        .code = "RETENTION_INVALID"),
    OBJECT("branch", root_branch, .min = 0),
    OBJECT("default_endpoint_settings", first_endpoint, .min = 0),
    FIELD("settings", BODY_ANY, .min = 0),
    END,
};
static const struct body_field project_patch[] = {
    NAME("name", .min = 0),
    FIELD(
        "history_retention_seconds",
        BODY_INT,
        .min = 0,
        .max = RETENTION_MAX,
        .code = "RETENTION_INVALID"),
    FIELD("settings", BODY_ANY, .min = 0),
    END,
};
static const struct body_field post_project[] = {OBJECT("project", project_new, .min = 0), END};
static const struct body_field patch_project[] = {OBJECT("project", project_patch, .min = 0), END};

static const struct body_field branch_new[] = {
    NAME("name", .min = 0),
    STR("parent_id", .min = 0),
    FIELD("parent_lsn", BODY_LSN, .min = 0),
    FIELD("parent_timestamp", BODY_TIME, .min = 0),
    FIELD("protected", BODY_BOOL, .min = 0),
    FIELD("expires_at", BODY_TIME, .min = 0),
    END,
};
static const struct body_field branch_patch[] = {
    NAME("name", .min = 0),
    FIELD("protected", BODY_BOOL, .min = 0),
    FIELD("expires_at", BODY_TIME, .min = 0),
    END,
};
static const struct body_field post_branch[] = {
    OBJECT("branch", branch_new, .min = 0),
    FIELD("endpoints", BODY_OBJECTS, .max = ENDPOINTS_MAX, .fields = branch_endpoint),
    END,
};
static const struct body_field patch_branch[] = {
    OBJECT("branch", branch_patch, .required = true), END};
static const struct body_field post_restore[] = {
    STR("source_branch_id", .required = true),
    FIELD("source_lsn", BODY_LSN, .min = 0),
    FIELD("source_timestamp", BODY_TIME, .min = 0),
    NAME("preserve_under_name", .min = 0),
    END,
};
static const struct body_field post_safekeepers[] = {
    FIELD("safekeepers", BODY_INTS, .min = 0),
    FIELD("add", BODY_INTS, .min = 0),
    FIELD("remove", BODY_INTS, .min = 0),
    END,
};

static const struct body_field role_new[] = {STR("name", .required = true, .max = 63), END};
static const struct body_field database_new[] = {
    STR("name", .required = true, .max = 63), STR("owner_name", .required = true, .max = 63), END};
static const struct body_field database_patch[] = {
    STR("name", .max = 63), STR("owner_name", .max = 63), END};
static const struct body_field patch_database[] = {
    OBJECT("database", database_patch, .required = true), END};
static const struct body_field post_role[] = {OBJECT("role", role_new, .required = true), END};
static const struct body_field post_database[] = {
    OBJECT("database", database_new, .required = true), END};

static const struct body_field post_permission[] = {
    STR("email", .required = true, .max = 256), END};
static const struct body_field post_key[] = {
    STR("key_name", .required = true, .max = 64, .code = "NAME_INVALID"),
    STR("project_id", .min = 0),
    FIELD("read_only", BODY_BOOL, .min = 0),
    FIELD("branches_max", BODY_INT, .min = 0, .max = SAFE_NUMBER_MAX),
    FIELD("computes_max", BODY_INT, .min = 0, .max = SAFE_NUMBER_MAX),
    END,
};

static const struct body_field snapshot_patch[] = {
    NAME("name", .min = 0), FIELD("expires_at", BODY_TIME, .min = 0), END};
static const struct body_field patch_snapshot[] = {
    OBJECT("snapshot", snapshot_patch, .required = true), END};
static const struct body_field restore_snapshot[] = {
    NAME("name", .min = 0),
    STR("target_branch_id", .min = 0),
    FIELD("finalize_restore", BODY_BOOL, .min = 0),
    END,
};
static const struct body_field finalize[] = {NAME("name", .min = 0), END};
static const struct body_field rule[] = {
    STR("frequency", .required = true, .choices = frequencies),
    FIELD("hour", BODY_INT, .min = 0, .max = 23),
    FIELD("day", BODY_INT, .min = 1, .max = 31),
    FIELD("month", BODY_INT, .min = 1, .max = 12),
    FIELD("retention_seconds", BODY_INT, .min = KEEP_MIN, .max = KEEP_MAX),
    END,
};
static const struct body_field put_schedule[] = {
    FIELD("schedule", BODY_OBJECTS, .required = true, .max = RULES_MAX, .fields = rule), END};
static const struct body_field put_lease[] = {
    FIELD("lsn", BODY_LSN, .required = true),
    FIELD("seconds", BODY_INT, .required = true, .min = 1, .max = LEASE_MAX),
    END,
};

#define P "/api/v2/projects/{project}"
#define B P "/branches/{branch}"
static const struct route_fields bodies[] = {
    {"POST", "/api/v2/projects", post_project},
    {"PATCH", P, patch_project},
    {"POST", P "/branches", post_branch},
    {"PATCH", B, patch_branch},
    {"POST", B "/restore", post_restore},
    {"POST", B "/safekeepers", post_safekeepers},
    {"POST", B "/roles", post_role},
    {"POST", B "/databases", post_database},
    {"PATCH", B "/databases/{database}", patch_database},
    {"POST", P "/endpoints", post_endpoint},
    {"PATCH", P "/endpoints/{endpoint}", patch_endpoint},
    {"POST", P "/permissions", post_permission},
    {"POST", "/api/v2/api_keys", post_key},
    {"POST", "/api/v2/organizations/{organization}/api_keys", post_key},
    {"PATCH", P "/snapshots/{snapshot}", patch_snapshot},
    {"POST", P "/snapshots/{snapshot}/restore", restore_snapshot},
    {"POST", B "/finalize_restore", finalize},
    {"PUT", B "/backup_schedule", put_schedule},
    {"PUT", B "/leases/{lease}", put_lease},
};

const struct body_field *fields_of_route(
    const struct http_route *route, const struct route_fields *rows, size_t count)
{
    static const struct body_field nothing[] = {END};
    for (size_t i = 0; i < count; i++) {
        if (strcmp(rows[i].method, route->method) == 0 && strcmp(rows[i].path, route->path) == 0) {
            return rows[i].fields;
        }
    }
    return nothing;
}

const struct body_field *body_of_route(const struct http_route *route)
{
    return fields_of_route(route, bodies, ARRAY_LEN(bodies));
}

/* ---- taking ---- */

struct nested {
    const struct body_field *fields;
    const struct doc *from;
    struct doc *to;
    char path[PATH_BYTES_MAX]; /* "branch." */
};

struct taking {
    struct nested stack[NESTED_MAX];
    size_t count;
    const char *code;
};

static err_t wrong(
    struct taking *taking,
    const struct body_field *field,
    const char *path,
    const char *expected,
    struct errmsg *msg)
{
    taking->code = field->code != NULL ? field->code : "BAD_REQUEST";
    return err_set(msg, ERR_INVALID, "%s%s: expected %s", path, field->name, expected);
}

/* What came instead is cut: it may be anything. */
static err_t wrong_text(
    struct taking *taking,
    const struct body_field *field,
    const char *path,
    const char *expected,
    const char *text,
    struct errmsg *msg)
{
    char both[480];
    snprintf(both, sizeof both, "%s, got \"%.40s\"", expected, text);
    return wrong(taking, field, path, both, msg);
}

static bool is_choice(const struct body_field *field, const char *text)
{
    for (size_t i = 0; field->choices != NULL && field->choices[i] != NULL; i++) {
        if (strcmp(field->choices[i], text) == 0) {
            return true;
        }
    }
    return field->choices == NULL;
}

static err_t wrong_choice(
    struct taking *taking,
    const struct body_field *field,
    const char *path,
    const char *text,
    struct errmsg *msg)
{
    char expected[400];
    size_t size = (size_t)snprintf(expected, sizeof expected, "one of");
    for (size_t i = 0; field->choices[i] != NULL && size < sizeof expected; i++) {
        size += (size_t)snprintf(expected + size, sizeof expected - size, " %s", field->choices[i]);
    }
    return wrong_text(taking, field, path, expected, text, msg);
}

static err_t check_text(
    struct taking *taking,
    const struct body_field *field,
    const struct doc *value,
    const char *path,
    struct errmsg *msg)
{
    const char *text = doc_value_str(value);
    char expected[160] = "a string";
    wall_us_t time;
    lsn_t lsn;
    if (text == NULL) {
        return wrong(taking, field, path, expected, msg);
    }
    if (field->type == BODY_TIME && parse_time(text, &time, NULL) != ERR_OK) {
        return wrong_text(taking, field, path, "a time as of RFC 3339", text, msg);
    }
    if (field->type == BODY_LSN && parse_lsn(text, &lsn, NULL) != ERR_OK) {
        return wrong_text(taking, field, path, "an LSN", text, msg);
    }
    if (field->max > 0 && strlen(text) > (size_t)field->max) {
        snprintf(expected, sizeof expected, "at most %" PRId64 " bytes", field->max);
        return wrong(taking, field, path, expected, msg);
    }
    return is_choice(field, text) ? ERR_OK : wrong_choice(taking, field, path, text, msg);
}

static err_t check_list(
    struct taking *taking,
    const struct body_field *field,
    const char *list,
    const char *path,
    struct errmsg *msg)
{
    char expected[40], name[80];
    int64_t count = 0;
    for (const char *at = list; at != NULL;
         at = strchr(at, ',') == NULL ? NULL : strchr(at, ',') + 1) {
        snprintf(name, sizeof name, "%.*s", (int)strcspn(at, ","), at);
        if (++count > field->max) {
            snprintf(expected, sizeof expected, "at most %" PRId64 " names", field->max);
            return wrong(taking, field, path, expected, msg);
        }
        if (!is_choice(field, name)) {
            return wrong_choice(taking, field, path, name, msg);
        }
    }
    return ERR_OK;
}

static err_t check_number(
    struct taking *taking,
    const struct body_field *field,
    const struct doc *from,
    const char *path,
    struct errmsg *msg)
{
    bool is_bounded = field->min != 0 || field->max != 0;
    char expected[80];
    double real = 0;
    int64_t number = 0;
    err_t err = field->type == BODY_INT ? doc_opt_i64(from, field->name, &number, NULL)
                                        : doc_opt_real(from, field->name, &real, NULL);
    if (err != ERR_OK) {
        return wrong(
            taking, field, path, field->type == BODY_INT ? "a whole number" : "a number", msg);
    }
    real = field->type == BODY_INT ? (double)number : real;
    if (is_bounded && !(real >= (double)field->min && real <= (double)field->max)) {
        snprintf(expected, sizeof expected, "%" PRId64 " to %" PRId64, field->min, field->max);
        return wrong(taking, field, path, expected, msg);
    }
    return ERR_OK;
}

static err_t check_numbers(
    struct taking *taking,
    const struct body_field *field,
    const struct doc *list,
    const char *path,
    struct errmsg *msg)
{
    bool good = doc_is_array(list);
    for (size_t i = 0; i < doc_count(list) && good; i++) {
        struct doc *holder = doc_set(doc_object(), "id", doc_ref(doc_at(list, i)));
        int64_t number = 0;
        good = doc_opt_i64(holder, "id", &number, NULL) == ERR_OK && number > 0;
        doc_unref(holder);
    }
    return good ? ERR_OK : wrong(taking, field, path, "a list of positive numbers", msg);
}

static err_t push(
    struct taking *taking,
    const struct body_field *field,
    const struct doc *from,
    struct doc *to,
    const char *path,
    struct errmsg *msg)
{
    if (taking->count == NESTED_MAX) {
        return wrong(taking, field, path, "fewer members", msg);
    }
    struct nested *nested = &taking->stack[taking->count++];
    *nested = (struct nested){.fields = field->fields, .from = from, .to = to};
    snprintf(nested->path, sizeof nested->path, "%.40s%.50s.", path, field->name);
    return ERR_OK;
}

static err_t take_list(
    struct taking *taking,
    const struct body_field *field,
    const struct nested *at,
    struct errmsg *msg)
{
    const struct doc *list = doc_get(at->from, field->name);
    struct doc *copy = doc_array();
    doc_set(at->to, field->name, copy);
    if (!doc_is_array(list)) {
        return wrong(taking, field, at->path, "a list", msg);
    }
    if (field->max > 0 && doc_count(list) > (size_t)field->max) {
        char expected[40];
        snprintf(expected, sizeof expected, "at most %" PRId64 " of them", field->max);
        return wrong(taking, field, at->path, expected, msg);
    }
    for (size_t i = 0; i < doc_count(list); i++) {
        if (!doc_is_object(doc_at(list, i))) {
            return wrong(taking, field, at->path, "a list of objects", msg);
        }
        struct doc *item = doc_object();
        doc_push(copy, item);
        TRY(push(taking, field, doc_at(list, i), item, at->path, msg));
    }
    return ERR_OK;
}

static err_t check_any(
    struct taking *taking,
    const struct body_field *field,
    const struct doc *value,
    const char *path,
    struct errmsg *msg)
{
    struct buf text = {0};
    if (!doc_is_object(value)) {
        return wrong(taking, field, path, "an object", msg);
    }
    doc_print(value, false, &text);
    bool fits = text.size <= ANY_BYTES_MAX;
    buf_deinit(&text);
    return fits ? ERR_OK : wrong(taking, field, path, "at most 64 KiB of JSON", msg);
}

static err_t check_value(
    struct taking *taking,
    const struct body_field *field,
    const struct nested *at,
    struct errmsg *msg)
{
    const struct doc *value = doc_get(at->from, field->name);
    bool flag = false;
    switch (field->type) {
    case BODY_STR:
    case BODY_TIME:
    case BODY_LSN: return check_text(taking, field, value, at->path, msg);
    case BODY_INT:
    case BODY_REAL: return check_number(taking, field, at->from, at->path, msg);
    case BODY_BOOL:
        return doc_opt_bool(at->from, field->name, &flag, NULL) == ERR_OK
                   ? ERR_OK
                   : wrong(taking, field, at->path, "true or false", msg);
    case BODY_ANY: return check_any(taking, field, value, at->path, msg);
    case BODY_OBJECT:
        return doc_is_object(value) ? ERR_OK : wrong(taking, field, at->path, "an object", msg);
    case BODY_INTS: return check_numbers(taking, field, value, at->path, msg);
    case BODY_LIST: return check_list(taking, field, doc_value_str(value), at->path, msg);
    case BODY_OBJECTS:
        return doc_is_array(value) ? ERR_OK : wrong(taking, field, at->path, "a list", msg);
    }
    ASSERT(false);
    return ERR_INVALID;
}

static err_t take_field(
    struct taking *taking,
    const struct body_field *field,
    const struct nested *at,
    struct errmsg *msg)
{
    struct doc *value = doc_get(at->from, field->name);
    if (value == NULL || doc_is_null(value)) {
        if (field->required) {
            return wrong(taking, field, at->path, "a value", msg);
        }
        if (value != NULL) {
            doc_set(at->to, field->name, doc_null());
        }
        return ERR_OK;
    }
    TRY(check_value(taking, field, at, msg));
    if (field->type == BODY_OBJECT) {
        struct doc *copy = doc_object();
        doc_set(at->to, field->name, copy);
        return push(taking, field, value, copy, at->path, msg);
    }
    if (field->type == BODY_OBJECTS) {
        return take_list(taking, field, at, msg);
    }
    doc_set(at->to, field->name, doc_ref(value));
    return ERR_OK;
}

err_t body_take(
    const struct body_field *fields,
    const struct doc *body,
    struct doc **ret_known,
    const char **ret_code,
    struct errmsg *msg)
{
    struct doc *known = doc_object();
    struct taking taking = {.count = 1};
    err_t err = ERR_OK;
    taking.stack[0] = (struct nested){.fields = fields, .from = body, .to = known};
    while (taking.count > 0 && err == ERR_OK) {
        struct nested at = taking.stack[--taking.count];
        for (const struct body_field *f = at.fields; f->name != NULL && err == ERR_OK; f++) {
            err = take_field(&taking, f, &at, msg);
        }
    }
    if (err != ERR_OK) {
        *ret_code = taking.code;
        doc_unref(known);
        return err;
    }
    *ret_known = known;
    return ERR_OK;
}

/* ---- as a schema ---- */

static void set_type(struct doc *schema, const char *type, bool required)
{
    if (required) {
        doc_set_str(schema, "type", type);
    } else {
        doc_set(schema, "type", doc_push(doc_push(doc_array(), doc_str(type)), doc_str("null")));
    }
}

static void set_choices(struct doc *schema, const struct body_field *field, bool or_null)
{
    if (field->choices == NULL) {
        return;
    }
    struct doc *choices = doc_array();
    for (size_t i = 0; field->choices[i] != NULL; i++) {
        doc_push(choices, doc_str(field->choices[i]));
    }
    if (or_null) {
        doc_push(choices, doc_null());
    }
    doc_set(schema, "enum", choices);
}

static void set_limits(struct doc *schema, const struct body_field *field)
{
    if (field->type == BODY_STR && field->max > 0) {
        doc_set_int(schema, "maxLength", field->max);
    }
    if ((field->type == BODY_INT || field->type == BODY_REAL) &&
        (field->min != 0 || field->max != 0)) {
        doc_set_int(schema, "minimum", field->min);
        doc_set_int(schema, "maximum", field->max);
    }
    if ((field->type == BODY_OBJECTS || field->type == BODY_LIST) && field->max > 0) {
        doc_set_int(schema, "maxItems", field->max);
    }
    if (field->type == BODY_LIST) {
        struct doc *item = doc_set_str(doc_object(), "type", "string");
        set_choices(item, field, false);
        doc_set(schema, "items", item);
    } else {
        set_choices(schema, field, !field->required);
    }
}

struct doc *field_schema(const struct body_field *field)
{
    static const char *const names[] = {
        [BODY_STR] = "string",   [BODY_INT] = "integer",   [BODY_REAL] = "number",
        [BODY_BOOL] = "boolean", [BODY_TIME] = "string",   [BODY_LSN] = "string",
        [BODY_ANY] = "object",   [BODY_OBJECT] = "object", [BODY_OBJECTS] = "array",
        [BODY_INTS] = "array",   [BODY_LIST] = "array",
    };
    struct doc *schema = doc_object();
    set_type(schema, names[field->type], field->required);
    set_limits(schema, field);
    if (field->type == BODY_TIME) {
        doc_set_str(schema, "format", "date-time");
    } else if (field->type == BODY_LSN) {
        doc_set_str(schema, "pattern", "^[0-9a-fA-F]{1,8}/[0-9a-fA-F]{1,8}$");
    } else if (field->type == BODY_INTS) {
        struct doc *item = doc_set_str(doc_object(), "type", "integer");
        doc_set(schema, "items", doc_set_int(item, "minimum", 1));
    }
    return schema;
}

struct schema_work {
    const struct body_field *fields;
    struct doc *to;
};

struct doc *body_schema(const struct body_field *fields)
{
    struct doc *whole = doc_set_str(doc_object(), "type", "object");
    struct schema_work stack[NESTED_MAX] = {{.fields = fields, .to = whole}};
    for (size_t count = 1; count > 0;) {
        struct schema_work work = stack[--count];
        struct doc *properties = doc_object(), *required = doc_array();
        doc_set(work.to, "properties", properties);
        for (const struct body_field *field = work.fields; field->name != NULL; field++) {
            struct doc *schema = field_schema(field), *inner = schema;
            doc_set(properties, field->name, schema);
            if (field->required) {
                doc_push(required, doc_str(field->name));
            }
            if (field->type == BODY_OBJECTS) {
                inner = doc_set_str(doc_object(), "type", "object");
                doc_set(schema, "items", inner);
            }
            if (field->fields != NULL) {
                ASSERT(count < NESTED_MAX);
                stack[count++] = (struct schema_work){.fields = field->fields, .to = inner};
            }
        }
        doc_set(work.to, "required", required);
    }
    return whole;
}
