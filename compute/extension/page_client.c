#include "compute/extension/page_client.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "access/parallel.h"
#include "access/xlog.h"
#include "catalog/pg_database_d.h"
#include "catalog/pg_tablespace_d.h"
#include "common/ip.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compute/extension/counters.h"
#include "compute/extension/position.h"
#include "compute/extension/wire.h"

#define RECEIVE_BYTES (64 * 1024)
#define BACKOFF_MIN_MS 5
#define BACKOFF_MAX_MS 500
#define CONNECT_TIMEOUT_MS 3000

StaticAssertDecl(PAGE_READ_BLOCKS_MAX == GET_PAGE_COUNT_MAX, "one request is one call");
StaticAssertDecl(BLCKSZ == PAGE_BYTES, "pages are as large as on the wire");

char	   *page_client_tenant;
char	   *page_client_timeline;
int			page_client_timeout_ms;

static char *host_setting;
static int	port_setting;
static int	generation_setting;
static char *token_setting;

/*
 * The settings, kept apart: while a parallel worker takes over its leader's
 * settings they are all at their defaults for a moment, and pages are read in
 * that moment.
 */
typedef struct Address
{
	char		host[256];
	int			port;
	int			generation;
	char		token[4096];
} Address;

static Address target;

typedef struct ClientShared
{
	uint64		node_id;		/* random, one per server start */
	pg_atomic_uint64 epoch;		/* grows with every connection */
} ClientShared;

static ClientShared *shared;

/* The connection of this process. */
static struct
{
	int			fd;				/* -1: none */
	WaitEventSet *events;
	Latch	   *events_latch;	/* the latch that `events` watches */
	bool		want_write;		/* `events` waits for writability, too */
	Address		address;		/* where it leads; the settings may have moved on */
	uint32		channel;
	uint64		serial;			/* counts connections, to notice a lost one */
	struct buf	in;
	size_t		in_used;		/* bytes of `in` that are parsed already */
	struct buf	out;
	size_t		out_sent;
} conn = {.fd = -1};

static uint64 next_request_id = 1;
static uint32 wait_event;
static PageAheadReply ahead_reply;
static PageAheadLost ahead_lost;

