/*
 * status.c - what an operator sees of a walproposer.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "compute/walproposer/walproposer_private.h"

static struct doc *safekeeper_status(const struct safekeeper_link *safekeeper)
{
    const struct proposer_peer *peer = &safekeeper->walproposer->core.peers[safekeeper->index];
    struct doc *doc = doc_object();
    (void)doc_set_int(doc, "id", (int64_t)safekeeper->id);
    (void)doc_set_str(doc, "host", safekeeper->host);
    (void)doc_set_int(doc, "port", safekeeper->port);
    (void)doc_set_str(doc, "state", proposer_peer_phase_name(peer->phase));
    (void)doc_set_lsn(doc, "sent_lsn", peer->phase == PEER_STREAMING ? peer->sent_lsn : LSN_NONE);
    (void)doc_set_lsn(doc, "flush_lsn", peer->flush_lsn);
    (void)doc_set_lsn(doc, "record_lsn", peer->record_lsn);
    (void)doc_set_lsn(doc, "commit_lsn", peer->commit_lsn);
    (void)doc_set_bool(doc, "repairing", peer->read_id != 0);
    (void)doc_set_int(doc, "connections", (int64_t)safekeeper->hellos);
    (void)doc_set_str(doc, "error", safekeeper->last_error.text);
    return doc;
}

static struct doc *source_status(const struct wal_source *source)
{
    struct doc *doc = doc_object();
    (void)doc_set_str(doc, "state", wal_source_state_name(source->state));
    (void)doc_set_lsn(doc, "reported_lsn", source->reply_lsn);
    (void)doc_set_lsn(doc, "server_lsn", source->server_lsn);
    (void)doc_set_int(doc, "connections", (int64_t)source->connections);
    (void)doc_set_str(doc, "error", source->last_error.text);
    return doc;
}

struct doc *walproposer_status(const struct walproposer *walproposer)
{
    const struct proposer *core = &walproposer->core;
    struct doc *doc = doc_object();
    struct doc *safekeepers = doc_array();
    char id[32];
    (void)snprintf(id, sizeof(id), "%016" PRIx64, walproposer->proposer_id);
    (void)doc_set_str(doc, "proposer_id", id);
    (void)doc_set_tenant(doc, "tenant", walproposer->options.tenant);
    (void)doc_set_timeline(doc, "timeline", walproposer->options.timeline);
    (void)doc_set_str(doc, "mode", walproposer->options.sync ? "sync" : "stream");
    (void)doc_set_str(doc, "state", proposer_phase_name(core->phase));
    (void)doc_set_bool(doc, "ready", core->ready);
    (void)doc_set_int(doc, "generation", core->options.membership.generation);
    (void)doc_set_bool(doc, "joint", membership_is_joint(&core->options.membership));
    (void)doc_set_int(doc, "memberships_learned", (int64_t)walproposer->memberships);
    (void)doc_set_int(doc, "term", (int64_t)core->term);
    (void)doc_set_int(doc, "highest_term_seen", (int64_t)core->term_max);
    (void)doc_set_lsn(doc, "term_start_lsn", core->term_start_lsn);
    (void)doc_set_lsn(doc, "commit_lsn", core->commit_lsn);
    (void)doc_set_lsn(doc, "window_begin_lsn", core->window_begin_lsn);
    (void)doc_set_lsn(doc, "window_end_lsn", core->window_end_lsn);
    uint64_t followed_ms = walproposer_followed_ms(walproposer);
    (void)doc_set_int(doc, "quorum_silent_ms", (int64_t)(clock_mono() / NS_PER_MS - followed_ms));
    (void)doc_set_bool(doc, "back_pressure", core->ready && !proposer_wants_wal(core));
    for (uint32_t i = 0; i < walproposer->safekeepers_count; i++) {
        (void)doc_push(safekeepers, safekeeper_status(walproposer->safekeepers[i]));
    }
    (void)doc_set(doc, "safekeepers", safekeepers);
    (void)doc_set(doc, "postgres", source_status(&walproposer->source));
    struct doc *feedback = doc_object();
    (void)doc_set_lsn(feedback, "received_lsn", walproposer->received_lsn);
    (void)doc_set_lsn(feedback, "durable_lsn", walproposer->durable_lsn);
    (void)doc_set_lsn(feedback, "remote_lsn", walproposer->remote_lsn);
    (void)doc_set(doc, "pageserver", feedback);
    return doc;
}

void walproposer_not_ready(const struct walproposer *walproposer, struct buf *reasons)
{
    const struct proposer *core = &walproposer->core;
    if (core->phase != PROPOSER_ELECTED) {
        buf_printf(reasons, "not elected: %s\n", proposer_phase_name(core->phase));
    } else if (!core->ready) {
        buf_printf(reasons, "elected, but a quorum is not repaired yet\n");
    } else if (!walproposer->options.sync && walproposer->source.state != SOURCE_STREAMING) {
        buf_printf(
            reasons, "no WAL from Postgres: %s %s\n",
            wal_source_state_name(walproposer->source.state), walproposer->source.last_error.text);
    }
}
