#include "compute/extension/page_client_private.h"

#include "compute/extension/position.h"

/* false: the reply makes no sense */
static bool
take_pages(struct reader *payload, int count, struct get_page_reply *reply)
{
	return get_page_reply_decode(reply, payload) == ERR_OK &&
		reply->pages.size == (size_t) count * BLCKSZ;
}

/* `reply` is NULL when the pageserver refused. */
static void
on_ahead_reply(uint64 request_id, const struct get_page_reply *reply, PageWait *wait)
{
	if (page_ahead_reply == NULL)
		return;
	if (reply != NULL)
		page_ahead_reply(request_id, reply->lsn, (const char *) reply->pages.data,
					(int) (reply->pages.size / BLCKSZ));
	else
		page_ahead_reply(request_id, InvalidXLogRecPtr, NULL, 0);
	if (wait->ahead_id == request_id)
		wait->ahead_done = true;
}

/* The reply to one of wait->reads, or not ours. */
static bool
on_page_reply(const struct frame *frame, PageWait *wait, struct errmsg *msg)
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
on_number_reply(const struct frame *frame, PageWait *wait, struct errmsg *msg)
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

bool
page_error_is_transient(err_t err)
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

/*
 * An error reply to something this call waits for. Not found is an answer (a
 * relation that only this compute knows of yet); what may pass by itself makes
 * the caller wait and ask again; the rest ends the call.
 */
static bool
on_error_reply(const struct frame *frame, PageWait *wait, struct errmsg *msg)
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
	if (!page_error_is_transient((err_t) error.code))
	{
		wait->refused = (err_t) error.code;
		wait->refused_msg = text;
		return true;
	}
	wait->retry = (err_t) error.code;
	wait->retry_msg = text;
	return true;
}

bool
page_reply_dispatch(PageWait *wait, struct errmsg *msg)
{
	for (;;)
	{
		struct bytes rest = bytes_of(page_conn.in.data + page_conn.in_used, page_conn.in.size - page_conn.in_used);
		struct frame frame;
		size_t		size;
		bool		fine = true;

		if (rest.size == 0)
			return true;
		if (frame_parse(rest, &frame, &size, msg) != ERR_OK)
			return false;
		if (size == 0)
			return true;
		page_conn.in_used += size;	/* first: an ERROR may leave from below */
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
