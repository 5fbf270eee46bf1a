/*
 * history.pml - one parent timeline with versions of one page, a branch, a lease, a reader, GC and
 * a crash: nobody who was promised an LSN loses it.
 *
 * Modelled: WAL that becomes durable, the cutoff (durable, then published), a compaction that copies
 * what it must keep under the lock and then drops version by version, a read that checks, collects
 * and checks again, a branch in the making (hold, validate, durable row), a lease (registered,
 * validated, durable, answered; its end durable before it is forgotten), the deletion of the branch,
 * a crash that leaves what is durable. Each version is an image; its value is its LSN.
 * Not modelled: deltas, sizes of relations, several pages, nested branches, time.
 *
 *   step here           code
 *   publish             pageserver/timeline/history.c (cutoffs), gc_round.c
 *   compaction          gc_horizon.c, gc_filter.c, gc_pass.c
 *   read                pageserver/read/page_read.c, history_check()
 *   hold, branch        history_hold, tenant.c (the row)
 *   lease               history.c, tenant_history.c
 *
 * One of READER, BRANCH and LEASE is defined: what they ask for is independent, a compaction keeps
 * the union of it.
 *
 * Checked: P5 a version that a branch, a lease, a hold or an admitted read needs is there; P6 the
 * cutoff never goes back, and below it is an error, never a wrong page.
 */
#ifndef LSNS
#define LSNS 3
#endif
#define NONE 0

byte durable = 1; /* versions 1..durable were written and are on disk */
byte there = 1;   /* bits of versions that no compaction has dropped */

/* Rows on disk. */
byte cutoff_row = 1, branch_row = NONE, lease_row = NONE;
/* In memory, under one mutex: what compactions and readers see. */
byte cutoff = 1, branch = NONE, lease = NONE, hold = NONE;

/* What somebody was told. */
byte branch_promised = NONE, lease_promised = NONE;
byte cutoff_seen = 1; /* the highest that was ever published */

bit crashes = 1; /* how many are left */
byte boot = 0;   /* how often it has started: what runs belongs to one of them */

#define BIT(lsn) (1 << (lsn - 1))

/* The newest version at or below `lsn` that is there; NONE. */
inline find(lsn, found)
{
    found = lsn;
    do
    :: found > 0 && !(there & BIT(found)) -> found--
    :: else -> break
    od
}

inline check_promises()
{
    assert(branch_promised == NONE || (there & BIT(branch_promised)));
    assert(lease_promised == NONE || (there & BIT(lease_promised)))
}

active proctype wal()
{
    do
    :: durable < LSNS -> d_step { durable++; there = there | BIT(durable) }
    :: else -> break
    od
}

active proctype gc_round()
{
    byte wanted, mine;
end:
    do
    :: cutoff < durable -> /* the window has moved on */
        d_step { wanted = cutoff + 1; mine = boot }
#ifdef PUBLISH_FIRST
        d_step { cutoff = wanted; cutoff_seen = (cutoff > cutoff_seen -> cutoff : cutoff_seen) }
#endif
        if
        :: mine == boot -> cutoff_row = wanted
        :: else
        fi;
#ifndef PUBLISH_FIRST
        d_step {
            if
            :: mine == boot ->
                cutoff = wanted;
                cutoff_seen = (cutoff > cutoff_seen -> cutoff : cutoff_seen)
            :: else
            fi
        }
#endif
        wanted = 0; mine = 0
    od
}

/* A version goes when a newer one is still old enough for everybody who looks that far back. */
inline drop(version)
{
    d_step {
        newer = version + 1;
        needed = !(there & BIT(version));
        do
        :: newer <= LSNS && !(there & BIT(newer)) -> newer++
        :: else -> break
        od;
        if
        :: newer > LSNS || newer > keep_cutoff -> needed = true /* the window reads it */
        :: else
        fi;
        if
        :: keep_branch >= version && keep_branch < newer -> needed = true
        :: keep_lease >= version && keep_lease < newer -> needed = true
        :: keep_hold >= version && keep_hold < newer -> needed = true
        :: else
        fi;
        if
        :: !needed && mine == boot -> there = there & ~BIT(version); check_promises()
        :: else
        fi;
        newer = 0; needed = 0
    }
}

