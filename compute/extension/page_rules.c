#include "compute/extension/page_rules.h"

#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "storage/procarray.h"

#define SEQUENCE_MAGIC 0x1717	/* private to sequence.c */

/* Pages under construction carry 0, GiST's build LSN or a fake LSN: all below the first segment. */
static bool
is_logged(XLogRecPtr lsn)
{
	return lsn >= (XLogRecPtr) wal_segment_size;
}

/* `xid` is not in the future, so it belongs to the present or the previous epoch. */
static FullTransactionId
widen(TransactionId xid, FullTransactionId next)
{
	uint32		age = XidFromFullTransactionId(next) - xid;

	return FullTransactionIdFromU64(U64FromFullTransactionId(next) - age);
}

/*
 * Redo gives every tuple the first command id. That loses something only if
 * the tuple has another one or a combo id. A speculative tuple loses its
 * token, which its inserter will look for.
 */
static bool
loses_command_id(HeapTupleHeader tuple)
{
	return HeapTupleHeaderGetRawCommandId(tuple) != FirstCommandId ||
		(tuple->t_infomask & HEAP_COMBOCID) != 0 ||
		HeapTupleHeaderIsSpeculative(tuple);
}

/*
 * Whose command id a tuple carries, by what redo restores as it is. Not
 * valid: it cannot be told. An xmax that only a hint says to be void is one
 * that redo brings back.
 */
static TransactionId
command_id_owner(HeapTupleHeader tuple)
{
	if ((tuple->t_infomask & HEAP_XMAX_INVALID) != 0)
		return TransactionIdIsValid(HeapTupleHeaderGetRawXmax(tuple)) ? InvalidTransactionId :
			HeapTupleHeaderGetRawXmin(tuple);
	if ((tuple->t_infomask & (HEAP_XMAX_IS_MULTI | HEAP_XMAX_LOCK_ONLY)) != 0)
		return InvalidTransactionId;
	return HeapTupleHeaderGetRawXmax(tuple);
}

static HeapTupleHeader
tuple_at(Page page, OffsetNumber offset)
{
	ItemId		item = PageGetItemId(page, offset);

	return ItemIdIsNormal(item) ? (HeapTupleHeader) PageGetItem(page, item) : NULL;
}

/* Transactions that may be running and need the tuple's command id. */
typedef struct HeapNeed
{
	TransactionId oldest;		/* running; asked for when it is first needed */
	TransactionId newest;		/* that needs one */
	MultiXactId multi;			/* newest that may have such a member */
} HeapNeed;

static bool
needs_xid(HeapNeed *need, TransactionId xid)
{
	if (!TransactionIdIsNormal(xid))
		return false;
	if (need->oldest == InvalidTransactionId)
		need->oldest = GetOldestActiveTransactionId();
	if (TransactionIdPrecedes(xid, need->oldest))
		return false;
	if (need->newest == InvalidTransactionId || TransactionIdPrecedes(need->newest, xid))
		need->newest = xid;
	return true;
}

/* A member may be a running updater; do not look inside. */
static bool
needs_multi(HeapNeed *need, MultiXactId multi)
{
	if (MultiXactIdPrecedes(multi, GetOldestMultiXactId()))
		return false;
	if (!MultiXactIdIsValid(need->multi) || MultiXactIdPrecedes(need->multi, multi))
		need->multi = multi;
	return true;
}

static bool
is_needed(HeapNeed *need, HeapTupleHeader tuple)
{
	bool		needed = false;

	if (!loses_command_id(tuple))
		return false;
	if ((tuple->t_infomask & (HEAP_XMIN_COMMITTED | HEAP_XMIN_INVALID)) == 0)
		needed |= needs_xid(need, HeapTupleHeaderGetRawXmin(tuple));
	if ((tuple->t_infomask & (HEAP_XMAX_INVALID | HEAP_XMAX_COMMITTED)) == 0)
	{
		if ((tuple->t_infomask & HEAP_XMAX_IS_MULTI) == 0)
			needed |= needs_xid(need, HeapTupleHeaderGetRawXmax(tuple));
		else
			needed |= needs_multi(need, HeapTupleHeaderGetRawXmax(tuple));
	}
	return needed;
}

/* Has every tuple whose command id is of `xid` this very one, plainly? */
static bool
is_uniform(Page page, TransactionId xid, CommandId cid)
{
	for (OffsetNumber offset = FirstOffsetNumber; offset <= PageGetMaxOffsetNumber(page); offset++)
	{
		HeapTupleHeader tuple = tuple_at(page, offset);

		if (tuple == NULL || command_id_owner(tuple) != xid)
			continue;
		if (HeapTupleHeaderGetRawCommandId(tuple) != cid ||
			(tuple->t_infomask & HEAP_COMBOCID) != 0 || HeapTupleHeaderIsSpeculative(tuple))
			return false;
	}
	return true;
}

