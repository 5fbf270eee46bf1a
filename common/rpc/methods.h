/*
 * methods.h - every call between the parts of a cluster, in one table a server.
 *
 * From a row come the route that the server dispatches by (RPC_ROUTE), the check of query and body
 * before the handler runs, the path and verb that a caller uses (rpc_path, rpc_method) and a
 * section of docs/protocol/rpc.md (`rpcdoc`, compared by a test).
 *
 *   X(ID, handler, verb, path, query, body, repeat, help, answer)
 *
 * query and body are shapes (common/json/shape.h); a body of "" is none. repeat says what sending
 * it again does: READ changes nothing; SAME has the same result, because the names in it (tenant,
 * timeline, generation, compute) say which deed it is. There is no third kind: whoever has lost an
 * answer asks again.
 *
 * A row may get fields that are optional, and answers may get more: both sides ignore what they do
 * not know. Everything else is a new path below /v2.
 */
#pragma once

#define RPC_TENANT   "/v1/tenants/{tenant}"
#define RPC_TIMELINE RPC_TENANT "/timelines/{timeline}"
#define RPC_FORK     "spc! db! rel! fork block lsn"
#define RPC_SCOPE    "spc db rel fork block lsn"

/* clang-format off */
#define RPC_SAFEKEEPER(X) \
    X(SAFEKEEPER_STATUS, get_status, "GET", "/v1/status", "", "", READ, \
      "who it is, and how many timelines it has", \
      "{node_id, incarnation, listen_port, timelines, resting}; resting: of them, those that are a row in memory") \
    X(SAFEKEEPER_LIST, get_tenants, "GET", "/v1/tenants", "known brief", "", READ, \
      "all timelines; known: the digest of the last answer, brief: the ids alone", \
      "{incarnation, digest, timelines: [as of one]}, or {incarnation, digest, unchanged: true}") \
    X(SAFEKEEPER_PUT_TIMELINE, put_timeline, "PUT", RPC_TIMELINE, "", \
      "start_lsn:lsn! pg_version:u64! system_id:str! segment_size:u64 membership:object! incarnation:str", SAME, \
      "create it; membership: {generation, members: [{id, host, port, http_host, http_port, set}]}, where set (old, new) " \
      "marks who is in one set only; incarnation: refused by another disk. A newer membership is taken on one that is there", \
      "201 or 200, as of get_timeline; 410 deleted under this generation or a newer one") \
    X(SAFEKEEPER_GET_TIMELINE, get_timeline, "GET", RPC_TIMELINE, "", "", READ, \
      "positions, membership, retention, feeds", \
      "{storage: ok or failed: why, term, history: [{term, lsn}], start_lsn, write_lsn, flush_lsn, record_lsn, commit_lsn, " \
      "membership, retention: {begin_lsn, horizon_lsn, held_by}, feeds: [{peer, received_lsn, ..}], feedback, report}") \
    X(SAFEKEEPER_DELETE_TIMELINE, delete_timeline, "DELETE", RPC_TIMELINE, "generation!", "", SAME, \
      "delete it under a membership generation, and leave a tombstone", "{}; 409 the membership is newer") \
    X(SAFEKEEPER_PUT_MEMBERSHIP, put_membership, "PUT", RPC_TIMELINE "/membership", "", \
      "membership:object! term:u64", SAME, \
      "who votes, and a term to promise; nothing is created, an older generation is refused", \
      "as of get_timeline, with report: {generation, term, log_term, record_lsn, suspect_term, suspect_lsn}, all of it on disk") \
    X(SAFEKEEPER_REOPEN, post_reopen, "POST", RPC_TIMELINE "/reopen", "", "", SAME, \
      "open and verify again what is out of service", "as of get_timeline") \
    X(SAFEKEEPER_DIGEST, get_digest, "GET", RPC_TIMELINE "/digest", "from! to!", "", READ, \
      "CRC32C of committed WAL, of the files", "{crc}") \
    X(SAFEKEEPER_WAL, get_wal, "GET", RPC_TIMELINE "/wal", "from! to!", "", READ, \
      "committed WAL, at most 16 MiB", "the bytes")