/* What a caller waits for. It lies on the caller's stack: no pointer to it outlives the call. */
typedef struct Wait
{
	PageRead   *reads;
	int			read_count;
	struct
	{
		uint64		request_id;
		uint16		reply_type;
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
} Wait;

Size
page_client_shmem_size(void)
{
	return sizeof(ClientShared);
}

void
page_client_shmem_init(void)
{
	bool		found;

	shared = ShmemInitStruct("anabranch page client", sizeof(ClientShared), &found);
	if (found)
		return;
	if (!pg_strong_random(&shared->node_id, sizeof(shared->node_id)))
		ereport(FATAL, (errmsg("could not generate a random number")));
	pg_atomic_init_u64(&shared->epoch, 0);
}

static void
assign_host(const char *value, void *extra)
{
	if (!InitializingParallelWorker)
		strlcpy(target.host, value, sizeof(target.host));
}

static void
assign_port(int value, void *extra)
{
	if (!InitializingParallelWorker)
		target.port = value;
}

static void
assign_generation(int value, void *extra)
{
	if (!InitializingParallelWorker)
		target.generation = value;
}

static void
assign_token(const char *value, void *extra)
{
	if (!InitializingParallelWorker)
		strlcpy(target.token, value, sizeof(target.token));
}

static bool
check_host(char **value, void **extra, GucSource source)
{
	if (strlen(*value) < sizeof(target.host))
		return true;
	GUC_check_errdetail("A host name has at most %zu characters.", sizeof(target.host) - 1);
	return false;
}

static bool
check_token(char **value, void **extra, GucSource source)
{
	if (strlen(*value) < sizeof(target.token))
		return true;
	GUC_check_errdetail("A token has at most %zu characters.", sizeof(target.token) - 1);
	return false;
}

void
page_client_define_address(void)
{
	DefineCustomStringVariable("anabranch.pageserver_host",
							   "Address of the pageserver that serves this timeline.",
							   NULL, &host_setting, "", PGC_SIGHUP, 0,
							   check_host, assign_host, NULL);
	DefineCustomIntVariable("anabranch.pageserver_port",
							"Port of the pageserver's page service.",
							NULL, &port_setting, 6400, 1, 65535, PGC_SIGHUP, 0,
							NULL, assign_port, NULL);
	DefineCustomIntVariable("anabranch.generation",
							"Attachment generation that the pageserver must have, 0 for any.",
							NULL, &generation_setting, 0, 0, INT_MAX, PGC_SIGHUP, 0,
							NULL, assign_generation, NULL);
	DefineCustomStringVariable("anabranch.token",
							   "Authorisation shown to the pageserver.",
							   NULL, &token_setting, "", PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY | GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE,
							   check_token, assign_token, NULL);
}

bool
page_client_is_configured(void)
{
	return target.host[0] != '\0' && page_client_tenant[0] != '\0' &&
		page_client_timeline[0] != '\0';
}

/* ---------------------------------------------------------------- the connection */

static void
conn_close(void)
{
	if (conn.events != NULL)
		FreeWaitEventSet(conn.events);
	if (conn.fd >= 0)
	{
		close(conn.fd);
		ReleaseExternalFD();
	}
	conn.events = NULL;
	conn.fd = -1;
	buf_clear(&conn.in);
	buf_clear(&conn.out);
	conn.in_used = 0;
	conn.out_sent = 0;
	conn.serial++;
	if (ahead_lost != NULL)
		ahead_lost();
}

static void
conn_watch(void)
{
	uint32		events = WL_SOCKET_READABLE | (conn.want_write ? WL_SOCKET_WRITEABLE : 0);

	if (conn.events != NULL && conn.events_latch != MyLatch)
	{
		FreeWaitEventSet(conn.events);
		conn.events = NULL;
	}
	if (conn.events == NULL)
	{
		conn.events = CreateWaitEventSet(NULL, 3);
		AddWaitEventToSet(conn.events, events, conn.fd, NULL, NULL);
		AddWaitEventToSet(conn.events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(conn.events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		conn.events_latch = MyLatch;
	}
	else
		ModifyWaitEvent(conn.events, 0, events, NULL);
}

/*
 * Someone set the latch: perhaps an interrupt, perhaps what an outer loop
 * waits for. `*seen` makes the caller set the latch again for the latter.
 */
static void
latch_was_set(bool *seen)
{
	ResetLatch(MyLatch);
	*seen = true;
	CHECK_FOR_INTERRUPTS();
}

/* false: the connection is lost, `msg` says why */
static bool
conn_send(struct errmsg *msg)
{
	while (conn.out_sent < conn.out.size)
	{
		ssize_t		sent = send(conn.fd, conn.out.data + conn.out_sent,
								conn.out.size - conn.out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0)
		{
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN || errno == EWOULDBLOCK)
				break;
			err_ignore(err_set(msg, ERR_IO, "send: %m"), "the caller reconnects");
			return false;
		}
		conn.out_sent += (size_t) sent;
	}
	if (conn.out_sent == conn.out.size)
	{
		buf_clear(&conn.out);
		conn.out_sent = 0;
	}
	return true;
}

/* 1: bytes came, 0: none yet, -1: the connection is lost */
static int
conn_receive(struct errmsg *msg)
{
	ssize_t		got;

	if (conn.in_used > 0)
	{
		buf_consume(&conn.in, conn.in_used);
		conn.in_used = 0;
	}
	for (;;)
	{
		buf_reserve(&conn.in, RECEIVE_BYTES);
		got = recv(conn.fd, conn.in.data + conn.in.size, RECEIVE_BYTES, MSG_DONTWAIT);
		if (got >= 0 || errno != EINTR)
			break;
	}
	if (got > 0)
	{
		conn.in.size += (size_t) got;
		return 1;
	}
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (got == 0)
		err_ignore(err_set(msg, ERR_IO, "the pageserver closed the connection"), "the caller reconnects");
	else
		err_ignore(err_set(msg, ERR_IO, "receive: %m"), "the caller reconnects");
	return -1;
}

/* Wait for the socket. false: time is up. */
static bool
conn_wait(TimestampTz deadline, bool *latch_seen)
{
	WaitEvent	event;
	long		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
	bool		want_write = conn.out_sent < conn.out.size;

	if (timeout <= 0)
		return false;
	if (conn.events == NULL || conn.want_write != want_write || conn.events_latch != MyLatch)
	{
		conn.want_write = want_write;
		conn_watch();
	}
	if (WaitEventSetWait(conn.events, timeout, &event, 1, wait_event) == 1 &&
		(event.events & WL_LATCH_SET) != 0)
		latch_was_set(latch_seen);
	return true;
}

/* Sets conn.fd to a socket whose connect has finished. */
static err_t
conn_dial(TimestampTz deadline, bool *latch_seen, struct errmsg *msg)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct addrinfo *addresses = NULL;
	char		service[16];
	int			error;
	int			one = 1;
	socklen_t	error_size = sizeof(error);

	conn.address = target;
	snprintf(service, sizeof(service), "%d", conn.address.port);
	error = getaddrinfo(conn.address.host, service, &hints, &addresses);
	if (error != 0)
		return err_set(msg, ERR_IO, "look up %s: %s", conn.address.host, gai_strerror(error));
	if (!AcquireExternalFD())
	{
		freeaddrinfo(addresses);
		return err_set(msg, ERR_BUSY, "too many open files");
	}
	conn.fd = socket(addresses->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (conn.fd < 0)
	{
		ReleaseExternalFD();
		freeaddrinfo(addresses);
		return err_set(msg, ERR_IO, "socket: %m");
	}
	error = connect(conn.fd, addresses->ai_addr, addresses->ai_addrlen) < 0 ? errno : 0;
	freeaddrinfo(addresses);
	while (error == EINPROGRESS || error == EINTR)
	{
		long		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		int			events;

		if (timeout <= 0)
			return err_set(msg, ERR_TIMEOUT, "connect to %s:%d: timed out", conn.address.host, conn.address.port);
		events = WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_CONNECTED | WL_TIMEOUT |
								   WL_EXIT_ON_PM_DEATH, conn.fd, timeout, wait_event);
		if (events & WL_LATCH_SET)
			latch_was_set(latch_seen);
		if (events & WL_SOCKET_CONNECTED &&
			getsockopt(conn.fd, SOL_SOCKET, SO_ERROR, &error, &error_size) < 0)
			error = errno;
	}
	if (error != 0)
	{
		errno = error;
		return err_set(msg, ERR_IO, "connect to %s:%d: %m", conn.address.host, conn.address.port);
	}
	(void) setsockopt(conn.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return ERR_OK;
}

static err_t
conn_hello(TimestampTz deadline, bool *latch_seen, struct errmsg *msg)
{
	struct hello hello = {
		.protocol_min = PROTOCOL_VERSION_MIN,
		.protocol_max = PROTOCOL_VERSION_MAX,
		.role = HELLO_ROLE_PAGES,
		.shard_count = 1,
		.pg_version = PG_VERSION_NUM,
		.system_id = GetSystemIdentifier(),
		.generation = (uint32) conn.address.generation,
		.node_id = shared->node_id,
		.connection_epoch = pg_atomic_add_fetch_u64(&shared->epoch, 1),
		.token = bytes_of_str(conn.address.token),
	};
	struct frame frame;
	size_t		size = 0;
	struct hello_reply reply = {0};
	struct reader payload;

	TRY(tenant_id_parse(page_client_tenant, &hello.tenant, msg));
	TRY(timeline_id_parse(page_client_timeline, &hello.timeline, msg));
	FRAME_APPEND_MESSAGE(&conn.out, hello, &hello, .type = FRAME_HELLO, .version = 0);

	while (size == 0)
	{
		int			got;

		if (!conn_send(msg))
			return ERR_IO;
		if (!conn_wait(deadline, latch_seen))
			return err_set(msg, ERR_TIMEOUT, "%s:%d does not answer", conn.address.host, conn.address.port);
		got = conn_receive(msg);
		if (got < 0)
			return ERR_IO;
		if (got > 0)
			TRY(frame_parse(buf_view(&conn.in), &frame, &size, msg));
	}
	conn.in_used = size;
	payload = reader_of(frame.payload);
	if (frame.type == FRAME_ERROR)
	{
		struct error_reply error = {0};

		if (error_reply_decode(&error, &payload) != ERR_OK || error.code == ERR_OK || error.code >= ERR_COUNT)
			return err_set(msg, ERR_CORRUPT, "malformed error reply");
		return err_set(msg, (err_t) error.code, "%.*s", (int) error.message.size, (const char *) error.message.data);
	}
	if (frame.type != FRAME_HELLO_REPLY || hello_reply_decode(&reply, &payload) != ERR_OK ||
		reply.protocol < PROTOCOL_VERSION_MIN || reply.protocol > PROTOCOL_VERSION_MAX)
		return err_set(msg, ERR_CORRUPT, "malformed reply to hello");
	conn.channel = reply.channel;
	return ERR_OK;
}

/* One attempt. On failure the connection is closed. */
static err_t
conn_open(TimestampTz deadline, bool *latch_seen, struct errmsg *msg)
{
	TimestampTz limit = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CONNECT_TIMEOUT_MS);
	err_t		err;

	limit = Min(limit, deadline);
	PG_TRY();
	{
		err = conn_dial(limit, latch_seen, msg);
		if (err == ERR_OK)
			err = conn_hello(limit, latch_seen, msg);
	}
	PG_CATCH();
	{
		conn_close();
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (err != ERR_OK)
		conn_close();
	else
		counter_add(COUNTER_CONNECT, 1);
	return err;
}

/* ---------------------------------------------------------------- requests */

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
	FRAME_APPEND_MESSAGE(&conn.out, get_page, &request, .type = FRAME_GET_PAGE,
						 .channel = conn.channel, .request_id = read->request_id);
}

/* false: the reply makes no sense */
static bool
take_pages(struct reader *payload, int count, struct get_page_reply *reply)
{
	return get_page_reply_decode(reply, payload) == ERR_OK &&
		reply->pages.size == (size_t) count * BLCKSZ;
}

/* `reply` is NULL when the pageserver refused. */
static void
on_ahead_reply(uint64 request_id, const struct get_page_reply *reply, Wait *wait)
{
	if (ahead_reply == NULL)
		return;
	if (reply != NULL)
		ahead_reply(request_id, reply->lsn, (const char *) reply->pages.data,
					(int) (reply->pages.size / BLCKSZ));
	else
		ahead_reply(request_id, InvalidXLogRecPtr, NULL, 0);
	if (wait->ahead_id == request_id)
		wait->ahead_done = true;
}

/* The reply to one of wait->reads, or not ours. */
static bool
on_page_reply(const struct frame *frame, Wait *wait, struct errmsg *msg)
{
	struct reader payload = reader_of(frame->payload);
	struct get_page_reply reply = {0};

	for (int i = 0; i < wait->read_count; i++)
	{
		PageRead   *read = &wait->reads[i];

		if (read->done || read->request_id != frame->request_id)
			continue;
		if (!take_pages(&payload, read->count, &reply))
		{
			err_ignore(err_set(msg, ERR_CORRUPT, "malformed page reply"), "the caller reconnects");
			return false;
		}
		for (int page = 0; page < read->count; page++)
			memcpy(read->pages[page], reply.pages.data + (size_t) page * BLCKSZ, BLCKSZ);
		position_saw_ingested(reply.lsn);
		read->lsn = reply.lsn;
		read->done = true;
		return true;
	}
	if (get_page_reply_decode(&reply, &payload) == ERR_OK)
		on_ahead_reply(frame->request_id, &reply, wait);
	return true;
}

static bool
on_number_reply(const struct frame *frame, Wait *wait, struct errmsg *msg)
{
	struct reader payload = reader_of(frame->payload);

	if (wait->number.request_id != frame->request_id)
		return true;			/* of an interrupted call */
	if (frame->type == FRAME_GET_WORKING_SET_REPLY)
	{
		struct get_working_set_reply reply = {0};

		if (get_working_set_reply_decode(&reply, &payload) == ERR_OK)
		{
			wait->number.number = reply.list.size;
			wait->number.list = palloc(reply.list.size + 1);
			memcpy(wait->number.list, reply.list.data, reply.list.size);
			wait->number.done = true;
		}
	}
	else if (frame->type == FRAME_PUT_WORKING_SET_REPLY)
		wait->number.done = true;
	else if (frame->type == FRAME_REL_SIZE_REPLY)
	{
		struct rel_size_reply reply = {0};

		if (rel_size_reply_decode(&reply, &payload) == ERR_OK)
		{
			wait->number.exists = reply.exists != 0;
			wait->number.number = reply.blocks;
			position_saw_ingested(reply.lsn);
			wait->number.done = true;
		}
	}
	else
	{
		struct db_size_reply reply = {0};

		if (db_size_reply_decode(&reply, &payload) == ERR_OK)
		{
			wait->number.exists = true;
			wait->number.number = reply.bytes;
			wait->number.done = true;
		}
	}
	if (wait->number.done)
		return true;
	err_ignore(err_set(msg, ERR_CORRUPT, "malformed size reply"), "the caller reconnects");
	return false;
}

/* Worth asking again, here or at whoever serves the timeline next. */
static bool
is_transient(err_t err)
{
	switch (err)
	{
		case ERR_IO:
		case ERR_FULL:
		case ERR_FAILED:
		case ERR_STALE:
		case ERR_BUSY:
		case ERR_TIMEOUT:
		case ERR_CANCELED:
			return true;
		default:
			return false;
	}
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
			 errcontext("pageserver %s:%d, timeline %s", conn.address.host, conn.address.port,
						page_client_timeline)));
}

