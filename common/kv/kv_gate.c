/*
 * kv_gate.c - a store that a full disk has stopped goes on when there is room again.
 *
 * When RocksDB finds no room for a memtable's flush, its log or its manifest, it takes no writes
 * until it has found out by itself, at intervals of seconds, that there is room again, and has
 * written its manifest anew. Reads go on. But 7.8 does not forget that it has stopped: an ingest
 * takes the number 0 for its files then (an assertion in Debian's build). So the store is closed
 * and opened again once RocksDB says that it has recovered.
 *
 * Whoever writes mends. Readers are kept out for as long as closing and opening take; if those who
 * are inside take too long, the gate opens again and the next attempt has more patience. Somebody
 * inside who waits at the gate a second time is let in then, so nobody waits for himself.
 */
#include <sys/statvfs.h>

#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/metric.h"
#include "common/kv/kv_private.h"

METRIC_COUNTER(stops, "kv_disk_full_total", "times that a full disk stopped a store");
METRIC_COUNTER(mends, "kv_reopened_total", "stores opened again in place after a full disk");
METRIC_GAUGE(stopped, "kv_disk_full", "stores that wait for room on their disk");

#define ROOM_BYTES      (16 * MIB) /* opening writes a manifest, options and what its log holds */
#define RETRY_NS        (200 * NS_PER_MS)
#define PATIENCE_NS     (20 * NS_PER_MS)
#define PATIENCE_NS_MAX (2 * NS_PER_S)
#define GIVES_UP_NS     (60 * NS_PER_S) /* RocksDB looks for room each 5 seconds */

