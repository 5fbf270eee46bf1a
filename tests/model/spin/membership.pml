/*
 * membership.pml - who votes on one timeline changes while two proposers go on: generations, joint
 * quorums, the judgement that ends a change, nodes that lose their disk.
 *
 * Modelled: control that writes down a joint membership, creates the timeline on the newcomers,
 * collects answers, asks for promises, and ends the change or gives it up; safekeepers and
 * proposers that hear of a generation at any later moment, or of a newer one first; a proposer that
 * starts with an old membership; elections and the log below as in consensus.pml, where a
 * safekeeper is cut to the winner's log in one step and takes one record after the other.
 * Messages are explicit where they can be late: what a winner sends under a generation (`led`) may
 * arrive at any later moment and again, also when it has given up; an answer to control is kept as it was
 * when it was given. A vote or an acknowledgement is heard when it is given: it counts for one term
 * and one generation, so to hear it later is as if the proposer had done later what follows, and
 * what a winner sends can be as late as it likes. Each proposer campaigns once: both in term 1
 * (SAME_TERM), or one in term 1 and the other in term 2. Not modelled: a suspect log, disks that write late (a
 * generation, a promise and a record are on disk at once), two controls, the addresses.
 *
 *   step here          code
 *   begin_change       change.c: change_begin(); control creates the timeline on the newcomers
 *   hear               acceptor.c: on_membership_changed()
 *   learn              proposer.c: on_membership_changed()
 *   report, promise    acceptor.c: acceptor_report(), on_membership_changed() with a term
 *   may_finish         change.c: change_judge(), change_finish()
 *   vote, win          acceptor.c: on_vote_requested(); proposer_election.c: count_votes(), win()
 *   adopt, append      acceptor_follow.c: acceptor_on_elected(); acceptor.c: on_append_requested()
 *   advance_commit     proposer_stream.c: proposer_advance_commit(); membership.c: the quorums
 *
 * Checked: S2 nobody commits anything else; S3 a term is won once, whatever the generations; S5 a
 * winner has what older terms committed, also when that is committed later; S10 by these: what one
 * set has decided the next one has.
 */
#ifndef NODES
#define NODES 3
#endif
#ifdef SAME_TERM
#define TERMS 1
#define TERM_OF(p) 1
#else
#define TERMS 2
#define TERM_OF(p) ((p) + 1)
#endif
#ifndef RECORDS
#define RECORDS 1
#endif
#ifndef GENERATIONS
#define GENERATIONS 3 /* odd: one set; even: joint, of the one before and TARGET */
#endif
#ifndef WIPES
#define WIPES 0
#endif
/* The sets as bits. {A} -> {A B C}: newcomers are a majority of the new set. */
#ifndef FIRST
#define FIRST 1
#endif
#ifndef SECOND
#define SECOND 7
#endif
#ifndef THIRD
#define THIRD SECOND
#endif
#define TARGET(g) ((g) == 2 -> SECOND : THIRD)

#define OFF      0
#define CAMPAIGN 1
#define LEADS    2

#define BIT(n)           (1 << (n))
#define PREFIX(log, end) ((log) & ((1 << (2 * (end))) - 1))
#define MIN(a, b)        ((a) < (b) -> (a) : (b))
#define MAX(a, b)        ((a) > (b) -> (a) : (b))
#define COUNT(set)       (((set) & 1) + (((set) >> 1) & 1) + (((set) >> 2) & 1))
#define MAJORITY(of, set) (2 * COUNT((of) & (set)) > COUNT(of))
#define IS_JOINT(g)      (((g) & 1) == 0)
#ifdef OLD_SET_ONLY
#define QUORUM(g, set) MAJORITY(base[(g) - IS_JOINT(g)], set)
#else
#define QUORUM(g, set)                                                                             \
    (MAJORITY(base[(g) - IS_JOINT(g)], set) && (!IS_JOINT(g) || MAJORITY(TARGET(g), set)))
#endif
#define NEWCOMERS (TARGET(newest) & ~base[newest - 1])

