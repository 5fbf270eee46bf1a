/*
 * server.h - the pageserver: its tenants, what runs for each timeline, the framed port and the
 * management API. Threads: loop only.
 */
#pragma once

#include "common/io/listener.h"
#include "common/objstore/objstore.h"
#include "pageserver/ingest/feeds.h"
#include "pageserver/read/page_read.h"
#include "pageserver/remote/mirror.h"
#include "pageserver/remote/sweeper.h"
#include "pageserver/timeline/tenant.h"

struct attachment;

struct server_options {
    struct loop *loop;
    struct executor *executor; /* for requests */
    unsigned background_threads;
    struct http_server *http;
    const char *data_dir;
    uint64_t node_id;
    const char *host;
    uint16_t port;
    size_t connections_max;
    const char *secret; /* token of every hello, ours included; empty: none */
    const char *object_store;
    size_t block_cache_bytes, layers_bytes, page_cache_bytes;
    uint64_t flush_bytes, flush_age_ms;
    uint64_t wait_timeout_ms, hello_timeout_ms;
    size_t ingest_queue_bytes, record_size_max, records_bytes_max;
    uint64_t safekeeper_silence_ms, feed_idle_ms;
    unsigned upload_threads;
    uint64_t upload_interval_ms, leaked_after_ms;
    const char *control_url, *control_token;
    const char *tls_authorities; /* as of http_client_trust */
    struct history_retention retention;
    uint64_t gc_period_ms, disk_reserve_bytes;
    uint64_t slot_wal_keep_max;
    unsigned image_after_records;
};

struct server {
    struct server_options options;
    char incarnation[ID_TEXT_SIZE]; /* random, made when the folder was empty */
    struct executor *background;    /* ingest, flushes: they never keep a request waiting */
    struct executor *rows;          /* rows of timelines: a branch waits for nobody's ingest */
    struct executor *elsewhere;     /* tenants that come from the object store, or leave it */
    struct executor *copier;        /* one thread: bootstrap images, CREATE DATABASE by file copy */
    struct executor *uploads;       /* rounds of the mirrors: they wait for the object store */
    struct executor *walks;         /* one thread: digests and differences, of all pages maybe */
    size_t walk_count;              /* that run or wait */
    struct objstore *objects;
    struct http_client *http_client;
    struct mirrors *mirrors;
    struct mirrors_user mirrors_user;
    struct sweeper sweeper;
    struct tenants *tenants;
    struct tenants_user tenants_user;
    struct page_cache *cache;
    struct page_read_service reads;
    struct turns *turns;
    struct listener *listener;
    struct listener_user listener_user;
    struct feeds *feeds;
    struct list attachments;
    struct list activities; /* of those attachments that ingest */
    struct list connections;
    struct list giving_ups; /* of give_up.c */
    struct timer lag_timer, stop_timer;
    bool stopping;
    void (*on_stopped)(struct server *server);
};

NODISCARD err_t
server_start(struct server *server, const struct server_options *options, struct errmsg *msg);
void server_stop(struct server *server, void (*on_stopped)(struct server *server));
uint16_t server_port(const struct server *server);
/* One line per timeline or tenant that is out of service. */
void server_not_ready(struct server *server, struct buf *reasons);

/* attachment.c: import, then ingest whenever there is WAL, for one timeline. */
void attachment_start(struct server *server, struct timeline *tl); /* again: news of its row */
void attachment_stop(struct attachment *attachment);
void attachments_stop_all(struct server *server);
struct attachment *attachment_find(const struct timeline *tl); /* NULL: none */
/* "sk 2", "idle", or why there is none. */
void attachment_describe_feed(const struct attachment *attachment, char *to, size_t to_size);
const char *attachment_import_error(const struct attachment *attachment); /* NULL: none */
void attachment_moved(struct timeline *tl);      /* durable_lsn or remote_lsn has */
void attachments_room(struct server *server);    /* a flush gave memory back */
void attachments_observe(struct server *server); /* metrics: lag */

/* give_up.c: a disk that is too old for the WAL that is left makes room for the object store. */
void give_up_begin(struct server *server, const struct timeline *tl);
/*
 * tenant_attach, after a disk was given up that another one has followed since it had the tenant.
 * ERR_BUSY (from here, `done` of `request` is not called): it makes room just now.
 */
NODISCARD err_t give_up_or_attach(
    struct server *server,
    struct tenant_request *request,
    struct tenant_id id,
    generation_t generation,
    struct errmsg *msg);

/* page_conn.c: one framed connection of a compute. */
struct link_user *page_conn_accept(struct server *server, struct link *link);
void page_conn_close_all(struct server *server);

/* management*.c, history_routes.c: docs/protocol/rpc.md. */
void management_add_routes(struct server *server, struct http_server *http);
