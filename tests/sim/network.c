#include "tests/sim/network.h"

#include "common/base/checksum.h"
#include "common/base/mark.h"
#include "tests/sim/node.h"
#include "tests/sim/schedule.h"

#define TYPE_OF_LATER 0x7fff /* of a frame that nobody here knows */

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

/* What is in `scratch`, into the arena. */
static uint32_t keep_scratch(struct world *world)
{
    uint32_t offset = world->arena_used;
    ASSERT(offset + world->scratch.size <= ARENA_SIZE);
    memcpy(world->arena + offset, world->scratch.data, world->scratch.size);
    world->arena_used += (uint32_t)world->scratch.size;
    return offset;
}

static uint32_t put_hello(struct world *world, const struct compute *compute)
{
    struct hello hello = {
        .protocol_min = compute->protocol_min,
        .protocol_max = compute->protocol_max,
        .role = HELLO_ROLE_PROPOSER,
        .shard_count = 1,
        .generation = compute->proposer.options.membership.generation,
        .node_id = compute->proposer.options.proposer_id};
    world->scratch.size = 0;
    FRAME_APPEND_MESSAGE(&world->scratch, hello, &hello, .type = FRAME_HELLO);
    return keep_scratch(world);
}

void network_connect(struct world *world, uint32_t c, uint32_t n)
{
    struct compute *compute = &world->computes[c];
    const struct membership *membership = &compute->proposer.options.membership;
    if (!compute->alive || compute->conn[n] != 0 ||
        world->conns_count >= CONNS_MAX - (world->healing ? 0 : CONNS_RESERVE) ||
        membership_index(membership, n + 1) == membership->count) {
        return;
    }
    uint32_t index = world->conns_count++;
    uint32_t offset = put_hello(world, compute);
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
            .kind = EV_CONNECT,
            .conn = index,
            .node = n,
            .incarnation = compute->incarnation,
            .frame = {.offset = offset, .size = world->arena_used - offset}});
}

/* How long the two ends of a connection wait for a word. */
#define IDLE_US 30000

/* Something between the two is broken, and does not say so. */
static void disturb(struct world *world, const struct sim_event *event)
{
    struct conn *conn = &world->conns[event->conn];
    bool damages = tape_one_in(&world->tape, TAPE_FRAMES, world->trouble.damage_one_in);
    bool silences = tape_one_in(&world->tape, TAPE_FRAMES, world->trouble.silence_one_in);
    if (damages) {
        uint64_t at = tape_below(&world->tape, TAPE_FRAMES, event->frame.size);
        world->arena[event->frame.offset + at] ^=
            (uint8_t)(1 + tape_below(&world->tape, TAPE_FRAMES, 255));
    }
    if (silences) {
        MARK("sim.connection.silent");
        schedule_chart(world, "connection %u falls silent", event->conn);
    }
    conn->damaged = conn->damaged || damages;
    conn->silent = conn->silent || silences;
    if (damages || silences) {
        schedule_add(world, IDLE_US, (struct sim_event){.kind = EV_IDLE, .conn = event->conn});
    }
}

/* The frame before is still on its way: it comes with this one, in one read, and is void there. */
static void send_together(struct world *world, struct sim_event *event)
{
    struct conn *conn = &world->conns[event->conn];
    uint32_t offset = conn->tail[event->kind == EV_TO_NODE].offset;
    uint32_t size = conn->tail[event->kind == EV_TO_NODE].size;
    if (conn->tail[event->kind == EV_TO_NODE].at_us <= world->now_us || size == 0 ||
        !tape_one_in(&world->tape, TAPE_WIRE, world->trouble.together_one_in)) {
        return;
    }
    MARK("sim.frame.together");
    ASSERT(world->arena_used + size + event->frame.size <= ARENA_SIZE);
    uint8_t *both = world->arena + world->arena_used;
    memcpy(both, world->arena + offset, size);
    memcpy(both + size, world->arena + event->frame.offset, event->frame.size);
    memset(world->arena + offset, 0, size);
    event->frame.offset = world->arena_used;
    event->frame.size += size;
    world->arena_used += event->frame.size;
}

