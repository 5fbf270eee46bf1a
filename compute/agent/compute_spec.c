#include "compute/agent/compute_spec.h"

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/str.h"

#define MEMORY_MB_MIN 256 /* less, and its own buffers and processes do not fit */
#define MEMORY_MB_MAX (4 * 1024 * 1024)
#define CPU_MILLI_MIN 50
#define CPU_MILLI_MAX 1024000

/*
 * What a user may not change, because committed data or the way to the storage depends on it, or
 * because it names files of the host. The values stand in compute_files.c. What begins with
 * archive_, primary_ or recovery_ is refused as a whole, and so is "include", which is no setting
 * but has Postgres read a file of anybody's.
 */
static const char *const forced_settings[] = {
    "allow_alter_system",
    "config_file",
    "data_checksums",
    "data_directory",
    "dynamic_library_path",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "ident_file",
    "jit_provider",
    "krb_server_keyfile",
    "listen_addresses",
    "log_destination",
    "log_directory", /* a monitor lists what is there */
    "logging_collector",
    "max_slot_wal_keep_size",
    "max_wal_senders",
    "port",
    "restart_after_crash",
    "restore_command",
    "ssl",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_crl_dir",
    "ssl_crl_file",
    "ssl_dh_params_file",
    "ssl_key_file",
    "ssl_passphrase_command",
    "summarize_wal",
    "synchronous_standby_names",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "wal_consistency_checking",
    "wal_init_zero",
    "wal_log_hints",
    "wal_recycle",
    "wal_sender_timeout",
};

/* The few of the extension's that only cost or save room and time. */
static const char *const open_settings[] = {
    "anabranch.allow_physical_slots", "anabranch.explain",          "anabranch.local_cache_max_mb",
    "anabranch.local_cache_mb",       "anabranch.prewarm_mb_per_s", "anabranch.read_ahead_blocks",
    "anabranch.relation_limit",       "anabranch.spill_limit_mb",
};

static bool belongs_to_the_storage(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(open_settings); i++) {
        if (strcmp(open_settings[i], name) == 0) {
            return false;
        }
    }
    static const char *const prefixes[] = {"anabranch.", "include", "primary_", "recovery_"};
    bool forced = false;
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
        forced = forced || str_starts_with(name, prefixes[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(forced_settings) && !forced; i++) {
        forced = strcmp(forced_settings[i], name) == 0;
    }
    return forced;
}

err_t compute_id_check(const char *id, struct errmsg *msg)
{
    size_t size = strlen(id);
    bool good = size > 0 && size < COMPUTE_ID_SIZE && id[0] != '.' && id[0] != '-';
    for (size_t i = 0; i < size && good; i++) {
        char c = id[i];
        good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '.' || c == '_' || c == '-';
    }
    if (!good) {
        return err_set(
            msg, ERR_INVALID,
            "\"%.70s\" is not a compute id: 1 to 64 letters, digits, dots, dashes", id);
    }
    return ERR_OK;
}

/*
 * A library of the host is loaded into the server, whatever it is: only those that belong to it.
 * Also as an output plugin, which everybody names who may make a slot.
 */
static bool is_library_elsewhere(const char *name, const char *text)
{
    return str_ends_with(name, "_libraries") && text != NULL && strchr(text, '/') != NULL;
}

err_t compute_setting_check(const char *name, const struct doc *value, struct errmsg *msg)
{
    size_t size = strlen(name);
    bool good = size > 0 && size <= 63 && !(name[0] >= '0' && name[0] <= '9');
    for (size_t i = 0; i < size && good; i++) {
        char c = name[i];
        good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
    }
    if (!good) {
        return err_set(msg, ERR_INVALID, "settings: \"%.70s\" is not the name of a setting", name);
    }
    if (str_starts_with(name, "archive_")) {
        return err_set(
            msg, ERR_INVALID,
            "settings: %s: a compute archives nothing: the storage keeps its WAL, and no branch "
            "may "
            "write into its source's archive",
            name);
    }
    if (belongs_to_the_storage(name)) {
        return err_set(
            msg, ERR_INVALID, "settings: %s belongs to the storage and cannot be changed", name);
    }
    const char *text = doc_value_str(value);
    if (text == NULL &&
        (value == NULL || doc_is_null(value) || doc_is_object(value) || doc_is_array(value))) {
        return err_set(
            msg, ERR_INVALID, "settings: %s: expected a text, a number or true or false", name);
    }
    if (text != NULL && strpbrk(text, "\n\r") != NULL) {
        return err_set(msg, ERR_INVALID, "settings: %s: a line break is not possible", name);
    }
    if (is_library_elsewhere(name, text)) {
        return err_set(
            msg, ERR_INVALID, "settings: %s: expected names of libraries, without a folder", name);
    }
    return ERR_OK;
}