/* control */
byte newest = 1;
byte base[GENERATIONS + 2]; /* of the odd generations */
/* What a member said under the newest generation, which is joint: */
bool answered[NODES];
byte said_term[NODES], said_log_term[NODES], said_end[NODES];

/* safekeepers: all of it is on disk */
bool exists[NODES];
byte generation[NODES], term[NODES];
byte adopted[NODES]; /* the term whose history it has */
byte log[NODES], end_lsn[NODES];

/* proposers */
byte role[2], my_term[2], my_generation[2], granted[2];
bool ready[2];
byte best_term[2], best_log[2], best_end[2], best_adopted[2]; /* of the votes so far */
byte acked[2 * NODES];                          /* 0: nothing; else end + 1 */

/* winners, by term */
byte won[TERMS + 1]; /* 0: nobody; else the proposer + 1 */
byte led[TERMS + 1]; /* the generations under which it has sent something */
byte begin[TERMS + 1], win_history[TERMS + 1], win_log[TERMS + 1], win_end[TERMS + 1];

/* what is committed */
byte committed, committed_log, committed_by[TERMS + 1];

byte wipes;

/* scratch, 0 between steps */
byte i, j, best, common, other, set, it, who;

inline last_term(terms, result)
{
    result = TERMS;
    do
    :: !((terms) & BIT(result)) -> result--
    :: else -> break
    od
}

/* The terms that begin within a log that ends there. */
inline clip(terms, lsn, result)
{
    result = 0;
    i = 0;
    do
    :: i <= TERMS ->
        if
        :: ((terms) & BIT(i)) && begin[i] <= (lsn) -> result = result | BIT(i)
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = 0
}

/* Where the part of term `which` ends in a log of these terms that ends at `lsn`. */
inline part_end(terms, which, lsn, result)
{
    result = lsn;
    i = TERMS;
    do
    :: i > which ->
        if
        :: (terms) & BIT(i) -> result = begin[i]
        :: else
        fi;
        i--
    :: else -> break
    od;
    i = 0
}

/* The last term of a safekeeper's log, in `result`. */
inline log_term(n, result)
{
    clip(win_history[adopted[n]], end_lsn[n], set);
    last_term(set, result);
    set = 0
}

/* ---- control ---- */

inline format(n, g)
{
    exists[n] = true;
    generation[n] = g;
    term[n] = 0; adopted[n] = 0; log[n] = 0; end_lsn[n] = 0
}

inline forget_answers()
{
    i = 0;
    do
    :: i < NODES -> answered[i] = false; said_term[i] = 0; said_log_term[i] = 0; said_end[i] = 0; i++
    :: else -> break
    od;
    i = 0
}

/* Who comes back with its old disk keeps it. */
inline begin_change()
{
    newest++;
    forget_answers();
    i = 0;
    do
    :: i < NODES ->
        if
        :: !exists[i] && (NEWCOMERS & BIT(i)) -> format(i, newest)
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = 0
}

inline report(n)
{
    answered[n] = true;
    said_term[n] = term[n];
    said_end[n] = end_lsn[n];
    log_term(n, said_log_term[n])
}

/* `set`: who answered; `common`: the term that must be promised; (best, other): what must be copied */
inline judge_old()
{
    set = 0; common = 0; best = 0; other = 0;
    i = 0;
    do
    :: i < NODES ->
        if
        :: answered[i] -> set = set | BIT(i)
        :: else
        fi;
        if
        :: answered[i] && (base[newest - 1] & BIT(i)) ->
            common = MAX(common, said_term[i]);
            if
            :: said_log_term[i] > best || (said_log_term[i] == best && said_end[i] > other) ->
                best = said_log_term[i]; other = said_end[i]
            :: else
            fi
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = 0
}

inline forget_judgement()
{
    set = 0; common = 0; best = 0; other = 0; j = 0
}

#ifdef NO_PROMISE
#define HAS_PROMISED(n) true
#else
#define HAS_PROMISED(n) (said_term[n] >= common)
#endif
#ifdef NO_COPY
#define HAS_COPIED(n) true
#else
#define HAS_COPIED(n)                                                                              \
    (said_log_term[n] > best || (said_log_term[n] == best && said_end[n] >= other))
