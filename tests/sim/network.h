/*
 * network.h - connections between walproposers and safekeepers. Each delivers in order, slowly, and
 * may break; what was sent on a broken one may still arrive after its successor's first words.
 */
#pragma once

#include "common/wire/hello_proto.h"
#include "tests/sim/world.h"

uint64_t network_latency_us(struct world *world, uint32_t compute, uint32_t node);

void network_connect(struct world *world, uint32_t compute, uint32_t node);
void network_on_connect(struct world *world, const struct sim_event *event);

/* The walproposer's end of connection `index` goes away; it learns of it after `delay_us`. */
void network_close(struct world *world, uint32_t index, uint64_t delay_us);

/* Queue the frame in world->scratch; the network may break the connection instead. */
void network_send(struct world *world, uint32_t index, bool to_node);

/* The bytes of this event have come: then take frames until there is none. */
void network_receive(struct world *world, const struct sim_event *event);

/*
 * The next frame that is complete; false: there is none yet, or it was damaged and the connection
 * is closed. One that does not parse for no reason is a finding.
 */
bool network_take_frame(
    struct world *world, const struct sim_event *event, struct frame *ret_frame);

/* Nothing was heard on it for too long: both ends give it up. */
void network_on_idle(struct world *world, uint32_t index);

/* Decode and print; returns from the caller when it does not decode. */
#define DECODE(type, frame, message)                                                               \
    do {                                                                                           \
        struct reader in_ = reader_of((frame).payload);                                            \
        if (type##_decode(message, &in_) != ERR_OK) {                                              \
            oracle_fail(&world->oracle, "codec: " #type " does not decode");                       \
            return;                                                                                \
        }                                                                                          \
        if (world->chart != NULL) {                                                                \
            struct buf text_ = {0};                                                                \
            type##_print(message, &text_);                                                         \
            schedule_chart(world, "%s", buf_cstr(&text_));                                         \
            buf_deinit(&text_);                                                                    \
        }                                                                                          \
    } while (0)
