/*
 * world.h - safekeepers, rival walproposers, their disks and the network, in one thread and in
 * virtual time. Everything random comes from the seed, so a seed replays a failure exactly.
 *
 * The cores are the object files of the daemons, and messages cross as encoded frames. A schedule
 * has two parts: faults, then healing: one walproposer is left, everything works, and within a
 * bound it must commit something new everywhere.
 */
#pragma once

#include <stdio.h>

#include "tests/sim/changer.h"
#include "tests/sim/climate.h"
#include "tests/sim/consumer.h"
#include "tests/sim/oracle.h"
#include "tests/sim/trouble.h"

#define GENERATION 1 /* of the first membership */
/* Room that faults must leave in the WAL, so that something can be committed after healing. */
#define WAL_RESERVE     1024
#define CONNS_MAX       2048
#define CONNS_RESERVE   512 /* of them for healing */
#define VOTES_MAX       4
#define EVENTS_MAX      32768
#define ARENA_SIZE      (32 * MIB)
#define INSTANT_MAX     8000 /* events at one moment; more is a loop that burns CPU */
#define CHAOS_STEPS_MAX 30000
#define STEPS_MAX       60000 /* of a schedule; then nothing gets on any more */

enum event_kind {
    EV_CONNECT, /* a hello reaches a safekeeper */
    EV_UP,      /* its answer reaches the walproposer */
    EV_DOWN,    /* the walproposer learns that a connection is gone */
    EV_TO_NODE,
    EV_TO_COMPUTE,
    EV_STATE_SYNCED,
    EV_WAL_SYNCED,
    EV_WAL_TRUNCATED,
    EV_RECONNECT,
    EV_TICK,
    EV_LOCAL_WAL,
    EV_CRASH,
    EV_RESTART,
    EV_FAIL_STORAGE,
    EV_PERSIST_WANTED,
    EV_KILL,
    EV_START,
    EV_HEAL,
    EV_CHANGER,     /* control looks what is to be done */
    EV_NOTE,        /* of control reaches a safekeeper */
    EV_REPORT,      /* of a safekeeper reaches control */
    EV_LEARN,       /* a walproposer learns of a membership */
    EV_PAUSE,       /* a process stands still for a while */
    EV_JUMP,        /* the clock of a walproposer */
    EV_FULL,        /* a disk is full for a while */
    EV_IDLE,        /* nothing was heard on a connection for too long */
    EV_PEER_ASK,    /* somebody asks another one what it has committed */
    EV_PEER_ANSWER, /* and hears it */
    EV_PEER_WAL,    /* and reads it, piece by piece */
    EV_POWER_CUT,   /* as EV_CRASH, of a certain safekeeper */
    EV_CONSUME,     /* a pageserver takes WAL, puts it into the object store, tells, is replaced */
    EV_WIPE,        /* somebody who is no member yet, or no more, loses its disk */
};

struct sim_event {
    uint64_t at_us, order;
    enum event_kind kind;
    uint32_t node, compute;
    uint32_t conn;        /* index */
    uint32_t incarnation; /* of whom the event is for: an older one is dead */
    union {
        term_t hello_term;
        generation_t generation; /* to learn */
        uint64_t sync_number;
        struct {
            uint32_t offset, size; /* of a frame in the arena, or a piece of one */
            bool goes_on;          /* not from its first byte on */
        } frame;
    };
};

struct conn {
    uint32_t node, compute;
    uint32_t node_incarnation, compute_incarnation;
    bool client_closed, server_closed;
    uint16_t protocol;                            /* that hello agreed on */
    generation_t hello_generation;                /* 0: not connected yet */
    generation_t generation;                      /* of the last message to the safekeeper */
    uint64_t last_to_node_us, last_to_compute_us; /* a connection delivers in order */
    bool silent;                                  /* nothing arrives any more, and nobody is told */
    bool damaged;                                 /* something on it was changed */
    struct {
        uint32_t offset, size; /* in the arena: what came and was not taken yet */
    } inbox[2];                /* to the walproposer, to the safekeeper */
    struct {
        uint32_t offset, size; /* of the last frame that was sent, whole; 0: none */
        uint64_t at_us;        /* when it arrives */
    } tail[2];
};

