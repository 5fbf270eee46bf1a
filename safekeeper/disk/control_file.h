/*
 * control_file.h - what a safekeeper has promised for one timeline, on disk in two slots.
 *
 * `control.0` and `control.1` are written in turn, each with a sequence and a checksum, each synced
 * before the other one is touched. A promise (term, history, membership) is written to both before
 * anybody hears of it: whichever single slot is torn or damaged later, the other one still holds
 * it. A new commit_lsn is no promise and goes to one slot. See docs/protocol/safekeeper_disk.md.
 *
 * Threads: one owner at a time, blocking: call from a worker or at start.
 */
#pragma once

#include "common/base/id.h"
#include "common/base/str.h"
#include "safekeeper/consensus/acceptor.h"
#include "safekeeper/consensus/membership.h"

#define CONTROL_HOST_SIZE MEMBER_HOST_SIZE

/* Where a member of the membership listens; parallel to membership.members. */
struct member_address {
    char host[CONTROL_HOST_SIZE], http_host[CONTROL_HOST_SIZE];
    uint16_t port, http_port;
};

/* Fixed when the timeline is created. */
struct timeline_params {
    struct tenant_id tenant;
    struct timeline_id timeline;
    uint64_t system_id;
    uint32_t pg_version;
    uint32_t segment_size;
};

struct control_state {
    struct timeline_params params;
    struct membership membership;
    struct member_address addresses[MEMBERS_MAX];
    struct acceptor_state acceptor;
};

struct control_file {
    char dir[PATH_SIZE];
    uint64_t sequence; /* of the newest slot on disk */
    bool is_slot_bad;  /* the other one; the next save makes it whole */
};

/* Write both slots into `dir`, which exists and holds none, and sync the folder. */
NODISCARD err_t control_file_create(
    struct control_file *file,
    const char *dir,
    const struct control_state *state,
    struct errmsg *msg);

/*
 * ERR_NOT_FOUND: no slot. ERR_CORRUPT: no valid slot, or it belongs to another timeline. A single
 * bad slot is only noted in `file`.
 */
NODISCARD err_t control_file_load(
    struct control_file *file,
    const char *dir,
    struct tenant_id tenant,
    struct timeline_id timeline,
    struct control_state *ret_state,
    struct errmsg *msg);

/*
 * ERR_FULL: nothing changed for the reader, may be repeated. Any other error: the storage failed.
 * `is_promise`: both slots.
 */
NODISCARD err_t control_file_save(
    struct control_file *file,
    const struct control_state *state,
    bool is_promise,
    struct errmsg *msg);

/* The image of a slot, as small as its contents are. `name` is for messages. */
void control_state_encode(const struct control_state *state, uint64_t sequence, struct buf *to);
NODISCARD err_t control_state_decode(
    struct bytes image,
    const char *name,
    struct control_state *state,
    uint64_t *ret_sequence,
    struct errmsg *msg);
