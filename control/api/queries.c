#include "control/api/queries.h"

#include "common/base/parse.h"
#include "common/base/str.h"

#define API "/api/v2/"

/* ---- the tables ---- */

#define END                                                                                        \
    {                                                                                              \
        .name = NULL                                                                               \
    }
#define ARGUMENT(name_, type_, ...)                                                                \
    {                                                                                              \
        .name = (name_), .type = (type_), __VA_ARGS__                                              \
    }
#define TEXT(name_)       ARGUMENT(name_, BODY_STR, .max = 0)
#define NAMES(name_, ...) ARGUMENT(name_, BODY_LIST, .max = 100, __VA_ARGS__)
#define PAGE(limit_max_)  ARGUMENT("limit", BODY_INT, .min = 1, .max = (limit_max_)), TEXT("cursor")

static const char *const sorts[] = {"name", "created_at", "updated_at", NULL};
static const char *const orders[] = {"asc", "desc", NULL};
static const char *const formats[] = {"sql", "json", NULL};
static const char *const granularities[] = {"hourly", "daily", "monthly", NULL};

static const struct body_field projects[] = {
    PAGE(400), TEXT("search"), TEXT("org_id"), ARGUMENT("recoverable", BODY_BOOL, .max = 0), END};
static const struct body_field shared[] = {PAGE(400), TEXT("search"), END};
static const struct body_field deletion[] = {ARGUMENT("hard_delete", BODY_BOOL, .max = 0), END};
static const struct body_field branches[] = {
    PAGE(10000),
    TEXT("search"),
    ARGUMENT("sort_by", BODY_STR, .choices = sorts),
    ARGUMENT("sort_order", BODY_STR, .choices = orders),
    ARGUMENT("include_deleted", BODY_BOOL, .max = 0),
    END,
};
static const struct body_field search[] = {TEXT("search"), END};
static const struct body_field pages[] = {PAGE(10000), END};
static const struct body_field operations[] = {PAGE(1000), END};
static const struct body_field operation[] = {TEXT("wait"), END};
static const struct body_field connection_uri[] = {
    TEXT("branch_id"),
    TEXT("endpoint_id"),
    TEXT("role_name"),
    TEXT("database_name"),
    ARGUMENT("pooled", BODY_BOOL, .max = 0),
    END,
};
static const struct body_field snapshot[] = {
    TEXT("name"),
    ARGUMENT("lsn", BODY_LSN, .max = 0),
    ARGUMENT("timestamp", BODY_TIME, .max = 0),
    ARGUMENT("expires_at", BODY_TIME, .max = 0),
    END,
};
static const struct body_field name[] = {TEXT("name"), END};
#define SCHEMA                                                                                     \
    TEXT("db_name"), ARGUMENT("lsn", BODY_LSN, .max = 0), ARGUMENT("timestamp", BODY_TIME, .max = 0)
static const struct body_field schema[] = {
    SCHEMA, ARGUMENT("format", BODY_STR, .choices = formats), END};
static const struct body_field compare_schema[] = {
    SCHEMA,
    TEXT("base_branch_id"),
    ARGUMENT("base_lsn", BODY_LSN, .max = 0),
    ARGUMENT("base_timestamp", BODY_TIME, .max = 0),
    END,
};
static const struct body_field digest[] = {TEXT("lsn"),  TEXT("spc"),   TEXT("db"), TEXT("rel"),
                                           TEXT("fork"), TEXT("block"), END};
static const struct body_field lsn[] = {TEXT("lsn"), END};
static const struct body_field diff[] = {TEXT("lsn"), TEXT("other"), TEXT("other_lsn"), END};

/* As is published, and of v2 also what v1 has; consumption.c says which of them are measured. */
#define METRICS_OF_EACH "active_time_seconds", "compute_time_seconds", "written_data_bytes"
#define METRICS_V1                                                                                 \
    METRICS_OF_EACH, "synthetic_storage_size_bytes", "data_storage_bytes_hour",                    \
        "logical_size_bytes", "logical_size_bytes_hour"
#define METRICS_V2                                                                                 \
    "compute_unit_seconds", "root_branch_bytes_month", "child_branch_bytes_month",                 \
        "instant_restore_bytes_month", "public_network_transfer_bytes",                            \
        "private_network_transfer_bytes"
static const char *const metrics[] = {METRICS_V1, NULL};
static const char *const metrics_v2[] = {
    METRICS_V2, "extra_branches_month", "snapshot_storage_bytes_month", METRICS_V1, NULL};
static const char *const metrics_of_branches[] = {METRICS_V2, METRICS_OF_EACH, NULL};

#define HISTORY                                                                                    \
    ARGUMENT("from", BODY_TIME, .required = true), ARGUMENT("to", BODY_TIME, .required = true),    \
        ARGUMENT("granularity", BODY_STR, .required = true, .choices = granularities),             \
        TEXT("org_id")
