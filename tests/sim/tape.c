#include "tests/sim/tape.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "tests/sim/climate.h"

#define LINE_VALUES  40
#define VALUES_LIMIT (1u << 22) /* of a stream in a file */

static const char *const names[] = {
#define X(NAME, name, salt) #name,
    TAPE_STREAMS(X)
#undef X
};

static const uint64_t salts[] = {
#define X(NAME, name, salt) salt,
    TAPE_STREAMS(X)
#undef X
};

static void clear(struct tape *tape)
{
    tape->seed = tape->calm = 0;
    for (int i = 0; i < TAPE_STREAM_COUNT; i++) {
        tape->streams[i].count = 0;
        tape->next[i] = 0;
    }
}

void tape_deinit(struct tape *tape)
{
    for (int i = 0; i < TAPE_STREAM_COUNT; i++) {
        mem_free(tape->streams[i].items);
        tape->streams[i] = (struct tape_values){0};
    }
}

static void sow(struct tape *tape, uint64_t seed)
{
    for (int i = 0; i < TAPE_STREAM_COUNT; i++) {
        prng_init(&tape->prngs[i], seed ^ salts[i]);
    }
}

void tape_seed(struct tape *tape, uint64_t seed)
{
    clear(tape);
    tape->source = TAPE_OF_SEED;
    tape->seed = seed;
    sow(tape, seed);
}

void tape_bytes(struct tape *tape, struct bytes bytes)
{
    uint64_t seed = 0;
    size_t size = MIN_OF(bytes.size, (size_t)TAPE_BYTES_SEED);
    for (size_t i = 0; i < size; i++) {
        seed = seed << 8 | bytes.data[i];
    }
    clear(tape);
    tape->source = TAPE_OF_BYTES;
    tape->bytes = bytes_of(bytes.data + size, bytes.size - size);
    sow(tape, seed);
}

void tape_rewind(struct tape *tape)
{
    tape->source = TAPE_OF_FILE;
    memset(tape->next, 0, sizeof(tape->next));
}

static void push(struct tape_values *values, uint64_t value)
{
    if (values->count == values->capacity) {
        values->capacity = MAX_OF(values->capacity * 2, 256);
        values->items = mem_realloc(values->items, values->capacity * sizeof(uint64_t));
    }
    values->items[values->count++] = value;
}

static uint64_t recorded(struct tape *tape, enum tape_stream stream)
{
    const struct tape_values *values = &tape->streams[stream];
    return tape->next[stream] < values->count ? values->items[tape->next[stream]++] : 0;
}

/* As many bytes as the greatest answer needs, so that a change of one byte changes one answer. */
static uint64_t from_bytes(struct tape *tape, uint64_t sides)
{
    uint64_t value = 0;
    ASSERT(tape->bytes.size > 0);
    for (uint64_t rest = sides - 1; rest > 0 && tape->bytes.size > 0; rest >>= 8) {
        value = value << 8 | tape->bytes.data[0];
        tape->bytes = bytes_of(tape->bytes.data + 1, tape->bytes.size - 1);
    }
    return value % sides;
}

/* The climate is the seed's: one that bytes draw is calm, and a calm one takes ten times as long.
 */
static bool is_from_bytes(const struct tape *tape, enum tape_stream stream)
{
    return tape->source == TAPE_OF_BYTES && stream != TAPE_SWARM && tape->bytes.size > 0;
}

uint64_t tape_below(struct tape *tape, enum tape_stream stream, uint64_t sides)
{
    ASSERT(sides > 0);
    if (tape->source == TAPE_OF_FILE) {
        uint64_t answer = recorded(tape, stream);
        return MIN_OF(answer, sides - 1);
    }
    uint64_t value = is_from_bytes(tape, stream) ? from_bytes(tape, sides)
                                                 : prng_below(&tape->prngs[stream], sides);
    if (tape->recording) {
        push(&tape->streams[stream], value);
    }
    return value;
}

bool tape_one_in(struct tape *tape, enum tape_stream stream, uint64_t n)
{
    if (n == 0) {
        return false;
    }
    if (tape->source == TAPE_OF_FILE) {
        return recorded(tape, stream) != 0;
    }
    bool yes = is_from_bytes(tape, stream) ? from_bytes(tape, n) == n - 1
                                           : prng_below(&tape->prngs[stream], n) == 0;
    if (tape->recording) {
        push(&tape->streams[stream], yes);
    }
    return yes;
}

