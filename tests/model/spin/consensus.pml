/*
 * consensus.pml - one timeline, a fixed membership of three: elections, truncation, streaming and
 * commit, over connections that break, with acceptors that lose what they had not synced.
 *
 * Modelled: a channel of one message each way between each proposer and acceptor, delivered at any
 * later moment; a connection that breaks, what was sent on it lost, or still delivered after the
 * first words on its successor; votes with the log as it was when they were given; the cut and the
 * adoption of a history as two durable steps with a crash between; writes that are on disk later,
 * and a crash that leaves any part of them; repair from the donor while that one moves on; two
 * proposers that may choose the same term, give up at any moment and start again. A proposer sends
 * what it can as soon as a channel has room, as the real one does. A record is the term that wrote
 * it, so a log is its bytes; a history is a set of terms, each of which begins at one place in
 * whatever log it is part of, and is kept apart from the bytes, as on disk.
 * Not modelled: the news of a commit, catching up without a leader, suspects, histories that
 * forget, membership (membership.pml), records that end inside an append, full disks.
 *
 *   step here              code
 *   campaign               proposer_election.c: proposer_campaign_if_due(), proposer_ask()
 *   on_vote_request        acceptor.c: on_vote_requested(); the promise is durable with the reply
 *   on_vote_reply, win     the same: proposer_on_vote_reply(), count_votes(), best_donor(), win()
 *   pump                   the same: proposer_ask(), tell(); proposer_stream.c: proposer_pump(),
 *                          read_for(); acceptor_readable_lsn()
 *   find_common            term_history_common_lsn()
 *   on_elected             acceptor_follow.c: check_elected(), acceptor_on_elected(), _adopt(),
 *                          _follow()
 *   on_append, sync        acceptor.c: check_append(), on_append_requested(), on_wal_flushed()
 *   on_append_reply        proposer_stream.c: proposer_on_append_reply(), _advance_commit()
 *   close, reset           connections: the next one asks again
 *
 * Checked: S1, S2 what is committed is on the disks of a majority, byte by byte, and nobody commits
 * anything else; S3 a term is won once; S5 a winner has what older terms committed; S6 logs that
 * share a term are equal up to where one of them leaves it. With LIVE (one proposer, and -DNP):
 * when nothing can happen any more everything was committed, unless the terms ran out, and nothing
 * goes on for ever.
 */
#ifndef TERMS
#define TERMS 2
#endif
#ifndef RECORDS
#define RECORDS 2
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef RESETS
#define RESETS 0
#endif

#define ACCEPTORS 3
#define PAIRS     6 /* proposer * 3 + acceptor */
#define NOBODY    7

/* messages; 0: the channel is empty */
#define VOTE_REQUEST 1
#define ELECTED      2
#define APPEND       3
#define HELD         4 /* an append that is answered when it is on disk */
#define GRANTED      5
#define DENIED       6
#define APPENDED     7

/* of a proposer */
#define OFF      0
#define CAMPAIGN 1
#define LEADS    2

/* of a proposer with one acceptor */
#define GREETED   0
#define ASKED     1
#define VOTED     2
#define TOLD      3
#define STREAMING 4

#define BIT(n)           (1 << (n))
#define RECORD(log, i)   (((log) >> (2 * (i))) & 3)
#define PREFIX(log, end) ((log) & ((1 << (2 * (end))) - 1))
#define MIN(a, b)        ((a) < (b) -> (a) : (b))
#define MAX(a, b)        ((a) > (b) -> (a) : (b))
#define MAJORITY(set)    ((set) == 3 || (set) >= 5)
#define P(pair)          ((pair) / 3)
#define A(pair)          ((pair) % 3)

/* Both go for the same terms, or one for the odd ones and the other for the even ones. */
#ifdef SAME_TERMS
#define NEXT_TERM(p) (my_term[p] + 1)
#else
#define NEXT_TERM(p) (my_term[p] + 1 + ((my_term[p] & 1) ^ (p)))
#endif

