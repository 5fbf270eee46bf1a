/*
 * rig.h - a real safekeeper process, and a tiny proposer and pageserver that speak to it.
 *
 * Everything blocks with a limit; a failed expectation ends the test with a message.
 */
#pragma once

#include "common/json/doc.h"
#include "common/wire/feed_proto.h"
#include "common/wire/hello_proto.h"
#include "common/wire/wal_proto.h"
#include "tests/unit/unit.h"

#define RIG_START_LSN  ((lsn_t)0x3012348)
#define RIG_SYSTEM_ID  7123456789012345678ull
#define RIG_GENERATION 3

struct rig {
    char dir[512];
    const char *extra[8]; /* more flags, ended by NULL */
    int pid;
    uint16_t port, http_port;
    int output_fd;
    uint32_t segment_size;
};

extern const struct tenant_id rig_tenant;
extern const struct timeline_id rig_timeline;

void rig_init(struct rig *rig); /* a fresh folder; nothing runs yet */
void rig_start(struct rig *rig);
void rig_kill(struct rig *rig);       /* kill -9 */
void rig_stop(struct rig *rig);       /* SIGTERM, and expects a clean exit */
void rig_wait_crash(struct rig *rig); /* it ends by itself: a failpoint */
void rig_deinit(struct rig *rig);

/* HTTP; `ret_body` may be NULL, else doc_unref() it. Returns the status. */
unsigned rig_http(
    struct rig *rig, const char *method, const char *path, const char *body, struct doc **ret_body);
/* With segments of 1 MiB, unless rig->segment_size says otherwise. */
unsigned rig_create_timeline(struct rig *rig, struct timeline_id id, lsn_t start_lsn);
struct doc *rig_status(struct rig *rig, struct timeline_id id);
lsn_t rig_lsn(struct rig *rig, const char *name); /* of rig_timeline's status */
void rig_arm(struct rig *rig, const char *faults);
/* Ask for the status until its "storage" begins with `text`. */
void rig_wait_storage(struct rig *rig, const char *text);
/* Path of a file of rig_timeline. */
const char *rig_path(const struct rig *rig, const char *name);
void rig_flip(const char *path, uint64_t at);

/* ---- connections ---- */

struct client {
    int fd;
    struct buf in, out;
    size_t taken; /* of `in` */
    uint32_t channel;
    uint64_t request_id;
};

void client_connect(struct client *client, const struct rig *rig);
void client_close(struct client *client);
void client_send_bytes(struct client *client, struct bytes bytes);
void client_flush(struct client *client); /* send what is in `out` */
/* False: the other side closed. */
bool client_receive(struct client *client, struct frame *ret_frame);
void client_expect(struct client *client, uint16_t type, struct frame *ret_frame);
NODISCARD err_t client_expect_error(struct client *client); /* its code */
void client_expect_end(struct client *client);              /* closed, nothing else */
struct hello client_hello(enum hello_role role);
/* ERR_OK and client->channel, or the code of the refusal. */
NODISCARD err_t client_say_hello(struct client *client, const struct hello *hello);
void client_open(struct client *client, const struct rig *rig, enum hello_role role);

#define CLIENT_SEND(client, message_type, message, frame_type_)                                    \
    FRAME_APPEND_MESSAGE(                                                                          \
        &(client)->out, message_type, message, .type = (uint16_t)(frame_type_),                    \
        .channel = (client)->channel, .request_id = ++(client)->request_id)

/* ---- a proposer ---- */

void fill_wal(uint8_t *to, lsn_t begin_lsn, size_t size, term_t term);

struct leader {
    struct client client;
    term_t term;
    lsn_t lsn; /* end of what was sent */
    struct vote_reply vote;
    struct append_reply last; /* newest reply */
    bool use_fixed_bytes;     /* of benchmarks: not those of fill_wal() */
};

/* Connect, be elected in `term`, and stream from where the log ends. */
void leader_begin(struct leader *leader, const struct rig *rig, term_t term);
void leader_begin_on(
    struct leader *leader, const struct rig *rig, struct timeline_id timeline, term_t term);
void leader_vote(struct leader *leader, const struct rig *rig, term_t term);
void leader_elect(struct leader *leader, lsn_t stream_lsn);
/* Send without waiting. Its bytes are those of fill_wal(term). */
void leader_send(struct leader *leader, size_t size, lsn_t commit_lsn);
void leader_queue(
    struct leader *leader, size_t size, lsn_t commit_lsn); /* leaves at the next wait */
/* Read replies until flush_lsn is at least `lsn`. False: the connection ended. */
bool leader_wait(struct leader *leader, lsn_t lsn);
/* Send, wait for the flush, commit, wait until the safekeeper knows. */
void leader_commit(struct leader *leader, size_t size);
/* `appends` of WAL_APPEND_MAX on their way at once; when they are flushed, leader_commit(). */
void leader_commit_much(struct leader *leader, unsigned appends, size_t size);