/*
 * An error reply to something this call waits for. Not found is an answer (a
 * relation that only this compute knows of yet); what may pass by itself makes
 * the caller wait and ask again; the rest ends the call.
 */
static bool
on_error_reply(const struct frame *frame, Wait *wait, struct errmsg *msg)
{
	struct reader payload = reader_of(frame->payload);
	struct error_reply error = {0};
	struct errmsg text = {0};
	PageRead   *read = NULL;

	if (error_reply_decode(&error, &payload) != ERR_OK || error.code == ERR_OK ||
		error.code >= ERR_COUNT)
	{
		err_ignore(err_set(msg, ERR_CORRUPT, "malformed error reply"), "the caller reconnects");
		return false;
	}
	snprintf(text.text, sizeof(text.text), "%.*s", (int) error.message.size,
			 (const char *) error.message.data);

	if (frame->request_id == 0)
	{
		/* the reason before a close */
		*msg = text;
		return false;
	}
	for (int i = 0; i < wait->read_count; i++)
		if (!wait->reads[i].done && wait->reads[i].request_id == frame->request_id)
			read = &wait->reads[i];
	if (read == NULL && (wait->number.done || wait->number.request_id != frame->request_id))
	{
		/* of an interrupted call, or a read ahead: will be asked again in earnest */
		on_ahead_reply(frame->request_id, NULL, wait);
		return true;
	}

	if (error.code == ERR_NOT_FOUND && read != NULL)
	{
		for (int page = 0; page < read->count; page++)
			memset(read->pages[page], 0, BLCKSZ);
		read->done = true;
		return true;
	}
	if (error.code == ERR_NOT_FOUND)
	{
		wait->number.done = true;
		return true;
	}
	if (!is_transient((err_t) error.code))
	{
		wait->refused = (err_t) error.code;
		wait->refused_msg = text;
		return true;
	}
	wait->retry = (err_t) error.code;
	wait->retry_msg = text;
	return true;
}

