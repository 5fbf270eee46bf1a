/*
 * proposer.h - the other half of the WAL consensus: one walproposer, as a pure state machine.
 *
 * It is elected by a quorum of the acceptors, repairs their logs up to its term's start, then
 * streams the WAL of one Postgres and says what is committed. It holds no WAL byte: the driver
 * keeps a window [window_begin_lsn, window_end_lsn) of its Postgres' WAL and fills appends from it;
 * older WAL is read from an acceptor that has it (READ_WAL) and forwarded. A log that ends before
 * all that is kept begins anew where another one begins (acceptor.h). Rules: acceptor.h,
 * docs/protocol/wal.md.
 *
 * The membership may change under way (MEMBERSHIP_CHANGED): a leader goes on in its term, but from
 * then on only what is acknowledged under the new generation counts; see docs/design/membership.md.
 *
 * Each acceptor is known by its index in the membership and is asked the same question on each new
 * connection: a vote request of the current term. Before the election the answer is a vote; after
 * it, the acceptor's positions. Then: elected -> "stream" -> appends.
 *
 * Time and entropy come with the events; proposer_deadline_ms() says when the next TICK is wanted.
 * Threads: one owner (the loop).
 */
#pragma once

#include "common/wire/wal_proto.h"
#include "safekeeper/consensus/membership.h"

enum proposer_phase {
    PROPOSER_COLLECTING,  /* waits for a quorum of connections, or for the end of a backoff */
    PROPOSER_CAMPAIGNING, /* votes of `term` are out */
    PROPOSER_ELECTED,     /* won `term`; effective once the quorum has its start (`ready`) */
    PROPOSER_DEPOSED,     /* a higher term was seen after winning: final */
};

enum proposer_peer_phase {
    PEER_OFFLINE,
    PEER_GREETED,   /* connected, nothing asked in this term */
    PEER_ASKED,     /* a vote request of this term is out on this connection */
    PEER_VOTED,     /* answered: its positions and history are known */
    PEER_TOLD,      /* elected is out; the acceptor truncates and persists */
    PEER_STREAMING, /* appends flow */
};

/* What the proposer knows of one acceptor. */
struct proposer_peer {
    enum proposer_peer_phase phase;
    uint64_t connection; /* its number; 0: none. Messages of another connection are void. */
    uint64_t asked_ms;   /* when the question of ASKED or TOLD was sent */

    /* From the vote reply of this term. */
    bool replied;
    bool granted;
    lsn_t vote_record_lsn, vote_commit_lsn;
    lsn_t begin_lsn;   /* of its log: nothing below can be read there */
    lsn_t suspect_lsn; /* 0, or it may have acknowledged up to here and lost it */
    term_t suspect_term;
    struct term_history history;
    term_t followed_term; /* its log is a prefix of that term's winner's; 0: it did not say */

    /* What it has acknowledged in this term; kept when the connection is lost. */
    lsn_t flush_lsn, record_lsn, commit_lsn;

    /* Streaming, on this connection. */
    lsn_t stream_lsn;      /* where it begins */
    lsn_t sent_lsn;        /* end of what was sent */
    lsn_t sent_commit_lsn; /* newest commit_lsn that was sent */
    uint64_t sent_at_ms;
    uint64_t read_id; /* READ_WAL on behalf of this one, 0: none */
    uint32_t read_source;
    uint64_t read_retry_ms; /* not before, after a source had nothing */
};

struct proposer_options {
    struct membership membership;
    node_id_t proposer_id;
    bool sync;                    /* elect, repair, commit the term start; stream nothing */
    uint64_t election_timeout_ms; /* for the votes, for progress of the repair, for an answer */
    uint64_t backoff_max_ms;
    uint64_t heartbeat_ms;
    size_t window_max;   /* bytes of local WAL that may be kept, besides one record */
    size_t inflight_max; /* bytes sent to one acceptor and not yet flushed there */
};

#define PROPOSER_ENDS_MAX 64 /* power of two */

struct proposer {
    struct proposer_options options;
    enum proposer_phase phase;
    term_t term;     /* of the campaign or the leadership */
    term_t term_max; /* greatest that was seen anywhere */
    uint32_t attempts;
    uint64_t now_ms, deadline_ms;
    uint64_t entropy;

    uint32_t donor; /* MEMBERS_MAX: is no member any more */
    lsn_t term_start_lsn;
    struct term_history history; /* the donor's and our term */
    bool ready;                  /* the quorum has everything up to term_start_lsn */
    bool synced;                 /* and a quorum knows that */
    lsn_t commit_lsn;

