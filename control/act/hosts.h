/*
 * hosts.h - compute hosts that registered themselves: rows with a lease, and the nodes they are.
 *
 * An agent says again and again where it is. Its row is written when that is new; keeping it alive
 * only moves a deadline in memory, so that a thousand hosts cost no writes. When the lease is over
 * the row is deleted by an ordinary change, and who watches the store acts upon that: the node goes
 * here, its computes move (PLAN_MOVE_COMPUTE). Nobody's safety depends on it: a compute that still
 * runs on the lost host is fenced by the term of the next one.
 *
 * The deadlines begin anew when control starts, and when it was stopped for longer than a tick (a
 * suspended machine): control's own absence is nobody's fault. While nobody at all is heard,
 * neither a host that registers itself nor an agent of the setting, no lease ends: control itself
 * may be cut off. Threads: loop only.
 */
#pragma once

#include "control/act/nodes.h"
#include "control/act/store.h"

#define HOST_LEASE_MS_MIN 1000
#define HOST_LEASE_MS_MAX 3600000

struct hosts;

/* Those in the catalog become nodes at once. */
struct hosts *hosts_create(struct loop *loop, struct store *store, struct nodes *nodes);
void hosts_stop(struct hosts *hosts);    /* no lease ends any more; NULL is fine */
void hosts_destroy(struct hosts *hosts); /* NULL is fine; the store is idle */

/* What an agent says of itself. */
struct registration {
    void (*done)(struct registration *registration, err_t result, const struct errmsg *msg);
    struct host_row row; /* number, address, http_port, listen_host, lease_ms */

    struct hosts *hosts; /* private */
    struct change change;
};

/*
 * done() once, from inside when nothing is to be written. ERR_EXISTS: the number belongs to another
 * address whose lease is not over, or to the setting, or the address has another number.
 */
void host_register(struct hosts *hosts, struct registration *registration);
