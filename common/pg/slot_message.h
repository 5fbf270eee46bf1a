/*
 * slot_message.h - the state of a logical replication slot, as it travels in the WAL.
 *
 * A compute's library writes it as a non-transactional logical message of no database (so no
 * decoder shows it), the pageserver keeps the newest of each slot, a base backup makes files of
 * it. Also included by code that is built against Postgres: only fixed-size types here.
 * docs/design/logical-slots.md. Threads: [any].
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SLOT_MESSAGE_PREFIX    "anabranch.slot"
#define SLOT_MESSAGE_VERSION   1
#define SLOT_NAME_SIZE         64
#define SLOT_STATE_SIZE_MAX    4096
#define SLOT_SNAPSHOT_SIZE_MAX (16 * 1024 * 1024)

/* The slot is still being made: its WAL is kept, but no base backup has it. */
#define SLOT_MESSAGE_RESERVES 1u

/* Then `state_size` bytes of pg_replslot/NAME/state and `snapshot_size` of the snapshot. */
struct slot_message {
    uint32_t version;
    uint32_t state_size; /* 0: the slot was dropped */
    char name[SLOT_NAME_SIZE];
    uint64_t restart_lsn;   /* WAL is needed from here on; 0: none, it was invalidated */
    uint32_t snapshot_size; /* of pg_logical/snapshots/RESTART_LSN.snap; 0: there is none */
    uint32_t flags;
};
_Static_assert(sizeof(struct slot_message) == 88, "in the WAL");
