/*
 * openapi.c - GET /api/v2/openapi.json: what this control can do, made from its own route tables.
 *
 * Paths, methods, parameters and who may call come from the routes themselves, so none can be
 * missing; what the answers hold stands in the tables below, and tests/api holds every answer that
 * it sees against this file.
 */
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "control/api/access.h"
#include "control/api/api_private.h"
#include "control/api/bodies.h"

#define BASE "/api/v2"

/* "name:TYPE, .." where TYPE is str, int, bool, time, any, a schema, or [TYPE]; "?": may be absent
 */
struct shape {
    const char *name, *members;
};

static const struct shape schemas[] = {
    {"Problem", "type:str,title:str,status:int,detail:str,message:str,code:str,request_id:str"},
    {"Project",
     "id:str,name:str,region_id:str,pg_version:int,history_retention_seconds:int,settings:any,"
     "created_at:time,updated_at:time,deleted_at:time?,recoverable_until:time?"},
    {"Branch",
     "id:str,project_id:str,name:str,parent_id:str?,parent_lsn:str?,parent_timestamp:time?,"
     "current_state:str,default:bool,protected:bool,expires_at:time?,start_lsn:str,"
     "created_at:time,updated_at:time,recovery:Recovery?"},
    {"Recovery", "deleted_at:time,recoverable_until:time,deletion_method:str"},
    {"Endpoint",
     "id:str,project_id:str,branch_id:str,host:str,port:int,type:str,current_state:str,"
     "pending_state:str?,error:str?,suspend_timeout_seconds:int,settings:any,created_at:time,"
     "updated_at:time"},
    {"Operation",
     "id:str,project_id:str,branch_id:str?,endpoint_id:str?,action:str,status:str,"
     "failures_count:int,error:str?,total_duration_ms:int,created_at:time,updated_at:time"},
    {"Role", "branch_id:str,name:str,password:str?,protected:bool,created_at:time,updated_at:time"},
    {"Database", "id:int,branch_id:str,name:str,owner_name:str,created_at:time,updated_at:time"},
    {"ConnectionUri", "connection_uri:str,connection_parameters:any"},
    {"Key",
     "id:int,name:str,created_at:time,created_by:any,last_used_from_addr:str,project_id:str?,"
     "read_only:bool,branches_max:int,computes_max:int"},
    {"Organization", "id:str,name:str,created_at:time,updated_at:time"},
    {"Snapshot", "id:str,project_id:str,name:str,source_branch_id:str,lsn:str,timestamp:time,"
                 "manual:bool,state:str,"
                 "expires_at:time?,created_at:time"},
    {"Rule", "frequency:str,hour:int?,day:int?,month:int?,retention_seconds:int?"},
    {"ScheduleFailure", "error:str,failures_count:int,retry_at:time"},
    {"Lease", "name:str,lsn:str,expires_at:time?"},
    {"Holder", "reason:str,lsn:str?,from_lsn:str?,name:str?,branch_id:str?,snapshot_id:str?"},
    {"Consumption", "project_id:str,periods:any"},
    {"BranchConsumption", "project_id:str,branch_id:str,periods:any"},
    {"Region", "region_id:str,name:str,default:bool"},
    {"Schema", "tables:[SchemaTable]"},
    {"BranchSize",
     "timeline:str,start_lsn:str,cutoff_lsn:str,end_lsn:str,logical_bytes:int,branch_id:str?,"
     "snapshot_id:str?"},
    {"SchemaTable", "schema:str,name:str,columns:[SchemaColumn],constraints:[SchemaConstraint]"},
    {"SchemaColumn", "name:str,type:str,nullable:bool,generated:bool"},
    {"SchemaConstraint", "type:str,name:str,columns:[str],referenced_table:ReferencedTable?"},
    {"ReferencedTable", "schema:str,table:str,columns:[str]"},
};

#define P BASE "/projects/{project}"
#define B P "/branches/{branch}"

