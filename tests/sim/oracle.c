#include "tests/sim/oracle.h"

#include <stdarg.h>
#include <stdio.h>

#include "safekeeper/consensus/term_history.h"

void oracle_init(struct oracle *oracle)
{
    oracle->violation[0] = '\0';
    oracle->commit_lsn = WAL_START;
    oracle->winners_count = oracle->commits_count = 0;
    oracle->link = 0;
    oracle->newest = 0;
    oracle->newcomer_lost = false;
}

void oracle_fail(struct oracle *oracle, const char *format, ...)
{
    if (oracle->violation[0] != '\0') {
        return; /* the first one counts */
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(oracle->violation, sizeof(oracle->violation), format, args);
    va_end(args);
}

static bool same_bytes(const uint8_t *a, const uint8_t *b, lsn_t begin_lsn, lsn_t end_lsn)
{
    size_t offset = begin_lsn - WAL_START;
    return begin_lsn >= end_lsn || memcmp(a + offset, b + offset, end_lsn - begin_lsn) == 0;
}

void oracle_on_won(
    struct oracle *oracle,
    const struct proposer *proposer,
    const uint8_t *donor_wal,
    lsn_t donor_begin_lsn)
{
    term_t term = proposer->term;
    lsn_t start_lsn = proposer->term_start_lsn;
    for (uint32_t i = 0; i < oracle->winners_count; i++) {
        if (oracle->winners[i].term == term) {
            oracle_fail(
                oracle, "election safety: term %" PRIu64 " was won by %" PRIu64 " and %" PRIu64,
                term, oracle->winners[i].proposer_id, proposer->options.proposer_id);
        }
    }
    lsn_t committed_lsn = WAL_START;
    for (uint32_t i = 0; i < oracle->commits_count; i++) {
        if (oracle->commits[i].term < term) {
            committed_lsn = MAX_OF(committed_lsn, oracle->commits[i].lsn);
        }
    }
    if (start_lsn < committed_lsn) {
        oracle_fail(
            oracle,
            "leader completeness: term %" PRIu64 " starts at +%" PRIu64
            ", committed before: +%" PRIu64,
            term, start_lsn - WAL_START, committed_lsn - WAL_START);
    } else if (!same_bytes(donor_wal, oracle->wal, donor_begin_lsn, committed_lsn)) {
        oracle_fail(
            oracle, "leader completeness: the donor of term %" PRIu64 " has other bytes", term);
    }
    if (oracle->winners_count == WINNERS_MAX) {
        return;
    }
    uint32_t index = oracle->winners_count++;
    oracle->winners[index].term = term;
    oracle->winners[index].proposer_id = proposer->options.proposer_id;
    oracle->winners[index].start_lsn = oracle->winners[index].end_lsn = start_lsn;
    oracle->winners[index].begin_lsn = donor_begin_lsn;
    memcpy(oracle->winners[index].wal, donor_wal, start_lsn - WAL_START);
}

static uint32_t find_winner(const struct oracle *oracle, term_t term)
{
    uint32_t i = oracle->winners_count;
    while (i > 0 && oracle->winners[i - 1].term != term) {
        i--;
    }
    return i == 0 ? WINNERS_MAX : i - 1;
}

void oracle_on_written(struct oracle *oracle, term_t term, const uint8_t *wal, lsn_t end_lsn)
{
    uint32_t i = find_winner(oracle, term);
    if (i < WINNERS_MAX) {
        size_t offset = oracle->winners[i].end_lsn - WAL_START;
        size_t size = end_lsn - oracle->winners[i].end_lsn;
        memcpy(oracle->winners[i].wal + offset, wal + offset, size);
        oracle->winners[i].end_lsn = end_lsn;
    }
}

void oracle_on_acknowledged(
    struct oracle *oracle, const struct disk *disk, term_t term, lsn_t begin_lsn, lsn_t lsn)
{
    uint32_t i = find_winner(oracle, term);
    begin_lsn = MAX_OF(begin_lsn, disk->begin_lsn);
    if (i < WINNERS_MAX) {
        begin_lsn = MAX_OF(begin_lsn, oracle->winners[i].begin_lsn);
    }
    if (i < WINNERS_MAX && (lsn > oracle->winners[i].end_lsn ||
                            !same_bytes(disk->cache, oracle->winners[i].wal, begin_lsn, lsn))) {
        oracle_fail(
            oracle,
            "log matching: a safekeeper acknowledges +%" PRIu64 " of term %" PRIu64
            " and has other bytes",
            lsn - WAL_START, term);
    }
}

static bool holds(
    const struct disk *disk, bool with_grave, const uint8_t *wal, lsn_t begin_lsn, lsn_t lsn)
{
    /* What it has forgotten was consumed: see consumer.h. */
    lsn_t from_lsn = MAX_OF(begin_lsn, disk->begin_lsn);
    const struct acceptor_state *state = disk_durable_state(disk);
    if (state != NULL && state->is_begun_anew) {
        from_lsn = MAX_OF(from_lsn, state->begin_lsn);
    }
    bool has = disk_durable_lsn(disk) >= lsn && same_bytes(disk->platter, wal, from_lsn, lsn);
    /* What was acknowledged before it was damaged counts: its loss is said, not hidden. */
    bool had = disk->intact_lsn >= lsn && same_bytes(disk->intact, wal, from_lsn, lsn);
    return has || had ||
           (with_grave && disk->grave_lsn >= lsn &&
            same_bytes(disk->grave, wal, MAX_OF(begin_lsn, disk->grave_begin_lsn), lsn));
}

/* Does a majority of `set` hold the bytes of `wal` in [begin_lsn, lsn) for certain? */
static bool majority_holds(
    const struct membership *membership,
    bool with_graves,
    uint32_t set,
    const struct disk *const disks[NODES_MAX],
    const uint8_t *wal,
    lsn_t begin_lsn,
    lsn_t lsn)
{
    uint32_t holders = 0, members = 0;
    for (uint32_t i = 0; i < membership->count; i++) {
        const struct disk *disk = disks[membership->members[i] - 1];
        bool counts = (set >> i & 1) != 0;
        members += counts;
        holders += counts && holds(disk, with_graves, wal, begin_lsn, lsn);
    }
    return 2 * holders > members;
}

/* Counted here, not by the code that is under test. */
static bool quorum_holds(
    const struct membership *membership,
    bool with_graves,
    const struct disk *const disks[NODES_MAX],
    const uint8_t *wal,
    lsn_t begin_lsn,
    lsn_t lsn)
{
    if (membership->new_set == 0) {
        return majority_holds(membership, with_graves, UINT32_MAX, disks, wal, begin_lsn, lsn);
    }
    return majority_holds(
               membership, with_graves, membership->old_set, disks, wal, begin_lsn, lsn) &&
           majority_holds(membership, with_graves, membership->new_set, disks, wal, begin_lsn, lsn);
}

void oracle_on_finished(
    struct oracle *oracle,
    const struct membership *membership,
    const struct disk *const disks[NODES_MAX])
{
    if (!quorum_holds(
            membership, oracle->newcomer_lost, disks, oracle->wal, WAL_START, oracle->commit_lsn)) {
        oracle_fail(
            oracle,
            "durability: generation %u begins without a quorum that has +%" PRIu64
            ", which is committed",
            membership->generation, oracle->commit_lsn - WAL_START);
    }
}

/* What is committed is a chain of whole records, as one Postgres after the other wrote them. */
static void check_chain(struct oracle *oracle, lsn_t begin_lsn, lsn_t end_lsn)
{
    lsn_t lsn = begin_lsn;
    for (size_t size; (size = record_size_at(oracle->wal, lsn, end_lsn)) > 0; lsn += size) {
        const uint8_t *record = oracle->wal + (lsn - WAL_START);
        if (!record_is_intact(record, size) || record_link(record) != oracle->link) {
            oracle_fail(
                oracle, "the committed record at +%" PRIu64 " is not what anybody wrote",
                lsn - WAL_START);
        }
        oracle->link = (uint16_t)record_crc(record);
    }
    if (lsn != end_lsn) {
        oracle_fail(
            oracle, "committed WAL ends inside a record, at +%" PRIu64, end_lsn - WAL_START);
    }
}

/*
 * The bytes that `term` commits, if a quorum holds them: those that its leader has. Of a leader
 * that is not kept any more, those of any member; not so of others, since a platter's rest of a
 * lost log and what was lost with a damaged disk can be alike.
 */
static const uint8_t *find_agreed(
    const struct oracle *oracle,
    term_t term,
    bool with_graves,
    lsn_t begin_lsn,
    lsn_t lsn,
    const struct membership *membership,
    const struct disk *const disks[NODES_MAX])
{
    uint32_t winner = find_winner(oracle, term);
    if (winner < WINNERS_MAX) {
        const uint8_t *wal = oracle->winners[winner].wal;
        begin_lsn = MAX_OF(begin_lsn, oracle->winners[winner].begin_lsn);
        return oracle->winners[winner].end_lsn >= lsn &&
                       quorum_holds(membership, with_graves, disks, wal, begin_lsn, lsn)
                   ? wal
                   : NULL;
    }
    for (uint32_t i = 0; i < membership->count; i++) {
        const struct disk *disk = disks[membership->members[i] - 1];
        const uint8_t *platter = disk->platter;
        lsn_t from_lsn = MAX_OF(begin_lsn, disk->begin_lsn);
        if (quorum_holds(membership, with_graves, disks, platter, from_lsn, lsn)) {
            return platter;
        }
    }
    return NULL;
}

/* Where the log that find_agreed() answered begins. */
static lsn_t begin_of(
    const struct oracle *oracle, const uint8_t *wal, const struct disk *const disks[NODES_MAX])
{
    for (uint32_t i = 0; i < NODES_MAX; i++) {
        if (wal == disks[i]->platter) {
            return disks[i]->begin_lsn;
        }
    }
    for (uint32_t i = 0; i < oracle->winners_count; i++) {
        if (wal == oracle->winners[i].wal) {
            return oracle->winners[i].begin_lsn;
        }
    }
    return WAL_START;
}

void oracle_on_committed(
    struct oracle *oracle,
    term_t term,
    lsn_t begin_lsn,
    lsn_t lsn,
    const struct membership *membership,
    const struct disk *const disks[NODES_MAX])
{
    /*
     * Whose membership is over may count an acknowledgement that was sent before a deletion. And a
     * newcomer that lost its disk is one lost disk: the others suffice, which is shown when they
     * must.
     */
    bool is_late = membership->generation < oracle->newest || oracle->newcomer_lost;
    const uint8_t *agreed = find_agreed(oracle, term, is_late, begin_lsn, lsn, membership, disks);
    if (agreed == NULL) {
        oracle_fail(
            oracle,
            "durability: term %" PRIu64 " committed +%" PRIu64
            ", which no quorum has on its platters",
            term, lsn - WAL_START);
        return;
    }
    lsn_t agreed_begin_lsn = begin_of(oracle, agreed, disks);
    if (!same_bytes(
            agreed, oracle->wal, MAX_OF(begin_lsn, agreed_begin_lsn),
            MIN_OF(lsn, oracle->commit_lsn))) {
        oracle_fail(
            oracle, "agreement: term %" PRIu64 " committed other bytes before +%" PRIu64, term,
            lsn - WAL_START);
    }
    for (uint32_t i = 0; i < oracle->winners_count; i++) {
        if (oracle->winners[i].term > term && oracle->winners[i].start_lsn < lsn) {
            oracle_fail(
                oracle,
                "leader completeness: term %" PRIu64 " committed +%" PRIu64 ", which term %" PRIu64
                " does not have",
                term, lsn - WAL_START, oracle->winners[i].term);
        }
    }
    if (lsn > oracle->commit_lsn) {
        size_t offset = oracle->commit_lsn - WAL_START;
        memcpy(oracle->wal + offset, agreed + offset, lsn - oracle->commit_lsn);
        check_chain(oracle, oracle->commit_lsn, lsn);
        oracle->commit_lsn = lsn;
    }
    uint32_t last = oracle->commits_count - 1;
    if (oracle->commits_count > 0 && oracle->commits[last].term == term) {
        oracle->commits[last].lsn = MAX_OF(oracle->commits[last].lsn, lsn);
    } else if (oracle->commits_count < COMMITS_MAX) {
        oracle->commits[oracle->commits_count].term = term;
        oracle->commits[oracle->commits_count++].lsn = lsn;
    }
}

void oracle_on_released(
    struct oracle *oracle, const struct disk *disk, lsn_t begin_lsn, lsn_t commit_lsn)
{
    if (commit_lsn > oracle->commit_lsn) {
        oracle_fail(
            oracle, "a safekeeper released +%" PRIu64 ", committed is +%" PRIu64,
            commit_lsn - WAL_START, oracle->commit_lsn - WAL_START);
    } else if (commit_lsn > disk_durable_lsn(disk)) {
        oracle_fail(
            oracle, "a safekeeper released +%" PRIu64 ", on its platter is +%" PRIu64,
            commit_lsn - WAL_START, disk->durable_lsn - WAL_START);
    } else if (!same_bytes(
                   disk->cache, oracle->wal, MAX_OF(begin_lsn, disk->begin_lsn), commit_lsn)) {
        oracle_fail(
            oracle, "a safekeeper released other bytes before +%" PRIu64, commit_lsn - WAL_START);
    }
}

void oracle_on_started(struct oracle *oracle, const struct disk *disk, lsn_t commit_lsn)
{
    if (commit_lsn > oracle->commit_lsn ||
        !same_bytes(disk->platter, oracle->wal, disk->begin_lsn, commit_lsn)) {
        oracle_fail(
            oracle, "a safekeeper starts with other bytes than were committed before +%" PRIu64,
            commit_lsn - WAL_START);
    }
}

void oracle_check_logs_match(
    struct oracle *oracle,
    const struct acceptor *a,
    const struct disk *a_disk,
    const struct acceptor *b,
    const struct disk *b_disk)
{
    /* Each log is a prefix of what its history tells of, also where that goes on. */
    struct term_history b_history = b->state.history;
    term_history_clip(&b_history, b->record_lsn);
    lsn_t common_lsn = term_history_common_lsn(
        &a->state.history, &b_history, term_history_last_term(&b->state.history), b->record_lsn,
        WAL_START);
    common_lsn = MIN_OF(common_lsn, a->record_lsn);
    lsn_t begin_lsn = MAX_OF(a_disk->begin_lsn, b_disk->begin_lsn);
    begin_lsn = MAX_OF(begin_lsn, MAX_OF(a->state.begin_lsn, b->state.begin_lsn));
    if (!same_bytes(a_disk->platter, b_disk->platter, begin_lsn, common_lsn)) {
        oracle_fail(
            oracle, "log matching: two logs differ below +%" PRIu64, common_lsn - WAL_START);
    }
}