/* acceptors; all but `written` and `leader` is durable */
byte term[ACCEPTORS];             /* promised */
byte history[ACCEPTORS] = BIT(0); /* set of terms */
byte log[ACCEPTORS];
byte flushed[ACCEPTORS], written[ACCEPTORS];
byte leader[ACCEPTORS] = NOBODY;  /* it follows; + 2: on a connection that is broken already */

/* proposers */
byte role[2], my_term[2], granted[2], my_end[2], my_commit[2], donor[2];
bool ready[2];
byte peer[PAIRS], sent[PAIRS], acked[PAIRS];
byte vote_end[PAIRS], vote_history[PAIRS], vote_log[PAIRS];

/* winners, by term */
bool won[TERMS + 1];
byte begin[TERMS + 1], win_history[TERMS + 1], win_log[TERMS + 1];

/* channels */
byte msg[PAIRS], msg_term[PAIRS], msg_lsn[PAIRS], msg_history[PAIRS], msg_log[PAIRS];
/* one message that is late: of a connection that is broken */
byte late, late_pair, late_term, late_lsn, late_record;

/* what is committed */
byte committed, committed_log, committed_by[TERMS + 1];

byte crashes, resets;

/* scratch, 0 between steps */
byte i, j, k, best, common, other, set;
byte it, crashing = NOBODY;
bool refused, keeps, is_cut_short;

inline last_term(terms, result)
{
    result = TERMS;
    do
    :: !((terms) & BIT(result)) -> result--
    :: else -> break
    od
}

/* The terms that begin within a log that ends there. */
inline clip(terms, end_lsn, result)
{
    result = 0;
    i = 0;
    do
    :: i <= TERMS ->
        if
        :: ((terms) & BIT(i)) && begin[i] <= (end_lsn) -> result = result | BIT(i)
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = 0
}

