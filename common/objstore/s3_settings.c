#include "common/objstore/s3_settings.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/io/file.h"

#define URL_SIZE             2048
#define CREDENTIALS_SIZE_MAX (64 * KIB)
#define KEY_SIZE_MAX         4096

#define CONF_OWNER struct s3_settings
static const struct conf_setting settings[] = {S3_SETTINGS(CONF_ROW)};

/* Place. */

static bool only_of(const char *text, const char *extra)
{
    for (; *text != '\0'; text++) {
        bool plain = (*text >= 'a' && *text <= 'z') || (*text >= '0' && *text <= '9');
        if (!plain && strchr(extra, *text) == NULL) {
            return false;
        }
    }
    return true;
}

#define CAPITALS "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

static err_t set_bucket(struct s3_place *place, const char *bucket, struct errmsg *msg)
{
    size_t size = strlen(bucket);
    if (size < 3 || size >= sizeof(place->bucket) || !only_of(bucket, ".-") || bucket[0] == '.' ||
        strstr(bucket, "..") != NULL) {
        return err_set(msg, ERR_INVALID, "bucket \"%.64s\": 3 to 63 of a-z 0-9 . -", bucket);
    }
    return str_copy(place->bucket, sizeof(place->bucket), bucket, msg);
}

static err_t set_prefix(struct s3_place *place, const char *prefix, struct errmsg *msg)
{
    size_t size = strlen(prefix);
    while (size > 0 && prefix[size - 1] == '/') {
        size--;
    }
    if (size == 0) {
        return ERR_OK;
    }
    if (!only_of(prefix, CAPITALS "._-/") || prefix[0] == '.' || prefix[0] == '/' ||
        strstr(prefix, "/.") != NULL || strstr(prefix, "//") != NULL) {
        return err_set(msg, ERR_INVALID, "prefix \"%.64s\": as an object's name", prefix);
    }
    return str_format(place->prefix, sizeof(place->prefix), msg, "%.*s/", (int)size, prefix);
}

static err_t set_pairs(struct s3_place *place, char *query, struct errmsg *msg)
{
    while (query != NULL) {
        char *pair = strsep(&query, "&");
        char *value = strchr(pair, '=');
        if (value == NULL) {
            return err_set(msg, ERR_INVALID, "\"%.60s\" is not name=value", pair);
        }
        *value++ = '\0';
        TRY(conf_set(&place->settings, settings, ARRAY_LEN(settings), pair, value, msg));
    }
    return ERR_OK;
}

static err_t check_endpoint(struct s3_settings *conf, struct errmsg *msg)
{
    if (conf->endpoint[0] == '\0') {
        return str_format(
            conf->endpoint, sizeof(conf->endpoint), msg, "https://s3.%s.amazonaws.com",
            conf->region);
    }
    bool secure = str_starts_with(conf->endpoint, "https://");
    const char *host = conf->endpoint + strlen(secure ? "https://" : "http://");
    if ((!secure && !str_starts_with(conf->endpoint, "http://")) || host[0] == '\0' ||
        !only_of(host, CAPITALS ".-:[]")) {
        return err_set(
            msg, ERR_INVALID, "endpoint \"%.100s\": expected http(s)://host or http(s)://host:port",
            conf->endpoint);
    }
    return ERR_OK;
}

static err_t check_count(
    const char *name, uint64_t value, uint64_t min, uint64_t max, struct errmsg *msg)
{
    if (value < min || value > max) {
        return err_set(
            msg, ERR_INVALID, "%s %" PRIu64 " is not in %" PRIu64 " .. %" PRIu64, name, value, min,
            max);
    }
    return ERR_OK;
}

static err_t check_settings(struct s3_settings *conf, struct errmsg *msg)
{
    const uint64_t day_ms = 86400 * (uint64_t)1000;
    if (conf->region[0] == '\0' || strlen(conf->region) > 64 || !only_of(conf->region, "-")) {
        return err_set(msg, ERR_INVALID, "region \"%.64s\": a-z 0-9 -", conf->region);
    }
    if (strcmp(conf->conditional_put, "yes") != 0 && strcmp(conf->conditional_put, "no") != 0 &&
        strcmp(conf->conditional_put, "probe") != 0) {
        return err_set(
            msg, ERR_INVALID, "conditional_put \"%.64s\": expected yes, no or probe",
            conf->conditional_put);
    }
    TRY(check_count("part_size", conf->part_size, KIB, GIB, msg));
    TRY(check_count("connect_timeout_ms", conf->connect_timeout_ms, 1, day_ms, msg));
    TRY(check_count("stall_timeout_ms", conf->stall_timeout_ms, 1000, day_ms, msg));
    TRY(check_count("deadline_ms", conf->deadline_ms, 1, day_ms, msg));
    TRY(check_count("attempts_max", conf->attempts_max, 1, 1000, msg));
    TRY(check_count("backoff_ms", conf->backoff_ms, 1, day_ms, msg));
    TRY(check_count("backoff_max_ms", conf->backoff_max_ms, conf->backoff_ms, day_ms, msg));
    TRY(check_count("list_page_count", conf->list_page_count, 1, 1000, msg));
    TRY(check_count("delete_batch_count", conf->delete_batch_count, 1, 1000, msg));
    return check_endpoint(conf, msg);
}