#define RPC_PAGESERVER(X) \
    X(PAGESERVER_STATUS, get_status, "GET", "/v1/status", "", "", READ, \
      "who it is, with its tenants and their timelines", \
      "{node_id, incarnation, listen_port, tenants: [as of one]}; incarnation: random for each empty disk") \
    X(PAGESERVER_PUT_TENANT, put_tenant, "PUT", RPC_TENANT, "", \
      "generation:u64! history_retention_seconds:u64", SAME, \
      "attach it under a generation; its folder is made, or filled from the object store", "201 or 200, as of get_tenant") \
    X(PAGESERVER_GET_TENANT, get_tenant, "GET", RPC_TENANT, "", "", READ, \
      "a tenant and its timelines", "{tenant, generation, history_retention_seconds, timelines: [as of one, without sizes], deleted_timelines: [ids of those that " \
      "the object store may still have; absent: unknown]}") \
    X(PAGESERVER_DELETE_TENANT, delete_tenant, "DELETE", RPC_TENANT, "generation", "", SAME, \
      "remove it, here and in the object store, also when it is only there", "{}: it is going; 404 nothing is left of it anywhere") \
    X(PAGESERVER_PUT_TIMELINE, put_timeline, "PUT", RPC_TIMELINE, "", \
      "generation:u64! pg_version:u64! system_id:str! membership_generation:u64 safekeepers:array! parent:str branch_lsn:lsn " \
      "start_lsn:lsn bootstrap_object:str", SAME, \
      "create a root (start_lsn, bootstrap_object) or a branch (parent, branch_lsn), durably; branch_lsn may lie ahead of what the " \
      "parent has, then reads wait", "201 or 200, as of get_timeline, without sizes") \
    X(PAGESERVER_GET_TIMELINE, get_timeline, "GET", RPC_TIMELINE, "", "", READ, \
      "state, positions and sizes", \
      "{state: importing, active or failed: why, parent, start_lsn, cutoff_lsn, last_record_lsn, durable_lsn, commit_lsn (seen), " \
      "slots_lsn, logical_bytes, physical_bytes, feed}") \
    X(PAGESERVER_DELETE_TIMELINE, delete_timeline, "DELETE", RPC_TIMELINE, "generation children", "", SAME, \
      "delete it; children=keep: also one with children", "{}; 409 it has children") \
    X(PAGESERVER_LSN_AT_TIME, post_lsn_at_time, "POST", RPC_TIMELINE "/lsn_at_time", "", "time:str!", READ, \
      "where history at a time ends", "{lsn}") \
    X(PAGESERVER_TIME_OF_LSN, get_time_of_lsn, "GET", RPC_TIMELINE "/time_of_lsn", "lsn", "", READ, \
      "time of the newest commit", "{lsn, time}") \
    X(PAGESERVER_BASE_BACKUP, get_base_backup, "GET", RPC_TIMELINE "/base_backup", "lsn slrus", "", READ, \
      "what a compute starts from; waits for the LSN. slrus: whole, or on_demand without the old segments of SLRUs", \
      "tar: docs/design/walking-skeleton.md") \
    X(PAGESERVER_RELATIONS, get_relations, "GET", RPC_TIMELINE "/relations", "lsn", "", READ, \
      "every fork that exists at an LSN", "lines SPC DB REL FORK BLOCKS") \
    X(PAGESERVER_PAGE, get_page_at, "GET", RPC_TIMELINE "/page", RPC_FORK, "", READ, \
      "one page, for people and tests", "8192 bytes, header X-Lsn") \
    X(PAGESERVER_REL_SIZE, get_rel_size_at, "GET", RPC_TIMELINE "/rel_size", RPC_FORK, "", READ, \
      "size of a fork", "{lsn, exists, blocks}") \
    X(PAGESERVER_DIGEST, get_digest, "GET", RPC_TIMELINE "/digest", RPC_SCOPE, "", READ, \
      "hash over every page at an LSN, or those of a relation, a fork, a block", "{relations, pages, hash}") \
    X(PAGESERVER_DIFF, get_diff, "GET", RPC_TIMELINE "/diff", "lsn other other_lsn", "", READ, \
      "what was written on one side only and differs; without other: the timeline itself at another LSN", \
      "{relations: [{spc, db, rel, fork, blocks, other_blocks, pages, first_pages}]}") \
    X(PAGESERVER_GET_RETENTION, get_retention, "GET", RPC_TENANT "/retention", "", "", READ, \
      "how much history is kept", "{history_retention_seconds, history_retention_bytes}") \
    X(PAGESERVER_PUT_RETENTION, put_retention, "PUT", RPC_TENANT "/retention", "", \
      "history_retention_seconds:u64 history_retention_bytes:u64", SAME, "it is kept while either asks for it", "as of get_retention") \
    X(PAGESERVER_GC, post_gc, "POST", RPC_TENANT "/gc", "", "", SAME, \
      "move the cutoffs now and free what nobody can read", "the cutoffs") \
    X(PAGESERVER_SIZE, get_size, "GET", RPC_TENANT "/size", "", "", READ, \
      "logical, physical and synthetic size of all branches", \
      "{timelines, logical_bytes, physical_bytes, synthetic_bytes, branches: [{timeline, start_lsn, cutoff_lsn, end_lsn, logical_bytes}]}: " \
      "docs/design/history.md; 503 it has too many different states") \
    X(PAGESERVER_GET_LEASES, get_leases, "GET", RPC_TIMELINE "/leases", "", "", READ, "LSNs that stay readable", \
      "{leases: [{name, lsn, expires_at}]}") \
    X(PAGESERVER_PUT_LEASE, put_lease, "PUT", RPC_TIMELINE "/leases/{lease}", "", "lsn:lsn! seconds:u64", SAME, \
      "keep an LSN readable, or for longer; 0 seconds: for ever", "the lease") \
    X(PAGESERVER_DELETE_LEASE, delete_lease, "DELETE", RPC_TIMELINE "/leases/{lease}", "", "", SAME, "end it", "{}") \
    X(PAGESERVER_WHY_KEPT, get_why_kept, "GET", RPC_TIMELINE "/why_kept", RPC_SCOPE, "", READ, \
      "what keeps history of a timeline, versions as of an LSN, or that of a block", "{kept_by: [..], left_out}") \
    X(PAGESERVER_REMOTE, get_remote, "GET", RPC_TENANT "/remote", "", "", READ, \
      "how far the object store has the tenant", "{generation, timelines: [{timeline, remote_lsn, ..}], ..}") \
    X(PAGESERVER_SCRUB, post_scrub, "POST", RPC_TENANT "/remote/scrub", "", "", SAME, \
      "find and repair missing and damaged objects, find those that nothing needs", "{objects, dangling, repaired, leaked}") \
    X(PAGESERVER_RESTORE, post_restore, "POST", RPC_TENANT "/remote/restore", "", "", SAME, \
      "give up what this disk has of it, damaged or not: it is attached again from the object store, and WAL comes from safekeepers", \
      "{}; 404 this disk has nothing of it")