/* Where the part of term `which` ends in a log of these terms that ends at `end_lsn`. */
inline part_end(terms, which, end_lsn, result)
{
    result = end_lsn;
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

/* term_history_common_lsn(); term 0 is part of every history. */
inline find_common(mine, theirs, their_end)
{
    last_term((mine & theirs), j);
    part_end(mine, j, RECORDS, common);
    part_end(theirs, j, their_end, other);
    common = MIN(common, other);
#ifdef COMMON_IS_END
    common = their_end;
#endif
    other = 0;
    j = 0
}

inline clear(x)
{
    msg[x] = 0; msg_term[x] = 0; msg_lsn[x] = 0; msg_history[x] = 0; msg_log[x] = 0
}

inline forget_vote(x)
{
    vote_end[x] = 0; vote_history[x] = 0; vote_log[x] = 0
}

inline clear_late()
{
    late = 0; late_pair = 0; late_term = 0; late_lsn = 0; late_record = 0
}

/* The connection is gone, and its successor is there. */
inline close(x)
{
    clear(x);
    forget_vote(x);
    peer[x] = GREETED;
    sent[x] = 0;
    if
    :: leader[A(x)] == P(x) -> leader[A(x)] = NOBODY
    :: else
    fi
}

/*
 * The acceptors are alike: of states that differ only in which is which one is enough. Any order of
 * them does.
 */
#define KEY(a)                                                                                     \
    (term[a] | history[a] << 2 | log[a] << 6 | msg[a] << 12 | msg[3 + (a)] << 15 |                 \
     peer[a] << 18 | peer[3 + (a)] << 21 | flushed[a] << 24 | written[a] << 26 |                   \
     (leader[a] & 7) << 28)

#define SWAP(array, a, b) i = array[a]; array[a] = array[b]; array[b] = i

inline swap_pairs(p, a, b)
{
    SWAP(msg, p * 3 + a, p * 3 + b);
    SWAP(msg_term, p * 3 + a, p * 3 + b);
    SWAP(msg_lsn, p * 3 + a, p * 3 + b);
    SWAP(msg_history, p * 3 + a, p * 3 + b);
    SWAP(msg_log, p * 3 + a, p * 3 + b);
    SWAP(peer, p * 3 + a, p * 3 + b);
    SWAP(sent, p * 3 + a, p * 3 + b);
    SWAP(acked, p * 3 + a, p * 3 + b);
    SWAP(vote_end, p * 3 + a, p * 3 + b);
    SWAP(vote_history, p * 3 + a, p * 3 + b);
    SWAP(vote_log, p * 3 + a, p * 3 + b);
    i = (granted[p] >> a) & 1;
    j = (granted[p] >> b) & 1;
    granted[p] = (granted[p] & ~(BIT(a) | BIT(b))) | (i << b) | (j << a);
    donor[p] = (role[p] != LEADS -> 0 : (donor[p] == a -> b : (donor[p] == b -> a : donor[p])))
}

inline order(a, b)
{
    if
    :: KEY(a) > KEY(b) ->
        SWAP(term, a, b);
        SWAP(history, a, b);
        SWAP(log, a, b);
        SWAP(flushed, a, b);
        SWAP(written, a, b);
        SWAP(leader, a, b);
        set = 0;
        do
        :: set < 2 -> swap_pairs(set, a, b); set++
        :: else -> break
        od;
        set = 0;
        if
        :: late != 0 && A(late_pair) == a -> late_pair = late_pair - a + b
        :: late != 0 && A(late_pair) == b -> late_pair = late_pair - b + a
        :: else
        fi;
        i = 0;
        j = 0
    :: else
    fi
}

inline canonical()
{
    k = 0;
    do
    :: k < 3 ->
        order((k & 1), ((k & 1) + 1)); /* 0 1, 1 2, 0 1 */
        k++
    :: else -> break
    od;
    k = 0
}

/* ---- proposer ---- */

/* WAL below the begin of the term is read from the donor, as it is now, if it may be read. */
#define READABLE(x) (sent[x] < flushed[donor[P(x)]] && term[donor[P(x)]] == my_term[P(x)])

/* Everybody sends what can be sent. */
inline pump()
{
    k = 0;
    do
    :: k < PAIRS ->
        if
        :: role[P(k)] != OFF && msg[k] == 0 && peer[k] == GREETED ->
            msg[k] = VOTE_REQUEST;
            msg_term[k] = my_term[P(k)];
            peer[k] = ASKED
        :: role[P(k)] == LEADS && msg[k] == 0 && peer[k] == VOTED ->
            find_common(win_history[my_term[P(k)]], vote_history[k], vote_end[k]);
            msg[k] = ELECTED;
            msg_term[k] = my_term[P(k)];
            msg_lsn[k] = common;
            sent[k] = common;
            peer[k] = TOLD;
            forget_vote(k);
            common = 0
        :: role[P(k)] == LEADS && msg[k] == 0 && peer[k] == STREAMING &&
           sent[k] < my_end[P(k)] && (sent[k] >= begin[my_term[P(k)]] || READABLE(k)) ->
            msg[k] = APPEND;
            msg_term[k] = my_term[P(k)];
            msg_lsn[k] = sent[k];
            msg_log[k] = (sent[k] < begin[my_term[P(k)]] -> RECORD(log[donor[P(k)]], sent[k])
                                                         : RECORD(win_log[my_term[P(k)]], sent[k]));
            sent[k]++
        :: else
        fi;
        k++
    :: else -> break
    od;
    k = 0
}

inline forget_election(p)
{
    granted[p] = 0; my_end[p] = 0; my_commit[p] = 0; donor[p] = 0; ready[p] = false;
    j = p * 3;
    do
    :: j < p * 3 + 3 ->
        forget_vote(j);
        peer[j] = GREETED;
        sent[j] = 0;
        acked[j] = 0;
        j++
    :: else -> break
    od;
    j = 0
}

/* Also: it gives its term up, or is started again. */
inline campaign(p)
{
    d_step {
        forget_election(p);
        my_term[p] = NEXT_TERM(p);
        role[p] = CAMPAIGN
    }
}

/* A winner is deposed; its compute may be started again. */
inline higher_term(p, t)
{
    my_term[p] = t;
    forget_election(p);
    role[p] = OFF
}

inline is_better(a, b, result)
{
    last_term(vote_history[a], i);
    last_term(vote_history[b], j);
#ifdef DONOR_BY_TERM
    result = i > j;
#else
    result = i > j || (i == j && vote_end[a] > vote_end[b]);
#endif
    i = 0;
    j = 0
}

inline win(p)
{
    best = NOBODY;
    set = 0;
    do
    :: set < 3 ->
        if
        :: !(granted[p] & BIT(set)) -> skip
        :: (granted[p] & BIT(set)) && best == NOBODY -> best = set
        :: else ->
            is_better(p * 3 + set, p * 3 + best, common);
            if
            :: common -> best = set
            :: else
            fi
        fi;
        set++
    :: else -> break
    od;
    assert(!won[my_term[p]]); /* S3 */
    won[my_term[p]] = true;
    role[p] = LEADS;
    donor[p] = best;
    begin[my_term[p]] = vote_end[p * 3 + best];
#ifdef EARLY_BEGIN
    begin[my_term[p]] = MAX(begin[my_term[p]], 1) - 1;
#endif
    my_end[p] = begin[my_term[p]];
    win_log[my_term[p]] = PREFIX(vote_log[p * 3 + best], my_end[p]);
    /* A term in which nothing was written leaves no entry. */
    last_term(vote_history[p * 3 + best], i);
    win_history[my_term[p]] = vote_history[p * 3 + best] | BIT(my_term[p]);
    if
    :: i > 0 && begin[i] == my_end[p] ->
        win_history[my_term[p]] = win_history[my_term[p]] & ~BIT(i)
    :: else
    fi;
    i = 0;
    do /* S5 */
    :: i < my_term[p] ->
        assert(committed_by[i] <= my_end[p]);
        assert(PREFIX(committed_log, committed_by[i]) == PREFIX(win_log[my_term[p]], committed_by[i]));
        i++
    :: else -> break
    od;
    i = 0;
    best = 0;
    common = 0;
    set = 0
}

inline on_vote_reply(x)
{
    d_step {
        if
        :: msg_term[x] > my_term[P(x)] -> higher_term(P(x), msg_term[x])
        :: msg_term[x] == my_term[P(x)] && peer[x] == ASKED ->
            peer[x] = VOTED;
            vote_end[x] = msg_lsn[x]; vote_history[x] = msg_history[x];
            vote_log[x] = msg_log[x];
            if
            :: role[P(x)] == CAMPAIGN && msg[x] == GRANTED ->
                granted[P(x)] = granted[P(x)] | BIT(A(x))
            :: else
            fi;
            if
#ifdef ONE_IS_ENOUGH
            :: role[P(x)] == CAMPAIGN && granted[P(x)] != 0 -> win(P(x))
#else
            :: role[P(x)] == CAMPAIGN && MAJORITY(granted[P(x)]) -> win(P(x))
#endif
            :: else
            fi
        :: else
        fi;
        clear(x)
    }
}

/* A quorum has it: then it is on their disks, and it is what everybody else commits. */
inline check_commit(t, lsn)
{
    set = 0;
    j = 0;
    do
    :: j < 3 ->
        if
        :: flushed[j] >= lsn && PREFIX(log[j], lsn) == PREFIX(win_log[t], lsn) -> set = set | BIT(j)
        :: else
        fi;
        j++
    :: else -> break
    od;
    assert(MAJORITY(set)); /* S1 */
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
    set = 0;
    j = 0
}

inline advance_commit(p)
{
    common = my_end[p];
    do
    :: common > my_commit[p] || (!ready[p] && common >= begin[my_term[p]]) ->
        set = 0;
        i = 0;
        do
        :: i < 3 ->
            if
            :: acked[p * 3 + i] >= common && peer[p * 3 + i] == STREAMING &&
               acked[p * 3 + i] >= begin[my_term[p]] -> set = set | BIT(i)
            :: else
            fi;
            i++
        :: else -> break
        od;
        if
        :: MAJORITY(set) && common >= begin[my_term[p]] ->
            ready[p] = ready[p] || common >= begin[my_term[p]];
            my_commit[p] = MAX(my_commit[p], common);
            check_commit(my_term[p], common);
            break
        :: else
        fi;
        if
        :: common == 0 -> break
        :: else -> common--
        fi
    :: else -> break
    od;
    i = 0;
    set = 0;
    common = 0
}

inline on_append_reply(x)
{
    d_step {
        if
        :: msg_term[x] > my_term[P(x)] -> higher_term(P(x), msg_term[x])
        :: msg_term[x] == my_term[P(x)] && role[P(x)] == LEADS && peer[x] >= TOLD ->
            peer[x] = STREAMING;
            acked[x] = MAX(acked[x], msg_lsn[x]);
            advance_commit(P(x))
        :: else
        fi;
        clear(x)
    }
}

inline write(p)
{
    d_step {
        win_log[my_term[p]] = win_log[my_term[p]] | (my_term[p] << (2 * my_end[p]));
        my_end[p]++
    }
}

/* ---- acceptor ---- */

/* What it wrote for who leads no more is never answered. */
inline release_held(a)
{
    if
    :: msg[a] == HELD -> clear(a)
    :: else
    fi;
    if
    :: msg[3 + a] == HELD -> clear(3 + a)
    :: else
    fi
}

inline on_vote_request(x)
{
    d_step {
        msg[x] = DENIED;
        if
#ifdef VOTE_TWICE
        :: msg_term[x] >= term[A(x)] ->
#else
        :: msg_term[x] > term[A(x)] ->
#endif
            term[A(x)] = msg_term[x];
            release_held(A(x));
            leader[A(x)] = NOBODY;
            msg[x] = GRANTED
        :: else
        fi;
        msg_term[x] = term[A(x)];
        msg_lsn[x] = flushed[A(x)];
        clip(history[A(x)], msg_lsn[x], msg_history[x]);
        msg_log[x] = PREFIX(log[A(x)], msg_lsn[x])
    }
}

inline say_flushed(x)
{
    clear(x);
    msg[x] = APPENDED;
    msg_term[x] = term[A(x)];
    msg_lsn[x] = flushed[A(x)]
}

/* ELECTED from `from`: x's proposer; + 2: on a connection that is broken. */
inline take_elected(x, t, lsn, from, is_interrupted)
{
    clip(history[A(x)], flushed[A(x)], set);
    find_common(win_history[t], set, flushed[A(x)]);
#ifdef TRUST_STALE
    common = lsn;
#endif
    if
    :: common != lsn -> refused = true
    :: else ->
#ifndef NOT_CUT
        assert(lsn >= flushed[A(x)] || history[A(x)] != win_history[t]); /* it follows already */
        if
        :: lsn < written[A(x)] ->
            written[A(x)] = lsn;
            flushed[A(x)] = MIN(flushed[A(x)], lsn);
            log[A(x)] = PREFIX(log[A(x)], lsn)
        :: else
        fi;
#endif
        if
        :: !is_interrupted ->
            history[A(x)] = win_history[t];
            term[A(x)] = t;
            release_held(A(x));
            leader[A(x)] = from;
            if
            :: from < 2 -> say_flushed(x)
            :: else
            fi
        :: else
        fi
    fi;
    set = 0;
    common = 0
}

/* is_interrupted: a crash comes between the cut and the adoption of the history. */
inline on_elected(x, is_interrupted)
{
    d_step {
        if
        :: msg_term[x] < term[A(x)] -> say_flushed(x)
        :: else ->
            take_elected(x, msg_term[x], msg_lsn[x], P(x), is_interrupted);
            if
            :: refused -> close(x)
            :: else
            fi;
            refused = false
        fi;
        crashing = (is_interrupted -> A(x) : NOBODY)
    }
}

inline take_append(x, t, lsn, record, from)
{
    if
#ifdef OLDER_TERM
    :: lsn == written[A(x)] ->
#else
    :: leader[A(x)] == from && t == term[A(x)] && lsn == written[A(x)] ->
#endif
        log[A(x)] = PREFIX(log[A(x)], lsn) | (record << (2 * lsn));
        written[A(x)] = lsn + 1
    :: else -> refused = true
    fi
}

inline on_append(x)
{
    d_step {
        if
#ifdef OLDER_TERM
        :: false -> skip
#else
        :: msg_term[x] < term[A(x)] -> say_flushed(x)
#endif
        :: else ->
            take_append(x, msg_term[x], msg_lsn[x], msg_log[x], P(x));
            if
            :: refused -> close(x)
            :: else ->
                clear(x);
#ifdef ACK_UNSYNCED
                msg[x] = APPENDED;
                msg_term[x] = term[A(x)];
                msg_lsn[x] = written[A(x)];
#else
                msg[x] = HELD
#endif
            fi;
            refused = false
        fi
    }
}

inline sync(a)
{
    d_step {
        flushed[a] = written[a];
#ifndef NEVER_ANSWERED
        if
        :: msg[a] == HELD && leader[a] == 0 -> say_flushed(a)
        :: else
        fi;
        if
        :: msg[3 + a] == HELD && leader[a] == 1 -> say_flushed(3 + a)
        :: else
        fi;
#endif
        skip
    }
}

inline check_logs_match(a, b)
{
    clip(history[a], flushed[a], set);
    clip(history[b], flushed[b], best);
    last_term((set & best), j);
    part_end(set, j, flushed[a], common);
    part_end(best, j, flushed[b], other);
    common = MIN(common, other);
    assert(PREFIX(log[a], common) == PREFIX(log[b], common)); /* S6 */
    set = 0;
    best = 0;
    other = 0;
    common = 0;
    j = 0
}

/* ---- trouble ---- */

/* Of what was not synced nothing is left, or all; what its connections carried is gone. */
inline lose_power(a, keeps)
{
    crashes++;
    written[a] = (keeps -> written[a] : flushed[a]);
    flushed[a] = written[a];
    log[a] = PREFIX(log[a], written[a]);
    close(a);
    close(3 + a);
    leader[a] = NOBODY;
    if
    :: late != 0 && A(late_pair) == a -> clear_late()
    :: else
    fi;
    k = 0;
    do
    :: k < 3 -> check_logs_match(k, ((k + 1) % 3)); k++
    :: else -> break
    od;
    k = 0
}

inline reset(x, keeps)
{
    d_step {
        resets++;
        if
        :: keeps ->
            late = msg[x]; late_pair = x; late_term = msg_term[x];
            late_lsn = msg_lsn[x]; late_record = msg_log[x];
            if
            :: leader[A(x)] == P(x) -> leader[A(x)] = P(x) + 2
            :: else
            fi
        :: else
        fi;
        close(x)
    }
}

inline on_late()
{
    d_step {
        if
        :: late == ELECTED && late_term >= term[A(late_pair)] ->
            take_elected(late_pair, late_term, late_lsn, P(late_pair) + 2, false)
        :: late == APPEND && late_term >= term[A(late_pair)] ->
            take_append(late_pair, late_term, late_lsn, late_record, P(late_pair) + 2)
        :: else
        fi;
        refused = false;
        clear_late()
    }
}

#ifdef LIVE /* it has a reason: everybody has answered, and they were too few */
#define MAY_CAMPAIGN(p) (role[p] == OFF || (role[p] == CAMPAIGN && peer[0] != ASKED &&             \
                                            peer[1] != ASKED && peer[2] != ASKED))
