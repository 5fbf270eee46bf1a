/*
 * connection_channel.c - the channels of a connection: their numbers, how one begins and ends.
 */
#include "safekeeper/serve/connection_private.h"

#include "common/base/mem.h"

/* ---- numbers ---- */

static uint32_t slot_of(uint32_t number)
{
    return (number & UINT16_MAX) - 1;
}

static struct slot *take_slot(struct connection *conn)
{
    if (conn->first_free != 0) {
        struct slot *slot = &conn->slots[conn->first_free - 1];
        conn->first_free = slot->next_free;
        slot->incarnation++;
        return slot;
    }
    if (conn->slot_count == conn->capacity) {
        conn->capacity = MAX_OF(4u, 2 * conn->capacity);
        conn->slots = mem_realloc(conn->slots, conn->capacity * sizeof(struct slot));
    }
    conn->slots[conn->slot_count] = (struct slot){0};
    return &conn->slots[conn->slot_count++];
}

static void free_slot(struct connection *conn, uint32_t number)
{
    struct slot *slot = &conn->slots[slot_of(number)];
    slot->channel = NULL;
    conn->open_count--;
    if (slot->incarnation < UINT16_MAX) {
        slot->next_free = conn->first_free;
        conn->first_free = (uint16_t)(slot_of(number) + 1);
    }
}

err_t channel_find(struct connection *conn, uint32_t number, struct channel **ret_channel)
{
    uint32_t index = slot_of(number);
    if ((number & UINT16_MAX) == 0 || index >= conn->slot_count ||
        number >> 16 > conn->slots[index].incarnation) {
        return ERR_NOT_FOUND;
    }
    struct channel *channel = conn->slots[index].channel;
    if (channel == NULL || channel->number != number) {
        return ERR_CANCELED;
    }
    *ret_channel = channel;
    return ERR_OK;
}

/* ---- life ---- */

struct channel *channel_create(struct connection *conn, struct timeline *tl)
{
    struct channel *channel = MEM_NEW(struct channel);
    struct slot *slot = take_slot(conn);
    slot->channel = channel;
    conn->open_count++;
    channel->conn = conn;
    channel->number = (uint32_t)(slot - conn->slots) + 1 + ((uint32_t)slot->incarnation << 16);
    channel->tl = tl == NULL ? NULL : timeline_ref(tl);
    return channel;
}

void channel_destroy(struct channel *channel, bool is_link_gone)
{
    struct connection *conn = channel->conn;
    list_remove(&channel->waiter.link);
    if (channel->is_attached) {
        timeline_detach_peer(channel->tl, &channel->peer);
        if (channel->peer.is_paused && !is_link_gone) {
            connection_set_paused(conn, false);
        }
    }
    list_remove(&channel->in_feeds);
    feed_destroy(channel->feed);
    if (channel->role == HELLO_ROLE_STATUS) {
        watcher_destroy(conn->watcher);
        conn->watcher = NULL;
    }
    if (channel->reads != NULL) {
        channel->reads->channel = NULL;
        if (!channel->reads->is_running) {
            wal_reads_release(channel->reads);
        }
    }
    free_slot(conn, channel->number);
    timeline_unref(channel->tl);
    mem_free(channel);
}

void channel_drop(struct channel *channel)
{
    struct connection *conn = channel->conn;
    channel_destroy(channel, false);
    if (conn->open_count == 0) {
        connection_close(conn);
    }
}
