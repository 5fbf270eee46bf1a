#include "control/gateway/route_watch.h"

#include "common/base/log.h"
#include "common/rpc/rpc.h"

#define WAIT_MS    25000
#define TIMEOUT_MS 35000
#define AGAIN_MS   1000 /* after control did not answer */

static void ask(struct route_watch *watch);

static err_t take(struct route_watch *watch, const struct doc *body, struct errmsg *msg)
{
    struct doc *endpoints = NULL;
    bool is_all = false;
    TRY(doc_get_u64(body, "next", &watch->since, msg));
    TRY(doc_opt_bool(body, "all", &is_all, msg));
    TRY(doc_get_array(body, "endpoints", &endpoints, msg));
    if (is_all) {
        routes_forget_all(watch->routes);
    }
    for (size_t i = 0; i < doc_count(endpoints); i++) {
        const char *id = doc_value_str(doc_at(endpoints, i));
        if (id != NULL) {
            routes_forget_endpoint(watch->routes, id);
        }
    }
    return ERR_OK;
}

static void on_answer(struct http_call *call)
{
    struct route_watch *watch = CONTAINER_OF(call, struct route_watch, call);
    struct doc *body = NULL;
    struct errmsg msg = {0};
    watch->is_calling = false;
    err_t err = watch->is_stopping ? ERR_CANCELED : http_call_json(call, &body, &msg);
    if (err == ERR_OK) {
        err = take(watch, body, &msg);
        doc_unref(body);
    }
    http_call_deinit(call);
    if (watch->is_stopping) {
        return;
    }
    if (err == ERR_OK) {
        ask(watch);
    } else {
        log_debug(NULL, "control does not say what changed: %s", msg.text);
        timer_start(watch->loop, &watch->again, AGAIN_MS);
    }
}

static void on_again(struct timer *timer)
{
    ask(CONTAINER_OF(timer, struct route_watch, again));
}

static void ask(struct route_watch *watch)
{
    struct buf text = {0};
    struct doc *body = doc_set_int(doc_object(), "since", (int64_t)watch->since);
    doc_set_int(body, "wait_ms", WAIT_MS);
    doc_print(body, false, &text);
    doc_unref(body);
    watch->call = (struct http_call){
        .method = rpc_method(RPC_CONTROL_CHANGES)->verb,
        .url = watch->url,
        .body = buf_view(&text),
        .token = watch->token[0] == '\0' ? NULL : watch->token,
        .timeout_ms = TIMEOUT_MS,
        .done = on_answer,
    };
    watch->is_calling = true;
    http_call_start(watch->client, &watch->call);
    buf_deinit(&text);
}

err_t route_watch_start(
    struct route_watch *watch,
    struct loop *loop,
    struct http_client *client,
    struct routes *routes,
    const struct routes_options *options,
    struct errmsg *msg)
{
    *watch = (struct route_watch){.loop = loop, .client = client, .routes = routes};
    TRY(str_format(
        watch->url, sizeof watch->url, msg, "%s%s", options->control_url,
        rpc_method(RPC_CONTROL_CHANGES)->path));
    TRY(str_copy(watch->token, sizeof watch->token, options->token, msg));
    watch->again.on_fire = on_again;
    ask(watch);
    return ERR_OK;
}

void route_watch_stop(struct route_watch *watch)
{
    watch->is_stopping = true;
    timer_stop(&watch->again);
    if (watch->is_calling) {
        http_call_cancel(&watch->call);
    }
}