#else
#define MAY_CAMPAIGN(p) true
#endif

/* One pair, acceptor or proposer for which it is true; none: it cannot be chosen. */
#define ANY_PAIR(is_true)                                                                          \
    if                                                                                             \
    :: is_true(0) -> it = 0                                                                        \
    :: is_true(1) -> it = 1                                                                        \
    :: is_true(2) -> it = 2                                                                        \
    :: is_true(3) -> it = 3                                                                        \
    :: is_true(4) -> it = 4                                                                        \
    :: is_true(5) -> it = 5                                                                        \
    fi
#define ANY_ACCEPTOR(is_true)                                                                      \
    if                                                                                             \
    :: is_true(0) -> it = 0                                                                        \
    :: is_true(1) -> it = 1                                                                        \
    :: is_true(2) -> it = 2                                                                        \
    fi
#ifdef LIVE
#define ANY_PROPOSER(is_true) if :: is_true(0) -> it = 0 fi
#else
#define ANY_PROPOSER(is_true) if :: is_true(0) -> it = 0 :: is_true(1) -> it = 1 fi
#endif

#define IS_VOTE_REQUEST(x) msg[x] == VOTE_REQUEST
#define IS_ELECTED(x)      msg[x] == ELECTED
#define IS_APPEND(x)       msg[x] == APPEND
#define IS_VOTE_REPLY(x)   (msg[x] == GRANTED || msg[x] == DENIED)
#define IS_APPEND_REPLY(x) msg[x] == APPENDED
#define MAY_BREAK(x)       (resets < RESETS && msg[x] != 0)
#define MAY_BE_LATE(x)     (resets < RESETS && late == 0 && (msg[x] == ELECTED || msg[x] == APPEND))
#define IS_DIRTY(a)        flushed[a] < written[a]
#define MAY_CRASH(a)       (crashes < CRASHES && term[a] > 0)
#define MAY_TEAR(a)        (crashes < CRASHES && flushed[a] < written[a])
#define MAY_START(p)       (NEXT_TERM(p) <= TERMS && MAY_CAMPAIGN(p))
#define MAY_WRITE(p)       (role[p] == LEADS && ready[p] && my_end[p] < RECORDS)