#define RPC_AGENT(X) \
    X(AGENT_STATUS, get_status, "GET", "/v1/status", "", "", READ, \
      "what it runs computes with", "{computes, postgres, walproposer, run_as_user}") \
    X(AGENT_MAKE_IMAGE, post_bootstrap_images, "POST", "/v1/bootstrap_images", "", "pg_version:u64 locale:str", SAME, \
      "make (once) the empty cluster from which roots begin, and put it into the object store", \
      "{object, start_lsn, pg_version, system_id}") \
    X(AGENT_COMPUTES, get_computes, "GET", "/v1/computes", "", "", READ, "all computes", "{computes: [as of one, with idle_ms]}") \
    X(AGENT_GET_COMPUTE, get_compute, "GET", "/v1/computes/{id}", "while wait_ms", "", READ, \
      "state, port, processes and timings; while, wait_ms: answered when its state is another one than that, or after so long", \
      "{state: starting, running, stopping, stopped, failed, refused or fenced, step, port, pids, start_lsn, error, last_failure, limits, " \
      "superuser_uri, started_ms, failures (in a row; after 6 it is failed)}; refused: Postgres does not take its settings") \
    X(AGENT_PUT_COMPUTE, put_compute, "PUT", "/v1/computes/{id}", "", \
      "tenant:str! timeline:str! system_id:str! pg_version:u64! port:u64 listen_host:str safekeepers:array! membership_generation:u64! " \
      "pageserver:object! generation:u64 settings:object size:object branch:bool quarantine:bool roles:array databases:array " \
      "dropped:object superuser_password:str", SAME, \
      "create and start it, or start it again; safekeepers: [{id, host, port, http_host, http_port}], pageserver: {host, port, http_url}, " \
      "size: {memory_mb, cpu_milli}, roles: [{name, password}], databases: [{name, owner}], dropped: {roles, databases, changed: [{from, to, owner}]}; " \
      "branch, quarantine: it has a parent, whose subscriptions nobody has cut off yet. While it runs, other roles and databases are " \
      "made there and then", "202 it starts, 200 it runs, as of get_compute; 409 it runs with another body") \
    X(AGENT_GET_SPEC, get_spec, "GET", "/v1/computes/{id}/spec", "", "", READ, "the body of its PUT", "it, without passwords") \
    X(AGENT_METRICS, get_metrics, "GET", "/v1/computes/{id}/metrics", "", "", READ, \
      "what its Postgres says of itself", "for Prometheus; 503 it does not run") \
    X(AGENT_VERIFIER, post_verifier, "POST", "/v1/computes/{id}/verifier", "", "role:str!", READ, \
      "the stored password of a role, for a gateway", "{verifier}; 503 it does not run") \
    X(AGENT_SCHEMA, post_schema, "POST", "/v1/computes/{id}/schema", "", "database:str! format:str", READ, \
      "schema of a database: as SQL by pg_dump (format sql, or none said), or as JSON (format json: tables, columns, keys)", \
      "{sql} or {json}; 404 no such database, 422 the schema is larger than the limit, 503 it does not run, or was not read in time") \
    X(AGENT_STOP, post_stop, "POST", "/v1/computes/{id}/stop", "", "mode:str", SAME, "stop it: fast or immediate", "202, as of get_compute") \
    X(AGENT_DELETE_COMPUTE, delete_compute, "DELETE", "/v1/computes/{id}", "wait_ms", "", SAME, \
      "stop it at once and remove its files; wait_ms: answered when it is gone, or after so long", "202 it goes, 404 it is gone")

