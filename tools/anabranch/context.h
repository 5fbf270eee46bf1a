/*
 * context.h - which cluster the commands talk to, and how.
 *
 * The API's URL: --api-url, ANABRANCH_API_URL, or the cluster.json of the local cluster in --data,
 * ANABRANCH_DATA or the default folder. The key: --api-key-file (-: standard input), --api-key
 * (blanked at once in the command line, which everybody on the machine sees), or ANABRANCH_API_KEY.
 * Who signs the certificate of an https:// URL: --api-ca or ANABRANCH_API_CA, else whom the system
 * trusts. The project of branches, endpoints, operations and snapshots: --project or
 * ANABRANCH_PROJECT.
 */
#pragma once

#include "common/json/doc.h"
#include "tools/anabranch/args.h"

#define API_KEY_SIZE 256

struct api_access {
    const char *key; /* or NULL */
    const char *ca;  /* PEM file; NULL: the system's */
};

struct context {
    struct args *args;
    bool json, env; /* -o json or yaml; -o env is for `branch up` only */
    char data_dir[PATH_SIZE];
    char api_url[PATH_SIZE]; /* ends with /api/v2; "" until context_need_api */
    struct api_access access;
    char api_key[API_KEY_SIZE];
};

NODISCARD err_t context_init(struct context *context, struct args *args, struct errmsg *msg);
/* The folder of the local cluster; also when nothing is there yet. */
NODISCARD err_t context_data_dir(struct args *args, char ret_path[PATH_SIZE], struct errmsg *msg);
NODISCARD err_t context_need_api(struct context *context, struct errmsg *msg);
/* For a path, or what is behind its `?`: all but letters, digits and -_.~ as %XX. */
void context_escape(struct buf *to, const char *text);

/* A call below /api/v2; `body` is taken over and may be NULL. */
NODISCARD err_t context_call(
    struct context *context,
    const char *method,
    const char *path,
    struct doc *body,
    struct doc **ret_answer,
    struct errmsg *msg);
/* The same to any URL. */
NODISCARD err_t call_url(
    const char *method,
    const char *url,
    struct api_access access,
    struct doc *body,
    uint64_t timeout_ms,
    struct doc **ret_answer,
    struct errmsg *msg);
