#include "pageserver/read/memory_guess.h"

#include "common/base/mem.h"

#define PLACES      1024u /* a power of two */
#define MISSES_SURE 256u  /* a share of misses in 256ths */
#define MISSES_MAX  128u  /* above it a try costs more than it saves */
#define MEMORY      16u   /* reads: how many tell of the next */
#define TRY_EACH    16u   /* against the guess */

struct place {
    uint16_t misses; /* of MISSES_SURE * MEMORY */
    uint16_t passed; /* since one was tried against the guess */
};

struct memory_guess {
    struct place places[PLACES];
};

struct memory_guess *memory_guess_create(void)
{
    return MEM_NEW(struct memory_guess);
}

void memory_guess_destroy(struct memory_guess *guess)
{
    mem_free(guess);
}

static struct place *place_of(struct memory_guess *guess, uint64_t timeline, struct page_key key)
{
    uint64_t hash = timeline * 0x9E3779B97F4A7C15u;
    hash = (hash ^ ((uint64_t)key.db << 32 | key.rel)) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ hash >> 32 ^ ((uint64_t)key.spc << 8 | key.fork)) * 0x9E3779B97F4A7C15u;
    return &guess->places[hash >> 32 & (PLACES - 1)];
}

bool memory_guess_is_worth_a_try(struct memory_guess *guess, uint64_t timeline, struct page_key key)
{
    struct place *place = place_of(guess, timeline, key);
    if (place->misses <= MISSES_MAX * MEMORY) {
        return true;
    }
    place->passed = (uint16_t)((place->passed + 1) % TRY_EACH);
    return place->passed == 0;
}

/* An average that forgets: each note moves it by a part of MEMORY. */
void memory_guess_note(
    struct memory_guess *guess, uint64_t timeline, struct page_key key, bool is_found)
{
    struct place *place = place_of(guess, timeline, key);
    unsigned misses = place->misses - place->misses / MEMORY + (is_found ? 0 : MISSES_SURE);
    place->misses = (uint16_t)misses;
}
