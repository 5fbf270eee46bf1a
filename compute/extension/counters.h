/*
 * counters.h - what the extension counted since the server started.
 *
 * Shared memory, relaxed atomics: cheap enough for every page. Read through
 * the view anabranch_stat. Those of reads are counted for each session as well,
 * its parallel workers included: anabranch_stat_sessions, and EXPLAIN.
 */
#pragma once

#include "postgres.h"

#include "port/atomics.h"

#define SESSION_COUNTERS(X) \
	X(COUNTER_READ_CACHE, "read_cache_blocks") \
	X(COUNTER_READ_REMOTE, "read_remote_blocks") \
	X(COUNTER_READ_AHEAD, "read_ahead_blocks") \
	X(COUNTER_READ_AHEAD_HIT, "read_ahead_hit_blocks") \
	X(COUNTER_READ_AHEAD_STALE, "read_ahead_stale_blocks") \
	X(COUNTER_READ_AHEAD_WASTED, "read_ahead_wasted_blocks") \
	X(COUNTER_READ_SPILL, "read_spill_blocks") \
	X(COUNTER_READ_ZERO, "read_zero_blocks") \
	X(COUNTER_WAITS, "pageserver_waits") \
	X(COUNTER_WAIT_US, "pageserver_wait_us")

#define COUNTERS(X) \
	SESSION_COUNTERS(X) \
	X(COUNTER_CACHE_PUT, "cache_put_blocks") \
	X(COUNTER_CACHE_OFFER, "cache_fill_blocks") \
	X(COUNTER_CACHE_EVICT, "cache_evicted_chunks") \
	X(COUNTER_CACHE_DAMAGED, "cache_damaged_blocks") \
	X(COUNTER_PREWARM, "prewarm_blocks") \
	X(COUNTER_SIZE_REMOTE, "size_requests") \
	X(COUNTER_WRITE_DROP, "write_dropped_blocks") \
	X(COUNTER_WRITE_ZERO, "write_zero_blocks") \
	X(COUNTER_SPILL_UNACKED, "spill_unacked_blocks") \
	X(COUNTER_SPILL_UNLOGGED, "spill_unlogged_blocks") \
	X(COUNTER_SPILL_CID, "spill_command_id_blocks") \
	X(COUNTER_SPILL_SEQUENCE, "spill_sequence_blocks") \
	X(COUNTER_SPILL_BTREE, "spill_btree_cycle_blocks") \
	X(COUNTER_SPILL_FSM, "spill_fsm_blocks") \
	X(COUNTER_CID_NOTED, "command_id_noted_blocks") \
	X(COUNTER_SPILL_SWEPT, "spill_swept_blocks") \
	X(COUNTER_REL_EVICT, "relation_cache_evictions") \
	X(COUNTER_UNLOGGED_CONVERT, "unlogged_conversions") \
	X(COUNTER_SLRU_FETCH, "slru_segments_fetched") \
	X(COUNTER_CONNECT, "pageserver_connects") \
	X(COUNTER_RETRY, "pageserver_retries") \
	X(COUNTER_THROTTLE, "throttled_statements") \
	X(COUNTER_THROTTLE_US, "throttled_us") \
	X(COUNTER_THROTTLE_LAG, "throttled_by_ingest_statements") \
	X(COUNTER_THROTTLE_LAG_US, "throttled_by_ingest_us")

typedef enum Counter
{
#define X(name, text) name,
	COUNTERS(X)
#undef X
	COUNTER_COUNT
} Counter;

#define X(name, text) + 1
enum
{
	SESSION_COUNTER_COUNT = SESSION_COUNTERS(X),	/* the first ones */
};
#undef X

/* Waits for the pageserver by their length: up to 2^(WAIT_BUCKET_MIN + i) us, the last one any. */
#define WAIT_BUCKET_MIN 4
#define WAIT_BUCKETS	20

extern pg_atomic_uint64 *counters;

extern Size counters_shmem_size(void);
extern void counters_shmem_init(void);

/* What this session counted, to take differences of. */
extern void counters_of_session(uint64 to[SESSION_COUNTER_COUNT]);

/* A wait for the pageserver is over. */
extern void counters_waited(uint64 us);

/* Out of the way of counter_add(): private. */
extern void counters_add_to_session(Counter counter, uint64 value);

static inline void
counter_add(Counter counter, uint64 value)
{
	pg_atomic_fetch_add_u64(&counters[counter], value);
	if ((int) counter < SESSION_COUNTER_COUNT)
		counters_add_to_session(counter, value);
}