/* Everything that has been received completely. false: the connection is of no use any more. */
static bool
dispatch(Wait *wait, struct errmsg *msg)
{
	for (;;)
	{
		struct bytes rest = bytes_of(conn.in.data + conn.in_used, conn.in.size - conn.in_used);
		struct frame frame;
		size_t		size;
		bool		fine = true;

		if (rest.size == 0)
			return true;
		if (frame_parse(rest, &frame, &size, msg) != ERR_OK)
			return false;
		if (size == 0)
			return true;
		conn.in_used += size;	/* first: an ERROR may leave from below */
		switch (frame.type)
		{
			case FRAME_GET_PAGE_REPLY:
				fine = on_page_reply(&frame, wait, msg);
				break;
			case FRAME_REL_SIZE_REPLY:
			case FRAME_DB_SIZE_REPLY:
			case FRAME_PUT_WORKING_SET_REPLY:
			case FRAME_GET_WORKING_SET_REPLY:
				fine = on_number_reply(&frame, wait, msg);
				break;
			case FRAME_ERROR:
				fine = on_error_reply(&frame, wait, msg);
				break;
			default:
				err_ignore(err_set(msg, ERR_CORRUPT, "unexpected %s", frame_type_name(frame.type)),
						   "the caller reconnects");
				fine = false;
		}
		if (!fine)
			return false;
	}
}

