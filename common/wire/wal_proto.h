/*
 * wal_proto.h - what a proposer and an acceptor say to each other.
 *
 * The consensus messages carry the membership generation and the term; a receiver refuses another
 * generation. Roles and rules: safekeeper/consensus/acceptor.h and proposer.h. Positions: write_lsn
 * >= flush_lsn >= record_lsn >= commit_lsn, see docs/protocol/wal.md. All record positions are
 * record ends ("EndRecPtr" of Postgres): 8-byte aligned, and at a page boundary before its header.
 */
#pragma once

#include "common/wire/frame.h"

/* One leadership in the history of a log: `term` wrote from `lsn` on. Ascending in both. */
struct term_start {
    term_t term;
    lsn_t lsn;
};

/* The oldest entries are dropped when it is full: see safekeeper/consensus/term_history.h. */
#define TERM_HISTORY_MAX 256

struct term_history {
    uint32_t count;
    struct term_start items[TERM_HISTORY_MAX];
};

typedef struct term_history term_history_t;
size_t size_term_history(struct term_history value);
void put_term_history(struct writer *out, struct term_history value);
struct term_history get_term_history(struct reader *in);
void print_term_history(struct buf *to, const char *name, struct term_history value);

/* Who votes on a timeline, and where they listen. */
#define MEMBER_HOST_SIZE 64
#define MEMBER_LIST_MAX  16

struct member_entry {
    node_id_t id;
    bool is_old, is_new; /* joint: in which sets; neither: no change is under way */
    char host[MEMBER_HOST_SIZE];
    uint16_t port;
};

struct member_list {
    uint32_t count;
    struct member_entry items[MEMBER_LIST_MAX];
};

typedef struct member_list member_list_t;
size_t size_member_list(struct member_list value);
void put_member_list(struct writer *out, struct member_list value);
struct member_list get_member_list(struct reader *in);
void print_member_list(struct buf *to, const char *name, struct member_list value);

#define WAL_APPEND_MAX (128 * KIB) /* WAL bytes in one append or read_wal_reply */

#define VOTE_REQUEST_FIELDS(X)                                                                     \
    X(u32, generation)                                                                             \
    X(u64, term)                                                                                   \
    X(u64, proposer_id)

#define VOTE_REPLY_FIELDS(X)                                                                       \
    X(u32, generation)                                                                             \
    X(u64, term) /* the acceptor's, after the request */                                           \
    X(u8, granted)                                                                                 \
    X(u64, flush_lsn)                                                                              \
    X(u64, record_lsn) /* end of the last complete record that is on disk */                       \
    X(u64, commit_lsn)                                                                             \
    X(u64, start_lsn)        /* where the log begins at this safekeeper: nothing below is kept */  \
    X(u64, suspect_lsn)      /* 0, or it may have acknowledged up to here and lost it: wal.md */   \
    X(u64, suspect_term)     /* no term after this one wrote what may be lost */                   \
    X(term_history, history) /* clipped to record_lsn */                                           \
    /* The log is a prefix of this term's winner's: the last of the history as it was adopted,     \
     * also when that begins behind record_lsn. Not said in an older protocol. */                  \
    X(tail_u64, followed_term)

#define PROTOCOL_FOLLOWED_TERM 3 /* from this version on a proposer is told followed_term */

/*
 * The winner tells each acceptor from where it will stream: the log is cut there. As
 * FRAME_ELECTED_ANEW: the log ends before all that is kept, and begins anew there, empty.
 */
#define ELECTED_FIELDS(X)                                                                          \
    X(u32, generation)                                                                             \
    X(u64, term)                                                                                   \
    X(u64, stream_lsn)                                                                             \
    X(term_history, history) /* the last entry is {term, term_start_lsn} */

/* An append without WAL is a heartbeat or carries a new commit_lsn. */
#define APPEND_FIELDS(X)                                                                           \
    X(u32, generation)                                                                             \
    X(u64, term)                                                                                   \
    X(u64, begin_lsn)                                                                              \
    X(u64, record_lsn) /* end of the last record that ends in or before this append */             \
    X(u64, commit_lsn)                                                                             \
    X(bytes, wal)

#define APPEND_REPLY_FIELDS(X)                                                                     \
    X(u32, generation)                                                                             \
    X(u64, term)                                                                                   \
    X(u64, flush_lsn)                                                                              \
    X(u64, record_lsn)                                                                             \
    X(u64, commit_lsn)                                                                             \
    X(u64, received_lsn) /* feedback of the pageservers, 0: none yet */                            \
    X(u64, durable_lsn)                                                                            \
    X(u64, remote_lsn)

/* Log bytes of a donor, uncommitted ones too, while its term stays `term` (0: committed only). */
#define READ_WAL_FIELDS(X)                                                                         \
    X(u64, term)                                                                                   \
    X(u64, begin_lsn)                                                                              \
    X(u32, size) /* at most WAL_APPEND_MAX */

#define READ_WAL_REPLY_FIELDS(X)                                                                   \
    X(u64, begin_lsn)                                                                              \
    X(u64, flush_lsn)                                                                              \
    X(bytes, wal)

/*
 * To a proposer of an older membership, before it is refused: it goes on under this one. To an
 * acceptor of an older one, which says its generation in the answer to hello: it takes this one and
 * refuses, and the next hello fits. So whoever changes a membership may die half-way.
 */
#define MEMBERSHIP_NOTICE_FIELDS(X)                                                                \
    X(u32, generation)                                                                             \
    X(member_list, members)

WIRE_DECLARE(vote_request, VOTE_REQUEST_FIELDS);
WIRE_DECLARE(vote_reply, VOTE_REPLY_FIELDS);
WIRE_DECLARE(elected, ELECTED_FIELDS);
WIRE_DECLARE(append, APPEND_FIELDS);
WIRE_DECLARE(append_reply, APPEND_REPLY_FIELDS);
WIRE_DECLARE(read_wal, READ_WAL_FIELDS);
WIRE_DECLARE(read_wal_reply, READ_WAL_REPLY_FIELDS);
WIRE_DECLARE(membership_notice, MEMBERSHIP_NOTICE_FIELDS);