/* Of a good answer; a route that is not here answers an object. */
static const struct {
    const char *method, *path, *members;
} answers[] = {
    {"GET", BASE "/projects", "projects:[Project]"},
    {"POST", BASE "/projects",
     "project:Project,branch:Branch,endpoints:[Endpoint],roles:[Role],databases:[Database],"
     "operations:[Operation],connection_uris:[ConnectionUri]"},
    {"GET", BASE "/projects/shared", "projects:[Project]"},
    {"GET", P, "project:Project"},
    {"PATCH", P, "project:Project,operations:[Operation]"},
    {"DELETE", P, "project:Project,operations:[Operation]"},
    {"POST", P "/recover", "project:Project,branches:[Branch],operations:[Operation]"},
    {"POST", B "/recover", "branch:Branch,endpoints:[Endpoint],operations:[Operation]"},
    {"GET", P "/connection_uri", "uri:str"},
    {"GET", P "/branches", "branches:[Branch],annotations:any"},
    {"GET", P "/branches/count", "count:int"},
    {"POST", P "/branches",
     "branch:Branch,endpoints:[Endpoint],roles:[Role],databases:[Database],"
     "operations:[Operation],connection_uris:[ConnectionUri]"},
    {"GET", B, "branch:Branch,annotation:any"},
    {"PATCH", B, "branch:Branch,operations:[Operation]"},
    {"DELETE", B, "branch:Branch,operations:[Operation]"},
    {"POST", B "/set_as_default", "branch:Branch,operations:[Operation]"},
    {"POST", B "/restore", "branch:Branch,operations:[Operation]"},
    {"GET", B "/schema", "sql:str?,json:Schema?"},
    {"GET", B "/compare_schema", "diff:str"},
    {"GET", B "/endpoints", "endpoints:[Endpoint]"},
    {"GET", B "/roles", "roles:[Role]"},
    {"POST", B "/roles", "role:Role,operations:[Operation]"},
    {"GET", B "/roles/{role}", "role:Role"},
    {"DELETE", B "/roles/{role}", "role:Role,operations:[Operation]"},
    {"GET", B "/roles/{role}/reveal_password", "password:str"},
    {"POST", B "/roles/{role}/reset_password", "role:Role,operations:[Operation]"},
    {"GET", B "/databases", "databases:[Database]"},
    {"POST", B "/databases", "database:Database,operations:[Operation]"},
    {"GET", B "/databases/{database}", "database:Database"},
    {"PATCH", B "/databases/{database}", "database:Database,operations:[Operation]"},
    {"DELETE", B "/databases/{database}", "database:Database,operations:[Operation]"},
    {"GET", P "/endpoints", "endpoints:[Endpoint]"},
    {"POST", P "/endpoints", "endpoint:Endpoint,operations:[Operation]"},
    {"GET", P "/endpoints/{endpoint}", "endpoint:Endpoint"},
    {"PATCH", P "/endpoints/{endpoint}", "endpoint:Endpoint,operations:[Operation]"},
    {"POST", P "/endpoints/{endpoint}/start", "endpoint:Endpoint,operations:[Operation]"},
    {"POST", P "/endpoints/{endpoint}/restart", "endpoint:Endpoint,operations:[Operation]"},
    {"POST", P "/endpoints/{endpoint}/suspend", "endpoint:Endpoint,operations:[Operation]"},
    {"POST", B "/snapshot", "snapshot:Snapshot,operations:[Operation]"},
    {"GET", P "/snapshots", "snapshots:[Snapshot]"},
    {"GET", P "/snapshots/{snapshot}", "snapshot:Snapshot"},
    {"PATCH", P "/snapshots/{snapshot}", "snapshot:Snapshot,operations:[Operation]"},
    {"DELETE", P "/snapshots/{snapshot}", "snapshot:Snapshot,operations:[Operation]"},
    {"POST", P "/snapshots/{snapshot}/restore",
     "branch:Branch,endpoints:[Endpoint],operations:[Operation]"},
    {"POST", B "/finalize_restore", "branch:Branch,endpoints:[Endpoint],operations:[Operation]"},
    {"GET", B "/backup_schedule", "schedule:[Rule],failure:ScheduleFailure?"},
    {"GET", P "/retention", "history_retention_seconds:int,history_retention_bytes:int"},
    {"GET", P "/size",
     "timelines:int,logical_bytes:int,physical_bytes:int,synthetic_bytes:int?,"
     "branches:[BranchSize]"},
    {"GET", B "/leases", "leases:[Lease]"},
    {"PUT", B "/leases/{lease}", ":Lease"},
    {"GET", B "/digest", "lsn:str,relations:int,pages:int,hash:str"},
    {"GET", B "/why_kept", "cutoff_lsn:str,kept_by:[Holder],left_out:int"},
    {"GET", B "/time_of_lsn", "lsn:str,time:time"},
    {"GET", B "/diff", "relations:any"},
    {"GET", BASE "/consumption_history/projects", "projects:[Consumption]"},
    {"GET", BASE "/consumption_history/v2/projects", "projects:[Consumption]"},
    {"GET", BASE "/consumption_history/v2/branches", "branches:[BranchConsumption]"},
    {"GET", BASE "/consumption_history/account", "periods:any"},
    {"GET", P "/operations", "operations:[Operation]"},
    {"GET", P "/operations/{operation}", "operation:Operation"},
    {"GET", BASE "/users/me/organizations", "organizations:[Organization]"},
    {"GET", BASE "/organizations/{organization}", ":Organization"},
    {"GET", BASE "/regions", "regions:[Region]"},
    {"GET", BASE "/api_keys", ":[Key]"},
    {"POST", BASE "/api_keys", ":Key"},
};

