#include "tests/lib/lossyfs/lossy_tree.h"

#include <errno.h>
#include <stdio.h>

#include "tests/unit/unit.h"

#define SEEDS 200

static struct lossy_tree tree;

static struct lossy_inode *create(struct lossy_inode *dir, const char *name, mode_t type)
{
    struct lossy_inode *inode = NULL;
    ck_assert_int_eq(lossy_tree_create(&tree, dir, name, type | 0700, NULL, &inode), 0);
    return inode;
}

static void write_text(struct lossy_inode *inode, const char *text)
{
    ck_assert_int_eq(lossy_tree_write(&tree, inode, 0, bytes_of_str(text)), 0);
}

static void rename_file(const char *from, const char *to)
{
    ck_assert_int_eq(lossy_tree_rename(&tree, tree.root, from, tree.root, to, true), 0);
}

static struct lossy_cut cut(uint64_t seed, unsigned percent)
{
    struct lossy_cut cut = {.keep_percent = percent};
    prng_init(&cut.prng, seed);
    lossy_tree_cut(&tree, &cut);
    return cut;
}

static bool exists(const char *path)
{
    return lossy_tree_walk(&tree, path) != NULL;
}

static bool holds(const char *path, const char *text)
{
    uint8_t bytes[100];
    const struct lossy_inode *inode = lossy_tree_walk(&tree, path);
    return inode != NULL &&
           bytes_equal(
               bytes_of(bytes, lossy_file_read(&inode->file, 0, bytes, sizeof(bytes))),
               bytes_of_str(text));
}

/* -- names -- */

START_TEST(test_a_new_name_may_be_lost_until_its_folder_is_synced)
{
    unsigned lost = 0;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        lossy_tree_init(&tree, LOSSY_NAMES_STRICT);
        lossy_tree_sync(&tree, create(tree.root, "synced itself", S_IFREG));
        (void)cut(seed, 50);
        lost += exists("/synced itself") ? 0 : 1;
        create(tree.root, "kept", S_IFREG);
        lossy_tree_sync(&tree, tree.root);
        (void)cut(seed, 0);
        ck_assert(exists("/kept"));
        lossy_tree_deinit(&tree);
    }
    ck_assert(lost > 0 && lost < SEEDS);
}
END_TEST

START_TEST(test_with_names_as_on_linux_a_synced_file_keeps_its_name)
{
    lossy_tree_init(&tree, LOSSY_NAMES_LINUX);
    struct lossy_inode *folder = create(tree.root, "folder", S_IFDIR);
    create(folder, "not synced", S_IFREG);
    lossy_tree_sync(&tree, create(folder, "synced", S_IFREG));
    (void)cut(1, 0);
    ck_assert(exists("/folder/synced") && !exists("/folder/not synced"));
    lossy_tree_deinit(&tree);
}
END_TEST

START_TEST(test_a_folder_without_a_name_takes_what_is_in_it_along)
{
    lossy_tree_init(&tree, LOSSY_NAMES_STRICT);
    struct lossy_inode *folder = create(tree.root, "folder", S_IFDIR);
    create(folder, "file", S_IFREG);
    lossy_tree_sync(&tree, folder);
    (void)cut(1, 0);
    ck_assert(!exists("/folder"));
    ck_assert_uint_eq(tree.inode_count, 1);
    lossy_tree_deinit(&tree);
}
END_TEST

START_TEST(test_a_rename_is_one_step_and_replaces_in_one_step)
{
    unsigned old = 0;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        lossy_tree_init(&tree, LOSSY_NAMES_STRICT);
        write_text(create(tree.root, "temp", S_IFREG), "new");
        write_text(create(tree.root, "final", S_IFREG), "old");
        lossy_tree_sync(&tree, lossy_tree_walk(&tree, "/temp"));
        lossy_tree_sync(&tree, lossy_tree_walk(&tree, "/final"));
        lossy_tree_sync(&tree, tree.root);
        rename_file("temp", "final");
        (void)cut(seed, 50);
        bool is_old = exists("/temp");
        ck_assert(holds("/final", is_old ? "old" : "new"));
        old += is_old ? 1 : 0;
        lossy_tree_deinit(&tree);
    }
    ck_assert(old > 0 && old < SEEDS);
}
END_TEST