static bool
wait_is_over(const Wait *wait)
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
				  wait_event) & WL_LATCH_SET)
		latch_was_set(latch_seen);
	*backoff_ms = Min(*backoff_ms * 2, BACKOFF_MAX_MS);
	take_new_settings();
	return true;
}

static bool
interrupt_ends(const Wait *wait)
{
	return wait->ends_on_interrupt && CritSectionCount == 0 &&
		(QueryCancelPending || ProcDiePending);
}

static bool
conn_leads_elsewhere(void)
{
	return conn.address.port != target.port || conn.address.generation != target.generation ||
		strcmp(conn.address.host, target.host) != 0;
}

/* How a caller's requests get (again) into the out buffer. */
typedef void (*SendAll) (Wait *wait, const void *what);

/*
 * Send and wait until everything is answered. Every round either gets on or
 * ends in back_off(), which ends the whole after the timeout.
 */
static err_t
try_run(Wait *wait, SendAll send_all, const void *what, struct errmsg *msg)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), page_client_timeout_ms);
	int			backoff_ms = BACKOFF_MIN_MS;
	bool		latch_seen = false;
	bool		sent = false;
	err_t		err = ERR_OK;

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("AnabranchPageserver");
	if (conn.fd >= 0 && conn_leads_elsewhere())
		conn_close();

	while (!wait_is_over(wait))
	{
		int			got;

		err = ERR_OK;
		if (interrupt_ends(wait))
		{
			err = err_set(msg, ERR_CANCELED, "the statement or the session is to end");
			break;
		}
		if (conn.fd < 0)
		{
			if (wait->ahead_id != 0)
				break;			/* lost with the connection */
			err = conn_open(deadline, &latch_seen, msg);
			if (err != ERR_OK)
			{
				/* not found: the timeline may be on its way to another pageserver */
				if ((!is_transient(err) && err != ERR_NOT_FOUND) ||
					!back_off(&backoff_ms, deadline, &latch_seen))
					break;
				continue;
			}
			sent = false;
		}
		if (!sent)
		{
			wait->retry = ERR_OK;
			send_all(wait, what);
			sent = true;
		}

		if (!conn_send(msg) || !dispatch(wait, msg))
		{
			conn_close();
			err = ERR_IO;
			if (!back_off(&backoff_ms, deadline, &latch_seen))
				break;
			continue;
		}
		if (wait->refused != ERR_OK)
		{
			err = wait->refused;
			*msg = wait->refused_msg;
			break;
		}
		if (wait->retry != ERR_OK)
		{
			/* a superseded pageserver will not become better: connect anew */
			if (wait->retry != ERR_BUSY && wait->retry != ERR_TIMEOUT)
				conn_close();
			err = wait->retry;
			*msg = wait->retry_msg;
			if (!back_off(&backoff_ms, deadline, &latch_seen))
				break;
			sent = false;
			continue;
		}
		if (wait_is_over(wait))
			break;

		if (!conn_wait(deadline, &latch_seen))
		{
			conn_close();
			err = err_set(msg, ERR_TIMEOUT, "no answer within %d ms", page_client_timeout_ms);
			break;
		}
		got = conn_receive(msg);
		if (got < 0)
		{
			conn_close();
			err = ERR_IO;
			if (!back_off(&backoff_ms, deadline, &latch_seen))
				break;
		}
		else if (got > 0)
			backoff_ms = BACKOFF_MIN_MS;
	}
	if (latch_seen)
		SetLatch(MyLatch);
	return err;
}

