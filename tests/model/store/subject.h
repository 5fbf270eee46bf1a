/*
 * subject.h - the store under test, in the words of the model: the one file here that knows
 * pageserver/store/page_store.h. Every failure that is no answer ends the process with a message.
 */
#pragma once

#include "pageserver/store/page_store.h"
#include "tests/model/store/model.h"

/*
 * Where a store's folder is made: in memory where there is such a place, because nothing here
 * depends on what a sync costs; or STORE_MODEL_DIR, of who removes what a killed process leaves.
 */
const char *subject_base(void);
void subject_open(const char *folder); /* then add all timelines, parents first, then start */
void subject_start(void);
void subject_close(void);
void subject_flush(void);

/* -- history -- */

void subject_add(const struct model *model, int timeline);
void subject_remove(int timeline);
void subject_set_tombstone(int timeline);
void subject_set_durable(int timeline, lsn_t lsn);
lsn_t subject_cutoff(int timeline);
bool subject_may_read(int timeline, lsn_t lsn);
/* False: refused, because the LSN is not kept. */
bool subject_hold(int timeline, lsn_t lsn);
void subject_release(void);
bool subject_lease(int timeline, lsn_t lsn, size_t name);
bool subject_lease_drop(int timeline, size_t name); /* false: there is none */
/* Wanted cutoffs by timeline; 0 for those that are gone. */
void subject_move_cutoffs(const struct model *model, const lsn_t wanted[MODEL_TIMELINES]);
void subject_compact(void); /* and what runs beside has ended */
/* One at a time: another one waits for it, so do subject_compact and subject_close. */
void subject_compact_beside(void);
void subject_compact_end(void);
bool subject_is_compacting(void);

/* Gather versions of records; commit writes them with the position of `timeline`. */
void subject_put(const struct model *model, const struct model_event *event);
void subject_put_version(
    uint32_t number, struct page_key key, lsn_t lsn, uint8_t tag, struct bytes value);
void subject_commit(const struct model *model, int timeline, lsn_t lsn);
lsn_t subject_position(uint32_t number); /* 0: none */

/* What an image that was made by a read looks like: the page as of its newest version. */
void subject_put_image(const struct model *model, int key, struct model_page page);
void subject_erase(uint32_t number);

/* -- reads, over the path of a timeline -- */

void subject_reader_open(const struct model *model, int timeline);
void subject_reader_close(void);
/* lsn 0: nothing there. */
struct model_page subject_read(int key, lsn_t lsn);
int subject_blocks(int rel, lsn_t lsn); /* -1: does not exist */
/* Bit i: relation i is listed, each with the size that it has. */
unsigned subject_relations(lsn_t lsn);
lsn_t subject_commit_after(uint64_t time, lsn_t lsn);
uint64_t subject_newest_commit(lsn_t lsn);