/* ---- files ---- */

static void save_stream(const struct tape_values *values, const char *name, FILE *file)
{
    size_t count = values->count;
    while (count > 0 && values->items[count - 1] == 0) {
        count--; /* a stream that is used up answers 0 anyway */
    }
    size_t in_line = 0;
    for (size_t i = 0; i < count;) {
        size_t zeros = 0;
        while (values->items[i + zeros] == 0) {
            zeros++;
        }
        if (in_line++ % LINE_VALUES == 0) {
            (void)fprintf(file, "%s%s", i == 0 ? "" : "\n", name);
        }
        if (zeros > 2) {
            (void)fprintf(file, " 0*%zu", zeros);
            i += zeros;
        } else {
            (void)fprintf(file, " %" PRIu64, values->items[i++]);
        }
    }
    (void)fputs(count > 0 ? "\n" : "", file);
}

void tape_save(const struct tape *tape, const char *comment, FILE *file)
{
    (void)fprintf(file, "# %s\nseed %" PRIu64 "\n", comment, tape->seed);
    if (tape->calm != 0) {
        (void)fputs("without", file);
        for (int i = 0; i < CALMS; i++) {
            if ((tape->calm >> i & 1) != 0) {
                (void)fprintf(file, " %s", climate_calm_name((enum climate_calm)i));
            }
        }
        (void)fputc('\n', file);
    }
    for (int i = 0; i < TAPE_STREAM_COUNT; i++) {
        save_stream(&tape->streams[i], names[i], file);
    }
}

static err_t load_value(struct tape_values *values, char *word, struct errmsg *msg)
{
    uint64_t times = 1, value = 0;
    char *star = strchr(word, '*');
    if (star != NULL) {
        *star = '\0';
        TRY(parse_u64(star + 1, 1, VALUES_LIMIT, &times, msg));
    }
    TRY(parse_u64(word, 0, UINT64_MAX, &value, msg));
    if (times > VALUES_LIMIT - values->count) {
        return err_set(msg, ERR_CORRUPT, "more than %u values", VALUES_LIMIT);
    }
    for (uint64_t i = 0; i < times; i++) {
        push(values, value);
    }
    return ERR_OK;
}

static err_t load_word(struct tape *tape, const char *name, char *word, struct errmsg *msg)
{
    enum climate_calm calm;
    if (strcmp(name, "seed") == 0) {
        return parse_u64(word, 0, UINT64_MAX, &tape->seed, msg);
    }
    if (strcmp(name, "without") == 0) {
        if (!climate_calm_parse(word, &calm)) {
            return err_set(msg, ERR_CORRUPT, "no kind of trouble is called %s", word);
        }
        tape->calm |= 1u << calm;
        return ERR_OK;
    }
    for (int i = 0; i < TAPE_STREAM_COUNT; i++) {
        if (strcmp(name, names[i]) == 0) {
            return load_value(&tape->streams[i], word, msg);
        }
    }
    return err_set(msg, ERR_CORRUPT, "no stream is called %s", name);
}

err_t tape_load(struct tape *tape, FILE *file, struct errmsg *msg)
{
    static char line[1 << 16];
    clear(tape);
    tape_rewind(tape);
    for (int number = 1; fgets(line, sizeof(line), file) != NULL; number++) {
        line[strcspn(line, "#\n")] = '\0';
        char *rest = line;
        const char *name = strsep(&rest, " ");
        for (char *word; (word = strsep(&rest, " ")) != NULL;) {
            err_t err = *word == '\0' ? ERR_OK : load_word(tape, name, word, msg);
            if (err != ERR_OK) {
                return err_wrap(msg, err, "line %d", number);
            }
        }
    }
    return ERR_OK;
}

void tape_copy(struct tape *to, const struct tape *from)
{
    clear(to);
    to->seed = from->seed;
    to->calm = from->calm;
    for (int i = 0; i < TAPE_STREAM_COUNT; i++) {
        for (size_t k = 0; k < from->streams[i].count; k++) {
            push(&to->streams[i], from->streams[i].items[k]);
        }
    }
    tape_rewind(to);
}
