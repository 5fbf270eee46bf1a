/*
 * session_private.h - one session, for the files that share it:
 *
 *   session.c          its life, its streams, the order of its states
 *   session_startup.c  STARTUP, CANCEL
 *   session_login.c    ROUTE, LOGIN
 *   session_relay.c    CONNECT, SERVE, RELAY: a connection to the compute of its own
 *   session_pooled.c   POOLED: a connection that is its for one transaction at a time
 *
 * Threads: loop only.
 */
#pragma once

#include "common/auth/scram.h"
#include "common/io/timer.h"
#include "control/gateway/pools.h"
#include "control/gateway/server_login.h"
#include "control/gateway/session.h"

#define CODE_PROTOCOL      "08P01"
#define CODE_REJECTED      "08004"
#define CODE_NO_COMPUTE    "57P03"
#define CODE_LOST_COMPUTE  "57P01"
#define CODE_AUTHORIZATION "28000"
#define CODE_PASSWORD      "28P01"
#define CODE_TOO_MANY      "53300"

enum session_state {
    SESSION_STARTUP,
    SESSION_ROUTE,
    SESSION_LOGIN,
    SESSION_CONNECT,
    SESSION_SERVE,
    SESSION_RELAY,
    SESSION_POOLED,
    SESSION_CANCEL,
    SESSION_ENDED
};

struct session {
    struct list_link link, in_strangers;
    struct sessions *sessions;
    enum session_state state;
    struct stream_user client, server;
    struct buf in;          /* of the client, before RELAY */
    struct buf from_server; /* of the compute, before RELAY */
    struct buf startup;     /* the packet, as it goes to the compute */
    struct timer timer;     /* limit of the log-in */
    mono_ns_t began;

    struct address address;
    char role[PG_NAME_SIZE];
    bool role_exists, retried;
    bool is_leaving; /* the compute says that it is going down, or has not come up */
    bool greeted;    /* the compute let us in: what it says goes to the client */
    struct route_ask ask;
    bool asking;

    struct scram_verifier verifier;
    struct scram_server login;
    struct server_login serve;
    bool mechanism_chosen;

    uint32_t pid, key;               /* as the client knows them */
    char server_host[64];            /* where the compute, or the one to cancel at, runs */
    uint32_t server_pid, server_key; /* as the compute does */

    struct pooled_client *pooled;        /* hosts with -pooler only */
    struct pooled_server *pooled_cancel; /* CANCEL: what must not be handed on meanwhile */
};

/* session.c */
void session_advance(struct session *session);
void session_free_when_done(struct session *session);
void session_pass_on(struct stream *from, struct stream *to, struct bytes bytes);
void session_finish(struct session *session); /* close both streams, say nothing */
void session_refuse(
    struct session *session, const char *code, const char *message, const char *hint);
void session_logged_in(struct session *session); /* the first query may come */
void session_forget_route(struct session *session);
void session_make_key(struct session *session); /* under which its client cancels */

/* session_startup.c: true: look again, another packet may follow. */
bool session_take_startup(struct session *session);

/* session_login.c */
void session_on_routed(struct route_ask *ask);
void session_start_route(struct session *session);
/* Over a limit of connections, of its own ones or of a pool's clients. True: refused. */
bool session_refuse_too_many(struct session *session);
bool session_take_login(struct session *session);

/* session_relay.c */
void session_connect_server(struct session *session);
bool session_take_greeting(struct session *session);
extern const struct stream_callbacks session_server_callbacks;

/* session_pooled.c */
void session_start_pooled(struct session *session);