START_TEST(test_a_thing_has_one_name_after_two_renames)
{
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        lossy_tree_init(&tree, LOSSY_NAMES_STRICT);
        create(tree.root, "a", S_IFDIR);
        lossy_tree_sync(&tree, tree.root);
        rename_file("a", "b");
        rename_file("b", "c");
        (void)cut(seed, 50);
        ck_assert_int_eq(exists("/a") + exists("/b") + exists("/c"), 1);
        lossy_tree_deinit(&tree);
    }
}
END_TEST

START_TEST(test_a_removed_file_may_come_back_with_its_bytes)
{
    unsigned back = 0;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        lossy_tree_init(&tree, LOSSY_NAMES_STRICT);
        struct lossy_inode *inode = create(tree.root, "file", S_IFREG);
        write_text(inode, "text");
        lossy_tree_sync(&tree, inode);
        lossy_tree_sync(&tree, tree.root);
        ck_assert_int_eq(lossy_tree_remove(&tree, tree.root, "file", false), 0);
        ck_assert(!exists("/file"));
        (void)cut(seed, 50);
        back += holds("/file", "text") ? 1 : 0;
        lossy_tree_deinit(&tree);
    }
    ck_assert(back > 0 && back < SEEDS);
}
END_TEST

START_TEST(test_two_names_of_one_file_are_lost_apart)
{
    lossy_tree_init(&tree, LOSSY_NAMES_STRICT);
    struct lossy_inode *inode = create(tree.root, "one", S_IFREG);
    struct lossy_inode *folder = create(tree.root, "folder", S_IFDIR);
    lossy_tree_sync(&tree, tree.root);
    ck_assert_int_eq(lossy_tree_link(&tree, inode, folder, "two"), 0);
    ck_assert_uint_eq(inode->links, 2);
    (void)cut(1, 0);
    ck_assert(exists("/one") && !exists("/folder/two"));
    ck_assert_uint_eq(inode->links, 1);
    lossy_tree_deinit(&tree);
}
END_TEST

/* -- writers: what such a disk is for -- */

enum writer { WRITER_RIGHT, WRITER_WITHOUT_FILE_SYNC, WRITER_WITHOUT_FOLDER_SYNC };

/* Replaces a file durably, as file_rename_durably() does; then the power goes. */
static bool is_found_whole(enum writer writer, unsigned seed)
{
    lossy_tree_init(&tree, LOSSY_NAMES_STRICT);
    write_text(create(tree.root, "state", S_IFREG), "old");
    lossy_tree_sync(&tree, lossy_tree_walk(&tree, "/state"));
    lossy_tree_sync(&tree, tree.root);

    struct lossy_inode *inode = create(tree.root, "state.new", S_IFREG);
    write_text(inode, "new");
    if (writer != WRITER_WITHOUT_FILE_SYNC) {
        lossy_tree_sync(&tree, inode);
    }
    rename_file("state.new", "state");
    if (writer != WRITER_WITHOUT_FOLDER_SYNC) {
        lossy_tree_sync(&tree, tree.root);
    }
    (void)cut(seed, 50);
    bool is_whole = holds("/state", "new");
    lossy_tree_deinit(&tree);
    return is_whole;
}

START_TEST(test_a_writer_that_forgets_a_sync_is_caught)
{
    unsigned caught_file = 0, caught_folder = 0;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        ck_assert(is_found_whole(WRITER_RIGHT, seed));
        caught_file += is_found_whole(WRITER_WITHOUT_FILE_SYNC, seed) ? 0 : 1;
        caught_folder += is_found_whole(WRITER_WITHOUT_FOLDER_SYNC, seed) ? 0 : 1;
    }
    ck_assert(caught_file > SEEDS / 4 && caught_folder > SEEDS / 4);
}
END_TEST

