/*
 * compute_plan.h - what to do next with one compute: a pure step from event to actions.
 *
 * The order is sync, base backup, unpack, launch (Postgres and walproposer together), roles, run.
 * Whatever goes wrong ends in a teardown first: nothing of the old try is left when the next one
 * begins, because a Postgres that is half dead may still hold the port or its spill.
 *
 * Invariants: nothing is started while a process or a piece of work of an earlier try is alive; a
 * fenced or refused compute never starts by itself again; a stop that was asked for wins over a
 * restart.
 */
#pragma once

#include "common/base/err.h"

enum compute_phase {
    COMPUTE_PHASE_OFF,
    COMPUTE_PHASE_SYNC,   /* walproposer --sync: elects, repairs, tells the LSN */
    COMPUTE_PHASE_BACKUP, /* base backup from the pageserver to a file */
    COMPUTE_PHASE_UNPACK, /* data directory and settings */
    COMPUTE_PHASE_LAUNCH, /* Postgres and walproposer run, no connections yet */
    COMPUTE_PHASE_ROLES,  /* roles and databases */
    COMPUTE_PHASE_RUN,
    COMPUTE_PHASE_TEARDOWN, /* waits until everything of this try has ended */
    COMPUTE_PHASE_BACKOFF,  /* waits before the next try */
};

/* Why it is off, or what follows the teardown; a stronger one replaces a weaker one. */
enum compute_end {
    COMPUTE_END_NONE,
    COMPUTE_END_RESTART,
    COMPUTE_END_FAILED,
    COMPUTE_END_REFUSED, /* Postgres does not take its settings: another try would end alike */
    COMPUTE_END_FENCED,
    COMPUTE_END_STOPPED,
    COMPUTE_END_DELETED,
};

enum compute_event_kind {
    COMPUTE_EVENT_START,
    COMPUTE_EVENT_STOP_FAST,      /* let transactions end their way: WAL is shipped to its end */
    COMPUTE_EVENT_STOP_IMMEDIATE, /* what is committed is on the safekeepers: nothing is lost */
    COMPUTE_EVENT_DELETE,
    COMPUTE_EVENT_WORK_DONE, /* of sync, backup, unpack or roles: the one that was asked for */
    COMPUTE_EVENT_WORK_FAILED,
    COMPUTE_EVENT_WORK_REFUSED, /* failed, because of its settings */
    COMPUTE_EVENT_POSTGRES_READY,
    COMPUTE_EVENT_POSTGRES_EXITED,
    COMPUTE_EVENT_POSTGRES_REFUSED, /* exited, because of its settings, before it began */
    COMPUTE_EVENT_PROPOSER_EXITED,  /* with its exit code */
    COMPUTE_EVENT_TIMER,
};

struct compute_event {
    enum compute_event_kind kind;
    int exit_code;   /* of the walproposer; -1: a signal */
    uint64_t now_ms; /* any clock that does not jump */
};

/* Carried out in this order. */
enum compute_action {
    COMPUTE_ACTION_CANCEL_WORK = 1 << 0,    /* WORK_FAILED (or DONE) follows */
    COMPUTE_ACTION_STOP_FAST = 1 << 1,      /* signal Postgres */
    COMPUTE_ACTION_STOP_IMMEDIATE = 1 << 2, /* signal Postgres */
    COMPUTE_ACTION_KILL = 1 << 3,           /* kill Postgres and the walproposer */
    COMPUTE_ACTION_STOP_PROPOSER = 1 << 4,
    COMPUTE_ACTION_SYNC = 1 << 5,
    COMPUTE_ACTION_BACKUP = 1 << 6,
    COMPUTE_ACTION_UNPACK = 1 << 7,
    COMPUTE_ACTION_LAUNCH = 1 << 8, /* two EXITED events follow sooner or later */
    COMPUTE_ACTION_ROLES = 1 << 9,
    COMPUTE_ACTION_TIMER = 1 << 10,      /* TIMER after timer_ms; replaces an earlier one */
    COMPUTE_ACTION_STOP_TIMER = 1 << 11, /* no TIMER any more */
    COMPUTE_ACTION_CLEAN_UP = 1 << 12,   /* deleted: remove the files, then the compute */
};

struct compute_actions {
    unsigned set; /* of enum compute_action */
    uint64_t timer_ms;
};

struct compute_plan {
    enum compute_phase phase;
    enum compute_end end;          /* in TEARDOWN: what follows; in OFF: why; else NONE */
    bool work, postgres, proposer; /* alive */
    bool proposer_told;            /* it was asked to stop in this teardown */
    bool start_again;              /* START came while it was being stopped */
    unsigned escalation;           /* 0: fast, 1: immediate, 2: kill */
    unsigned failures;             /* in a row */
    uint64_t running_since_ms;
};

#define COMPUTE_FAILURES_MAX 6 /* then it is FAILED, and control decides */
#define COMPUTE_EXIT_FENCED  3 /* of the walproposer */

/* A zeroed plan is a compute that was never started. */
void compute_plan_step(
    struct compute_plan *plan,
    const struct compute_event *event,
    struct compute_actions *ret_actions);

/* "starting", "running", "stopping", "stopped", "failed", "refused" or "fenced". */
const char *compute_plan_state(const struct compute_plan *plan);
/* "sync", "base_backup", ...; empty when nothing is under way. */
const char *compute_plan_step_name(const struct compute_plan *plan);