#define RPC_CONTROL(X) \
    X(CONTROL_NODES, get_nodes, "GET", "/v1/nodes", "", "", READ, \
      "safekeepers, pageservers and agents", "{nodes: [{kind, id, host, port, http_port, reachable, ..}]}") \
    X(CONTROL_VALIDATE, post_validate, "POST", "/v1/generations/validate", "", "node_id:u64! tenants:array!", READ, \
      "which attachments of a pageserver are the newest; tenants: [{tenant, generation}]", "{tenants: [{tenant, valid}]}") \
    X(CONTROL_CONNECT, post_connect, "POST", "/v1/connect", "", "name:str! role:str! client:str wait_ms:u64 lsn:str timestamp:str", SAME, \
      "of gateways: start an endpoint if it sleeps, and where it runs; with a moment, one that shows its branch then", \
      "{endpoint_id, branch_id, project_id, host, port, verifier}") \
    X(CONTROL_CHANGES, post_changes, "POST", "/v1/changes", "", "since:u64! wait_ms:u64", READ, \
      "of gateways: endpoints of which what is remembered may be wrong since that number (0: none), as soon as there are some", \
      "{next, all, endpoints: [id]}; all: forget everything") \
    X(CONTROL_PUT_HOST, put_host, "PUT", "/v1/hosts/{host}", "", "host:str! http_port:u64! listen_host:str lease_ms:u64!", SAME, \
      "of agents: where it is; again before the lease is over (docs/design/hosts.md)", "{lease_ms}")
/* clang-format on */