static void
run(Wait *wait, SendAll send_all, const void *what)
{
	TimestampTz begin = GetCurrentTimestamp();
	struct errmsg msg = {0};
	err_t		err = try_run(wait, send_all, what, &msg);

	if (err != ERR_OK)
		report(err, &msg);
	counters_waited((uint64) (GetCurrentTimestamp() - begin));
}

static void
send_reads(Wait *wait, const void *what)
{
	for (int i = 0; i < wait->read_count; i++)
		if (!wait->reads[i].done)
			send_read(&wait->reads[i]);
}

void
page_client_read(PageRead *reads, int read_count)
{
	Wait		wait = {.reads = reads, .read_count = read_count};

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
	Wait		wait = {.reads = read, .read_count = 1, .ends_on_interrupt = true};
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
send_rel_size(Wait *wait, const void *what)
{
	struct rel_size request = *(const struct rel_size *) what;

	request.lsn = position_request();
	wait->number.request_id = next_request_id++;
	FRAME_APPEND_MESSAGE(&conn.out, rel_size, &request, .type = FRAME_REL_SIZE,
						 .channel = conn.channel, .request_id = wait->number.request_id);
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
	Wait		wait = {.number.request_id = UINT64_MAX};	/* not sent yet */

	run(&wait, send_rel_size, &request);
	*blocks = (BlockNumber) wait.number.number;
	return wait.number.exists;
}

static void
send_db_size(Wait *wait, const void *what)
{
	struct db_size request = *(const struct db_size *) what;

	request.lsn = position_request();
	wait->number.request_id = next_request_id++;
	FRAME_APPEND_MESSAGE(&conn.out, db_size, &request, .type = FRAME_DB_SIZE,
						 .channel = conn.channel, .request_id = wait->number.request_id);
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
	Wait		wait = {.number.request_id = UINT64_MAX};

	run(&wait, send_db_size, &request);
	return (int64) wait.number.number;
}

/* ---------------------------------------------------------------- working sets */

static void
send_put_working_set(Wait *wait, const void *what)
{
	wait->number.request_id = next_request_id++;
	FRAME_APPEND_MESSAGE(&conn.out, put_working_set, (const struct put_working_set *) what,
						 .type = FRAME_PUT_WORKING_SET, .channel = conn.channel,
						 .request_id = wait->number.request_id);
}

void
page_client_put_working_set(const char *list, size_t size)
{
	struct put_working_set request = {.list = bytes_of(list, size)};
	Wait		wait = {.number.request_id = UINT64_MAX};

	Assert(size <= WORKING_SET_BYTES_MAX);
	run(&wait, send_put_working_set, &request);
}

static void
send_get_working_set(Wait *wait, const void *what)
{
	struct get_working_set request = {.size_max = WORKING_SET_BYTES_MAX};

	wait->number.request_id = next_request_id++;
	FRAME_APPEND_MESSAGE(&conn.out, get_working_set, &request, .type = FRAME_GET_WORKING_SET,
						 .channel = conn.channel, .request_id = wait->number.request_id);
}

char *
page_client_get_working_set(size_t *size)
{
	Wait		wait = {.number.request_id = UINT64_MAX};

	run(&wait, send_get_working_set, NULL);
	*size = wait.number.number;
	return wait.number.list;
}

/* ---------------------------------------------------------------- reading ahead */

void
page_client_ahead_init(PageAheadReply on_reply, PageAheadLost on_lost)
{
	ahead_reply = on_reply;
	ahead_lost = on_lost;
}

uint64
page_client_ahead(const RelFileLocator *rlocator, ForkNumber fork,
				  BlockNumber block, int count, XLogRecPtr since)
{
	PageRead	read = {
		.rlocator = *rlocator, .fork = fork, .block = block, .count = count, .since = since
	};
	struct errmsg msg;

	if (conn.fd < 0 || conn_leads_elsewhere())
		return 0;
	send_read(&read);
	if (!conn_send(&msg))
	{
		conn_close();
		return 0;
	}
	counter_add(COUNTER_READ_AHEAD, (uint64) count);
	return read.request_id;
}

static void
send_nothing(Wait *wait, const void *what)
{
}

void
page_client_ahead_wait(uint64 request_id)
{
	Wait		wait = {.ahead_id = request_id};

	run(&wait, send_nothing, NULL);
}