#endif
#ifdef OLD_UNASKED
#define OLD_SET_ANSWERED true
#else
#define OLD_SET_ANSWERED MAJORITY(base[newest - 1], set)
#endif

/* Leaves its verdict in `who`. */
inline judge()
{
    judge_old();
    j = 0;
    i = 0;
    do
    :: i < NODES ->
        if
        :: answered[i] && (TARGET(newest) & BIT(i)) && HAS_PROMISED(i) && HAS_COPIED(i) ->
            j = j | BIT(i)
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = 0;
    who = OLD_SET_ANSWERED && MAJORITY(TARGET(newest), j) && (NEWCOMERS & ~set) == 0;
    forget_judgement()
}

/* Control asks a member for the term that the old set may have given away. */
inline promise(n)
{
    judge_old();
    if
    :: MAJORITY(base[newest - 1], set) -> term[n] = MAX(term[n], common)
    :: else
    fi;
    forget_judgement()
}

inline end_change(members)
{
    base[newest + 1] = members;
    newest++;
    forget_answers()
}

/* ---- proposer ---- */

inline forget_election(p)
{
    role[p] = OFF; granted[p] = 0; ready[p] = false;
    best_term[p] = 0; best_log[p] = 0; best_end[p] = 0; best_adopted[p] = 0;
    i = 0;
    do
    :: i < NODES -> acked[p * NODES + i] = 0; i++
    :: else -> break
    od;
    i = 0
}

inline campaign(p, g)
{
    my_term[p] = TERM_OF(p);
    my_generation[p] = g;
    role[p] = CAMPAIGN
}

#ifdef KEEP_ACKS
#define KEPT(end) end
#else
#define KEPT(end) 0
#endif

/* A leader goes on in its term; a candidate, or who has no quorum for its start yet, begins anew. */
inline learn(p, g)
{
    my_generation[p] = g;
    if
    :: role[p] == LEADS && ready[p] ->
        led[my_term[p]] = led[my_term[p]] | BIT(g);
        i = 0;
        do
        :: i < NODES -> acked[p * NODES + i] = KEPT(acked[p * NODES + i]); i++
        :: else -> break
        od;
        i = 0;
        advance_commit(p)
    :: else -> forget_election(p)
    fi
}

inline check_commit(t, lsn)
{
    j = MIN(lsn, committed);
    assert(PREFIX(committed_log, j) == PREFIX(win_log[t], j)); /* S2 */
    if
    :: lsn > committed -> committed = lsn; committed_log = PREFIX(win_log[t], lsn)
    :: else
    fi;
    committed_by[t] = MAX(committed_by[t], lsn);
    j = t + 1;
    do /* S5: of who has been elected before this was committed */
    :: j <= TERMS ->
        assert(!won[j] || (begin[j] >= lsn && PREFIX(win_log[j], lsn) == PREFIX(win_log[t], lsn)));
        j++
    :: else -> break
    od;
    j = 0
}

#ifdef NEVER_BY_NEW_SET /* no mistake: it shows that the search gets there */
#define IS_BY_NEW_SET(p) (committed == RECORDS && my_generation[p] == GENERATIONS && base[GENERATIONS] == TARGET(GENERATIONS - 1))
#else
#define IS_BY_NEW_SET(p) false
#endif

/* The greatest LSN that a quorum has acknowledged, from the begin of the term on. */
inline advance_commit(p)
{
    common = win_end[my_term[p]] + 1;
    do
    :: common > begin[my_term[p]] ->
        set = 0;
        i = 0;
        do
        :: i < NODES ->
            if
            :: acked[p * NODES + i] >= common -> set = set | BIT(i)
            :: else
            fi;
            i++
        :: else -> break
        od;
        i = 0;
        if
        :: QUORUM(my_generation[p], set) ->
            check_commit(my_term[p], common - 1);
            assert(!IS_BY_NEW_SET(p));
            if /* Postgres writes from here on; when it is sent is another matter */
            :: !ready[p] ->
                ready[p] = true;
                do
                :: win_end[my_term[p]] < RECORDS ->
                    win_log[my_term[p]] =
                        win_log[my_term[p]] | (my_term[p] << (2 * win_end[my_term[p]]));
                    win_end[my_term[p]]++
                :: else -> break
                od
            :: else
            fi;
            break
        :: else
        fi;
        common--
    :: else -> break
    od;
    set = 0;
    common = 0
}

