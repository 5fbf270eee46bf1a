/*
 * tape.h - every decision that chance takes in a schedule, one number each, so that a schedule can
 * be recorded, replayed, cut down and mutated.
 *
 * Where the numbers come from: a seed (each stream has its own generator, so that leaving a fault
 * out does not shuffle the others), a recorded tape, or bytes of a fuzzer. Rules for whoever adds a
 * decision, so that old tapes keep their meaning: 0 is the calm answer (nothing happens, no
 * delay), a stream that is used up answers 0, new questions go to the end of a stream's
 * climate_draw() or to a stream of their own.
 */
#pragma once

#include <stdio.h>

#include "common/base/bytes.h"
#include "common/base/prng.h"

#define TAPE_STREAMS(X)                                                                            \
    X(SWARM, swarm, 0)                /* which kinds of trouble, how many nodes, how slow */       \
    X(NET, net, 0x6e6574)             /* latencies, resets */                                      \
    X(DISK, disk, 0x6469736b)         /* how long a write takes */                                 \
    X(CRASH, crash, 0x6372617368)     /* when, who, and what of the unsynced is left */            \
    X(WORK, work, 0x776f726b)         /* what the computes write, and how long they live */        \
    X(PEER, peer, 0x70656572)         /* who asks whom for what it has missed */                   \
    X(ROT, rot, 0x726f74)             /* what is damaged at rest, and what of it can be told */    \
    X(CHANGE, change, 0x6368616e6765) /* what control does with the membership, and when */        \
    X(PAUSE, pause, 0x7061757365)     /* who stands still, when and how long */                    \
    X(CLOCK, clock, 0x636c6f636b)     /* how wrong clocks are */                                   \
    X(FRAMES, frames, 0x6672616d6573) /* pieces and damage of what is sent */                      \
    X(WIRE, wire, 0x77697265)         /* frames together, of other versions, nonsense */           \
    X(SPACE, space, 0x7370616365)     /* whose disk is full, when and how long */                  \
    X(KEEP, keep, 0x6b656570)         /* what pageservers take, and what is forgotten */           \
    X(CUT, cut, 0x637574)             /* how long it takes to cut a log off */

enum tape_stream {
#define X(NAME, name, salt) TAPE_##NAME,
    TAPE_STREAMS(X)
#undef X
        TAPE_STREAM_COUNT
};

enum tape_source {
    TAPE_OF_SEED,
    TAPE_OF_FILE,  /* the values in `streams` are replayed */
    TAPE_OF_BYTES, /* a seed, and other answers than its own for the first decisions */
};

struct tape_values {
    uint64_t *items;
    size_t count, capacity;
};

struct tape {
    enum tape_source source;
    uint64_t seed;
    uint32_t calm;  /* bits of enum climate_calm: left out of what was drawn */
    bool recording; /* TAPE_OF_SEED and TAPE_OF_BYTES: keep the answers in `streams` */
    struct prng prngs[TAPE_STREAM_COUNT];
    struct tape_values streams[TAPE_STREAM_COUNT];
    size_t next[TAPE_STREAM_COUNT];
    struct bytes bytes;
};

void tape_deinit(struct tape *tape);

/*
 * From the first decision on. Only rewind keeps the values. Bytes: a seed of two, which draws the
 * climate; then one sequence for all other streams, the fewest bytes that hold an answer; when it
 * is used up, the seed answers.
 */
#define TAPE_BYTES_SEED 2
void tape_seed(struct tape *tape, uint64_t seed);
void tape_bytes(struct tape *tape, struct bytes bytes);
void tape_rewind(struct tape *tape); /* source: TAPE_OF_FILE */

uint64_t tape_below(struct tape *tape, enum tape_stream stream, uint64_t sides); /* 0: calm */
bool tape_one_in(struct tape *tape, enum tape_stream stream, uint64_t n);        /* n = 0: never */

/*
 * The file: lines of "NAME value value ...", NAME a stream (again and again, in order), `seed` or
 * `without`; a value may be "0*12". '#' begins a comment. ERR_CORRUPT says in which line.
 */
void tape_save(const struct tape *tape, const char *comment, FILE *file);
NODISCARD err_t tape_load(struct tape *tape, FILE *file, struct errmsg *msg);

void tape_copy(struct tape *to, const struct tape *from); /* values only; `to` is TAPE_OF_FILE */