active proctype world()
{
end:
    do
    :: atomic {
        if
        :: ANY_PROPOSER(MAY_START) -> campaign(it)
        :: ANY_PROPOSER(MAY_WRITE) -> write(it)
        :: ANY_PAIR(IS_VOTE_REQUEST) -> on_vote_request(it)
        :: ANY_PAIR(IS_VOTE_REPLY) -> on_vote_reply(it)
        :: ANY_PAIR(IS_ELECTED) ->
            if
            :: is_cut_short = false
            :: crashes < CRASHES -> is_cut_short = true
            fi;
            on_elected(it, is_cut_short)
        :: ANY_PAIR(IS_APPEND) -> on_append(it)
        :: ANY_PAIR(IS_APPEND_REPLY) -> on_append_reply(it)
        :: ANY_ACCEPTOR(IS_DIRTY) -> sync(it)
        :: ANY_ACCEPTOR(MAY_CRASH) -> crashing = it
        :: ANY_ACCEPTOR(MAY_TEAR) -> crashing = it; keeps = true
        :: ANY_PAIR(MAY_BREAK) -> reset(it, false)
        :: ANY_PAIR(MAY_BE_LATE) -> reset(it, true)
        :: late != 0 -> on_late()
        fi;
        d_step {
            if
            :: crashing != NOBODY -> lose_power(crashing, keeps)
            :: else
            fi;
            crashing = NOBODY;
            keeps = false;
            is_cut_short = false;
            it = 0;
            pump();
            canonical()
        }
    }
#ifdef LIVE
    :: timeout -> assert(committed == RECORDS || my_term[0] == TERMS); break
#endif
    od
}
