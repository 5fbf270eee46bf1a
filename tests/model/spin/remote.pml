/*
 * remote.pml - one tenant's mirror in the object store, its owners, and the WAL that safekeepers
 * forget: who may delete, and when.
 *
 * Modelled: control issues generations, pageservers are replaced while they sleep (a zombie goes on
 * for ever), restore on an empty disk, ingest, compaction, upload rounds, confirmation by control
 * as a question whose answer may be old when it is used, deletion object by object, safekeepers
 * that drop WAL below what is confirmed. Names are (generation, number), indexes (generation,
 * sequence). Rounds may end anywhere before their index (a crash, an error of the store).
 * Not modelled: the content of files beyond "which WAL positions", listing that lags, scrubbing,
 * damaged indexes, several timelines, an owner that comes back with its old disk.
 *
 *   step here     code
 *   attach        control/api (a generation is in the catalog before anybody hears of it)
 *   restore       pageserver/remote/downloader.c
 *   load, busy    uploader.c: load(), what another owner has put is never taken back
 *   put, index    uploader.c: upload_checkpoint(), shift()
 *   ask, doomed   mirror.c: ask_control(), run_delete; control/api/generations.c
 *   forget        safekeepers' retention by remote_lsn (not built yet; mirror.c says remote_lsn)
 *
 * Checked: P8 no object and no index is written twice, a deposed owner takes nothing away that the
 * intended one needs; P9 newest index + WAL from its position on are everything; P10 what an owner
 * was pointed to is there when it downloads.
 */
#ifndef LSNS
#define LSNS 2 /* WAL positions 1..LSNS */
#endif
#ifndef GENS
#define GENS 2 /* generations that control issues */
#endif
#ifndef SEQS
#define SEQS 3 /* indexes of one generation */
#endif
#define NODES      2
#define NAMES      (GENS * SEQS)
#define INDEXES    (GENS * SEQS)
#define NONE       255
#define BIT(n)     (1 << (n))
#define ALL(lsn)   ((1 << (lsn)) - 1) /* the content of WAL 1..lsn */

byte generation = 0; /* the catalog of control: the newest that was issued, and to whom */
byte owner = NONE;

byte wal_end = 0;   /* committed */
byte wal_begin = 0; /* safekeepers have (wal_begin, wal_end] */

int there = 0;        /* objects: bits of names */
byte content[NAMES];  /* WAL positions in each, once written */
bit index_there[INDEXES];
int index_files[INDEXES];
byte index_lsn[INDEXES];

/* The highest (generation, sequence) whose generation is at most `limit`; NONE. */
inline find_newest(limit, found)
{
    found = NONE;
    scan = 0;
    do
    :: scan < INDEXES && scan < (limit) * SEQS ->
        if
        :: index_there[scan] -> found = scan
        :: else
        fi;
        scan++
    :: else -> break
    od;
    scan = 0
}

/* Whoever is attached next must find all of it: an index, its files, and the WAL behind it. */
inline check_sufficient()
{
    find_newest(generation, newest);
    if
    :: newest == NONE -> assert(wal_begin == 0)
    :: else ->
        assert((index_files[newest] & ~there) == 0); /* P10 */
        assert(wal_begin <= index_lsn[newest])       /* P9 */
    fi;
    newest = NONE
}

inline attach()
{
    d_step {
#ifdef REISSUE
        generation = (generation == 0 -> 1 : generation); /* control forgot what it had issued */
#else
        generation++;
#endif
        owner = _pid - 1;
        mine = generation;
        sequence = 0; number = 0; doomed = 0;
        loaded = false; last = NONE; previous = NONE;
        up = 0; rest = 0; lsn = 0;
        find_newest(mine, source);
        put_files = (source == NONE -> 0 : index_files[source])
    }
    d_step { /* all of it is downloaded; meanwhile others went on */
        assert(mine != generation || (put_files & ~there) == 0); /* P10 */
        if
        :: source != NONE && (put_files & ~there) == 0 ->
            up = put_files;
            lsn = index_lsn[source]
        :: else
        fi;
        source = NONE; put_files = 0
    }
}

