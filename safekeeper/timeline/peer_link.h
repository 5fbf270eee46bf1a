/*
 * peer_link.h - a connection to another member of a timeline, to read from it.
 *
 * The owner embeds it, fills in the callbacks, and gets the frames of the channel that its hello
 * opened. It reconnects nowhere: who is gone is gone, with the reason in `trouble`.
 * Threads: loop only.
 */
#pragma once

#include "common/io/link.h"
#include "safekeeper/timeline/timeline.h"

struct peer_link {
    struct timeline *tl; /* filled in by the owner, who keeps it alive */
    void (*on_ready)(struct peer_link *peer);
    /* ERR_OK, or why the link is to be closed. */
    err_t (*on_frame)(struct peer_link *peer, const struct frame *frame, struct errmsg *msg);
    void (*on_gone)(struct peer_link *peer); /* never from inside a call; may connect again */

    uint32_t member;       /* index in the membership */
    uint32_t channel;      /* 0: no hello was answered yet */
    uint64_t request_id;   /* of the newest request; the owner counts */
    struct errmsg trouble; /* empty while there is none */
    struct link_user user; /* link NULL: not connected */
};

/* on_ready, or on_gone, follows; an error: nothing does, and it is in `trouble`. */
NODISCARD err_t peer_link_connect(struct peer_link *peer, uint32_t member);
bool peer_link_is_open(const struct peer_link *peer); /* on_gone is still to come */
void peer_link_abort(struct peer_link *peer);         /* on_gone follows, if it is open */
