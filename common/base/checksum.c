#include "common/base/checksum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/base/assert.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#include <wmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t crc32c_hardware(
    uint32_t crc, const uint8_t *data, size_t size)
{
    uint64_t wide = crc;
    while (size >= 8) {
        uint64_t word;
        memcpy(&word, data, sizeof(word));
        wide = _mm_crc32_u64(wide, word);
        data += 8;
        size -= 8;
    }
    crc = (uint32_t)wide;
    while (size-- > 0) {
        crc = _mm_crc32_u8(crc, *data++);
    }
    return crc;
}

/*
 * The instruction takes three cycles and a new one may begin each cycle: three sums beside each
 * other cost what one does. A lane is so long that a page and its frame are eight rounds.
 */
#define LANE_BYTES    336
#define BEHIND_ONE    0xA60CE07Bu /* x^(8 n - 33) modulo the polynomial: n zeros behind a sum */
#define BEHIND_TWO    0xCEC3662Eu
#define BY_LANES_FROM ((size_t)3 * LANE_BYTES)

/* What the sum becomes behind so many zeros as `factor` says. */
__attribute__((target("sse4.2,pclmul"))) static uint64_t crc32c_behind(
    uint64_t crc, uint32_t factor)
{
    __m128i product = _mm_clmulepi64_si128(
        _mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128((long long)factor), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t crc32c_by_lanes(
    uint32_t crc, const uint8_t *data, size_t size)
{
    uint64_t first = crc;
    for (; size >= BY_LANES_FROM; size -= BY_LANES_FROM) {
        uint64_t second = 0, third = 0;
        for (size_t i = 0; i < LANE_BYTES; i += 8) {
            uint64_t word;
            memcpy(&word, data + i, sizeof(word));
            first = _mm_crc32_u64(first, word);
            memcpy(&word, data + LANE_BYTES + i, sizeof(word));
            second = _mm_crc32_u64(second, word);
            memcpy(&word, data + (size_t)2 * LANE_BYTES + i, sizeof(word));
            third = _mm_crc32_u64(third, word);
        }
        first = crc32c_behind(first, BEHIND_TWO) ^ crc32c_behind(second, BEHIND_ONE) ^ third;
        data += BY_LANES_FROM;
    }
    return crc32c_hardware((uint32_t)first, data, size);
}
#endif

static uint32_t crc32c_portable(uint32_t crc, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (0x82F63B78u & -(crc & 1)); /* reflected Castagnoli polynomial */
        }
    }
    return crc;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
    crc = ~crc;
#if defined(__x86_64__)
    if (size >= BY_LANES_FROM && __builtin_cpu_supports("sse4.2") &&
        __builtin_cpu_supports("pclmul")) {
        return ~crc32c_by_lanes(crc, data, size);
    }
    if (__builtin_cpu_supports("sse4.2")) {
        return ~crc32c_hardware(crc, data, size);
    }
#endif
    return ~crc32c_portable(crc, data, size);
}

uint64_t hash64(const void *data, size_t size, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, size, seed);
}

static struct hash128 canonical(XXH128_hash_t hash)
{
    XXH128_canonical_t form;
    struct hash128 result;
    static_assert(sizeof(form.digest) == sizeof(result.bytes), "both are 128 bits");
    XXH128_canonicalFromHash(&form, hash);
    memcpy(result.bytes, form.digest, sizeof(result.bytes));
    return result;
}

struct hash128 hash128(struct bytes data)
{
    return canonical(XXH3_128bits(data.data, data.size));
}

bool hash128_equal(struct hash128 a, struct hash128 b)
{
    return memcmp(a.bytes, b.bytes, sizeof(a.bytes)) == 0;
}

struct hash128_stream {
    XXH3_state_t state; /* the library's own allocator gives it the alignment that it wants */
};

struct hash128_stream *hash128_start(void)
{
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) {
        fatal("out of memory: checksum");
    }
    (void)XXH3_128bits_reset(state);
    return CONTAINER_OF(state, struct hash128_stream, state);
}

void hash128_feed(struct hash128_stream *stream, struct bytes piece)
{
    (void)XXH3_128bits_update(&stream->state, piece.data, piece.size);
}

struct hash128 hash128_finish(struct hash128_stream *stream)
{
    struct hash128 result = canonical(XXH3_128bits_digest(&stream->state));
    (void)XXH3_freeState(&stream->state);
    return result;
}
