#include "tests/lib/lossyfs/lossy_file.h"

#include "tests/unit/unit.h"

#define SEEDS 300
#define SIZE  (4 * LOSSY_PAGE_SIZE)

static struct lossy_file file;
static uint8_t found[2 * SIZE];

static void given_file(void)
{
    lossy_file_init(&file);
}

static void write_letter(uint64_t offset, size_t size, char letter)
{
    uint8_t bytes[SIZE];
    memset(bytes, letter, size);
    lossy_file_write(&file, offset, bytes_of(bytes, size));
}

static size_t read_all(void)
{
    memset(found, '?', sizeof(found));
    return lossy_file_read(&file, 0, found, sizeof(found));
}

static bool is_all(size_t begin, size_t end, uint8_t letter)
{
    for (size_t i = begin; i < end; i++) {
        if (found[i] != letter) {
            return false;
        }
    }
    return true;
}

static struct lossy_cut cut(uint64_t seed, unsigned percent)
{
    struct lossy_cut cut = {.keep_percent = percent};
    prng_init(&cut.prng, seed);
    lossy_file_cut(&file, &cut);
    return cut;
}

START_TEST(test_synced_bytes_survive_every_cut)
{
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        given_file();
        write_letter(100, 5000, 'a');
        write_letter(3000, 5000, 'b');
        lossy_file_sync(&file);
        (void)cut(seed, seed % 101);
        ck_assert_uint_eq(read_all(), 8000);
        ck_assert(is_all(0, 100, 0) && is_all(100, 3000, 'a') && is_all(3000, 8000, 'b'));
        lossy_file_deinit(&file);
    }
}
END_TEST

START_TEST(test_without_sync_all_is_lost_or_all_is_kept_when_asked)
{
    given_file();
    write_letter(0, 6000, 'a');
    struct lossy_cut done = cut(1, 0);
    ck_assert_uint_eq(read_all(), 0);
    ck_assert_uint_eq(done.lost, 1);
    write_letter(0, 6000, 'b');
    lossy_file_resize(&file, 5000);
    done = cut(1, 100);
    ck_assert_uint_eq(read_all(), 5000);
    ck_assert(is_all(0, 5000, 'b'));
    ck_assert_uint_eq(done.kept, 2);
    lossy_file_deinit(&file);
}
END_TEST

/* Each sector is whole, of one moment; over the seeds every combination that matters is seen. */
START_TEST(test_a_sector_is_as_it_was_at_some_moment)
{
    unsigned torn = 0, reordered = 0, newest = 0, oldest = 0;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        given_file();
        write_letter(0, SIZE, 'a');
        lossy_file_sync(&file);
        write_letter(0, SIZE, 'b');
        write_letter(SIZE / 2, SIZE / 2, 'c');
        (void)cut(seed, 50);
        ck_assert_uint_eq(read_all(), SIZE);
        unsigned seen[3] = {0}, first_b = 0;
        for (size_t at = 0; at < SIZE; at += LOSSY_SECTOR_SIZE) {
            ck_assert(is_all(at, at + LOSSY_SECTOR_SIZE, found[at]));
            ck_assert(found[at] == 'a' || found[at] == 'b' || found[at] == 'c');
            seen[found[at] - 'a']++;
            first_b += at < SIZE / 2 && found[at] == 'b' ? 1 : 0;
        }
        torn += first_b > 0 && first_b < SIZE / 2 / LOSSY_SECTOR_SIZE ? 1 : 0;
        reordered += seen[2] > 0 && first_b == 0 ? 1 : 0;
        newest += seen[2] == SIZE / 2 / LOSSY_SECTOR_SIZE && first_b == seen[2] ? 1 : 0;
        oldest += seen[1] + seen[2] == 0 ? 1 : 0;
        lossy_file_deinit(&file);
    }
    ck_assert(torn > 0 && reordered > 0 && newest > 0 && oldest > 0);
}
END_TEST

