#include "compute/agent/registration.h"

#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/timer.h"
#include "common/rpc/rpc.h"

/* Parts of a lease: 1/3 + 2 * (1/6 + 1/10) is less than one, so that two lost calls do no harm. */
#define SAY_PART     3
#define TIMEOUT_PART 6
#define AGAIN_PART   10
#define LEASE_MS_MIN 1000

struct registration {
    struct loop *loop;
    struct http_client *client;
    const struct agent_conf *conf;
    uint16_t http_port;
    struct timer timer;
    struct http_call call;
    mono_ns_t called_at;
    bool calling, stopped, told;
    struct errmsg trouble;
};

static void say(struct registration *registration);

uint64_t registration_timeout_ms(uint64_t lease_ms)
{
    return lease_ms / TIMEOUT_PART;
}

/* What was heard was heard when the call began, at the earliest. */
uint64_t registration_pause_ms(uint64_t lease_ms, bool heard, uint64_t took_ms)
{
    uint64_t part_ms = lease_ms / SAY_PART;
    if (!heard) {
        return lease_ms / AGAIN_PART;
    }
    return part_ms - MIN_OF(took_ms, part_ms);
}

static void on_time(struct timer *timer)
{
    say(CONTAINER_OF(timer, struct registration, timer));
}

static void note(struct registration *registration, err_t result, const struct errmsg *msg)
{
    bool was_told = registration->told;
    registration->told = result == ERR_OK;
    if (result == ERR_OK) {
        registration->trouble.text[0] = '\0';
        if (!was_told) {
            log_info(
                NULL, "registered with control as host %" PRIu64, registration->conf->agent_id);
        }
    } else {
        if (was_told || registration->trouble.text[0] == '\0') {
            log_warn(NULL, "cannot register with control, trying again: %s", msg->text);
        }
        registration->trouble = *msg;
    }
}

static void on_said(struct http_call *call)
{
    struct registration *registration = CONTAINER_OF(call, struct registration, call);
    struct errmsg msg = call->msg;
    struct doc *body = NULL;
    err_t err = call->result;
    registration->calling = false;
    if (err == ERR_OK) {
        err = http_call_json(call, &body, &msg);
        doc_unref(body);
    }
    http_call_deinit(call);
    if (registration->stopped) {
        return;
    }
    note(registration, err, &msg);
    uint64_t took_ms = (clock_mono() - registration->called_at) / NS_PER_MS;
    timer_start(
        registration->loop, &registration->timer,
        registration_pause_ms(registration->conf->lease_ms, err == ERR_OK, took_ms));
}

static void say(struct registration *registration)
{
    const struct agent_conf *conf = registration->conf;
    struct buf url = {0}, text = {0};
    struct doc *body = doc_set_str(doc_object(), "host", conf->advertise_host);
    doc_set_int(body, "http_port", registration->http_port);
    doc_set_str(body, "listen_host", conf->compute_listen_host);
    doc_set_int(body, "lease_ms", (int64_t)conf->lease_ms);
    doc_print(body, false, &text);
    doc_unref(body);
    char number[24];
    (void)snprintf(number, sizeof(number), "%" PRIu64, conf->agent_id);
    buf_printf(&url, "%s", conf->control_url);
    rpc_path(&url, RPC_CONTROL_PUT_HOST, number);
    registration->calling = true;
    registration->called_at = clock_mono();
    registration->call = (struct http_call){
        .method = rpc_method(RPC_CONTROL_PUT_HOST)->verb,
        .url = buf_cstr(&url),
        .body = buf_view(&text),
        .token = conf->control_token[0] == '\0' ? NULL : conf->control_token,
        .timeout_ms = registration_timeout_ms(conf->lease_ms),
        .done = on_said,
    };
    http_call_start(registration->client, &registration->call);
    buf_deinit(&url);
    buf_deinit(&text);
}

static err_t check(const struct agent_conf *conf, struct errmsg *msg)
{
    if (conf->agent_id == 0 || conf->advertise_host[0] == '\0') {
        return err_set(
            msg, ERR_INVALID,
            "with control_url, settings agent_id and advertise_host are required");
    }
    if (conf->lease_ms < LEASE_MS_MIN) {
        return err_set(msg, ERR_INVALID, "lease_ms: at least %d ms", LEASE_MS_MIN);
    }
    return ERR_OK;
}

err_t registration_create(
    struct loop *loop,
    struct http_client *client,
    const struct agent_conf *conf,
    uint16_t http_port,
    struct registration **ret_registration,
    struct errmsg *msg)
{
    if (conf->control_url[0] == '\0') {
        *ret_registration = NULL;
        return ERR_OK;
    }
    TRY(check(conf, msg));
    struct registration *registration = MEM_NEW(struct registration);
    registration->loop = loop;
    registration->client = client;
    registration->conf = conf;
    registration->http_port = http_port;
    registration->timer.on_fire = on_time;
    timer_start(loop, &registration->timer, 0);
    *ret_registration = registration;
    return ERR_OK;
}

void registration_stop(struct registration *registration)
{
    if (registration != NULL) {
        registration->stopped = true;
        timer_stop(&registration->timer);
        if (registration->calling) {
            http_call_cancel(&registration->call);
        }
    }
}

const char *registration_trouble(const struct registration *registration)
{
    return registration == NULL || registration->told ? "" : registration->trouble.text;
}
