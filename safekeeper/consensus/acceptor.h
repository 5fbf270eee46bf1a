/*
 * acceptor.h - one safekeeper's half of the WAL consensus of one timeline, as a pure state machine.
 *
 * It opens no file, socket or clock, allocates nothing and knows no random number: events go in,
 * actions come out. The daemon runs the actions with real disks and links, the simulator with
 * virtual ones. A reply that promises durability is emitted only after the event that reports it.
 *
 * A proposer on one connection: FRAME_VOTE_REQUEST -> vote; FRAME_ELECTED -> the log is cut to the
 * winner's, then its history is persisted, then one append_reply says "stream"; FRAME_APPEND from
 * then on, on that connection only. Whoever breaks the order is refused and its connection closed;
 * a new connection asks for the positions with the same vote request and heals.
 *
 * Membership: the core knows its generation only; who the members are is the proposer's business
 * and is kept beside it by the driver. Votes, winners and appends of another generation are refused
 * with both generations named. A newer one comes as MEMBERSHIP_CHANGED and ends what was going on
 * under the old one; it counts from when it is on disk, see acceptor_report().
 *
 * While nobody leads, a log that has fallen behind is completed from another safekeeper:
 * PEER_ANSWERED with what that one has committed. What is committed there is committed, so where
 * the logs part ours is wrong and is cut, as for a winner; the history is adopted, then PEER_WAL
 * brings the bytes. Any vote or winner ends it. It makes no promise but the term of what it takes.
 *
 * WAL that nobody needs any more is forgotten: WAL_UNNEEDED up to a record end that is committed.
 * From there on the log begins (begin_lsn), which is on disk before REMOVE_WAL. A log that ends
 * before the begin of every log that could complete it cannot be completed: it begins anew, empty,
 * where the other one begins (elected with `begins_anew`, or PEER_ANSWERED). All below is committed
 * and consumed, so an empty log there is as good as one that was copied. The state says so first,
 * in one step with the history (is_begun_anew: what is in the files is of no account), then the
 * files are emptied (EMPTY_WAL), then the state says that they are, and only then WAL is taken.
 *
 * Positions: write_lsn (handed to the disk) >= flush_lsn (on disk) >= record_lsn (end of the last
 * complete record on disk) >= commit_lsn. Bytes behind record_lsn are never committed; the next
 * elected proposer truncates them.
 *
 * What the driver owes (the simulator checks the core under exactly these rules):
 *  - events are fed one at a time; the actions of one step are carried out in their order;
 *  - PERSIST_STATE: make `state` durable as a whole, in the order of `sequence`; when several wait,
 *    only the newest has to be written. Then STATE_PERSISTED with the sequence that is on disk.
 *    Copy or encode the state before the next step: the pointer is into the acceptor.
 *  - WAL actions (WRITE_WAL, TRUNCATE_WAL) happen in order among themselves. Writes go on while a
 *    sync is under way. WAL_FLUSHED: everything up to `lsn` that was written under `epoch` has been
 *    synced by a sync that began after the write ended. WAL_TRUNCATED: nothing at or behind the LSN
 *    will ever be read again, also after a crash at any moment from now on. One truncation at a
 *    time: there is none before the last one was reported.
 *  - EMPTY_WAL is a truncation that ends as one, WAL_TRUNCATED; it leaves a log that is empty at
 *    the LSN. A start that finds is_begun_anew does the same, and then makes durable that it is
 *    done.
 *  - REMOVE_WAL: what is below the LSN will not be read again; whenever it suits, or never.
 *  - A failed write, sync or state write: STORAGE_FAILED; nothing is retried and believed. A full
 *    disk is not a failure: delay the event and the connection until there is space.
 *  - SEND_* to a connection that is gone is dropped.
 *
 * Threads: one owner (the loop).
 */
#pragma once

#include "common/wire/wal_proto.h"

/* A connection of a proposer, as long as it lasts: never reused in this process. */
struct acceptor_peer {
    node_id_t proposer_id; /* node_id of its hello */
    uint64_t connection;   /* number that the driver gave to this connection and channel */
    uint16_t protocol;     /* that its hello agreed on */
};

/* What must be on disk before anybody hears of it: the contents of the control file. */
struct acceptor_state {
    uint64_t sequence;       /* grows by one with every PERSIST_STATE */
    generation_t generation; /* of the membership */
    term_t term;             /* highest promised */
    lsn_t start_lsn;         /* of the timeline: never moves */
    lsn_t begin_lsn;         /* of this log: a record end; what is below was consumed */
    bool is_begun_anew;      /* the files are of before: to be emptied, the log ends at begin_lsn */
    lsn_t commit_lsn;    /* lags: persisted now and then, it only bounds the scan at the start */
    lsn_t suspect_lsn;   /* 0, or records up to here may have been acknowledged and lost */
    term_t suspect_term; /* no term after this one wrote what may be lost */
    struct term_history history;
};