    lsn_t window_begin_lsn, window_end_lsn; /* local WAL that the driver holds */
    lsn_t ends[PROPOSER_ENDS_MAX];          /* newest record ends in it, ascending */
    uint32_t ends_first, ends_count;

    uint64_t read_id_last;
    struct proposer_peer peers[MEMBERS_MAX];
};

enum proposer_event_kind {
    PROPOSER_PEER_UP,         /* hello was answered: peer, connection, hello_term */
    PROPOSER_PEER_DOWN,       /* peer, connection */
    PROPOSER_VOTE_REPLY,      /* peer, connection, vote */
    PROPOSER_APPEND_REPLY,    /* peer, connection, appended */
    PROPOSER_READ_WAL_REPLY,  /* peer (the source), connection, read */
    PROPOSER_READ_WAL_FAILED, /* peer (the source), connection, read.id */
    PROPOSER_LOCAL_WAL,       /* after READY: the window has grown: local */
    /* membership: a newer one, or nothing happens. All connections are void from here on: the
     * driver connects to each member of it anew, by its new index. */
    PROPOSER_MEMBERSHIP_CHANGED,
    PROPOSER_TICK,     /* proposer_deadline_ms() has come */
    PROPOSER_CONTINUE, /* the actions of the last step said `more` */
};

/* Pointers inside an event need to live only until the actions are done. */
struct proposer_event {
    enum proposer_event_kind kind;
    uint64_t now_ms;  /* monotonic */
    uint64_t entropy; /* any random number */
    uint32_t peer;
    uint64_t connection; /* number that the driver gave it; never 0, never reused */
    union {
        term_t hello_term;
        const struct vote_reply *vote;
        const struct append_reply *appended;
        const struct membership *membership;
        struct {
            uint64_t id;
            err_t err; /* of FAILED; ERR_RANGE: what was asked for is not kept there any more */
            const struct read_wal_reply *reply;
            lsn_t record_lsn; /* last record end in or before these bytes; LSN_NONE: not known */
        } read;
        struct {
            lsn_t end_lsn;
            lsn_t record_lsn;
        } local;
    };
};

enum proposer_action_kind {
    PROPOSER_SEND_VOTE_REQUEST, /* peer, vote */
    PROPOSER_SEND_ELECTED,      /* peer, elected */
    PROPOSER_SEND_APPEND,   /* peer, append; wal.data NULL: take wal.size bytes from the window */
    PROPOSER_SEND_READ_WAL, /* peer, read; the reply comes back with read.id */
    PROPOSER_CLOSE,         /* peer: broke the protocol; connect again */
    PROPOSER_READY,         /* lsn: the log ends here, local WAL may begin */
    PROPOSER_SYNCED,        /* lsn: a quorum knows that it is committed up to here */
    PROPOSER_COMMITTED,     /* lsn */
    PROPOSER_STEP_DOWN,     /* term: of somebody newer. Stop Postgres. */
};

struct proposer_action {
    enum proposer_action_kind kind;
    uint32_t peer;
    union {
        struct vote_request vote;
        struct {
            bool begins_anew; /* FRAME_ELECTED_ANEW: see acceptor.h */
            generation_t generation;
            term_t term;
            lsn_t stream_lsn;
            const struct term_history *history; /* the proposer's own */
        } elected;
        struct append append;
        struct {
            uint64_t id;
            uint32_t target; /* the acceptor that the bytes are for */
            struct read_wal request;
        } read;
        lsn_t lsn;
        term_t term;
        const char *why;
    };
};

#define PROPOSER_ACTIONS_MAX 64

struct proposer_actions {
    size_t count;
    bool more; /* feed CONTINUE after these */
    struct proposer_action items[PROPOSER_ACTIONS_MAX];
};

void proposer_init(struct proposer *proposer, const struct proposer_options *options);
void proposer_step(
    struct proposer *proposer, const struct proposer_event *event, struct proposer_actions *out);

/* When the next TICK is wanted; UINT64_MAX: not at all. Ask after each step. */
uint64_t proposer_deadline_ms(const struct proposer *proposer);

/* Back-pressure: false while the window is full of WAL that is not committed. */
bool proposer_wants_wal(const struct proposer *proposer);

const char *proposer_phase_name(enum proposer_phase phase);
const char *proposer_peer_phase_name(enum proposer_peer_phase phase);
