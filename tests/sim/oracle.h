/*
 * oracle.h - what must be true of the whole cluster, byte by byte, whatever happened.
 *
 * It knows every byte that a proposer ever called committed. A violation is remembered with its
 * reason and ends the schedule.
 */
#pragma once

#include "safekeeper/consensus/proposer.h"
#include "tests/sim/climate.h"
#include "tests/sim/disk.h"

#define WINNERS_MAX   256
#define COMMITS_MAX   1024
#define VIOLATION_MAX 200

struct oracle {
    char violation[VIOLATION_MAX]; /* empty: none so far */
    uint8_t wal[WAL_SIZE];
    lsn_t commit_lsn;
    generation_t newest; /* of the memberships that were written down */
    bool newcomer_lost;  /* a new member lost its disk */
    uint16_t link;       /* of the last committed record */
    uint32_t winners_count;
    struct {
        term_t term;
        node_id_t proposer_id;
        lsn_t start_lsn;
        lsn_t begin_lsn;       /* below is nothing of its log any more */
        lsn_t end_lsn;         /* of its log */
        uint8_t wal[WAL_SIZE]; /* its log: the donor's, then its own */
    } winners[WINNERS_MAX];
    uint32_t commits_count;
    struct {
        term_t term;
        lsn_t lsn;
    } commits[COMMITS_MAX];
};

void oracle_init(struct oracle *oracle);
void oracle_fail(struct oracle *oracle, const char *format, ...) PRINTF_LIKE(2, 3);

/* A proposer was elected: alone in its term, with everything that older terms committed. */
void oracle_on_won(
    struct oracle *oracle,
    const struct proposer *proposer,
    const uint8_t *donor_wal,
    lsn_t donor_begin_lsn);

/* Its Postgres wrote more. */
void oracle_on_written(struct oracle *oracle, term_t term, const uint8_t *wal, lsn_t end_lsn);

/* A safekeeper says that it has the log of this term's winner up to lsn; checked before: begin_lsn.
 */
void oracle_on_acknowledged(
    struct oracle *oracle, const struct disk *disk, term_t term, lsn_t begin_lsn, lsn_t lsn);

/*
 * A proposer says that WAL from begin_lsn to lsn is committed: it is on the platters of a quorum of
 * its membership.
 */
void oracle_on_committed(
    struct oracle *oracle,
    term_t term,
    lsn_t begin_lsn,
    lsn_t lsn,
    const struct membership *membership,
    const struct disk *const disks[NODES_MAX]);

/* A change of the membership ends: whatever is committed is on a quorum of the new one. */
void oracle_on_finished(
    struct oracle *oracle,
    const struct membership *membership,
    const struct disk *const disks[NODES_MAX]);

/* A safekeeper releases WAL to pageservers: the very bytes that were committed. */
void oracle_on_released(
    struct oracle *oracle, const struct disk *disk, lsn_t begin_lsn, lsn_t commit_lsn);

/* A start finds what is known to be committed here, as far as it is kept. */
void oracle_on_started(struct oracle *oracle, const struct disk *disk, lsn_t commit_lsn);

/* Two logs agree as far as their histories say that they do. */
void oracle_check_logs_match(
    struct oracle *oracle,
    const struct acceptor *a,
    const struct disk *a_disk,
    const struct acceptor *b,
    const struct disk *b_disk);
