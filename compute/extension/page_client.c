#include "compute/extension/page_client.h"

#include "catalog/pg_database_d.h"
#include "catalog/pg_tablespace_d.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compute/extension/counters.h"
#include "compute/extension/page_client_private.h"
#include "compute/extension/position.h"

#define BACKOFF_MIN_MS 5
#define BACKOFF_MAX_MS 500

StaticAssertDecl(PAGE_READ_BLOCKS_MAX == GET_PAGE_COUNT_MAX, "one request is one call");
StaticAssertDecl(BLCKSZ == PAGE_BYTES, "pages are as large as on the wire");

PageAheadReply page_ahead_reply;
PageAheadLost page_ahead_lost;

static uint64 next_request_id = 1;

static void
send_read(PageRead *read)
{
	struct get_page request = {
		.spc = read->rlocator.spcOid,
		.db = read->rlocator.dbOid,
		.rel = read->rlocator.relNumber,
		.fork = (uint8) read->fork,
		.block = read->block,
		.count = (uint32) read->count,
		.lsn = position_request(),
		.not_modified_since = read->since,
	};

	read->request_id = next_request_id++;
	FRAME_APPEND_MESSAGE(&page_conn.out, get_page, &request, .type = FRAME_GET_PAGE,
						 .channel = page_conn.channel, .request_id = read->request_id);
}

static int
sqlstate_of(err_t err)
{
	switch (err)
	{
		case ERR_CORRUPT:
			return ERRCODE_DATA_CORRUPTED;
		case ERR_DENIED:
			return ERRCODE_INSUFFICIENT_PRIVILEGE;
		case ERR_RANGE:
			return ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
		case ERR_UNSUPPORTED:
			return ERRCODE_FEATURE_NOT_SUPPORTED;
		case ERR_NOT_FOUND:
			return ERRCODE_UNDEFINED_OBJECT;
		default:
			return ERRCODE_CONNECTION_FAILURE;
	}
}

static void pg_attribute_noreturn()
report(err_t err, const struct errmsg *msg)
{
	ereport(ERROR,
			(errcode(sqlstate_of(err)),
			 errmsg("the pageserver could not be read: %s", err_name(err)),
			 errdetail("%s", msg->text[0] != '\0' ? msg->text : "No details are known."),
			 errcontext("pageserver %s:%d, timeline %s", page_conn.address.host, page_conn.address.port,
						page_client_timeline)));
}

static bool
wait_is_over(const PageWait *wait)
{
	for (int i = 0; i < wait->read_count; i++)
		if (!wait->reads[i].done)
			return false;
	if (wait->number.request_id != 0 && !wait->number.done)
		return false;
	return wait->ahead_id == 0 || wait->ahead_done;
}

/* The pageserver moved, or the settings were corrected: notice it even in the middle of a statement. */
static void
take_new_settings(void)
{
	if (!ConfigReloadPending || CritSectionCount > 0 || InterruptHoldoffCount > 0)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
}

/* Sleep before the next attempt. false: time is up. */
static bool
back_off(int *backoff_ms, TimestampTz deadline, bool *latch_seen)
{
	TimestampTz now = GetCurrentTimestamp();

	if (now >= deadline)
		return false;
	counter_add(COUNTER_RETRY, 1);
	if (WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, *backoff_ms,
				  page_wait_event) & WL_LATCH_SET)
		page_conn_latch_was_set(latch_seen);
	*backoff_ms = Min(*backoff_ms * 2, BACKOFF_MAX_MS);
	take_new_settings();
	return true;
}

static bool
interrupt_ends(const PageWait *wait)
{
	return wait->ends_on_interrupt && CritSectionCount == 0 &&
		(QueryCancelPending || ProcDiePending);
}

/* How a caller's requests get (again) into the out buffer. */
typedef void (*SendAll) (PageWait *wait, const void *what);

/* One call on its way: what it sends, and how often it has tried. */
typedef struct Attempts
{
	SendAll		send_all;
	const void *what;
	TimestampTz deadline;
	int			backoff_ms;		/* before the next one */
	bool		sent;			/* on this connection */
	bool		latch_seen;
} Attempts;

/*
 * The requests are on their way to an open connection. An error here and below:
 * `*again` says whether another attempt may do better.
 */
static err_t
ask(PageWait *wait, Attempts *attempts, bool *again, struct errmsg *msg)
{
	if (page_conn.fd < 0)
	{
		err_t		err = page_conn_open(attempts->deadline, &attempts->latch_seen, msg);

		/* not found: the timeline may be on its way to another pageserver */
		*again = page_error_is_transient(err) || err == ERR_NOT_FOUND;
		TRY(err);
		attempts->sent = false;
	}
	if (!attempts->sent)
	{
		wait->retry = ERR_OK;
		attempts->send_all(wait, attempts->what);
		attempts->sent = true;
	}
	return ERR_OK;
}

