/*
 * access.h - who may call which route, how often, and the record of who changed what.
 *
 * The cluster's own token (`http_token`) may do everything; without one everybody is the owner, as
 * on a cluster on loopback. An API key ("ab_...") may call routes of /api/v2 only, and of these
 * what its scope allows; a text that looks like a key and is none is refused also where no token is
 * set. A route gets its class from its path: one that is not recognised belongs to the owner alone.
 */
#pragma once

#include "control/api/api.h"

#define KEY_PREFIX "ab_"

enum access {
    ACCESS_OWNER,        /* no API key */
    ACCESS_ANY_KEY,      /* tells nothing about a project, or only of those that the key has */
    ACCESS_ORGANISATION, /* keys without a project */
    ACCESS_PROJECT,      /* keys of that project, and keys without one */
};

enum access access_of(const struct http_route *route);
const char *access_name(enum access access); /* "owner", "any", "organisation", "project" */
/* Reading it gives away what one needs to write: not for read-only keys. */
bool access_is_secret(const struct http_route *route);

struct access_guard;

struct access_options {
    const char *audit_path;
    uint64_t requests_per_s; /* of one key; four times as many at once. 0: no limit */
};

struct access_guard *access_guard_create(struct api *api, const struct access_options *options);
void access_guard_destroy(struct access_guard *guard);
struct http_guard *access_guard_http(struct access_guard *guard);

/* The key that a request came with; NULL: the owner, no request at all, or it was revoked
 * meanwhile. */
struct api_key *request_key(const struct api *api, const struct http_request *request);
/*
 * The key of the request was revoked since its headers came: its body may have taken its time, or
 * what was asked of a node first.
 */
bool request_key_is_gone(const struct api *api, const struct http_request *request);
/* Whoever answers later than in its handler asks for this first. True: and that was answered. */
bool request_refuse_if_key_is_gone(const struct api *api, struct http_request *request);
