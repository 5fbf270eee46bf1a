/*
 * page_key.h - the name of everything that a timeline keeps versions of, and its bytes in the
 * store.
 *
 *   [timeline u32][spc u32][db u32][rel u32][fork u8][block u32][~lsn u64]
 *
 * 29 bytes, big-endian.
 *
 * memcmp order = timeline, relation, fork, block, newest version first: one seek and a few nexts
 * are a whole read. The first 21 bytes (without the LSN) are the filter prefix. A version's LSN is
 * the end of the WAL record that made it (Postgres' EndRecPtr, the page's pd_lsn).
 *
 * A relation's own pages use its RelFileLocator. What is not a page lives under spc = KEY_SPC_STATE
 * (0 is no tablespace of Postgres) with `db` = enum state_kind. The size of a relation fork stands
 * behind its blocks, at block = KEY_BLOCK_SIZE. Numbers in values are little-endian.
 */
#pragma once

#include "common/base/bytes.h"

#define PAGE_KEY_PREFIX_SIZE 21
#define PAGE_KEY_SIZE        29

#define KEY_SPC_STATE  0u
#define KEY_BLOCK_SIZE UINT32_MAX /* InvalidBlockNumber: value is struct rel_size_value */

enum state_kind {
    STATE_INGEST_LSN = 1, /* one key a timeline: how far its WAL is in the store */
    STATE_CONTROL = 2,    /* pg_control (8192 bytes) as initdb left it, and later settings */
    STATE_CHECKPOINT = 3, /* the CheckPoint struct, kept up to date, but the next two */
    STATE_NEXT_XID = 4,   /* u64 full transaction id */
    STATE_NEXT_MULTI = 5, /* u32 multixact, u32 offset */
    STATE_DATABASE = 6, /* rel = db oid, block = spc oid; value "1" + PG_VERSION; empty: dropped */
    STATE_RELMAP = 7,   /* rel = db oid (0: shared), block = spc oid; pg_filenode.map */
    STATE_TWOPHASE = 8, /* rel, block = high and low half of the full xid; empty: finished */
    STATE_COMMIT_TIME = 9, /* rel, block = halves of the commit time (us, Postgres epoch): newest
                              time so far; value = start LSN of that commit record */
    STATE_ORIGIN = 10,     /* rel = origin id; value: u64 remote LSN; empty: dropped */
    STATE_SLOT = 11, /* rel, block = halves of the hash of a logical slot's name; value: struct
                        slot_message and what follows it; empty: dropped. A timeline's own
                        only: a branch inherits none */
    STATE_TABLESPACE = 15, /* rel = spc oid; value "1" + where it was; empty: dropped */
    STATE_CLOG = 16,       /* SLRUs: block = page number; values like pages of a relation */
    STATE_MULTI_OFFSETS = 17,
    STATE_MULTI_MEMBERS = 18,
    STATE_COMMIT_TS = 19,
};

struct page_key {
    uint32_t spc, db, rel;
    uint8_t fork;
    uint32_t block;
};

/* The three relation forks with WAL (ForkNumber in common/relpath.h of Postgres), and init. */
enum { FORK_MAIN = 0, FORK_FSM = 1, FORK_VM = 2, FORK_INIT = 3, FORK_COUNT = 4 };

static inline struct page_key page_key_state(enum state_kind kind, uint32_t rel, uint32_t block)
{
    return (struct page_key){.spc = KEY_SPC_STATE, .db = kind, .rel = rel, .block = block};
}

static inline struct page_key page_key_size_of(struct page_key key)
{
    key.block = KEY_BLOCK_SIZE;
    return key;
}

bool page_key_equal(struct page_key a, struct page_key b);

/* A page of an SLRU: it has versions like one of a relation, but no fork that has a size. */
static inline bool page_key_is_slru(struct page_key key)
{
    return key.spc == KEY_SPC_STATE && key.db >= STATE_CLOG && key.db <= STATE_COMMIT_TS &&
           key.rel == 0 && key.fork == 0 && key.block != KEY_BLOCK_SIZE;
}

void page_key_encode(uint32_t timeline, struct page_key key, lsn_t lsn, uint8_t to[PAGE_KEY_SIZE]);
/* ERR_CORRUPT when the size is not PAGE_KEY_SIZE. */
NODISCARD err_t page_key_decode(
    struct bytes from, uint32_t *ret_timeline, struct page_key *ret_key, lsn_t *ret_lsn);

/* "rel 1663/5/16384 main block 7", "clog page 3"; 80 bytes are enough. */
struct page_key_text {
    char text[80];
};
struct page_key_text page_key_text(struct page_key key);

/*
 * Values: one tag byte, then
 *   'I'  a page image, 8192 bytes
 *   'Z'  a page of zeros, nothing more
 *   'W'  u8 block index, then a WAL record that initialises the page: its base is a zero page
 *   'D'  u8 block index, then a WAL record to apply on the page below it
 *   'S'  state, as described above
 *
 * The block index is that of the block reference in the record, or VALUE_BLOCK_IMPLIED for pages
 * that the record changes without a reference (visibility map bits, SLRU pages). 'I', 'Z', 'W' and
 * 'S' end a read; the record is the bytes as in WAL without page headers (xl_tot_len of them).
 */
enum {
    VALUE_IMAGE = 'I',
    VALUE_ZERO = 'Z',
    VALUE_INIT = 'W',
    VALUE_DELTA = 'D',
    VALUE_STATE = 'S'
};
#define VALUE_BLOCK_IMPLIED 0xFF

/* Size of a relation fork: 'S', u8 exists, u32 blocks (little-endian). */
#define REL_SIZE_VALUE_SIZE 6