static err_t get_port(
    const struct doc *object, const char *key, uint64_t min, uint16_t *ret_port, struct errmsg *msg)
{
    uint64_t port = 0;
    TRY(doc_get_u64(object, key, &port, msg));
    if (port < min || port > UINT16_MAX) {
        return err_set(msg, ERR_INVALID, "%s: expected a port from %" PRIu64 " to 65535", key, min);
    }
    *ret_port = (uint16_t)port;
    return ERR_OK;
}

/* Hosts go into settings files and connection strings: only what addresses are made of. */
static err_t get_host(
    const struct doc *object, const char *key, const char **ret_host, struct errmsg *msg)
{
    TRY(doc_get_str(object, key, ret_host, msg));
    size_t good =
        strspn(*ret_host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-_*");
    if (good == 0 || (*ret_host)[good] != '\0' || good > 100) {
        return err_set(msg, ERR_INVALID, "%s: \"%.60s\" is not a host", key, *ret_host);
    }
    return ERR_OK;
}

static err_t parse_safekeepers(
    const struct doc *body, struct compute_spec *spec, struct errmsg *msg)
{
    struct doc *list = NULL;
    TRY(doc_get_array(body, "safekeepers", &list, msg));
    spec->safekeeper_count = doc_count(list);
    if (spec->safekeeper_count == 0 || spec->safekeeper_count > COMPUTE_SAFEKEEPERS_MAX) {
        return err_set(
            msg, ERR_INVALID, "safekeepers: expected 1 to %d, found %zu", COMPUTE_SAFEKEEPERS_MAX,
            spec->safekeeper_count);
    }
    for (size_t i = 0; i < spec->safekeeper_count; i++) {
        struct compute_safekeeper *keeper = &spec->safekeepers[i];
        const struct doc *row = doc_at(list, i);
        err_t err = doc_get_u64(row, "id", &keeper->id, msg);
        err = err != ERR_OK ? err : get_host(row, "host", &keeper->host, msg);
        err = err != ERR_OK ? err : get_port(row, "port", 1, &keeper->port, msg);
        if (err == ERR_OK && doc_get(row, "http_port") != NULL) {
            err = get_port(row, "http_port", 0, &keeper->http_port, msg);
        }
        if (err != ERR_OK) {
            return err_wrap(msg, err, "safekeepers[%zu]", i);
        }
    }
    return ERR_OK;
}

static err_t parse_pageserver(const struct doc *body, struct compute_spec *spec, struct errmsg *msg)
{
    struct doc *pageserver = NULL;
    TRY(doc_get_object(body, "pageserver", &pageserver, msg));
    err_t err = get_host(pageserver, "host", &spec->pageserver_host, msg);
    err = err != ERR_OK ? err : get_port(pageserver, "port", 1, &spec->pageserver_port, msg);
    err = err != ERR_OK ? err : doc_get_str(pageserver, "http_url", &spec->pageserver_url, msg);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "pageserver");
}

static err_t get_generation(
    const struct doc *body, const char *key, generation_t *ret, struct errmsg *msg)
{
    uint64_t value = 0;
    TRY(doc_get_u64(body, key, &value, msg));
    if (value > INT32_MAX) {
        return err_set(msg, ERR_INVALID, "%s: at most %d", key, INT32_MAX);
    }
    *ret = (generation_t)value;
    return ERR_OK;
}