/* The indexes, once after each attach; then a checkpoint of the store. */
inline load()
{
    d_step {
        find_newest(GENS, newest);
        if
        :: !loaded && newest != NONE && newest / SEQS + 1 > mine ->
            mine = 0 /* replaced: no round until a newer generation is attached */
        :: !loaded && (newest == NONE || newest / SEQS + 1 <= mine) ->
            loaded = true;
            last = newest;
            if
            :: newest != NONE && newest % SEQS > 0 -> previous = newest - 1
            :: else
            fi
        :: else
        fi;
        newest = NONE;
        scan = 0;
        do
        :: scan < NAMES -> /* what the newest index does not name counts as not uploaded */
            if
            :: (up & BIT(scan)) && (last == NONE || !(index_files[last] & BIT(scan))) ->
                up = up & ~BIT(scan);
                rest = rest | content[scan]
            :: else
            fi;
            scan++
        :: else -> break
        od;
        scan = 0;
        put_rest = rest; put_lsn = lsn;
        put_name = (mine - (mine > 0)) * SEQS + number;
        put_files = up | (put_rest > 0 -> BIT(put_name) : 0)
    }
}

inline put_data()
{
    if
    :: put_rest != 0 -> d_step {
            assert(!(there & BIT(put_name))); /* P8 */
            there = there | BIT(put_name);
            content[put_name] = put_rest;
            up = up | BIT(put_name);
            rest = rest & ~put_rest;
            number++
        }
    :: else
    fi
}

inline put_index()
{
    d_step {
        scan = (mine - 1) * SEQS + sequence;
        assert(!index_there[scan]); /* P8 */
        index_there[scan] = true;
        index_files[scan] = put_files;
        index_lsn[scan] = put_lsn;
        sequence++;
        if
        :: previous != NONE ->
            doomed = doomed | (index_files[previous] & ~(put_files | index_files[last]))
        :: else
        fi;
        previous = last;
        last = scan;
        check_sufficient()
    }
}

/* The answer may be old when it is used. */
inline ask()
{
#ifdef DELETE_UNCONFIRMED
    confirmed = true
#else
    confirmed = (mine == generation && owner == _pid - 1)
#endif
}

inline forget_wal()
{
    d_step {
        wal_begin = (put_lsn > wal_begin -> put_lsn : wal_begin);
        check_sufficient()
    }
}

inline delete_doomed()
{
    do
    :: doomed != 0 ->
        d_step {
            scan = 0;
            do
            :: !(doomed & BIT(scan)) -> scan++
            :: else -> break
            od;
            there = there & ~BIT(scan);
            doomed = doomed & ~BIT(scan);
            check_sufficient()
        }
    :: break /* the rest later, or never */
    od
}

active proctype writer()
{
    do
    :: wal_end < LSNS -> wal_end++
    :: else -> break
    od
}

active [NODES] proctype pageserver()
{
    byte mine = 0;         /* my generation; 0: not attached */
    byte sequence, number; /* how many indexes and objects of it I have put */
    byte lsn = 0;          /* durable on my disk: 1..lsn */
    int up = 0;            /* names of my files that are in the store */
    byte rest = 0;         /* content of my files that are not */
    byte last = NONE, previous = NONE; /* the two newest indexes, as I know them */
    bool loaded = false, confirmed = false;
    int doomed = 0;
    byte source = NONE, put_name, put_rest, put_lsn;
    int put_files = 0;
    byte scan = 0, newest = NONE;

end:
    do
    :: generation < GENS && owner != _pid - 1 -> attach()

    :: mine > 0 && lsn < wal_end -> /* ingest */
        d_step {
            assert(mine != generation || wal_begin <= lsn); /* P9 */
            if
            :: wal_begin <= lsn -> lsn++; rest = rest | BIT(lsn - 1)
            :: else /* too late for one that was replaced */
            fi
        }

    :: mine > 0 && up != 0 -> /* compaction: new files hold everything */
        d_step { up = 0; rest = ALL(lsn) }

    :: mine > 0 && lsn > 0 && sequence < SEQS && number < SEQS ->
        load();
        if
        :: mine > 0 && (last == NONE || index_lsn[last] <= put_lsn) ->
#ifdef INDEX_FIRST
            put_index(); put_data();
#else
            put_data();
#endif
            if
            :: true ->
#ifdef CONFIRM_EARLY
                ask();
#endif
#ifndef INDEX_FIRST
                put_index();
#endif
#ifdef FORGET_UNCONFIRMED
                forget_wal();
#endif
#ifndef CONFIRM_EARLY
                ask();
#endif
                if
                :: confirmed -> forget_wal(); delete_doomed()
                :: else
                fi
            :: true /* a crash, or an error of the store */
            fi
        :: else /* replaced, or ingest has to catch up first */
        fi;
        confirmed = false; put_files = 0; put_rest = 0; put_lsn = 0; put_name = 0
    od
}
