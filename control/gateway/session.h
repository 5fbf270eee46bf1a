/*
 * session.h - one client of the gateway and its connection to a compute. See gateway.h.
 */
#pragma once

#include "control/gateway/gateway.h"

struct session;

/* What sessions share; embedded by the gateway. */
struct sessions {
    struct loop *loop;
    struct routes *routes;
    struct pools *pools;
    struct tls_context *tls;
    const struct upstream_tls *upstream; /* NULL: computes are spoken to in plain */
    const struct gateway_options *options;
    struct list list;
    struct list strangers;    /* who has not proved anything yet; who came first is first */
    size_t count, live_count; /* the latter without those that are only closing */
    void (*on_gone)(struct sessions *sessions);
};

/* NULL: there is no place for one more. */
struct stream_user *session_create(struct sessions *sessions, struct stream *stream);
/* Tell the client why and end. */
void session_end(struct session *session, const char *code, const char *message);
void sessions_end_all(struct sessions *sessions);