static err_t parse_identity(const struct doc *body, struct compute_spec *spec, struct errmsg *msg)
{
    const char *text = NULL;
    uint64_t version = 0;
    uint64_t port = 0;
    TRY(doc_get_str(body, "tenant", &text, msg));
    TRY(tenant_id_parse(text, &spec->tenant, msg));
    TRY(doc_get_str(body, "timeline", &text, msg));
    TRY(timeline_id_parse(text, &spec->timeline, msg));
    TRY(doc_get_str(body, "system_id", &text, msg));
    err_t err = parse_u64(text, 1, UINT64_MAX, &spec->system_id, msg);
    if (err != ERR_OK) {
        return err_wrap(msg, err, "system_id");
    }
    TRY(doc_get_u64(body, "pg_version", &version, msg));
    if (version != 17 && version / 10000 != 17) {
        return err_set(
            msg, ERR_UNSUPPORTED, "pg_version: %" PRIu64 " is not supported, only 17", version);
    }
    spec->pg_version = (uint32_t)version;
    TRY(doc_opt_u64(body, "port", &port, msg));
    if (port > UINT16_MAX) {
        return err_set(msg, ERR_INVALID, "port: at most 65535");
    }
    spec->port = (uint16_t)port;
    TRY(get_generation(body, "membership_generation", &spec->membership_generation, msg));
    return get_generation(body, "generation", &spec->generation, msg);
}

/* Names and passwords of roles, names and owners of databases; NUL cannot occur in a doc. */
static err_t check_names(
    const struct doc *list,
    const char *what,
    const char *second,
    bool second_required,
    struct errmsg *msg)
{
    for (size_t i = 0; i < doc_count(list); i++) {
        const char *name = NULL;
        const char *text = NULL;
        err_t err = doc_get_str(doc_at(list, i), "name", &name, msg);
        if (err == ERR_OK && (name[0] == '\0' || strlen(name) > 63)) {
            err = err_set(msg, ERR_INVALID, "name: expected 1 to 63 bytes");
        }
        if (err == ERR_OK) {
            err = second_required ? doc_get_str(doc_at(list, i), second, &text, msg)
                                  : doc_opt_str(doc_at(list, i), second, &text, msg);
        }
        if (err != ERR_OK) {
            return err_wrap(msg, err, "%s[%zu]", what, i);
        }
    }
    return ERR_OK;
}

static err_t opt_array(
    const struct doc *body, const char *key, struct doc **ret_list, struct errmsg *msg)
{
    const struct doc *value = doc_get(body, key);
    return value == NULL || doc_is_null(value) ? ERR_OK : doc_get_array(body, key, ret_list, msg);
}

static err_t parse_settings(const struct doc *body, struct compute_spec *spec, struct errmsg *msg)
{
    const struct doc *settings = doc_get(body, "settings");
    err_t err = ERR_OK;
    if (settings == NULL || doc_is_null(settings)) {
        return ERR_OK;
    }
    TRY(doc_get_object(body, "settings", &spec->settings, msg));
    DOC_FOR_EACH(spec->settings, name, value)
    {
        err = err != ERR_OK ? err : compute_setting_check(name, value, msg);
    }
    return err;
}

static err_t parse_dropped(const struct doc *body, struct compute_spec *spec, struct errmsg *msg)
{
    static const char *const kinds[] = {"roles", "databases"};
    spec->dropped = doc_get(body, "dropped");
    if (spec->dropped != NULL && !doc_is_object(spec->dropped)) {
        return err_set(msg, ERR_INVALID, "dropped: expected an object");
    }
    const struct doc *changed = doc_get(spec->dropped, "changed");
    for (size_t i = 0; i < doc_count(changed); i++) {
        const char *from = NULL, *to = NULL;
        TRY(doc_get_str(doc_at(changed, i), "from", &from, msg));
        TRY(doc_get_str(doc_at(changed, i), "to", &to, msg));
    }
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        const struct doc *names = doc_get(spec->dropped, kinds[i]);
        for (size_t j = 0; j < doc_count(names); j++) {
            if (doc_value_str(doc_at(names, j)) == NULL) {
                return err_set(msg, ERR_INVALID, "dropped.%s: expected names", kinds[i]);
            }
        }
    }
    return ERR_OK;
}

