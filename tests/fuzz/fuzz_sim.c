/*
 * fuzz_sim.c - a whole schedule of the consensus simulator, decided by the input: a seed, and other
 * answers than its own for the first decisions (tests/sim/tape.h). A fuzzer that sees which
 * branches the cores take is a guided search for rare orders of events. A violation aborts; then
 * `build/tests/sim/sim --bytes FILE` shows what led to it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"
#include "tests/sim/world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world *world;
    if (world == NULL) {
        world = world_create();
    }
    tape_bytes(&world->tape, bytes_of(data, size));
    const char *violation = world_run(world, NULL);
    if (violation != NULL) {
        (void)fprintf(stderr, "%s\n", violation);
        abort();
    }
    return 0;
}