static const struct body_field account[] = {HISTORY, END};
static const struct body_field history[] = {
    HISTORY, PAGE(100), NAMES("project_ids", .min = 0), NAMES("metrics", .choices = metrics), END,
};
static const struct body_field history_v2[] = {
    HISTORY, PAGE(100), NAMES("project_ids", .min = 0), NAMES("metrics", .choices = metrics_v2),
    END,
};
static const struct body_field history_of_branches[] = {
    HISTORY,
    PAGE(1000),
    NAMES("project_ids", .required = true),
    NAMES("branch_ids", .min = 0),
    NAMES("metrics", .choices = metrics_of_branches),
    END,
};

#define P API "projects/{project}"
#define B P "/branches/{branch}"
static const struct route_fields queries[] = {
    {"GET", API "projects", projects},
    {"GET", API "projects/shared", shared},
    {"DELETE", P, deletion},
    {"GET", P "/branches", branches},
    {"GET", P "/branches/count", search},
    {"DELETE", B, deletion},
    {"GET", P "/operations", operations},
    {"GET", P "/operations/{operation}", operation},
    {"GET", P "/connection_uri", connection_uri},
    {"GET", P "/snapshots", pages},
    {"POST", B "/snapshot", snapshot},
    {"POST", P "/snapshots/{snapshot}/restore", name},
    {"GET", B "/schema", schema},
    {"GET", B "/compare_schema", compare_schema},
    {"GET", B "/digest", digest},
    {"GET", B "/why_kept", digest},
    {"GET", B "/time_of_lsn", lsn},
    {"GET", B "/diff", diff},
    {"GET", API "consumption_history/projects", history},
    {"GET", API "consumption_history/v2/projects", history_v2},
    {"GET", API "consumption_history/v2/branches", history_of_branches},
    {"GET", API "consumption_history/account", account},
};

const struct body_field *query_of_route(const struct http_route *route)
{
    return fields_of_route(route, queries, ARRAY_LEN(queries));
}

/* ---- asking ---- */

static const char *raw(const struct http_request *request, const char *argument)
{
    const char *value = http_request_query(request, argument);
    return value != NULL && value[0] == '\0' ? NULL : value;
}

static void assert_known(const struct http_request *request, const char *argument)
{
    bool is_known = !str_starts_with(http_request_route(request)->path, API);
    for (const struct body_field *field = query_of_route(http_request_route(request));
         field->name != NULL; field++) {
        is_known = is_known || strcmp(field->name, argument) == 0;
    }
    ASSERT(is_known); /* or it would be looked at without a check, and be in no document */
}

const char *request_query(const struct http_request *request, const char *argument)
{
    assert_known(request, argument);
    return raw(request, argument);
}

const char *request_query_list(const struct http_request *request, const char *argument)
{
    assert_known(request, argument);
    return http_request_query_list(request, argument);
}

bool request_says(const struct http_request *request, const char *argument)
{
    const char *value = request_query(request, argument);
    return value != NULL && strcmp(value, "true") == 0;
}

/* As JSON would say it, if it can; otherwise the text, which is of the wrong type then. */
static struct doc *typed_value(const struct body_field *field, const char *text)
{
    bool is_true = strcmp(text, "true") == 0;
    uint64_t number = 0;
    if (field->type == BODY_INT && parse_u64(text, 0, INT64_MAX, &number, NULL) == ERR_OK) {
        return doc_int((int64_t)number);
    }
    if (field->type == BODY_BOOL && (is_true || strcmp(text, "false") == 0)) {
        return doc_bool(is_true);
    }
    return doc_str(text);
}

/* A name of other bytes would be another one as soon as it is written down, which is as JSON. */
static bool is_utf8(const struct doc *value, const char *text)
{
    const char *kept = doc_value_str(value);
    return kept == NULL || strcmp(kept, text) == 0;
}

err_t query_check(const struct http_request *request, const char **ret_code, struct errmsg *msg)
{
    const struct body_field *fields = query_of_route(http_request_route(request));
    struct doc *said = doc_object(), *known = NULL;
    err_t err = ERR_OK;
    for (const struct body_field *f = fields; f->name != NULL && err == ERR_OK; f++) {
        const char *text = f->type == BODY_LIST ? http_request_query_list(request, f->name)
                                                : raw(request, f->name);
        if (text == NULL) {
            continue;
        }
        doc_set(said, f->name, typed_value(f, text));
        if (!is_utf8(doc_get(said, f->name), text)) {
            *ret_code = "BAD_REQUEST";
            err = err_set(msg, ERR_INVALID, "%s: expected UTF-8", f->name);
        }
    }
    if (err == ERR_OK) {
        err = body_take(fields, said, &known, ret_code, msg);
    }
    doc_unref(known);
    doc_unref(said);
    return err;
}

/* ---- as parameters ---- */

void query_parameters(const struct http_route *route, struct doc *to)
{
    for (const struct body_field *field = query_of_route(route); field->name != NULL; field++) {
        struct body_field never_null = *field;
        never_null.required = true;
        struct doc *parameter = doc_set_str(doc_object(), "name", field->name);
        doc_set_str(parameter, "in", "query");
        doc_set_bool(parameter, "required", field->required);
        doc_push(to, doc_set(parameter, "schema", field_schema(&never_null)));
    }
}