static err_t parse_compute_size(
    const struct doc *body, struct compute_spec *spec, struct errmsg *msg)
{
    const struct doc *size = doc_get(body, "size");
    if (size == NULL || doc_is_null(size)) {
        return ERR_OK;
    }
    err_t err = doc_is_object(size) ? ERR_OK : err_set(msg, ERR_INVALID, "expected an object");
    err = err != ERR_OK ? err : doc_opt_u64(size, "memory_mb", &spec->memory_mb, msg);
    err = err != ERR_OK ? err : doc_opt_u64(size, "cpu_milli", &spec->cpu_milli, msg);
    if (err == ERR_OK && spec->memory_mb != 0 &&
        (spec->memory_mb < MEMORY_MB_MIN || spec->memory_mb > MEMORY_MB_MAX)) {
        err = err_set(
            msg, ERR_INVALID, "memory_mb: expected %d to %d, or 0 for no limit", MEMORY_MB_MIN,
            MEMORY_MB_MAX);
    }
    if (err == ERR_OK && spec->cpu_milli != 0 &&
        (spec->cpu_milli < CPU_MILLI_MIN || spec->cpu_milli > CPU_MILLI_MAX)) {
        err = err_set(
            msg, ERR_INVALID, "cpu_milli: expected %d to %d, or 0 for no limit", CPU_MILLI_MIN,
            CPU_MILLI_MAX);
    }
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "size");
}

static err_t parse_contents(const struct doc *body, struct compute_spec *spec, struct errmsg *msg)
{
    TRY(doc_opt_bool(body, "branch", &spec->is_branch, msg));
    TRY(doc_opt_bool(body, "quarantine", &spec->quarantine, msg));
    TRY(parse_compute_size(body, spec, msg));
    TRY(parse_settings(body, spec, msg));
    TRY(opt_array(body, "roles", &spec->roles, msg));
    TRY(opt_array(body, "databases", &spec->databases, msg));
    TRY(check_names(spec->roles, "roles", "password", false, msg));
    TRY(check_names(spec->databases, "databases", "owner", false, msg));
    TRY(parse_dropped(body, spec, msg));
    return doc_opt_str(body, "superuser_password", &spec->superuser_password, msg);
}

err_t compute_spec_parse(struct doc *body, struct compute_spec **ret_spec, struct errmsg *msg)
{
    struct compute_spec *spec = MEM_NEW(struct compute_spec);
    spec->body = doc_ref(body);
    spec->listen_host = "127.0.0.1";
    err_t err = parse_identity(body, spec, msg);
    if (err == ERR_OK && doc_get(body, "listen_host") != NULL) {
        err = get_host(body, "listen_host", &spec->listen_host, msg);
    }
    err = err != ERR_OK ? err : parse_safekeepers(body, spec, msg);
    err = err != ERR_OK ? err : parse_pageserver(body, spec, msg);
    err = err != ERR_OK ? err : parse_contents(body, spec, msg);
    if (err != ERR_OK) {
        compute_spec_destroy(spec);
        return err;
    }
    *ret_spec = spec;
    return ERR_OK;
}

void compute_spec_destroy(struct compute_spec *spec)
{
    if (spec != NULL) {
        doc_unref(spec->body);
        mem_free(spec);
    }
}

bool compute_spec_equal(const struct compute_spec *a, const struct compute_spec *b)
{
    return doc_equal(a->body, b->body);
}

struct doc *compute_spec_redacted(const struct compute_spec *spec)
{
    struct doc *copy = doc_copy(spec->body);
    struct doc *roles = doc_get(copy, "roles");
    for (size_t i = 0; i < doc_count(roles); i++) {
        doc_remove(doc_at(roles, i), "password");
    }
    doc_remove(copy, "superuser_password");
    return copy;
}