/* The pageserver refused something of it. */
static err_t
judge_refusals(const PageWait *wait, Attempts *attempts, bool *again, struct errmsg *msg)
{
	if (wait->refused != ERR_OK)
	{
		*again = false;
		*msg = wait->refused_msg;
		return wait->refused;
	}
	if (wait->retry == ERR_OK)
		return ERR_OK;
	/* a superseded pageserver will not become better: connect anew */
	if (wait->retry != ERR_BUSY && wait->retry != ERR_TIMEOUT)
		page_conn_close();
	attempts->sent = false;
	*again = true;
	*msg = wait->retry_msg;
	return wait->retry;
}

/* The connection is of no use any more. */
static err_t
give_up_connection(bool *again)
{
	page_conn_close();
	*again = true;
	return ERR_IO;
}

/* Send, look at what has come, and wait for more. */
static err_t
go_on(PageWait *wait, Attempts *attempts, bool *again, struct errmsg *msg)
{
	int			got;

	TRY(ask(wait, attempts, again, msg));
	if (!page_conn_send(msg) || !page_reply_dispatch(wait, msg))
		return give_up_connection(again);
	TRY(judge_refusals(wait, attempts, again, msg));
	if (wait_is_over(wait))
		return ERR_OK;
	if (!page_conn_wait(attempts->deadline, &attempts->latch_seen))
	{
		page_conn_close();
		*again = false;
		return err_set(msg, ERR_TIMEOUT, "no answer within %d ms", page_client_timeout_ms);
	}
	got = page_conn_receive(msg);
	if (got < 0)
		return give_up_connection(again);
	if (got > 0)
		attempts->backoff_ms = BACKOFF_MIN_MS;
	return ERR_OK;
}

/*
 * Send and wait until everything is answered. Every round either gets on or
 * ends in back_off(), which ends the whole after the timeout.
 */
static err_t
try_run(PageWait *wait, SendAll send_all, const void *what, struct errmsg *msg)
{
	Attempts	attempts = {
		.send_all = send_all,
		.what = what,
		.deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), page_client_timeout_ms),
		.backoff_ms = BACKOFF_MIN_MS,
	};
	err_t		err = ERR_OK;

	if (page_wait_event == 0)
		page_wait_event = WaitEventExtensionNew("AnabranchPageserver");
	if (page_conn.fd >= 0 && page_conn_leads_elsewhere())
		page_conn_close();

	while (!wait_is_over(wait))
	{
		bool		again;

		err = ERR_OK;
		if (page_conn.fd < 0 && wait->ahead_id != 0)
			break;				/* lost with the connection */
		if (interrupt_ends(wait))
		{
			err = err_set(msg, ERR_CANCELED, "the statement or the session is to end");
			break;
		}
		err = go_on(wait, &attempts, &again, msg);
		if (wait_is_over(wait))
			err = ERR_OK;		/* whatever came behind the last answer */
		else if (err != ERR_OK &&
				 (!again || !back_off(&attempts.backoff_ms, attempts.deadline, &attempts.latch_seen)))
			break;
	}
	if (attempts.latch_seen)
		SetLatch(MyLatch);
	return err;
}

static void
run(PageWait *wait, SendAll send_all, const void *what)
{
	TimestampTz begin = GetCurrentTimestamp();
	struct errmsg msg = {0};
	err_t		err = try_run(wait, send_all, what, &msg);

	if (err != ERR_OK)
		report(err, &msg);
	counters_waited((uint64) (GetCurrentTimestamp() - begin));
}

static void
send_reads(PageWait *wait, const void *what)
{
	for (int i = 0; i < wait->read_count; i++)
		if (!wait->reads[i].done)
			send_read(&wait->reads[i]);
}

void
page_client_read(PageRead *reads, int read_count)
{
	PageWait		wait = {.reads = reads, .read_count = read_count};

	for (int i = 0; i < read_count; i++)
	{
		Assert(reads[i].count >= 1 && reads[i].count <= PAGE_READ_BLOCKS_MAX);
		reads[i].done = false;
		reads[i].lsn = InvalidXLogRecPtr;
		counter_add(COUNTER_READ_REMOTE, (uint64) reads[i].count);
	}
	run(&wait, send_reads, NULL);
}

static int
errno_of(err_t err)
{
	switch (err)
	{
		case ERR_TIMEOUT:
			return ETIMEDOUT;
		case ERR_CANCELED:
			return ECANCELED;
		case ERR_NOT_FOUND:
			return ENOENT;
		default:
			return EIO;
	}
}

int
page_client_try_read(PageRead *read, const char *what)
{
	TimestampTz begin = GetCurrentTimestamp();
	PageWait		wait = {.reads = read, .read_count = 1, .ends_on_interrupt = true};
	struct errmsg msg = {0};
	err_t		err;

	Assert(read->count >= 1 && read->count <= PAGE_READ_BLOCKS_MAX);
	read->done = false;
	read->lsn = InvalidXLogRecPtr;
	HOLD_INTERRUPTS();
	err = try_run(&wait, send_reads, NULL, &msg);
	RESUME_INTERRUPTS();
	counters_waited((uint64) (GetCurrentTimestamp() - begin));
	if (err == ERR_OK && XLogRecPtrIsInvalid(read->lsn))
		err = err_set(&msg, ERR_NOT_FOUND, "the timeline is not there");
	if (err == ERR_OK)
		return 0;
	ereport(LOG,
			(errmsg("the pageserver could not be read for %s: %s", what, err_name(err)),
			 errdetail("%s", msg.text[0] != '\0' ? msg.text : "No details are known.")));
	return errno_of(err);
}