void
page_rules_set_command_id(Page page, TransactionId xid, CommandId cid)
{
	for (OffsetNumber offset = FirstOffsetNumber; offset <= PageGetMaxOffsetNumber(page); offset++)
	{
		HeapTupleHeader tuple = tuple_at(page, offset);

		if (tuple != NULL && command_id_owner(tuple) == xid)
		{
			tuple->t_choice.t_heap.t_field3.t_cid = cid;
			tuple->t_infomask &= ~HEAP_COMBOCID;
		}
	}
}

/*
 * Command ids matter to the transaction that set them, while it runs. The
 * oldest running xid is asked for at most once a page, and only if a tuple
 * without a hint makes it necessary.
 */
static void
judge_heap(Page page, PageVerdict *verdict)
{
	HeapNeed	need = {0};
	HeapTupleHeader first = NULL;	/* that is needed */
	bool		one_owner = true;
	TransactionId owner = InvalidTransactionId;

	if (RecoveryInProgress())
		return;					/* no transaction of ours */

	for (OffsetNumber offset = FirstOffsetNumber; offset <= PageGetMaxOffsetNumber(page); offset++)
	{
		HeapTupleHeader tuple = tuple_at(page, offset);

		if (tuple == NULL || !is_needed(&need, tuple))
			continue;
		if (first == NULL)
		{
			first = tuple;
			owner = command_id_owner(tuple);
		}
		one_owner &= command_id_owner(tuple) == owner;
	}
	if (first == NULL)
		return;
	verdict->keep |= KEEP_COMMAND_ID;
	verdict->multi = need.multi;
	if (need.newest != InvalidTransactionId)
		verdict->active_xid = widen(need.newest, ReadNextFullTransactionId());
	if (one_owner && TransactionIdIsNormal(owner) &&
		is_uniform(page, owner, HeapTupleHeaderGetRawCommandId(first)))
	{
		verdict->note_xid = widen(owner, ReadNextFullTransactionId());
		verdict->note_cid = HeapTupleHeaderGetRawCommandId(first);
	}
}

static bool
is_sequence(Page page)
{
	return PageGetSpecialSize(page) == MAXALIGN(sizeof(uint32)) &&
		PageGetMaxOffsetNumber(page) == 1 &&
		*(uint32 *) PageGetSpecialPointer(page) == SEQUENCE_MAGIC;
}

/* Other access methods of this special size keep a page id above the cycle ids in its place. */
static bool
has_btree_cycle(Page page)
{
	uint16		cycle;

	if (PageGetSpecialSize(page) != MAXALIGN(sizeof(BTPageOpaqueData)))
		return false;
	cycle = ((BTPageOpaque) PageGetSpecialPointer(page))->btpo_cycleid;
	return cycle != 0 && cycle <= MAX_BT_CYCLE_ID;
}

PageVerdict
page_rules_judge(ForkNumber fork, Page page, XLogRecPtr acked)
{
	PageVerdict verdict = {0};

	verdict.lsn = PageGetLSN(page);
	if (fork == FSM_FORKNUM)
	{
		verdict.keep = KEEP_FSM;
		return verdict;
	}
	if (!is_logged(verdict.lsn))
	{
		verdict.keep = KEEP_UNLOGGED;
		return verdict;
	}
	if (verdict.lsn > acked)
		verdict.keep |= KEEP_UNACKED;
	if (fork != MAIN_FORKNUM)
		return verdict;

	if (PageGetSpecialSize(page) == 0)
		judge_heap(page, &verdict);
	else if (is_sequence(page))
		verdict.keep |= KEEP_SEQUENCE;
	else if (has_btree_cycle(page))
	{
		verdict.keep |= KEEP_BTREE;
		verdict.running_xid = ReadNextFullTransactionId();
	}
	return verdict;
}

PageHorizons
page_rules_horizons(XLogRecPtr acked)
{
	PageHorizons now = {.acked = acked};

	/* read the next xid last: the others must not lie beyond it */
	if (!RecoveryInProgress())
	{
		TransactionId active = GetOldestActiveTransactionId();
		TransactionId running = GetOldestTransactionIdConsideredRunning();
		FullTransactionId next = ReadNextFullTransactionId();

		now.oldest_active = widen(active, next);
		now.oldest_running = widen(running, next);
		now.oldest_multi = GetOldestMultiXactId();
	}
	return now;
}

bool
page_rules_over(const PageVerdict *verdict, const PageHorizons *now, bool pressed)
{
	uint8		keep = verdict->keep;

	if (keep & (KEEP_UNLOGGED | KEEP_SEQUENCE))
		return false;
	if ((keep & KEEP_FSM) && !pressed)
		return false;
	if ((keep & KEEP_UNACKED) && verdict->lsn > now->acked)
		return false;
	if (keep & KEEP_COMMAND_ID)
	{
		if (FullTransactionIdIsValid(verdict->active_xid) &&
			!FullTransactionIdPrecedes(verdict->active_xid, now->oldest_active))
			return false;
		if (MultiXactIdIsValid(verdict->multi) &&
			!MultiXactIdPrecedes(verdict->multi, now->oldest_multi))
			return false;
	}
	if ((keep & KEEP_BTREE) &&
		!FullTransactionIdPrecedes(verdict->running_xid, now->oldest_running))
		return false;
	return true;
}