inline win(p)
{
    j = my_term[p];
    assert(!won[j]); /* S3 */
    won[j] = p + 1;
    led[j] = BIT(my_generation[p]);
    role[p] = LEADS;
    begin[j] = best_end[p];
    win_end[j] = best_end[p];
    win_log[j] = best_log[p];
    clip(win_history[best_adopted[p]], best_end[p], set);
    last_term(set, i);
    win_history[j] = set | BIT(j);
    if /* A term in which nothing was written leaves no entry. */
    :: i > 0 && begin[i] == begin[j] -> win_history[j] = win_history[j] & ~BIT(i)
    :: else
    fi;
    set = 0;
    i = 0;
    do /* S5 */
    :: i < j ->
        assert(committed_by[i] <= begin[j]);
        assert(PREFIX(committed_log, committed_by[i]) == PREFIX(win_log[j], committed_by[i]));
        i++
    :: else -> break
    od;
    i = 0;
    j = 0;
    granted[p] = 0;
    best_term[p] = 0; best_log[p] = 0; best_end[p] = 0; best_adopted[p] = 0
}

inline vote(p, n)
{
    term[n] = my_term[p];
    granted[p] = granted[p] | BIT(n);
    log_term(n, common);
    if
    :: common > best_term[p] || (common == best_term[p] && end_lsn[n] > best_end[p]) ->
        best_term[p] = common;
        best_log[p] = log[n];
        best_end[p] = end_lsn[n];
        best_adopted[p] = adopted[n]
    :: else
    fi;
    common = 0;
    if
    :: QUORUM(my_generation[p], granted[p]) -> win(p)
    :: else
    fi
}

/* ---- safekeeper ---- */

#ifdef ANY_APPEND
#define ACK_FITS(p, n) true
#else
#define ACK_FITS(p, n) (my_generation[p] == generation[n])
#endif

/* Heard by the winner, if it still leads under this generation. */
inline acknowledge(t, n)
{
    who = won[t] - 1;
    if
    :: role[who] == LEADS && my_term[who] == t && ACK_FITS(who, n) ->
        acked[who * NODES + n] = MAX(acked[who * NODES + n], end_lsn[n] + 1);
        advance_commit(who)
    :: else
    fi;
    who = 0
}

/* Elected: its log is cut to where it parts from the winner's. */
inline adopt(t, n)
{
    clip(win_history[adopted[n]], end_lsn[n], set);
    last_term((set & win_history[t]), j);
    part_end(win_history[t], j, win_end[t], common);
    part_end(set, j, end_lsn[n], other);
    end_lsn[n] = MIN(common, other);
    log[n] = PREFIX(log[n], end_lsn[n]);
    adopted[n] = t;
    term[n] = t;
    set = 0; common = 0; other = 0; j = 0;
    acknowledge(t, n)
}

inline append(t, n)
{
    end_lsn[n]++;
    log[n] = PREFIX(win_log[t], end_lsn[n]);
    acknowledge(t, n)
}

/* ---- what may happen ---- */

#define IS_HERS(t, n) (exists[n] && led[t] != 0 && FITS(t, n) && term[n] <= (t))
#ifdef ANY_APPEND
#define FITS(t, n) true
#else
#define FITS(t, n) (led[t] & BIT(generation[n]))
#endif
#ifdef ANY_VOTE
#define VOTE_FITS(p, n) true
#else
#define VOTE_FITS(p, n) (generation[n] == my_generation[p])
#endif

