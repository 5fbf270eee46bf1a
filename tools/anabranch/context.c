#include "tools/anabranch/context.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/io/file.h"
#include "common/io/http_client.h"
#include "tools/anabranch/output.h"

#define CALL_TIMEOUT_MS  58000
#define CLUSTER_FILE_MAX (1 * MIB)

err_t context_data_dir(struct args *args, char ret_path[PATH_SIZE], struct errmsg *msg)
{
    const char *given = args_flag(args, "data");
    const char *variable = getenv("ANABRANCH_DATA"); // NOLINT(concurrency-mt-unsafe)
    const char *home = getenv("HOME");               // NOLINT(concurrency-mt-unsafe)
    const char *from = given != NULL ? given : variable;
    if (from != NULL && from[0] == '/') {
        return str_copy(ret_path, PATH_SIZE, from, msg);
    }
    if (from != NULL && from[0] != '\0') {
        char here[PATH_SIZE];
        if (getcwd(here, sizeof here) == NULL) {
            return err_set(msg, ERR_IO, "the current folder has no name");
        }
        return str_format(ret_path, PATH_SIZE, msg, "%s/%s", here, from);
    }
    if (geteuid() == 0) { /* Postgres runs as another user, who cannot enter /root */
        return str_copy(ret_path, PATH_SIZE, "/var/lib/anabranch/local", msg);
    }
    if (home == NULL) {
        return err_set(msg, ERR_INVALID, "HOME is not set: say --data DIR");
    }
    return str_format(ret_path, PATH_SIZE, msg, "%s/.anabranch/local", home);
}

static err_t read_key(const char *path, char to[API_KEY_SIZE], struct errmsg *msg)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    if (file == NULL) {
        return err_set(msg, err_from_errno(errno), "--api-key-file %s: %m", path);
    }
    to[0] = '\0';
    bool has_line = fgets(to, API_KEY_SIZE, file) != NULL;
    to[strcspn(to, " \t\r\n")] = '\0';
    if (file != stdin) {
        (void)fclose(file);
    }
    return has_line && to[0] != '\0'
               ? ERR_OK
               : err_set(msg, ERR_INVALID, "--api-key-file %s: its first line is no key", path);
}

static err_t take_key(struct context *context, struct errmsg *msg)
{
    const char *file = args_flag(context->args, "api-key-file");
    TRY(args_take_secret(context->args, "api-key", context->api_key, API_KEY_SIZE, msg));
    if (file != NULL) {
        TRY(read_key(file, context->api_key, msg));
    }
    context->access.key =
        context->api_key[0] != '\0' ? context->api_key : getenv("ANABRANCH_API_KEY"); // NOLINT
    return ERR_OK;
}

err_t context_init(struct context *context, struct args *args, struct errmsg *msg)
{
    const char *output = args_flag(args, "output");
    const char *ca = args_flag(args, "api-ca");
    *context = (struct context){.args = args};
    const char *words[2] = {args_word(args, 0), args_word(args, 1)};
    bool has_env = words[0] != NULL && words[1] != NULL && strcmp(words[1], "up") == 0 &&
                   str_starts_with(words[0], "branch");
    context->env = has_env && output != NULL && strcmp(output, "env") == 0;
    bool is_yaml = output != NULL && strcmp(output, "yaml") == 0;
    if (output != NULL && !context->env && !is_yaml && strcmp(output, "json") != 0 &&
        strcmp(output, "table") != 0) {
        return err_set(
            msg, ERR_INVALID, "-o %s: expected json, yaml%s or table", output,
            has_env ? ", env" : "");
    }
    if (is_yaml) {
        output_use_yaml();
    }
    context->json = is_yaml || (output != NULL && strcmp(output, "json") == 0);
    TRY(take_key(context, msg));
    context->access.ca = ca != NULL ? ca : getenv("ANABRANCH_API_CA"); // NOLINT
    return context_data_dir(args, context->data_dir, msg);
}

void context_escape(struct buf *to, const char *text)
{
    for (const char *at = text; *at != '\0'; at++) {
        bool plain = (*at >= '0' && *at <= '9') || (*at >= 'a' && *at <= 'z') ||
                     (*at >= 'A' && *at <= 'Z') || strchr("-_.~", *at) != NULL;
        buf_printf(to, plain ? "%c" : "%%%02X", (unsigned char)*at);
    }
}

static err_t url_of_local_cluster(struct context *context, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    struct doc *cluster = NULL;
    const char *url = NULL;
    TRY(str_format(path, sizeof path, msg, "%.900s/cluster.json", context->data_dir));
    if (!file_exists(path)) {
        return err_set(
            msg, ERR_NOT_FOUND,
            "no cluster: %s does not exist. Start one with `anabranch local up`, or say --api-url",
            path);
    }
    err_t err = file_read_all(path, CLUSTER_FILE_MAX, &text, msg);
    if (err == ERR_OK) {
        err = doc_parse(buf_view(&text), &cluster, msg);
    }
    if (err == ERR_OK) {
        err = doc_get_str(cluster, "api_url", &url, msg);
    }
    if (err == ERR_OK) {
        err = str_copy(context->api_url, sizeof context->api_url, url, msg);
    }
    doc_unref(cluster);
    buf_deinit(&text);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "%s", path);
}

err_t context_need_api(struct context *context, struct errmsg *msg)
{
    const char *url = args_flag(context->args, "api-url");
    if (url == NULL) {
        url = getenv("ANABRANCH_API_URL"); // NOLINT(concurrency-mt-unsafe)
    }
    if (url == NULL || url[0] == '\0') {
        return url_of_local_cluster(context, msg);
    }
    TRY(str_copy(context->api_url, sizeof context->api_url, url, msg));
    size_t size = strlen(context->api_url);
    while (size > 0 && context->api_url[size - 1] == '/') {
        context->api_url[--size] = '\0';
    }
    if (!str_ends_with(context->api_url, "/api/v2")) {
        return str_format(context->api_url, sizeof context->api_url, msg, "%.900s/api/v2", url);
    }
    return ERR_OK;
}

err_t call_url(
    const char *method,
    const char *url,
    struct api_access access,
    struct doc *body,
    uint64_t timeout_ms,
    struct doc **ret_answer,
    struct errmsg *msg)
{
    struct buf text = {0};
    if (body != NULL) {
        doc_print(body, false, &text);
        doc_unref(body);
    }
    struct http_call call = {
        .method = method,
        .url = url,
        .body = buf_view(&text),
        .token = access.key,
        .authorities = access.ca,
        .timeout_ms = timeout_ms,
    };
    err_t err = http_call_blocking(&call, msg);
    if (err == ERR_OK) {
        err = http_call_json(&call, ret_answer, msg);
        if (err == ERR_INVALID && call.status == 422) {
            err = ERR_FAILED; /* well said, but it cannot be: no question of how to say it */
        }
    }
    http_call_deinit(&call);
    buf_deinit(&text);
    return err;
}

err_t context_call(
    struct context *context,
    const char *method,
    const char *path,
    struct doc *body,
    struct doc **ret_answer,
    struct errmsg *msg)
{
    struct buf url = {0};
    buf_printf(&url, "%s%s", context->api_url, path);
    err_t err =
        call_url(method, buf_cstr(&url), context->access, body, CALL_TIMEOUT_MS, ret_answer, msg);
    buf_deinit(&url);
    return err;
}
