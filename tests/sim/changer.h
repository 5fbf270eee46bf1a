/*
 * changer.h - the simulated control: it changes who votes, and may die between any two steps.
 *
 * What it has written down (the memberships, which folders the newcomers have) survives; what it
 * was told does not. Its messages are late or lost, and what an earlier life of it sent still
 * arrives. The judgement is the code of the daemons: safekeeper/consensus/change.h.
 */
#pragma once

#include "safekeeper/consensus/change.h"
#include "tests/sim/climate.h"

struct world;
struct sim_event;

#define GENERATIONS_MAX 96

struct changer {
    /* written down */
    struct membership history[GENERATIONS_MAX]; /* by generation - GENERATION */
    uint32_t history_count;
    uint32_t folders[NODES_MAX]; /* of the newcomers of the joint membership, by safekeeper */

    /* this life's */
    bool up;
    uint32_t incarnation;
    bool gives_up;     /* the change that is under way */
    uint32_t patience; /* steps that a change may still take, in healing */
    bool is_stuck;     /* a newcomer has another folder than when the change began */
    struct change_report reports[MEMBERS_MAX]; /* under the newest generation */
};

enum note_kind {
    NOTE_TELL,   /* to a safekeeper: generation, term */
    NOTE_CREATE, /* the same, and the timeline is to be created in this folder */
    NOTE_DELETE, /* to a safekeeper: generation */
    NOTE_REPORT, /* from a safekeeper */
};

/* What control and a safekeeper say to each other; in the arena of the world. */
struct note {
    enum note_kind kind;
    generation_t generation;
    term_t term;
    uint32_t folder;
    struct change_report report; /* not answered: it has no such timeline */
};

void changer_begin(struct world *world);
void changer_on_tick(struct world *world, const struct sim_event *event);
void changer_on_note(struct world *world, const struct sim_event *event);
void changer_heal(struct world *world);

const struct membership *changer_newest(const struct world *world);
const struct membership *changer_membership(const struct world *world, generation_t generation);

/* A note of safekeeper `node`, or to it, is on its way. */
void changer_send(struct world *world, uint32_t node, const struct note *note);
struct note changer_take(const struct world *world, const struct sim_event *event);