void kv_gate_init(struct kv *kv)
{
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&kv->lock, NULL);
    (void)pthread_cond_init(&kv->moved, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

static bool waits_for_room(enum kv_health health)
{
    return health == KV_FULL || health == KV_CLOSED;
}

void kv_gate_deinit(struct kv *kv)
{
    ASSERT(atomic_load(&kv->users) == 0);
    metric_add(&stopped, waits_for_room(atomic_load(&kv->health)) ? -1 : 0);
    (void)pthread_mutex_destroy(&kv->lock);
    (void)pthread_cond_destroy(&kv->moved);
}

/* -- entering and leaving -- */

void kv_leave(struct kv *kv)
{
    if (atomic_fetch_sub(&kv->users, 1) == 1 && atomic_load(&kv->is_shut)) {
        (void)pthread_mutex_lock(&kv->lock);
        (void)pthread_cond_broadcast(&kv->moved);
        (void)pthread_mutex_unlock(&kv->lock);
    }
}

/* First in, then look: whoever shuts the gate does it the other way round. */
static bool enters(struct kv *kv)
{
    atomic_fetch_add(&kv->users, 1);
    if (!atomic_load(&kv->is_shut)) {
        return true;
    }
    kv_leave(kv);
    return false;
}

/* Inside, and then not any more. */
static err_t leave_with_reason(struct kv *kv, struct errmsg *msg)
{
    (void)pthread_mutex_lock(&kv->lock);
    err_t err = atomic_load(&kv->health) == KV_FAILED ? ERR_FAILED : ERR_FULL;
    err = err_set(msg, err, "%s", kv->why.text);
    (void)pthread_mutex_unlock(&kv->lock);
    kv_leave(kv);
    return err;
}

static err_t enter(struct kv *kv, struct errmsg *msg)
{
    while (!enters(kv)) {
        (void)pthread_mutex_lock(&kv->lock);
        while (atomic_load(&kv->is_shut)) {
            (void)pthread_cond_wait(&kv->moved, &kv->lock);
        }
        (void)pthread_mutex_unlock(&kv->lock);
    }
    return atomic_load(&kv->db) == NULL ? leave_with_reason(kv, msg) : ERR_OK;
}

err_t kv_try_enter(struct kv *kv, struct errmsg *msg)
{
    if (!enters(kv)) {
        return err_set(msg, ERR_BUSY, "store %s is being opened again", kv->path);
    }
    if (atomic_load(&kv->db) == NULL) { /* a worker is to find out */
        kv_leave(kv);
        return err_set(msg, ERR_BUSY, "store %s is not open", kv->path);
    }
    return ERR_OK;
}

/* -- has it stopped -- */

/* Why RocksDB takes no writes now; NULL: it does. To be freed. */
static char *why_stopped(struct kv *kv)
{
    char *text = NULL;
    rocksdb_writebatch_t *nothing = rocksdb_writebatch_create();
    rocksdb_write(kv->db, kv->write_volatile, nothing, &text);
    rocksdb_writebatch_destroy(nothing);
    return text;
}

static uint64_t background_errors(const struct kv *kv)
{
    uint64_t errors = 0;
    return rocksdb_property_int(kv->db, "rocksdb.background-errors", &errors) == 0 ? errors : 0;
}

static void note_stop(struct kv *kv, err_t err, const struct errmsg *why, mono_ns_t pause)
{
    (void)pthread_mutex_lock(&kv->lock);
    if (atomic_load(&kv->health) == KV_RUNS) {
        kv->why = *why;
        kv->stopped_at = clock_mono();
        kv->mend_at = kv->stopped_at + pause;
        kv->attempts = 0;
        atomic_store(&kv->health, err == ERR_FULL ? KV_FULL : KV_FAILED);
        metric_add(&stops, err == ERR_FULL ? 1 : 0);
        metric_add(&stopped, err == ERR_FULL ? 1 : 0);
        log_warn(NULL, "%s; it %s", why->text, err == ERR_FULL ? "waits for room" : "stays so");
    }
    (void)pthread_mutex_unlock(&kv->lock);
}

/*
 * In the background RocksDB may have stopped and recovered before anybody looked: whatever went
 * wrong there is reason enough to open it again. Without room a compaction fails as well, which
 * stops nothing, and no harm is done by waiting for room.
 */
void kv_look_whether_stopped(struct kv *kv, bool in_background)
{
    if (atomic_load(&kv->health) != KV_RUNS || (in_background && background_errors(kv) == 0)) {
        return;
    }
    struct errmsg why;
    char *text = why_stopped(kv);
    if (text != NULL) {
        err_t err = kv_take_error(kv, text, &why);
        note_stop(kv, err, &why, RETRY_NS);
    } else if (in_background) {
        err_t err = err_set(&why, ERR_FULL, "store %s: a background write failed", kv->path);
        note_stop(kv, err, &why, 0); /* and RocksDB has recovered since */
    }
}

/* -- mending -- */

bool kv_has_room(const char *path)
{
    struct statvfs disk;
    return statvfs(path, &disk) != 0 || (uint64_t)disk.f_bavail * disk.f_frsize >= ROOM_BYTES;
}

/*
 * RocksDB has recovered by itself, and written a manifest without what it had not told anybody. If
 * it seems to have forgotten about that, opening again is the better chance.
 */
static bool is_worth_it(struct kv *kv)
{
    if (!kv_has_room(kv->path)) {
        return false;
    }
    struct errmsg why;
    if (enter(kv, &why) != ERR_OK) {
        return true; /* it was worth it before */
    }
    char *text = why_stopped(kv);
    kv_leave(kv);
    bool has_recovered = text == NULL;
    rocksdb_free(text);
    return has_recovered || clock_mono() - kv->stopped_at > GIVES_UP_NS;
}

/* True: nobody is inside, and nobody comes in. */
static bool shut_gate(struct kv *kv, mono_ns_t patience)
{
    mono_ns_t until = clock_mono() + patience;
    struct timespec deadline = {
        .tv_sec = (time_t)(until / NS_PER_S), .tv_nsec = (long)(until % NS_PER_S)};
    (void)pthread_mutex_lock(&kv->lock);
    atomic_store(&kv->is_shut, true);
    int waited = 0;
    while (atomic_load(&kv->users) > 0 && waited == 0) {
        waited = pthread_cond_timedwait(&kv->moved, &kv->lock, &deadline);
    }
    bool is_empty = atomic_load(&kv->users) == 0;
    (void)pthread_mutex_unlock(&kv->lock);
    return is_empty;
}

static void open_gate(struct kv *kv)
{
    (void)pthread_mutex_lock(&kv->lock);
    atomic_store(&kv->is_shut, false);
    (void)pthread_cond_broadcast(&kv->moved);
    (void)pthread_mutex_unlock(&kv->lock);
}

/* The gate is shut. Compactions that end now find `db` as it was. */
static void reopen(struct kv *kv)
{
    struct errmsg why;
    char *text = NULL;
    if (kv->db != NULL) {
        rocksdb_close(kv->db);
        kv->db = NULL;
    }
    rocksdb_t *db = rocksdb_open(kv->options, kv->path, &text);
    err_t err = kv_take_error(kv, text, &why);
    if (err == ERR_OK && atomic_load(&kv->is_ending)) {
        rocksdb_disable_manual_compaction(db);
    }
    kv->db = db;
    (void)pthread_mutex_lock(&kv->lock);
    metric_add(&stopped, err == ERR_FULL ? 0 : -1);
    if (err != ERR_OK) {
        kv->why = why;
    }
    atomic_store(&kv->health, err == ERR_OK ? KV_RUNS : err == ERR_FULL ? KV_CLOSED : KV_FAILED);
    (void)pthread_mutex_unlock(&kv->lock);
    if (err == ERR_OK) {
        metric_add(&mends, 1);
        log_info(NULL, "store %s: there is room again, it goes on", kv->path);
    } else {
        log_warn(NULL, "%s; it was to be opened again", why.text);
    }
}

/* One at a time, and not all the time. */
static bool begin_mending(struct kv *kv)
{
    (void)pthread_mutex_lock(&kv->lock);
    bool begins = waits_for_room(atomic_load(&kv->health)) && !kv->is_mending &&
                  clock_mono() >= kv->mend_at && !atomic_load(&kv->is_ending);
    kv->is_mending |= begins;
    (void)pthread_mutex_unlock(&kv->lock);
    return begins;
}

/* False: somebody stayed inside for too long. Whoever comes is kept waiting meanwhile. */
static bool try_to_reopen(struct kv *kv, mono_ns_t patience)
{
    if (kv->db != NULL) {
        rocksdb_disable_manual_compaction(kv->db); /* one that is at work is inside */
    }
    bool is_shut = shut_gate(kv, patience);
    if (is_shut) {
        reopen(kv);
    }
    open_gate(kv);
    return is_shut;
}

static void mend(struct kv *kv)
{
    if (!begin_mending(kv)) {
        return;
    }
    mono_ns_t patience = PATIENCE_NS << MIN_OF(kv->attempts, 8u);
    patience = MIN_OF(patience, (mono_ns_t)PATIENCE_NS_MAX);
    bool is_tried = is_worth_it(kv);
    bool is_in_vain = is_tried && !try_to_reopen(kv, patience);
    (void)pthread_mutex_lock(&kv->lock);
    kv->attempts += is_tried ? 1 : 0;
    kv->is_mending = false;
    kv->mend_at =
        clock_mono() + (is_in_vain ? MAX_OF((mono_ns_t)RETRY_NS, 4 * patience) : RETRY_NS);
    (void)pthread_mutex_unlock(&kv->lock);
}

err_t kv_enter(struct kv *kv, struct errmsg *msg)
{
    if (atomic_load(&kv->health) == KV_CLOSED) {
        mend(kv);
    }
    return enter(kv, msg);
}

err_t kv_enter_to_write(struct kv *kv, struct errmsg *msg)
{
    if (waits_for_room(atomic_load(&kv->health))) {
        mend(kv);
    }
    TRY(enter(kv, msg));
    return atomic_load(&kv->health) == KV_RUNS ? ERR_OK : leave_with_reason(kv, msg);
}

bool kv_waits_for_room(const struct kv *kv)
{
    return waits_for_room(atomic_load(&kv->health));
}
