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
 * Command ids matter to the transaction that set them, while it runs. The
 * oldest running xid is asked for at most once a page, and only if a tuple
 * without a hint makes it necessary.
 */
static void
judge_heap(Page page, PageVerdict *verdict)
{
	OffsetNumber max = PageGetMaxOffsetNumber(page);
	TransactionId oldest = InvalidTransactionId;
	TransactionId newest = InvalidTransactionId;

	if (RecoveryInProgress())
		return;					/* no transaction of ours */

	for (OffsetNumber offset = FirstOffsetNumber; offset <= max; offset++)
	{
		ItemId		item = PageGetItemId(page, offset);
		HeapTupleHeader tuple;
		TransactionId xids[2];
		int			xid_count = 0;

		if (!ItemIdIsNormal(item))
			continue;
		tuple = (HeapTupleHeader) PageGetItem(page, item);
		if (!loses_command_id(tuple))
			continue;

		if ((tuple->t_infomask & (HEAP_XMIN_COMMITTED | HEAP_XMIN_INVALID)) == 0)
			xids[xid_count++] = HeapTupleHeaderGetRawXmin(tuple);
		if ((tuple->t_infomask & (HEAP_XMAX_INVALID | HEAP_XMAX_COMMITTED)) == 0)
		{
			if ((tuple->t_infomask & HEAP_XMAX_IS_MULTI) == 0)
				xids[xid_count++] = HeapTupleHeaderGetRawXmax(tuple);
			else
			{
				/* a member may be a running updater; do not look inside */
				MultiXactId multi = HeapTupleHeaderGetRawXmax(tuple);

				if (!MultiXactIdPrecedes(multi, GetOldestMultiXactId()))
				{
					verdict->keep |= KEEP_COMMAND_ID;
					if (!MultiXactIdIsValid(verdict->multi) ||
						MultiXactIdPrecedes(verdict->multi, multi))
						verdict->multi = multi;
				}
			}
		}

		for (int i = 0; i < xid_count; i++)
		{
			if (!TransactionIdIsNormal(xids[i]))
				continue;
			if (oldest == InvalidTransactionId)
				oldest = GetOldestActiveTransactionId();
			if (TransactionIdPrecedes(xids[i], oldest))
				continue;
			verdict->keep |= KEEP_COMMAND_ID;
			if (newest == InvalidTransactionId || TransactionIdPrecedes(newest, xids[i]))
				newest = xids[i];
		}
	}
	if (newest != InvalidTransactionId)
		verdict->active_xid = widen(newest, ReadNextFullTransactionId());
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