/*
 * The state of a timeline that was just created; the driver makes it durable before acceptor_init.
 */
void acceptor_state_init(struct acceptor_state *state, generation_t generation, lsn_t start_lsn);

/*
 * A start found that the log ends at `record_lsn` now, and that something behind it, up to the
 * record end `suspect_lsn`, was torn by a crash or lost after it had been acknowledged: nobody can
 * tell. The driver makes the state durable before it cuts the log.
 */
void acceptor_state_suspect(struct acceptor_state *state, lsn_t record_lsn, lsn_t suspect_lsn);

enum acceptor_phase {
    ACCEPTOR_IDLE,        /* no proposer of this term was followed since the start or the vote */
    ACCEPTOR_TRUNCATING,  /* elected: the log is being cut to the winner's */
    ACCEPTOR_ADOPTING,    /* elected: its history is being persisted */
    ACCEPTOR_FOLLOWING,   /* appends are welcome */
    ACCEPTOR_CATCHING_UP, /* nobody leads: committed WAL is read from another safekeeper */
    ACCEPTOR_FAILED,      /* storage failed: everything is refused until re-opened and verified */
};

#define ACCEPTOR_ENDS_MAX 64 /* power of two */

struct acceptor {
    struct acceptor_state state; /* wanted; durable when durable_sequence == state.sequence */
    uint64_t durable_sequence;
    enum acceptor_phase phase;

    lsn_t write_lsn;         /* end of WAL handed to the disk */
    lsn_t flush_lsn;         /* end of WAL known to be on disk */
    lsn_t record_lsn;        /* end of the last record known to be on disk */
    uint64_t wal_epoch;      /* grows with every TRUNCATE_WAL: events of older writes are void */
    uint64_t wal_epoch_done; /* of the last truncation that is done */

    /* Ends of records that are written and not flushed; the newest is coarsened when it is full. */
    lsn_t ends[ACCEPTOR_ENDS_MAX];
    uint32_t ends_first, ends_count;
    lsn_t received_record_lsn; /* newest record end that was received */

    struct acceptor_peer leader;         /* valid from TRUNCATING to FOLLOWING */
    lsn_t leader_commit_lsn;             /* what it last said; we may not have those bytes yet */
    struct term_history elected_history; /* while TRUNCATING: to be adopted */
    bool is_catching_up;     /* TRUNCATING and ADOPTING are for a catch-up, not for a leader */
    lsn_t catch_up_lsn;      /* where it ends */
    uint64_t adopt_sequence; /* while ADOPTING: following begins when it is durable */

    uint64_t anew_sequence;   /* not 0: the files are emptied when it is durable */
    uint64_t forget_sequence; /* not 0: WAL below begin_lsn is removed when it is durable */

    bool vote_pending; /* granted as soon as vote_sequence is durable */
    struct acceptor_peer vote_to;
    uint64_t vote_sequence;
    lsn_t commit_persist_lsn; /* commit_lsn of the last PERSIST_STATE */

    struct vote_reply vote_reply; /* what SEND_VOTE points to */
};

enum acceptor_event_kind {
    ACCEPTOR_VOTE_REQUESTED,     /* from, vote */
    ACCEPTOR_ELECTED,            /* from, elected, begins_anew */
    ACCEPTOR_APPEND_REQUESTED,   /* from, append */
    ACCEPTOR_STATE_PERSISTED,    /* sequence */
    ACCEPTOR_WAL_FLUSHED,        /* wal */
    ACCEPTOR_WAL_TRUNCATED,      /* wal */
    ACCEPTOR_MEMBERSHIP_CHANGED, /* membership */
    ACCEPTOR_PEER_ANSWERED,      /* peer: what another safekeeper knows to be committed */
    ACCEPTOR_PEER_WAL,           /* peer_wal, while CATCHING_UP */
    ACCEPTOR_WAL_UNNEEDED,       /* unneeded_lsn: a record end; all below is not needed any more */
    ACCEPTOR_PERSIST_WANTED, /* persist commit_lsn if it moved: now and then, and before a stop */
    ACCEPTOR_STORAGE_FAILED,
};