/* ---- schemas from the tables ---- */

static struct doc *typed(const char *type)
{
    return doc_set_str(doc_object(), "type", type);
}

static struct doc *schema_of_type(const char *type, size_t size)
{
    static const char *const plain[][2] = {
        {"str", "string"}, {"int", "integer"}, {"bool", "boolean"}};
    bool is_list = size > 2 && type[0] == '[';
    const char *name = is_list ? type + 1 : type;
    size_t name_size = is_list ? size - 2 : size;
    struct doc *schema = NULL;
    for (size_t i = 0; i < ARRAY_LEN(plain) && schema == NULL; i++) {
        if (strlen(plain[i][0]) == name_size && memcmp(plain[i][0], name, name_size) == 0) {
            schema = typed(plain[i][1]);
        }
    }
    if (schema == NULL && name_size == 4 && memcmp(name, "time", 4) == 0) {
        schema = doc_set_str(typed("string"), "format", "date-time");
    } else if (schema == NULL && name_size == 3 && memcmp(name, "any", 3) == 0) {
        schema = doc_object();
    } else if (schema == NULL) {
        char path[96];
        snprintf(path, sizeof path, "#/components/schemas/%.*s", (int)name_size, name);
        schema = doc_set_str(doc_object(), "$ref", path);
    }
    return is_list ? doc_set(typed("array"), "items", schema) : schema;
}

static struct doc *schema_of(const char *members)
{
    if (members[0] == ':') {
        return schema_of_type(members + 1, strlen(members + 1));
    }
    struct doc *properties = doc_object(), *required = doc_array();
    for (const char *at = members; *at != '\0';) {
        char name[64];
        size_t size = strcspn(at, ",");
        size_t name_size = strcspn(at, ":");
        ASSERT(name_size < size && name_size < sizeof name);
        bool optional = at[size - 1] == '?';
        snprintf(name, sizeof name, "%.*s", (int)name_size, at);
        doc_set(
            properties, name,
            schema_of_type(at + name_size + 1, size - name_size - 1 - (optional ? 1 : 0)));
        if (!optional) {
            doc_push(required, doc_str(name));
        }
        at += size + (at[size] == ',');
    }
    return doc_set(doc_set(typed("object"), "properties", properties), "required", required);
}

/* ---- paths from the routes ---- */

static struct doc *answer_doc(const char *description, struct doc *schema, const char *type)
{
    struct doc *media = doc_set(doc_object(), "schema", schema);
    struct doc *content = doc_set(doc_object(), type, media);
    return doc_set(doc_set_str(doc_object(), "description", description), "content", content);
}

