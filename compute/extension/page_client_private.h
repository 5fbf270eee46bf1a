/*
 * page_client_private.h - the page client from the inside:
 *
 *   page_client.c          the calls: what is asked, and how a call waits and asks again
 *   page_client_address.c  where the pageserver is, by the settings of now
 *   page_client_conn.c     the one connection of this process: made, lost, bytes in and out
 *   page_client_reply.c    what an answer does to the call that waits for it
 *
 * Whatever waits takes a deadline and `latch_seen`: set when the latch was set
 * meanwhile, so that the caller sets it again at its end for whoever else it
 * may be meant for. A wait may leave with an ERROR, by an interrupt: the
 * buffers and page_conn.in_used are right whenever that can happen.
 */
#pragma once

#include "compute/extension/page_client.h"

#include "datatype/timestamp.h"
#include "storage/latch.h"

#include "compute/extension/wire.h"

/* -- page_client_address.c -- */

/*
 * The settings, kept apart: while a parallel worker takes over its leader's
 * settings they are all at their defaults for a moment, and pages are read in
 * that moment.
 */
typedef struct PageAddress
{
	char		host[256];
	int			port;
	int			generation;
	char		token[4096];
} PageAddress;

extern PageAddress page_target;

/* -- page_client_conn.c -- */

/* The connection of this process. */
typedef struct PageConn
{
	int			fd;				/* -1: none */
	WaitEventSet *events;
	Latch	   *events_latch;	/* the latch that `events` watches */
	bool		want_write;		/* `events` waits for writability, too */
	PageAddress address;		/* where it leads; the settings may have moved on */
	uint32		channel;
	struct buf	in;
	size_t		in_used;		/* bytes of `in` that are parsed already */
	struct buf	out;
	size_t		out_sent;
} PageConn;

extern PageConn page_conn;
extern uint32 page_wait_event;	/* 0: not asked for yet */

/* One attempt. On failure the connection is closed. */
extern err_t page_conn_open(TimestampTz deadline, bool *latch_seen, struct errmsg *msg);

/* What was read ahead on it is lost, too. Fine when there is none. */
extern void page_conn_close(void);

/* The settings lead to another pageserver now, or to another generation of it. */
extern bool page_conn_leads_elsewhere(void);

/* As much as the socket takes. false: the connection is lost, `msg` says why */
extern bool page_conn_send(struct errmsg *msg);

/* 1: bytes came, 0: none yet, -1: the connection is lost, `msg` says why */
extern int	page_conn_receive(struct errmsg *msg);

/* Wait for the socket. false: time is up. */
extern bool page_conn_wait(TimestampTz deadline, bool *latch_seen);

/*
 * Someone set the latch: perhaps an interrupt, perhaps what an outer loop
 * waits for. `*seen` makes the caller set the latch again for the latter.
 */
extern void page_conn_latch_was_set(bool *seen);

/* -- page_client_reply.c -- */

/* What a caller waits for. It lies on the caller's stack: no pointer to it outlives the call. */
typedef struct PageWait
{
	PageRead   *reads;
	int			read_count;
	struct
	{
		uint64		request_id;
		bool		done;
		bool		exists;
		uint64		number;
		char	   *list;		/* a copy, palloc'd */
	}			number;			/* a size, or a working set; unused when request_id is 0 */
	uint64		ahead_id;		/* only until this reply has come */
	bool		ahead_done;
	err_t		retry;			/* the pageserver asked to try again, and why */
	struct errmsg retry_msg;
	err_t		refused;		/* it will not answer better another time */
	struct errmsg refused_msg;
	bool		ends_on_interrupt;	/* pending, and held off: see page_client_try_read() */
} PageWait;

/* Everything that has been received completely. false: the connection is of no use any more. */
extern bool page_reply_dispatch(PageWait *wait, struct errmsg *msg);

/* Worth asking again, here or at whoever serves the timeline next. */
extern bool page_error_is_transient(err_t err);

/* -- page_client.c -- */

extern PageAheadReply page_ahead_reply; /* NULL: nobody reads ahead */
extern PageAheadLost page_ahead_lost;