/* Pointers inside an event need to live only until acceptor_step() returns. */
struct acceptor_event {
    enum acceptor_event_kind kind;
    struct acceptor_peer from;
    bool begins_anew; /* elected: stream_lsn is where the log is to begin, see above */
    union {
        const struct vote_request *vote;
        const struct elected *elected;
        const struct append *append;
        uint64_t sequence;
        struct {
            lsn_t lsn;
            uint64_t epoch;
        } wal;
        struct {
            const struct term_history *history; /* clipped to commit_lsn */
            lsn_t commit_lsn;
            lsn_t begin_lsn; /* nothing below can be read there */
        } peer;
        lsn_t unneeded_lsn;
        struct {
            lsn_t begin_lsn;
            struct bytes wal;
        } peer_wal;
        struct {
            generation_t generation; /* an older one than ours changes nothing */
            term_t term;             /* promise at least this one, too; 0: as it is */
        } membership;
    };
};

enum acceptor_action_kind {
    ACCEPTOR_PERSIST_STATE,     /* state; then report STATE_PERSISTED */
    ACCEPTOR_TRUNCATE_WAL,      /* truncate; then report WAL_TRUNCATED */
    ACCEPTOR_EMPTY_WAL,         /* truncate: the log is empty there; then report WAL_TRUNCATED */
    ACCEPTOR_REMOVE_WAL,        /* remove_lsn: below it nothing is read any more */
    ACCEPTOR_WRITE_WAL,         /* write; sync soon, then report WAL_FLUSHED */
    ACCEPTOR_SEND_VOTE,         /* to, vote */
    ACCEPTOR_SEND_APPENDED,     /* to, appended: the driver adds the pageservers' feedback */
    ACCEPTOR_REFUSE,            /* to, refuse: send FRAME_ERROR, then close the connection */
    ACCEPTOR_RELEASE_COMMITTED, /* WAL up to commit_lsn may be streamed to pageservers */
};

/* Pointers are valid until the next step; write.wal points into the event. */
struct acceptor_action {
    enum acceptor_action_kind kind;
    struct acceptor_peer to;
    union {
        const struct acceptor_state *state;
        struct {
            lsn_t lsn; /* new end of the log */
            uint64_t epoch;
        } truncate;
        struct {
            lsn_t begin_lsn;
            struct bytes wal;
            uint64_t epoch;
        } write;
        const struct vote_reply *vote;
        struct append_reply appended;
        struct {
            err_t err;
            const char *why; /* static text */
            /* It is about generations: the message's; 0: about something else. */
            generation_t generation;
        } refuse;
        lsn_t commit_lsn;
        lsn_t remove_lsn;
    };
};

#define ACCEPTOR_ACTIONS_MAX 8

struct acceptor_actions {
    size_t count;
    struct acceptor_action items[ACCEPTOR_ACTIONS_MAX];
};

/*
 * After a start: `durable` as read from the control file, the end of the bytes that are certainly
 * on disk, and the end of the last complete record among them (found by reading records from
 * durable->commit_lsn on). ERR_CORRUPT: they contradict each other; the timeline is out of service.
 */
NODISCARD err_t acceptor_init(
    struct acceptor *acceptor,
    const struct acceptor_state *durable,
    lsn_t flush_lsn,
    lsn_t record_lsn,
    struct errmsg *msg);

/*
 * It may have acknowledged WAL that its log does not hold. Its vote says so, until the log is whole
 * up to there or holds the start of a newer term, which began behind everything committed.
 */
bool acceptor_is_suspect(const struct acceptor *acceptor);

/* Feed one event; `out` is overwritten with what the caller must now do, in order. */
void acceptor_step(
    struct acceptor *acceptor, const struct acceptor_event *event, struct acceptor_actions *out);

/*
 * READ_WAL: up to where a reader may read. `term` 0: committed WAL, for anybody. Otherwise the
 * proposer of `term` reads its donor, uncommitted bytes too: ERR_STALE once we promised another.
 */
NODISCARD err_t acceptor_readable_lsn(const struct acceptor *acceptor, term_t term, lsn_t *ret_lsn);

/*
 * What a vote would say now, not granted, without the term that is followed: for another safekeeper
 * that wants to catch up, and compares histories itself.
 */
void acceptor_describe(const struct acceptor *acceptor, struct vote_reply *reply);

/*
 * Where this safekeeper stands, for who changes the membership. False: something of it is not on
 * disk yet, ask again after the next STATE_PERSISTED or WAL_TRUNCATED.
 */
struct change_report;
bool acceptor_report(const struct acceptor *acceptor, struct change_report *ret_report);

const char *acceptor_phase_name(enum acceptor_phase phase);