/* A sector goes to disk as the cache has it: what was in it before comes along. */
START_TEST(test_a_later_append_to_a_sector_brings_the_earlier_one)
{
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        given_file();
        write_letter(0, 100, 'a');
        write_letter(100, 100, 'b');
        (void)cut(seed, 50);
        size_t size = read_all();
        ck_assert(size == 0 || size == 100 || size == 200);
        if (size == 200 && found[100] == 'b') {
            ck_assert(is_all(0, 100, 'a'));
        }
        lossy_file_deinit(&file);
    }
}
END_TEST

START_TEST(test_what_was_cut_off_does_not_come_back_below_a_later_size)
{
    unsigned sizes[3] = {0};
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        given_file();
        write_letter(0, 8192, 'a');
        lossy_file_sync(&file);
        lossy_file_resize(&file, 10);
        write_letter(5000, 100, 'b');
        (void)cut(seed, 50);
        size_t size = read_all();
        ck_assert(size == 8192 || size == 10 || size == 5100);
        sizes[size == 8192 ? 0 : size == 10 ? 1 : 2]++;
        if (size == 5100) {
            ck_assert(is_all(10, 5000, 0));
            ck_assert(is_all(5000, 5100, 'b') || is_all(5000, 5100, 0));
        }
        lossy_file_deinit(&file);
    }
    ck_assert(sizes[0] > 0 && sizes[1] > 0 && sizes[2] > 0);
}
END_TEST

START_TEST(test_size_without_its_bytes_reads_as_zeros)
{
    bool seen = false;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        given_file();
        write_letter(0, 3000, 'a');
        (void)cut(seed, 50);
        seen |= read_all() == 3000 && is_all(0, 3000, 0);
        lossy_file_deinit(&file);
    }
    ck_assert(seen);
}
END_TEST

START_TEST(test_failed_sync_loses_and_the_next_one_brings_nothing_back)
{
    given_file();
    write_letter(0, 1000, 'a');
    lossy_file_sync(&file);
    write_letter(500, 1000, 'b');
    lossy_file_drop_changes(&file);
    ck_assert_uint_eq(read_all(), 1000);
    ck_assert(is_all(0, 1000, 'a'));
    lossy_file_sync(&file);
    (void)cut(1, 50);
    ck_assert_uint_eq(read_all(), 1000);
    ck_assert(is_all(0, 1000, 'a'));
    lossy_file_deinit(&file);
}
END_TEST

START_TEST(test_a_flipped_bit_stays_flipped)
{
    given_file();
    write_letter(0, 1000, 'a');
    lossy_file_sync(&file);
    ck_assert(lossy_file_flip(&file, 700, 0));
    ck_assert(!lossy_file_flip(&file, 1000, 0));
    (void)cut(1, 50);
    ck_assert_uint_eq(read_all(), 1000);
    ck_assert(is_all(0, 700, 'a') && found[700] == ('a' ^ 1) && is_all(701, 1000, 'a'));
    lossy_file_deinit(&file);
}
END_TEST

/* As a log that nobody ever syncs. */
START_TEST(test_what_is_old_enough_is_written_back_by_itself)
{
    given_file();
    for (unsigned i = 0; i < 10000; i++) {
        write_letter((uint64_t)i * 10, 10, 'a');
    }
    ck_assert_uint_lt(file.change_count, 10000);
    (void)cut(1, 0);
    uint8_t bytes[2000];
    ck_assert_uint_gt(file.cached.size, 1000);
    ck_assert_uint_lt(file.cached.size, 100000);
    ck_assert_uint_eq(lossy_file_read(&file, 0, bytes, 1000), 1000);
    ck_assert_int_eq(bytes[999], 'a');
    lossy_file_deinit(&file);
}
END_TEST

UNIT_MAIN(
    "lossy_file",
    test_synced_bytes_survive_every_cut,
    test_without_sync_all_is_lost_or_all_is_kept_when_asked,
    test_a_sector_is_as_it_was_at_some_moment,
    test_a_later_append_to_a_sector_brings_the_earlier_one,
    test_what_was_cut_off_does_not_come_back_below_a_later_size,
    test_size_without_its_bytes_reads_as_zeros,
    test_failed_sync_loses_and_the_next_one_brings_nothing_back,
    test_a_flipped_bit_stays_flipped,
    test_what_is_old_enough_is_written_back_by_itself);