static struct doc *responses_of(const struct http_route *route)
{
    struct doc *schema = NULL;
    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        if (strcmp(answers[i].method, route->method) == 0 &&
            strcmp(answers[i].path, route->path) == 0) {
            schema = schema_of(answers[i].members);
        }
    }
    struct doc *responses = doc_object();
    schema = schema != NULL ? schema : doc_object();
    doc_set(responses, "2XX", answer_doc("done, or decided", schema, "application/json"));
    return doc_set(
        responses, "default",
        answer_doc(
            "refused, or not possible now", schema_of_type("Problem", strlen("Problem")),
            "application/problem+json"));
}

static struct doc *parameters_of(const struct http_route *route)
{
    struct doc *parameters = doc_array();
    for (const char *at = strchr(route->path, '{'); at != NULL; at = strchr(at + 1, '{')) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(at + 1, "}"), at + 1);
        struct doc *parameter = doc_set_str(doc_object(), "name", name);
        doc_set_str(parameter, "in", "path");
        doc_set_bool(parameter, "required", true);
        doc_push(parameters, doc_set(parameter, "schema", typed("string")));
    }
    query_parameters(route, parameters);
    return parameters;
}

static void add_route(struct doc *paths, const struct http_route *route)
{
    if (!str_starts_with(route->path, BASE "/")) {
        return;
    }
    const char *path = route->path + strlen(BASE);
    struct doc *item = doc_get(paths, path);
    if (item == NULL) {
        doc_set(paths, path, doc_object());
        item = doc_get(paths, path);
    }
    char method[8] = "";
    for (size_t i = 0; route->method[i] != '\0' && i + 1 < sizeof method; i++) {
        method[i] = (char)(route->method[i] | 0x20);
    }
    struct doc *operation = doc_set_str(doc_object(), "summary", route->help);
    doc_set_str(operation, "x-access", access_name(access_of(route)));
    doc_set(operation, "parameters", parameters_of(route));
    if (strcmp(route->method, "GET") != 0 && strcmp(route->method, "DELETE") != 0) {
        struct doc *schema = body_schema(body_of_route(route));
        struct doc *body =
            doc_set_bool(doc_object(), "required", doc_count(doc_get(schema, "required")) > 0);
        struct doc *media = doc_set(doc_object(), "schema", schema);
        doc_set(
            operation, "requestBody",
            doc_set(body, "content", doc_set(doc_object(), "application/json", media)));
    }
    doc_set(item, method, doc_set(operation, "responses", responses_of(route)));
}

static void get_openapi(struct http_context *context, struct http_request *request)
{
    (void)context;
    struct doc *info = doc_set_str(doc_object(), "title", "Anabranch");
    doc_set_str(info, "version", "2");
    doc_set(info, "license", doc_set_str(doc_object(), "name", "Apache-2.0"));
    struct doc *paths = doc_object(), *shapes = doc_object();
    for (size_t t = 0; t < api_table_count; t++) {
        for (size_t i = 0; i < *api_tables[t].count; i++) {
            add_route(paths, &api_tables[t].routes[i]);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(schemas); i++) {
        doc_set(shapes, schemas[i].name, schema_of(schemas[i].members));
    }
    struct doc *bearer = doc_set_str(typed("http"), "scheme", "bearer");
    struct doc *components = doc_set(doc_object(), "schemas", shapes);
    doc_set(components, "securitySchemes", doc_set(doc_object(), "key", bearer));
    struct doc *doc = doc_set_str(doc_object(), "openapi", "3.1.0");
    doc_set(doc, "info", info);
    doc_set(doc, "servers", doc_push(doc_array(), doc_set_str(doc_object(), "url", BASE)));
    doc_set(doc, "security", doc_push(doc_array(), doc_set(doc_object(), "key", doc_array())));
    doc_set(doc, "paths", paths);
    http_respond_json(request, 200, doc_set(doc, "components", components));
}

const struct http_route openapi_routes[] = {
    ROUTE("GET", BASE "/openapi.json", get_openapi, "this API as OpenAPI 3.1"),
};
const size_t openapi_route_count = ARRAY_LEN(openapi_routes);