#define MAY_VOTE(p, n)                                                                             \
    (role[p] == CAMPAIGN && exists[n] && VOTE_FITS(p, n) && my_term[p] > term[n])
#define IS_LEADER(t) (won[t] != 0 && role[won[t] - 1] == LEADS && my_term[won[t] - 1] == (t))
#define IS_UNHEARD(t, n)                                                                           \
    (IS_LEADER(t) && my_generation[won[t] - 1] == generation[n] &&                                 \
     acked[(won[t] - 1) * NODES + n] == 0)
#define MAY_ADOPT(t, n)  (IS_HERS(t, n) && (adopted[n] != (t) || IS_UNHEARD(t, n)))
#define MAY_APPEND(t, n) (IS_HERS(t, n) && adopted[n] == (t) && term[n] == (t) && end_lsn[n] < win_end[t])
#ifdef ANY_ANSWER
#define MAY_REPORT(n) (IS_JOINT(newest) && exists[n])
#else
#define MAY_REPORT(n) (IS_JOINT(newest) && exists[n] && generation[n] == newest)
#endif
#define IS_NEWS(n) (!answered[n] || said_term[n] != term[n] || said_end[n] != end_lsn[n])
#ifdef CREATE_AGAIN
#define MAY_CREATE(n) (!exists[n] && ((base[newest - IS_JOINT(newest)] & BIT(n)) != 0))
#else
#define MAY_CREATE(n) false
#endif

active proctype world()
{
    d_step {
        base[1] = FIRST;
        win_history[0] = BIT(0);
        i = 0;
        do
        :: i < NODES ->
            if
            :: FIRST & BIT(i) -> format(i, 1)
            :: else
            fi;
            i++
        :: else -> break
        od;
        i = 0
    }
end:
    do
    :: atomic {
        if /* a node, and perhaps a proposer or a term */
        :: it = 0
        :: it = 1
#if NODES > 2
        :: it = 2
#endif
        fi;
        if
        :: exists[it] && generation[it] < newest ->
            do /* of any newer generation */
            :: generation[it] + 1 < newest -> generation[it]++
            :: generation[it]++; break
            od
        :: MAY_VOTE(0, it) -> d_step { vote(0, it) }
        :: MAY_VOTE(1, it) -> d_step { vote(1, it) }
        :: MAY_ADOPT(1, it) -> d_step { adopt(1, it) }
        :: MAY_APPEND(1, it) -> d_step { append(1, it) }
#if TERMS > 1
        :: MAY_ADOPT(2, it) -> d_step { adopt(2, it) }
        :: MAY_APPEND(2, it) -> d_step { append(2, it) }
#endif
        :: MAY_REPORT(it) && IS_NEWS(it) -> d_step { report(it) }
        :: MAY_REPORT(it) && (TARGET(newest) & BIT(it)) && term[it] < TERMS -> d_step { promise(it) }
        :: wipes < WIPES && exists[it] -> d_step { wipes++; format(it, 0); exists[it] = false }
        :: MAY_CREATE(it) -> d_step { format(it, newest) }
        :: else
        fi;
        it = 0
    }
    :: atomic {
        if
        :: it = 0
        :: it = 1
        fi;
        if
        :: my_term[it] == 0 ->
            who = 1;
            do
            :: who < newest -> who++
            :: break
            od;
            skip;
            d_step { campaign(it, who); who = 0 }
        :: role[it] != OFF && my_generation[it] < newest ->
            who = my_generation[it] + 1;
            do
            :: who < newest -> who++
            :: break
            od;
            skip;
            d_step { learn(it, who); who = 0 }
        :: else
        fi;
        it = 0
    }
    :: d_step { !IS_JOINT(newest) && newest + 1 < GENERATIONS && TARGET(newest + 1) != base[newest] ->
        begin_change()
    }
    :: atomic { IS_JOINT(newest) ->
        d_step { judge() };
        if
        :: who -> d_step { who = 0; end_change(TARGET(newest)) }
        :: d_step { who = 0; end_change(base[newest - 1]) }
        fi
    }
    od
}
