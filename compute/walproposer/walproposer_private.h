/* walproposer_private.h - shared by walproposer.c, safekeeper_link.c and status.c only. */
#pragma once

#include "common/wire/hello_proto.h"
#include "compute/walproposer/walproposer.h"

#define SEGMENT_SIZE (16 * 1024 * 1024)

/* One safekeeper: its link, and the hello on it. */
struct safekeeper_link {
    struct link_user link_user;
    struct timer timer; /* the next attempt, or the time limit of the hello */
    struct walproposer *walproposer;
    uint32_t index;  /* in the membership */
    bool is_retired; /* of an older membership: it only waits for its last callback */
    struct list_link in_retired;
    node_id_t id;
    char host[256];
    uint16_t port;
    uint64_t connection;  /* of the hello; grows with every attempt */
    uint32_t channel;     /* 0: hello is not answered yet */
    uint64_t attempts;    /* since it last worked */
    uint64_t hellos;      /* that were answered */
    uint64_t followed_ms; /* our monotonic time at which it certainly followed our term; 0: never */
    struct errmsg last_error;
    struct wal_reader *repair_reader; /* finds record ends in WAL read on its behalf */
};

struct walproposer {
    struct walproposer_options options;
    struct log log;
    struct loop *loop;
    struct prng prng;
    node_id_t proposer_id;
    struct proposer core;
    bool feeding; /* inside proposer_step or its actions */
    bool ended;
    struct timer tick;
    struct timer cut_off; /* fires when the quorum may have been silent for too long */
    uint64_t started_ms;
    uint32_t safekeepers_count;
    struct safekeeper_link *safekeepers[MEMBERS_MAX]; /* as in the core's membership */
    struct list retired;
    uint64_t memberships; /* that it has learned */
    uint64_t last_connection;
    struct wal_window window;
    struct wal_reader *reader; /* of our own WAL: where records end */
    lsn_t offered_lsn;         /* end of the WAL that the core knows of */
    lsn_t sample_lsn;          /* LSN_NONE, or what commit_seconds waits for ... */
    mono_ns_t sample_begun;    /* ... since then */
    struct wal_source source;
    struct wal_source_user source_user;
    lsn_t received_lsn, durable_lsn, remote_lsn; /* what pageservers have, as safekeepers tell */
};

/* Feed an event to the core and do what it says. Time and entropy are filled in. */
void walproposer_feed(struct walproposer *walproposer, struct proposer_event *event);

/* Until when a quorum certainly followed our term; at least the time of our start. */
uint64_t walproposer_followed_ms(const struct walproposer *walproposer);

/*
 * The members of `list` become safekeepers[], with links that are not started yet; ERR_INVALID: it
 * is no membership, nothing has changed.
 */
NODISCARD err_t safekeeper_links_of(
    struct walproposer *walproposer,
    generation_t generation,
    const struct member_list *list,
    struct membership *ret_membership,
    struct errmsg *msg);

/* Nothing comes from it any more; its memory stays until its link is gone. */
void safekeeper_link_retire(struct safekeeper_link *safekeeper);
void safekeeper_link_destroy(struct safekeeper_link *safekeeper);

/* A safekeeper says that others vote now. */
void walproposer_learn(
    struct walproposer *walproposer, generation_t generation, const struct member_list *list);

NODISCARD err_t
safekeeper_list_parse(const char *safekeepers, struct member_list *ret_list, struct errmsg *msg);
void safekeeper_link_start(struct safekeeper_link *safekeeper);
void safekeeper_link_stop(struct safekeeper_link *safekeeper);
/* The core wants a new connection. */
void safekeeper_link_restart(struct safekeeper_link *safekeeper, const char *why);