/* At once, or in two pieces; in order behind whatever was sent before. */
static void send_pieces(
    struct world *world, struct sim_event event, uint64_t at_us, uint64_t *last_us)
{
    struct conn *conn = &world->conns[event.conn];
    if (!world->healing) {
        send_together(world, &event);
    }
    uint32_t size = event.frame.size;
    conn->tail[event.kind == EV_TO_NODE].offset = event.frame.offset;
    conn->tail[event.kind == EV_TO_NODE].size = size;
    conn->tail[event.kind == EV_TO_NODE].at_us = at_us;
    if (!world->healing && tape_one_in(&world->tape, TAPE_FRAMES, world->trouble.split_one_in)) {
        MARK("sim.frame.split");
        event.frame.size = 1 + (uint32_t)tape_below(&world->tape, TAPE_FRAMES, size - 1);
        schedule_add(world, at_us - world->now_us, event);
        event.frame.offset += event.frame.size;
        event.frame.size = size - event.frame.size;
        event.frame.goes_on = true;
        conn->tail[event.kind == EV_TO_NODE].size = 0;
        at_us += network_latency_us(world, event.compute, event.node);
    }
    *last_us = at_us;
    schedule_add(world, at_us - world->now_us, event);
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
    if (!world->healing && tape_one_in(&world->tape, TAPE_WIRE, world->trouble.unknown_one_in)) {
        MARK("sim.frame.unknown");
        world->scratch.size = 0;
        frame_append(
            &world->scratch, &(struct frame){.type = TYPE_OF_LATER, .version = 3, .channel = 1});
    }
    event.frame.size = (uint32_t)world->scratch.size;
    event.frame.offset = keep_scratch(world);
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
    if (!world->healing) {
        disturb(world, &event);
    }
    if (conn->silent) {
        return;
    }
    send_pieces(world, event, at_us, last_us);
}

void network_on_idle(struct world *world, uint32_t index)
{
    schedule_chart(world, "connection %u was silent for too long", index);
    world->conns[index].server_closed = true;
    network_close(world, index, 0);
}

/* A rest without its begin, which was lost, is nothing. */
void network_receive(struct world *world, const struct sim_event *event)
{
    struct conn *conn = &world->conns[event->conn];
    uint32_t *offset = &conn->inbox[event->kind == EV_TO_NODE].offset;
    uint32_t *size = &conn->inbox[event->kind == EV_TO_NODE].size;
    const uint8_t *data = world->arena + event->frame.offset;
    bool came_with_next = !event->frame.goes_on && data[0] == 0;
    if (came_with_next || (event->frame.goes_on && *offset + *size != event->frame.offset)) {
        return;
    }
    if (!event->frame.goes_on) {
        *offset = event->frame.offset;
        *size = 0;
    }
    *size += event->frame.size;
    world->digest = hash64(data, event->frame.size, world->digest + event->conn);
}

bool network_take_frame(struct world *world, const struct sim_event *event, struct frame *ret_frame)
{
    size_t size = 0;
    struct conn *conn = &world->conns[event->conn];
    uint32_t *offset = &conn->inbox[event->kind == EV_TO_NODE].offset;
    uint32_t *left = &conn->inbox[event->kind == EV_TO_NODE].size;
    err_t err = frame_parse(bytes_of(world->arena + *offset, *left), ret_frame, &size, NULL);
    if (err != ERR_OK && conn->damaged) {
        MARK("sim.frame.damaged");
        schedule_chart(world, "connection %u brings damage", event->conn);
        conn->server_closed = true;
        network_close(world, event->conn, network_latency_us(world, conn->compute, conn->node));
        return false;
    }
    if (err != ERR_OK) {
        oracle_fail(&world->oracle, "codec: a frame does not parse");
        return false;
    }
    *offset += (uint32_t)size;
    *left -= (uint32_t)size;
    return size > 0;
}

/* Which version both speak; 0: none, it is refused, clearly. */
static uint16_t take_hello(
    struct world *world, const struct sim_event *event, struct hello *ret_hello)
{
    size_t size = 0;
    struct frame frame;
    struct errmsg msg;
    struct bytes bytes = bytes_of(world->arena + event->frame.offset, event->frame.size);
    err_t err = frame_parse(bytes, &frame, &size, &msg);
    struct reader in = reader_of(frame.payload);
    if (err != ERR_OK || size != bytes.size || frame.type != FRAME_HELLO ||
        hello_decode(ret_hello, &in) != ERR_OK) {
        oracle_fail(&world->oracle, "codec: a hello does not decode");
        return 0;
    }
    world->digest = hash64(bytes.data, bytes.size, world->digest + event->conn);
    if (hello_check_protocol(ret_hello, &msg) != ERR_OK) {
        MARK("sim.hello.unsupported");
        schedule_chart(world, "s%u refuses connection %u: %s", event->node, event->conn, msg.text);
        return 0;
    }
    uint16_t protocol = hello_protocol(ret_hello->protocol_max);
    if (protocol < ret_hello->protocol_min || protocol > ret_hello->protocol_max) {
        oracle_fail(&world->oracle, "hello: s%u speaks what was not offered", event->node);
    }
    return protocol;
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
    struct hello hello;
    conn->protocol = node->up ? take_hello(world, event, &hello) : 0;
    if (conn->protocol == 0) {
        conn->server_closed = true;
        network_close(world, event->conn, delay_us);
        return;
    }
    conn->node_incarnation = node->incarnation;
    conn->hello_generation = hello.generation;
    if (conn->hello_generation > node->acceptor.state.generation && !world->climate.foreigner &&
        node_take_membership(world, event->node, conn->hello_generation)) {
        MARK("sim.hello.brought");
    }
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
