#include "tests/sim/network.h"

#include "common/base/checksum.h"
#include "tests/sim/node.h"
#include "tests/sim/schedule.h"

uint64_t network_latency_us(struct world *world, uint32_t compute, uint32_t node)
{
    uint64_t base_us = world->healing ? 100 : world->climate.latency_us[compute][node];
    uint64_t span_us = tape_one_in(&world->tape, TAPE_NET, 16) ? 8 * base_us : base_us;
    return base_us / 2 + tape_below(&world->tape, TAPE_NET, span_us + 1);
}

/* The walproposer's end goes away. What it sent before may still arrive, later than news. */
void network_close(struct world *world, uint32_t index, uint64_t delay_us)
{
    struct conn *conn = &world->conns[index];
    if (conn->client_closed) {
        return;
    }
    conn->client_closed = true;
    if (!world->climate.old_bytes) {
        conn->server_closed = true;
    }
    schedule_add(
        world, delay_us,
        (struct sim_event){
            .kind = EV_DOWN,
            .conn = index,
            .compute = conn->compute,
            .incarnation = conn->compute_incarnation});
}

void network_connect(struct world *world, uint32_t c, uint32_t n)
{
    struct compute *compute = &world->computes[c];
    const struct membership *membership = &compute->proposer.options.membership;
    if (!compute->alive || compute->conn[n] != 0 || world->conns_count == CONNS_MAX ||
        membership_index(membership, n + 1) == membership->count) {
        return;
    }
    uint32_t index = world->conns_count++;
    world->conns[index] = (struct conn){
        .node = n,
        .compute = c,
        .node_incarnation = world->nodes[n].incarnation,
        .compute_incarnation = compute->incarnation};
    compute->conn[n] = index + 1;
    uint64_t delay_us = network_latency_us(world, c, n);
    world->conns[index].last_to_node_us = world->now_us + delay_us;
    schedule_add(
        world, delay_us,
        (struct sim_event){
            .kind = EV_CONNECT, .conn = index, .node = n, .incarnation = compute->incarnation});
}

/* Queue what is in `scratch` on a connection; the network may break it instead. */
void network_send(struct world *world, uint32_t index, bool to_node)
{
    struct conn *conn = &world->conns[index];
    struct sim_event event = {
        .kind = to_node ? EV_TO_NODE : EV_TO_COMPUTE,
        .node = conn->node,
        .compute = conn->compute,
        .conn = index,
        .incarnation = to_node ? conn->node_incarnation : conn->compute_incarnation,
    };
    size_t size = world->scratch.size;
    ASSERT(world->arena_used + size <= ARENA_SIZE);
    memcpy(world->arena + world->arena_used, world->scratch.data, size);
    event.frame.offset = world->arena_used;
    event.frame.size = (uint32_t)size;
    world->arena_used += (uint32_t)size;
    if (!world->healing && tape_one_in(&world->tape, TAPE_NET, world->climate.reset_one_in)) {
        schedule_chart(
            world, "network  resets connection %u of p%u and s%u", index, conn->compute,
            conn->node);
        network_close(world, index, tape_below(&world->tape, TAPE_NET, 500));
        if (tape_one_in(&world->tape, TAPE_NET, 2)) {
            return; /* this one is lost with it */
        }
    }
    uint64_t *last_us = to_node ? &conn->last_to_node_us : &conn->last_to_compute_us;
    uint64_t at_us = world->now_us + network_latency_us(world, conn->compute, conn->node);
    at_us = MAX_OF(at_us, *last_us);
    *last_us = at_us;
    schedule_add(world, at_us - world->now_us, event);
}

bool network_take_frame(struct world *world, const struct sim_event *event, struct frame *ret_frame)
{
    size_t size = 0;
    struct bytes bytes = bytes_of(world->arena + event->frame.offset, event->frame.size);
    world->digest = hash64(bytes.data, bytes.size, world->digest + event->conn);
    if (frame_parse(bytes, ret_frame, &size, NULL) != ERR_OK || size != bytes.size) {
        oracle_fail(&world->oracle, "codec: a frame does not parse");
        return false;
    }
    return true;
}

void network_on_connect(struct world *world, const struct sim_event *event)
{
    struct conn *conn = &world->conns[event->conn];
    struct node *node = &world->nodes[event->node];
    if (conn->client_closed) {
        conn->server_closed = true;
        return;
    }
    uint64_t delay_us = network_latency_us(world, conn->compute, event->node);
    if (!node->up) {
        conn->server_closed = true;
        network_close(world, event->conn, delay_us);
        return;
    }
    conn->node_incarnation = node->incarnation;
    conn->hello_generation = world->computes[conn->compute].proposer.options.membership.generation;
    if (conn->hello_generation != node->acceptor.state.generation) {
        node_refuse_hello(world, event->conn);
        return;
    }
    conn->last_to_compute_us = world->now_us + delay_us;
    schedule_add(
        world, delay_us,
        (struct sim_event){
            .kind = EV_UP,
            .conn = event->conn,
            .node = event->node,
            .compute = conn->compute,
            .incarnation = conn->compute_incarnation,
            .hello_term = node->acceptor.state.term});
}