static void
send_rel_size(PageWait *wait, const void *what)
{
	struct rel_size request = *(const struct rel_size *) what;

	request.lsn = position_request();
	wait->number.request_id = next_request_id++;
	FRAME_APPEND_MESSAGE(&page_conn.out, rel_size, &request, .type = FRAME_REL_SIZE,
						 .channel = page_conn.channel, .request_id = wait->number.request_id);
}

bool
page_client_rel_size(const RelFileLocator *rlocator, ForkNumber fork,
					 XLogRecPtr since, BlockNumber *blocks)
{
	struct rel_size request = {
		.spc = rlocator->spcOid,
		.db = rlocator->dbOid,
		.rel = rlocator->relNumber,
		.fork = (uint8) fork,
		.not_modified_since = since,
	};
	PageWait		wait = {.number.request_id = UINT64_MAX};	/* not sent yet */

	run(&wait, send_rel_size, &request);
	*blocks = (BlockNumber) wait.number.number;
	return wait.number.exists;
}

static void
send_db_size(PageWait *wait, const void *what)
{
	struct db_size request = *(const struct db_size *) what;

	request.lsn = position_request();
	wait->number.request_id = next_request_id++;
	FRAME_APPEND_MESSAGE(&page_conn.out, db_size, &request, .type = FRAME_DB_SIZE,
						 .channel = page_conn.channel, .request_id = wait->number.request_id);
}

/* The size of a shared catalog: the pageserver has it at hand. */
void
page_client_await(XLogRecPtr lsn)
{
	RelFileLocator shared = {.spcOid = GLOBALTABLESPACE_OID, .relNumber = DatabaseRelationId};
	BlockNumber blocks;

	(void) page_client_rel_size(&shared, MAIN_FORKNUM, lsn, &blocks);
}

int64
page_client_database_size(Oid tablespace, Oid database, XLogRecPtr since)
{
	struct db_size request = {.spc = tablespace, .db = database, .not_modified_since = since};
	PageWait		wait = {.number.request_id = UINT64_MAX};

	run(&wait, send_db_size, &request);
	return (int64) wait.number.number;
}

/* ---------------------------------------------------------------- working sets */

static void
send_put_working_set(PageWait *wait, const void *what)
{
	wait->number.request_id = next_request_id++;
	FRAME_APPEND_MESSAGE(&page_conn.out, put_working_set, (const struct put_working_set *) what,
						 .type = FRAME_PUT_WORKING_SET, .channel = page_conn.channel,
						 .request_id = wait->number.request_id);
}

void
page_client_put_working_set(const char *list, size_t size)
{
	struct put_working_set request = {.list = bytes_of(list, size)};
	PageWait		wait = {.number.request_id = UINT64_MAX};

	Assert(size <= WORKING_SET_BYTES_MAX);
	run(&wait, send_put_working_set, &request);
}

static void
send_get_working_set(PageWait *wait, const void *what)
{
	struct get_working_set request = {.size_max = WORKING_SET_BYTES_MAX};

	wait->number.request_id = next_request_id++;
	FRAME_APPEND_MESSAGE(&page_conn.out, get_working_set, &request, .type = FRAME_GET_WORKING_SET,
						 .channel = page_conn.channel, .request_id = wait->number.request_id);
}

char *
page_client_get_working_set(size_t *size)
{
	PageWait		wait = {.number.request_id = UINT64_MAX};

	run(&wait, send_get_working_set, NULL);
	*size = wait.number.number;
	return wait.number.list;
}

/* ---------------------------------------------------------------- reading ahead */

void
page_client_ahead_init(PageAheadReply on_reply, PageAheadLost on_lost)
{
	page_ahead_reply = on_reply;
	page_ahead_lost = on_lost;
}

uint64
page_client_ahead(const RelFileLocator *rlocator, ForkNumber fork,
				  BlockNumber block, int count, XLogRecPtr since)
{
	PageRead	read = {
		.rlocator = *rlocator, .fork = fork, .block = block, .count = count, .since = since
	};
	struct errmsg msg;

	if (page_conn.fd < 0 || page_conn_leads_elsewhere())
		return 0;
	send_read(&read);
	if (!page_conn_send(&msg))
	{
		page_conn_close();
		return 0;
	}
	counter_add(COUNTER_READ_AHEAD, (uint64) count);
	return read.request_id;
}

static void
send_nothing(PageWait *wait, const void *what)
{
}

void
page_client_ahead_wait(uint64 request_id)
{
	PageWait		wait = {.ahead_id = request_id};

	run(&wait, send_nothing, NULL);
}