err_t s3_place_parse(const char *url, struct s3_place *ret_place, struct errmsg *msg)
{
    struct s3_place place = {0};
    char copy[URL_SIZE];
    if (!str_starts_with(url, "s3://")) {
        return err_set(msg, ERR_INVALID, "expected s3://bucket/prefix?settings");
    }
    TRY(str_copy(copy, sizeof(copy), url + strlen("s3://"), msg));
    char *query = copy;
    char *prefix = strsep(&query, "?");
    char *bucket = strsep(&prefix, "/");
    TRY(conf_set_defaults(&place.settings, settings, ARRAY_LEN(settings), msg));
    TRY(set_bucket(&place, bucket, msg));
    TRY(set_prefix(&place, prefix == NULL ? "" : prefix, msg));
    TRY(set_pairs(&place, query, msg));
    TRY(check_settings(&place.settings, msg));
    *ret_place = place;
    return ERR_OK;
}

/* Keys. */

static void forget(char *text)
{
    if (text != NULL) {
        explicit_bzero(text, strlen(text));
        mem_free(text);
    }
}

void s3_keys_deinit(struct s3_keys *keys)
{
    forget(keys->access);
    forget(keys->secret);
    forget(keys->session_token);
    *keys = (struct s3_keys){0};
}

/* A key goes into a header line: nothing in it may end one. */
static bool is_key(const char *text)
{
    size_t size = strlen(text);
    for (size_t i = 0; i < size; i++) {
        if (text[i] <= ' ' || text[i] > '~') {
            return false;
        }
    }
    return size > 0 && size <= KEY_SIZE_MAX;
}

static void take_key(char **to, const char *value)
{
    if (value != NULL && is_key(value)) {
        forget(*to);
        *to = mem_strdup(value);
    }
}

static char *trim(char *text)
{
    while (isspace((unsigned char)*text)) {
        text++;
    }
    size_t size = strlen(text);
    while (size > 0 && isspace((unsigned char)text[size - 1])) {
        text[--size] = '\0';
    }
    return text;
}

static void take_line(struct s3_keys *keys, char *line, bool *in_default)
{
    char *name = trim(line);
    if (name[0] == '[') {
        *in_default = strcmp(name, "[default]") == 0;
        return;
    }
    char *value = strchr(name, '=');
    if (!*in_default || name[0] == '#' || name[0] == ';' || value == NULL) {
        return;
    }
    *value++ = '\0';
    name = trim(name);
    value = trim(value);
    if (strcmp(name, "aws_access_key_id") == 0) {
        take_key(&keys->access, value);
    } else if (strcmp(name, "aws_secret_access_key") == 0) {
        take_key(&keys->secret, value);
    } else if (strcmp(name, "aws_session_token") == 0) {
        take_key(&keys->session_token, value);
    }
}

static err_t load_file(const char *path, struct s3_keys *keys, struct errmsg *msg)
{
    struct buf text = {0};
    struct stat status;
    if (stat(path, &status) != 0) {
        return err_set(msg, err_from_errno(errno), "credentials %s: %m", path);
    }
    if ((status.st_mode & 07) != 0) {
        return err_set(msg, ERR_DENIED, "credentials %s: others may read it: chmod o= it", path);
    }
    TRY(file_read_all(path, CREDENTIALS_SIZE_MAX, &text, msg));
    (void)buf_cstr(&text);
    char *rest = (char *)text.data;
    bool in_default = true; /* lines before any section count */
    while (rest != NULL) {
        take_line(keys, strsep(&rest, "\n"), &in_default);
    }
    explicit_bzero(text.data, text.size);
    buf_deinit(&text);
    return ERR_OK;
}

err_t s3_keys_load(const char *path, struct s3_keys *ret_keys, struct errmsg *msg)
{
    struct s3_keys keys = {0};
    err_t err = ERR_OK;
    if (path[0] != '\0') {
        err = load_file(path, &keys, msg);
    } else {
        take_key(&keys.access, getenv("AWS_ACCESS_KEY_ID"));
        take_key(&keys.secret, getenv("AWS_SECRET_ACCESS_KEY"));
        take_key(&keys.session_token, getenv("AWS_SESSION_TOKEN"));
    }
    if (err == ERR_OK && (keys.access == NULL || keys.secret == NULL)) {
        err = err_set(
            msg, ERR_DENIED, "no keys for S3 in %s",
            path[0] != '\0' ? path : "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
    }
    if (err != ERR_OK) {
        s3_keys_deinit(&keys);
        return err;
    }
    *ret_keys = keys;
    return ERR_OK;
}
