/*
 * disk_lab.h - a WAL store in a temporary folder, and a disk that crashes.
 */
#pragma once

#include "safekeeper/disk/wal_store.h"
#include "tests/unit/unit.h"

#define LAB_SEGMENT_SIZE ((uint32_t)(1 * MIB))
#define LAB_START_LSN    ((lsn_t)0x3012348) /* in the middle of a page and of a segment */

extern char lab_dir[PATH_SIZE]; /* fresh for each test, removed at its end */
void lab_make_dir(void);

extern lsn_t lab_begin_lsn; /* of the log; 0: the start */
extern unsigned lab_recycled_max;
struct wal_store_options lab_options(void);
struct wal_store *lab_open(void); /* asserts that it opens */
NODISCARD err_t lab_try_open(lsn_t certified_lsn, struct errmsg *msg);

/* WAL whose every byte says where it is and which writer wrote it. */
void lab_fill(uint8_t *to, lsn_t begin_lsn, size_t size, unsigned salt);

/* Append one group, both halves; the record end is the end of the bytes, rounded down to 8. */
NODISCARD err_t
lab_try_append(struct wal_store *store, size_t size, unsigned salt, struct errmsg *msg);
void lab_append(struct wal_store *store, size_t size, unsigned salt);
void lab_fill_to_segment_end(struct wal_store *store, unsigned salt); /* group after group */

void lab_assert_bytes(lsn_t begin_lsn, lsn_t end_lsn, unsigned salt); /* through a reader */
/* Path of the file of the segment that holds `lsn`, plus suffix. */
const char *lab_path(lsn_t lsn, const char *suffix);
void lab_flip(const char *path, uint64_t at); /* one bit */
bool lab_is_zero_behind(lsn_t lsn);           /* up to the end of its segment file */

/*
 * The crashing disk: from start() on all file calls go through a model of what would survive a
 * power cut. After `steps` more calls that change something every call fails. crash() then leaves
 * one of the possible outcomes on the real disk: each write that was not synced is there, not
 * there, or torn between sectors; files that were created or removed without a sync of the folder
 * may or may not be there.
 */
void disk_model_start(uint64_t seed, unsigned steps);
bool disk_model_is_dead(void);
/* Every `one_of`-th write finds no space, after a part of it was written; 0: there is always space.
 */
void disk_model_fill(unsigned one_of);
/* Only the process died: the page cache lives, but what was not synced still is not. */
void disk_model_revive(unsigned steps);
void disk_model_crash(void);
void disk_model_stop(void); /* back to the real calls, nothing is lost */