struct node {
    struct acceptor acceptor;
    struct disk disk;
    uint64_t paused_until_us;
    uint64_t full_until_us; /* its disk */
    bool is_all_full;       /* for its control file, too */
    bool exists;            /* it has the timeline */
    bool up;
    uint32_t incarnation;
    uint32_t folder;        /* grows when the disk is lost */
    generation_t deleted;   /* the tombstone; 0: none */
    bool owes_report;       /* as soon as everything is on disk */
    term_t promised;        /* by a granted vote or an adopted history */
    lsn_t acked_record_lsn; /* in `acked_term` */
    term_t acked_term;
    lsn_t matched_lsn; /* its log is compared with that of acked_term's winner up to here */
    lsn_t released_lsn;
    uint32_t asked; /* whom it asks what it has missed, and what that one answered */
    lsn_t offered_commit_lsn;
    lsn_t offered_begin_lsn;
    struct term_history offered;
    lsn_t piece_lsn; /* WAL that it has read from there, on its way */
    uint32_t piece_size;
    uint8_t piece[WAL_SIZE];
    struct retention_consumer consumer; /* what pageservers have told it */
    uint32_t votes_count;
    struct {
        term_t term;
        lsn_t begin_lsn, lsn;
        uint8_t wal[WAL_SIZE];
    } votes[VOTES_MAX]; /* answered; a proposer may win long after its donor went on */
};

struct compute {
    struct proposer proposer;
    bool alive, won_seen, ready, local_due;
    uint32_t incarnation;
    uint16_t protocol_min, protocol_max; /* that it speaks */
    uint32_t conn[NODES_MAX];            /* index + 1; 0: none */
    lsn_t generated_lsn, wal_lsn, wal_record_lsn;
    lsn_t committed_lsn;
    uint64_t paused_until_us;
    uint64_t tick_us; /* the earliest tick that is scheduled */
    uint64_t counter;
    uint16_t link; /* of the last generated record */
    uint8_t wal[WAL_SIZE];
    uint8_t repair[NODES_MAX][WAL_SIZE]; /* what was read on behalf of each safekeeper */
    lsn_t repair_begin_lsn[NODES_MAX], repair_end_lsn[NODES_MAX]; /* of what is contiguous in it */
};

struct world {
    FILE *chart;      /* NULL: be quick */
    struct tape tape; /* every random decision */
    uint32_t rotten;  /* index + 1 of the safekeeper whose WAL was damaged last */
    struct climate climate;
    struct trouble trouble;
    struct clock_error clocks[COMPUTES];
    uint32_t frozen; /* bits of safekeepers that are not healed */
    uint64_t now_us, order;
    bool healing;
    uint64_t steps, steps_max;
    uint64_t digest; /* of everything that was delivered, in order */

    uint32_t pending;
    struct sim_event heap[EVENTS_MAX];
    uint32_t conns_count;
    struct conn conns[CONNS_MAX];
    struct node nodes[NODES_MAX];
    const struct disk *disks[NODES_MAX]; /* of the nodes */
    struct changer changer;
    struct consumer consumer;
    struct compute computes[COMPUTES];
    struct oracle oracle;
    struct buf scratch;
    uint32_t arena_used;
    uint8_t arena[ARENA_SIZE];
    bool heal_sync;   /* healing begins with a walproposer that only syncs */
    lsn_t synced_lsn; /* what that one reported: the next must begin there */
};

struct world *world_create(void);
void world_destroy(struct world *world);

/*
 * Run the schedule that world->tape decides, from its first decision on and without the kinds of
 * trouble in tape.calm. Answers NULL, or what was violated (valid until the next run).
 */
const char *world_run(struct world *world, FILE *chart);