/* -- the rest -- */

/* Some names and bytes, half of them synced; a number that says what a cut made of it. */
static uint64_t outcome(uint64_t seed)
{
    char name[16];
    uint64_t sum = 0;
    lossy_tree_init(&tree, LOSSY_NAMES_STRICT);
    for (unsigned i = 0; i < 64; i++) {
        (void)snprintf(name, sizeof(name), "file%u", i);
        write_text(create(tree.root, name, S_IFREG), name);
        if (i == 32) {
            lossy_tree_sync(&tree, tree.root);
        }
    }
    (void)cut(seed, 50);
    for (unsigned i = 0; i < 64; i++) {
        (void)snprintf(name, sizeof(name), "/file%u", i);
        sum = sum * 31 + (exists(name) ? 1 : 0) + (holds(name, name + 1) ? 1 : 0);
    }
    lossy_tree_deinit(&tree);
    return sum;
}

START_TEST(test_the_seed_decides)
{
    ck_assert_uint_eq(outcome(7), outcome(7));
    ck_assert_uint_ne(outcome(7), outcome(8));
}
END_TEST

START_TEST(test_a_full_disk_refuses_what_needs_room)
{
    lossy_tree_init(&tree, LOSSY_NAMES_STRICT);
    struct lossy_inode *inode = create(tree.root, "file", S_IFREG);
    tree.page_count_max = 1;
    write_text(inode, "first page");
    ck_assert_int_eq(lossy_tree_write(&tree, inode, 4096, bytes_of_str("second")), ENOSPC);
    write_text(inode, "again");
    ck_assert_int_eq(lossy_tree_remove(&tree, tree.root, "file", false), 0);
    lossy_tree_sync(&tree, tree.root); /* until then a cut could bring it back */
    write_text(create(tree.root, "other", S_IFREG), "other");
    lossy_tree_deinit(&tree);
}
END_TEST

START_TEST(test_names_answer_as_the_system_calls_do)
{
    lossy_tree_init(&tree, LOSSY_NAMES_STRICT);
    struct lossy_inode *inode, *folder = create(tree.root, "folder", S_IFDIR);
    inode = create(folder, "file", S_IFREG);
    ck_assert_int_eq(lossy_tree_create(&tree, folder, "file", S_IFREG, NULL, &inode), EEXIST);
    ck_assert_int_eq(lossy_tree_remove(&tree, tree.root, "none", false), ENOENT);
    ck_assert_int_eq(lossy_tree_remove(&tree, tree.root, "folder", false), EISDIR);
    ck_assert_int_eq(lossy_tree_remove(&tree, tree.root, "folder", true), ENOTEMPTY);
    ck_assert_int_eq(lossy_tree_link(&tree, folder, tree.root, "other"), EPERM);
    ck_assert_int_eq(lossy_tree_rename(&tree, folder, "file", tree.root, "folder", true), EISDIR);
    ck_assert_int_eq(lossy_tree_rename(&tree, folder, "file", folder, "moved", true), 0);
    char path[64];
    lossy_tree_path(lossy_tree_walk(&tree, "/folder/moved"), NULL, path, sizeof(path));
    ck_assert_str_eq(path, "/folder/moved");
    lossy_tree_deinit(&tree);
}
END_TEST

UNIT_MAIN(
    "lossy_tree",
    test_a_new_name_may_be_lost_until_its_folder_is_synced,
    test_with_names_as_on_linux_a_synced_file_keeps_its_name,
    test_a_folder_without_a_name_takes_what_is_in_it_along,
    test_a_rename_is_one_step_and_replaces_in_one_step,
    test_a_thing_has_one_name_after_two_renames,
    test_a_removed_file_may_come_back_with_its_bytes,
    test_two_names_of_one_file_are_lost_apart,
    test_a_writer_that_forgets_a_sync_is_caught,
    test_the_seed_decides,
    test_a_full_disk_refuses_what_needs_room,
    test_names_answer_as_the_system_calls_do);
