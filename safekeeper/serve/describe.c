#include "safekeeper/serve/describe.h"

#include <stdio.h>

#include "safekeeper/consensus/change.h"
#include "safekeeper/timeline/feed.h"
#include "safekeeper/timeline/forget.h"

static struct doc *describe_membership(const struct control_state *control)
{
    struct doc *members = doc_array();
    for (uint32_t i = 0; i < control->membership.count; i++) {
        const struct member_address *address = &control->addresses[i];
        struct doc *member = doc_object();
        (void)doc_set_int(member, "id", (int64_t)control->membership.members[i]);
        (void)doc_set_str(member, "host", address->host);
        (void)doc_set_int(member, "port", address->port);
        (void)doc_set_str(member, "http_host", address->http_host);
        (void)doc_set_int(member, "http_port", address->http_port);
        bool is_old = (control->membership.old_set & 1u << i) != 0;
        bool is_new = (control->membership.new_set & 1u << i) != 0;
        if (is_old != is_new) {
            (void)doc_set_str(member, "set", is_old ? "old" : "new");
        }
        (void)doc_push(members, member);
    }
    struct doc *membership = doc_object();
    (void)doc_set_int(membership, "generation", control->membership.generation);
    (void)doc_set_bool(membership, "joint", membership_is_joint(&control->membership));
    return doc_set(membership, "members", members);
}

static struct doc *describe_history(const struct term_history *history)
{
    struct doc *items = doc_array();
    for (uint32_t i = 0; i < history->count; i++) {
        struct doc *item = doc_object();
        (void)doc_set_int(item, "term", (int64_t)history->items[i].term);
        (void)doc_set_lsn(item, "lsn", history->items[i].lsn);
        (void)doc_push(items, item);
    }
    return items;
}

static struct doc *describe_feedback(const struct timeline_feedback *feedback)
{
    struct doc *doc = doc_object();
    (void)doc_set_int(doc, "generation", feedback->generation);
    (void)doc_set_lsn(doc, "received_lsn", feedback->received_lsn);
    (void)doc_set_lsn(doc, "durable_lsn", feedback->durable_lsn);
    return doc_set_lsn(doc, "remote_lsn", feedback->remote_lsn);
}

static struct doc *describe_feeds(const struct timeline *tl)
{
    struct doc *feeds = doc_array();
    for (size_t i = 0; i < timeline_feed_count(tl); i++) {
        struct feed_info info = timeline_feed_info(tl, i);
        struct doc *feed = describe_feedback(&info.feedback);
        (void)doc_set_int(feed, "peer", (int64_t)info.peer_id);
        (void)doc_set_lsn(feed, "sent_lsn", info.sent_lsn);
        (void)doc_push(feeds, feed);
    }
    return feeds;
}

/* For who changes the membership; absent while something is on its way to the disk. */
static void describe_report(const struct timeline *tl, struct doc *body)
{
    struct change_report report;
    if (!timeline_report(tl, &report)) {
        return;
    }
    struct doc *doc = doc_set_int(doc_object(), "generation", report.generation);
    (void)doc_set_int(doc, "term", (int64_t)report.term);
    (void)doc_set_int(doc, "log_term", (int64_t)report.log_term);
    (void)doc_set_lsn(doc, "record_lsn", report.record_lsn);
    (void)doc_set_int(doc, "suspect_term", (int64_t)report.suspect_term);
    (void)doc_set_lsn(doc, "suspect_lsn", report.suspect_lsn);
    (void)doc_set(body, "report", doc);
}

/* Where the log begins, and why not later: who needs the WAL from which LSN on. */
static struct doc *describe_retention(const struct timeline *tl)
{
    struct retention_verdict verdict = timeline_retention(tl);
    struct doc *doc = doc_object();
    (void)doc_set_lsn(doc, "begin_lsn", timeline_acceptor(tl)->state.begin_lsn);
    (void)doc_set_lsn(doc, "horizon_lsn", verdict.horizon_lsn);
    (void)doc_set_str(doc, "held_by", retention_holder_name(verdict.holder));
    if (verdict.holder == RETENTION_MEMBER) {
        (void)doc_set_int(doc, "member", (int64_t)verdict.member);
    }
    return doc;
}

/* Positions are absent while the log is not verified: nobody may take them for the truth. */
struct doc *describe_timeline(const struct timeline *tl)
{
    char system_id[24];
    const struct control_state *control = timeline_control(tl);
    const struct acceptor *acceptor = timeline_acceptor(tl);
    struct doc *body = doc_object();
    (void)doc_set_tenant(body, "tenant", timeline_tenant(tl));
    (void)doc_set_timeline(body, "timeline", timeline_id(tl));
    (void)doc_set_str(body, "storage", timeline_storage_text(tl));
    if (timeline_repair_text(tl)[0] != '\0') {
        (void)doc_set_str(body, "repair", timeline_repair_text(tl));
    }
    if (timeline_state(tl) == TIMELINE_OPENING) {
        return body; /* a worker has the rest */
    }
    (void)snprintf(system_id, sizeof(system_id), "%" PRIu64, control->params.system_id);
    (void)doc_set_str(body, "system_id", system_id);
    (void)doc_set_int(body, "pg_version", control->params.pg_version);
    (void)doc_set_int(body, "segment_size", control->params.segment_size);
    (void)doc_set_lsn(body, "start_lsn", control->acceptor.start_lsn);
    (void)doc_set(body, "membership", describe_membership(control));
    if (acceptor == NULL) {
        return body;
    }
    (void)doc_set_str(body, "phase", acceptor_phase_name(acceptor->phase));
    (void)doc_set_int(body, "term", (int64_t)acceptor->state.term);
    (void)doc_set(body, "history", describe_history(&acceptor->state.history));
    (void)doc_set_lsn(body, "write_lsn", acceptor->write_lsn);
    (void)doc_set_lsn(body, "flush_lsn", acceptor->flush_lsn);
    (void)doc_set_lsn(body, "record_lsn", acceptor->record_lsn);
    (void)doc_set_lsn(body, "commit_lsn", acceptor->state.commit_lsn);
    if (acceptor_is_suspect(acceptor)) {
        (void)doc_set_lsn(body, "suspect_lsn", acceptor->state.suspect_lsn);
        (void)doc_set_int(body, "suspect_term", (int64_t)acceptor->state.suspect_term);
    }
    struct timeline_feedback feedback = timeline_newest_feedback(tl);
    (void)doc_set(body, "feedback", describe_feedback(&feedback));
    (void)doc_set(body, "retention", describe_retention(tl));
    describe_report(tl, body);
    return doc_set(body, "feeds", describe_feeds(tl));
}