active proctype compaction()
{
    byte keep_cutoff, keep_branch, keep_lease, keep_hold, version, newer, mine;
    bool needed;
end:
    do
    :: cutoff > 1 || cutoff_row > 1 ->
        d_step { /* copied under the lock */
            mine = boot;
#ifdef UNPUBLISHED
            keep_cutoff = cutoff_row;
#else
            keep_cutoff = cutoff;
#endif
            keep_branch = branch; keep_lease = lease; keep_hold = hold;
#ifdef NO_BRANCH
            keep_branch = NONE;
#endif
#ifdef NO_LEASE
            keep_lease = NONE;
#endif
#ifdef NO_HOLD
            keep_hold = NONE;
#endif
            version = 1
        }
        do
        :: version < LSNS -> drop(version); version++
        :: version == LSNS || mine != boot -> break
        od;
        version = 0; keep_cutoff = 0; keep_branch = 0; keep_lease = 0; keep_hold = 0; mine = 0
    od
}

#ifdef READER
active proctype reader()
{
    byte lsn, got, mine;
end:
    do
    :: true ->
        d_step { mine = boot; lsn = 1 }
        do
        :: lsn < durable -> lsn++
        :: break
        od;
        if
        :: lsn < cutoff -> skip /* a typed error */
        :: else ->
            d_step { find(lsn, got) } /* the iterator sees one moment */
            d_step {
#ifdef CHECK_ONCE
                if
                :: mine == boot -> assert(got == lsn)
#else
                if
                :: mine == boot && lsn >= cutoff -> assert(got == lsn)
#endif
                :: else
                fi
            }
        fi;
        lsn = 0; got = 0; mine = 0
    od
}
#endif

/* `what` is set to `value`, unless there was a crash since this began. */
inline set(what, value)
{
    d_step {
        if
        :: mine == boot -> what = value
        :: else
        fi
    }
}

inline pick_lsn()
{
    d_step { mine = boot; at = 1 }
    do
    :: at < durable -> at++
    :: break
    od
}

/* A branch at `at`: the hold keeps the LSN while the row is made; a read through the branch. */
#ifdef BRANCH
active proctype brancher()
{
    byte at, got, mine;
    bool valid;
end:
    do
    :: branch_row == NONE && branch == NONE ->
        pick_lsn();
#ifdef VALIDATE_FIRST
        valid = (at >= cutoff);
        set(hold, at);
#else
        set(hold, at);
        valid = (at >= cutoff);
#endif
        if
        :: valid ->
            set(branch_row, at);
#ifdef HOLD_ENDS_EARLY
            set(hold, NONE);
#endif
            d_step { /* registered, and the hold ends: one moment, under the mutex */
                if
                :: mine == boot -> branch = at; hold = NONE; branch_promised = at; check_promises()
                :: else
                fi
            }
        :: else -> set(hold, NONE)
        fi;
        at = 0; mine = 0; valid = false
    :: branch != NONE -> /* a read of the page as the branch has it */
        d_step {
            if
            :: branch != NONE -> find(branch, got); assert(got == branch)
            :: else
            fi;
            got = 0
        }
    :: branch != NONE -> /* deleted: durable, then forgotten */
        d_step { mine = boot; branch_promised = NONE }
        set(branch_row, NONE);
        set(branch, NONE);
        mine = 0
    od
}
#endif

#ifdef LEASE
active proctype lessee()
{
    byte at, mine;
    bool valid;
end:
    do
    :: lease == NONE && lease_row == NONE ->
        pick_lsn();
#ifdef LEASE_VALIDATES_FIRST
        valid = (at >= cutoff);
        set(lease, at);
#else
        set(lease, at);
        valid = (at >= cutoff);
#endif
        if
        :: valid ->
#ifdef ANSWER_FIRST
            set(lease_promised, at);
#endif
            set(lease_row, at);
#ifndef ANSWER_FIRST
            set(lease_promised, at);
#endif
            d_step { check_promises() }
        :: else -> set(lease, NONE)
        fi;
        at = 0; mine = 0; valid = false
    :: lease_row != NONE && lease != NONE -> /* it ends */
        d_step { mine = boot; lease_promised = NONE }
#ifdef FORGET_LEASE_FIRST
        set(lease, NONE);
        set(lease_row, NONE);
#else
        set(lease_row, NONE);
        set(lease, NONE);
#endif
        mine = 0
    od
}
#endif

/* What was only in memory is gone. An answer that was on its way is not given any more. */
active proctype power()
{
    do
    :: crashes > 0 ->
        d_step {
            crashes--;
            boot++;
            cutoff = cutoff_row; branch = branch_row; lease = lease_row; hold = NONE;
            assert(cutoff >= cutoff_seen); /* P6 */
            assert(lease_promised == NONE || lease_promised == lease_row);
            assert(branch_promised == NONE || branch_promised == branch_row);
            branch_promised = branch; lease_promised = lease; /* whoever asks is told so */
            check_promises()
        }
    :: break
    od
}
