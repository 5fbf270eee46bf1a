#include "control/model/name.h"

#include <stdio.h>

#include "common/base/prng.h"

static const char *const adjectives[] = {
    "amber",  "ancient", "bold",   "brisk",  "broad", "calm",   "clear",  "cold",
    "cool",   "deep",    "early",  "fair",   "fast",  "fresh",  "gentle", "golden",
    "grand",  "green",   "hidden", "icy",    "jade",  "keen",   "late",   "little",
    "long",   "lucky",   "mellow", "mild",   "misty", "narrow", "noble",  "old",
    "open",   "pale",    "plain",  "proud",  "quick", "quiet",  "rapid",  "red",
    "round",  "royal",   "silent", "silver", "slow",  "small",  "snowy",  "soft",
    "steady", "still",   "sunny",  "swift",  "tall",  "tidy",   "upper",  "warm",
    "white",  "wide",    "wild",   "winter", "wise",  "young",  "blue",   "lively"};
static const char *const nouns[] = {
    "bank",   "basin", "bay",    "bayou",  "beach",   "bend",   "bight", "bridge",
    "brook",  "canal", "cape",   "cave",   "channel", "cliff",  "coast", "cove",
    "creek",  "dam",   "delta",  "dew",    "estuary", "falls",  "ferry", "fjord",
    "flood",  "ford",  "fork",   "geyser", "glacier", "gorge",  "gulf",  "harbor",
    "ice",    "inlet", "island", "lagoon", "lake",    "levee",  "loch",  "marsh",
    "meadow", "mist",  "moor",   "oxbow",  "pond",    "pool",   "rain",  "rapids",
    "reef",   "ridge", "rill",   "river",  "sea",     "shoal",  "shore", "sluice",
    "snow",   "sound", "spring", "stream", "tide",    "valley", "wave",  "weir"};

static const char base32[] = "0123456789abcdefghjkmnpqrstvwxyz";

static const char *pick(const char *const *words, size_t count)
{
    uint32_t random = 0;
    prng_secure(&random, sizeof random);
    return words[random % count];
}

static void with_base32(row_id_t ret_id, const char *prefix)
{
    uint8_t random[8];
    char tail[9] = {0};
    prng_secure(random, sizeof random);
    for (size_t i = 0; i < sizeof random; i++) {
        tail[i] = base32[random[i] % 32];
    }
    snprintf(
        ret_id, ROW_ID_SIZE, "%s-%s-%s-%s", prefix, pick(adjectives, ARRAY_LEN(adjectives)),
        pick(nouns, ARRAY_LEN(nouns)), tail);
}

void name_project(row_id_t ret_id)
{
    uint32_t random = 0;
    prng_secure(&random, sizeof random);
    snprintf(
        ret_id, ROW_ID_SIZE, "%s-%s-%08u", pick(adjectives, ARRAY_LEN(adjectives)),
        pick(nouns, ARRAY_LEN(nouns)), (unsigned)(random % 100000000));
}

void name_branch(row_id_t ret_id)
{
    with_base32(ret_id, "br");
}

void name_snapshot(row_id_t ret_id)
{
    with_base32(ret_id, "snap");
}

void name_endpoint(row_id_t ret_id)
{
    with_base32(ret_id, "ep");
}

void name_operation(row_id_t ret_id)
{
    uint8_t b[16];
    prng_secure(b, sizeof b);
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    snprintf(
        ret_id, ROW_ID_SIZE, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
        b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
        b[14], b[15]);
}

struct tenant_id name_tenant(void)
{
    struct tenant_id id;
    prng_secure(id.bytes, sizeof id.bytes);
    return id;
}

struct timeline_id name_timeline(void)
{
    struct timeline_id id;
    prng_secure(id.bytes, sizeof id.bytes);
    return id;
}

void name_password(char ret_password[PASSWORD_SIZE])
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    for (size_t i = 0; i + 1 < PASSWORD_SIZE;) {
        uint8_t random = 0;
        prng_secure(&random, 1);
        if (random < 4 * 62) { /* otherwise the first letters would come more often */
            ret_password[i++] = letters[random % 62];
        }
    }
    ret_password[PASSWORD_SIZE - 1] = '\0';
}
