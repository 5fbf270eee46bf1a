#include "compute/extension/page_client_private.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compute/extension/counters.h"

#define RECEIVE_BYTES (64 * 1024)

#define CONNECT_TIMEOUT_MS 3000

typedef struct ClientShared
{
	uint64		node_id;		/* random, one per server start */
	pg_atomic_uint64 epoch;		/* grows with every connection */
} ClientShared;

static ClientShared *shared;

PageConn	page_conn = {.fd = -1};

uint32 page_wait_event;

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

void
page_conn_close(void)
{
	if (page_conn.events != NULL)
		FreeWaitEventSet(page_conn.events);
	if (page_conn.fd >= 0)
	{
		close(page_conn.fd);
		ReleaseExternalFD();
	}
	page_conn.events = NULL;
	page_conn.fd = -1;
	buf_clear(&page_conn.in);
	buf_clear(&page_conn.out);
	page_conn.in_used = 0;
	page_conn.out_sent = 0;
	if (page_ahead_lost != NULL)
		page_ahead_lost();
}

static void
conn_watch(void)
{
	uint32		events = WL_SOCKET_READABLE | (page_conn.want_write ? WL_SOCKET_WRITEABLE : 0);

	if (page_conn.events != NULL && page_conn.events_latch != MyLatch)
	{
		FreeWaitEventSet(page_conn.events);
		page_conn.events = NULL;
	}
	if (page_conn.events == NULL)
	{
		page_conn.events = CreateWaitEventSet(NULL, 3);
		AddWaitEventToSet(page_conn.events, events, page_conn.fd, NULL, NULL);
		AddWaitEventToSet(page_conn.events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(page_conn.events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		page_conn.events_latch = MyLatch;
	}
	else
		ModifyWaitEvent(page_conn.events, 0, events, NULL);
}

void
page_conn_latch_was_set(bool *seen)
{
	ResetLatch(MyLatch);
	*seen = true;
	CHECK_FOR_INTERRUPTS();
}

bool
page_conn_send(struct errmsg *msg)
{
	while (page_conn.out_sent < page_conn.out.size)
	{
		ssize_t		sent = send(page_conn.fd, page_conn.out.data + page_conn.out_sent,
								page_conn.out.size - page_conn.out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0)
		{
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN || errno == EWOULDBLOCK)
				break;
			err_ignore(err_set(msg, ERR_IO, "send: %m"), "the caller reconnects");
			return false;
		}
		page_conn.out_sent += (size_t) sent;
	}
	if (page_conn.out_sent == page_conn.out.size)
	{
		buf_clear(&page_conn.out);
		page_conn.out_sent = 0;
	}
	return true;
}

int
page_conn_receive(struct errmsg *msg)
{
	ssize_t		got;

	if (page_conn.in_used > 0)
	{
		buf_consume(&page_conn.in, page_conn.in_used);
		page_conn.in_used = 0;
	}
	for (;;)
	{
		buf_reserve(&page_conn.in, RECEIVE_BYTES);
		got = recv(page_conn.fd, page_conn.in.data + page_conn.in.size, RECEIVE_BYTES, MSG_DONTWAIT);
		if (got >= 0 || errno != EINTR)
			break;
	}
	if (got > 0)
	{
		page_conn.in.size += (size_t) got;
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

bool
page_conn_wait(TimestampTz deadline, bool *latch_seen)
{
	WaitEvent	event;
	long		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
	bool		want_write = page_conn.out_sent < page_conn.out.size;

	if (timeout <= 0)
		return false;
	if (page_conn.events == NULL || page_conn.want_write != want_write || page_conn.events_latch != MyLatch)
	{
		page_conn.want_write = want_write;
		conn_watch();
	}
	if (WaitEventSetWait(page_conn.events, timeout, &event, 1, page_wait_event) == 1 &&
		(event.events & WL_LATCH_SET) != 0)
		page_conn_latch_was_set(latch_seen);
	return true;
}

/* Sets page_conn.fd to a socket whose connect has finished. */
static err_t
conn_dial(TimestampTz deadline, bool *latch_seen, struct errmsg *msg)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct addrinfo *addresses = NULL;
	char		service[16];
	int			error;
	int			one = 1;
	socklen_t	error_size = sizeof(error);

	page_conn.address = page_target;
	snprintf(service, sizeof(service), "%d", page_conn.address.port);
	error = getaddrinfo(page_conn.address.host, service, &hints, &addresses);
	if (error != 0)
		return err_set(msg, ERR_IO, "look up %s: %s", page_conn.address.host, gai_strerror(error));
	if (!AcquireExternalFD())
	{
		freeaddrinfo(addresses);
		return err_set(msg, ERR_BUSY, "too many open files");
	}
	page_conn.fd = socket(addresses->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (page_conn.fd < 0)
	{
		ReleaseExternalFD();
		freeaddrinfo(addresses);
		return err_set(msg, ERR_IO, "socket: %m");
	}
	error = connect(page_conn.fd, addresses->ai_addr, addresses->ai_addrlen) < 0 ? errno : 0;
	freeaddrinfo(addresses);
	while (error == EINPROGRESS || error == EINTR)
	{
		long		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		int			events;

		if (timeout <= 0)
			return err_set(msg, ERR_TIMEOUT, "connect to %s:%d: timed out", page_conn.address.host, page_conn.address.port);
		events = WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_CONNECTED | WL_TIMEOUT |
								   WL_EXIT_ON_PM_DEATH, page_conn.fd, timeout, page_wait_event);
		if (events & WL_LATCH_SET)
			page_conn_latch_was_set(latch_seen);
		if (events & WL_SOCKET_CONNECTED &&
			getsockopt(page_conn.fd, SOL_SOCKET, SO_ERROR, &error, &error_size) < 0)
			error = errno;
	}
	if (error != 0)
	{
		errno = error;
		return err_set(msg, ERR_IO, "connect to %s:%d: %m", page_conn.address.host, page_conn.address.port);
	}
	(void) setsockopt(page_conn.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
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
		.generation = (uint32) page_conn.address.generation,
		.node_id = shared->node_id,
		.connection_epoch = pg_atomic_add_fetch_u64(&shared->epoch, 1),
		.token = bytes_of_str(page_conn.address.token),
	};
	struct frame frame;
	size_t		size = 0;
	struct hello_reply reply = {0};
	struct reader payload;

	TRY(tenant_id_parse(page_client_tenant, &hello.tenant, msg));
	TRY(timeline_id_parse(page_client_timeline, &hello.timeline, msg));
	FRAME_APPEND_MESSAGE(&page_conn.out, hello, &hello, .type = FRAME_HELLO, .version = 0);

	while (size == 0)
	{
		int			got;

		if (!page_conn_send(msg))
			return ERR_IO;
		if (!page_conn_wait(deadline, latch_seen))
			return err_set(msg, ERR_TIMEOUT, "%s:%d does not answer", page_conn.address.host, page_conn.address.port);
		got = page_conn_receive(msg);
		if (got < 0)
			return ERR_IO;
		if (got > 0)
			TRY(frame_parse(buf_view(&page_conn.in), &frame, &size, msg));
	}
	page_conn.in_used = size;
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
	page_conn.channel = reply.channel;
	return ERR_OK;
}

err_t
page_conn_open(TimestampTz deadline, bool *latch_seen, struct errmsg *msg)
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
		page_conn_close();
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (err != ERR_OK)
		page_conn_close();
	else
		counter_add(COUNTER_CONNECT, 1);
	return err;
}

bool
page_conn_leads_elsewhere(void)
{
	return page_conn.address.port != page_target.port || page_conn.address.generation != page_target.generation ||
		strcmp(page_conn.address.host, page_target.host) != 0;
}
