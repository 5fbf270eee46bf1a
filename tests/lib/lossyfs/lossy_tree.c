#include "tests/lib/lossyfs/lossy_tree.h"

#include <errno.h>
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

#define SWEEP_INODES_MIN 256

/* One name gets another meaning. */
struct half {
    struct lossy_inode *dir;
    struct lossy_entry *entry;
    struct lossy_inode *to; /* NULL: the name goes */
};

/* A rename has two halves: the new name, and the old one. */
struct change {
    struct list_link link;
    uint64_t sequence;
    size_t half_count;
    struct half halves[2];
    bool is_kept;
};

/* -- inodes -- */

static bool is_folder_inode(const struct lossy_inode *inode)
{
    return S_ISDIR(inode->mode);
}

static struct lossy_inode *inode_create(struct lossy_tree *tree, mode_t mode, const char *target)
{
    struct lossy_inode *inode = MEM_NEW(struct lossy_inode);
    inode->number = tree->next_number++;
    inode->mode = mode;
    inode->target = target == NULL ? NULL : mem_strdup(target);
    lossy_file_init(&inode->file);
    list_init(&inode->entries);
    list_push_back(&tree->inodes, &inode->link);
    tree->inode_count++;
    return inode;
}

static void inode_free(struct lossy_tree *tree, struct lossy_inode *inode)
{
    LIST_FOR_EACH(&inode->entries, link)
    {
        mem_free(CONTAINER_OF(link, struct lossy_entry, link));
    }
    list_remove(&inode->link);
    tree->inode_count--;
    lossy_file_deinit(&inode->file);
    mem_free(inode->target);
    mem_free(inode);
}

/* -- names -- */

static struct lossy_entry *entry_find(struct lossy_inode *dir, const char *name)
{
    LIST_FOR_EACH(&dir->entries, link)
    {
        struct lossy_entry *entry = CONTAINER_OF(link, struct lossy_entry, link);
        if (strcmp(entry->name, name) == 0) {
            return entry;
        }
    }
    return NULL;
}

static struct lossy_entry *entry_get(struct lossy_inode *dir, const char *name)
{
    struct lossy_entry *entry = entry_find(dir, name);
    if (entry == NULL) {
        entry = MEM_NEW(struct lossy_entry);
        ASSERT(strlen(name) < sizeof(entry->name));
        memcpy(entry->name, name, strlen(name) + 1);
        list_push_back(&dir->entries, &entry->link);
    }
    return entry;
}

static bool is_empty_folder(struct lossy_inode *dir)
{
    LIST_FOR_EACH(&dir->entries, link)
    {
        if (CONTAINER_OF(link, struct lossy_entry, link)->cached != NULL) {
            return false;
        }
    }
    return true;
}

static void prune_entries(struct lossy_inode *dir)
{
    LIST_FOR_EACH(&dir->entries, link)
    {
        struct lossy_entry *entry = CONTAINER_OF(link, struct lossy_entry, link);
        if (entry->cached == NULL && entry->stable == NULL && entry->changes == 0) {
            list_remove(&entry->link);
            mem_free(entry);
        }
    }
}

static void entry_set_cached(
    struct lossy_inode *dir, struct lossy_entry *entry, struct lossy_inode *to)
{
    if (entry->cached != NULL) {
        entry->cached->links--;
    }
    entry->cached = to;
    if (to != NULL) {
        to->links++;
        to->parent = dir;
    }
}

static void add_half(struct change *change, struct lossy_inode *dir, struct lossy_entry *entry)
{
    change->halves[change->half_count++] =
        (struct half){.dir = dir, .entry = entry, .to = entry->cached};
    entry->changes++;
}

static struct change *add_change(struct lossy_tree *tree)
{
    struct change *change = MEM_NEW(struct change);
    change->sequence = tree->next_sequence++;
    list_push_back(&tree->changes, &change->link);
    tree->change_count++;
    return change;
}

static void set_name(
    struct lossy_tree *tree, struct lossy_inode *dir, const char *name, struct lossy_inode *to)
{
    struct lossy_entry *entry = entry_get(dir, name);
    entry_set_cached(dir, entry, to);
    add_half(add_change(tree), dir, entry);
}

/* -- what is still needed -- */

/* Marked inodes move to `reached`, so that each is looked at once. */
static void reach(struct list *reached, struct lossy_inode *inode)
{
    if (inode != NULL && !inode->is_marked) {
        inode->is_marked = true;
        list_remove(&inode->link);
        list_push_back(reached, &inode->link);
    }
}

/* Order by number again: what chance does must depend on the seed alone. */
static void insert_sorted(struct lossy_tree *tree, struct lossy_inode *inode)
{
    struct list_link *before = tree->inodes.head.prev;
    while (before != &tree->inodes.head &&
           CONTAINER_OF(before, struct lossy_inode, link)->number > inode->number) {
        before = before->prev;
    }
    inode->link = (struct list_link){.next = before->next, .prev = before};
    before->next->prev = &inode->link;
    before->next = &inode->link;
}

static void reach_from_entries(struct list *reached, struct lossy_inode *dir)
{
    LIST_FOR_EACH(&dir->entries, link)
    {
        const struct lossy_entry *entry = CONTAINER_OF(link, struct lossy_entry, link);
        reach(reached, entry->cached);
        reach(reached, entry->stable);
    }
}

static void reach_all(struct lossy_tree *tree, struct list *reached)
{
    reach(reached, tree->root);
    LIST_FOR_EACH(&tree->inodes, link)
    {
        struct lossy_inode *inode = CONTAINER_OF(link, struct lossy_inode, link);
        if (inode->holds > 0) {
            reach(reached, inode);
        }
    }
    LIST_FOR_EACH(&tree->changes, link)
    {
        const struct change *change = CONTAINER_OF(link, struct change, link);
        for (size_t i = 0; i < change->half_count; i++) {
            reach(reached, change->halves[i].dir);
            reach(reached, change->halves[i].to);
        }
    }
    /* The list grows while it is walked. */
    for (struct list_link *link = reached->head.next; link != &reached->head; link = link->next) {
        struct lossy_inode *inode = CONTAINER_OF(link, struct lossy_inode, link);
        reach_from_entries(reached, inode);
        reach(reached, inode->parent);
    }
}

static void sweep(struct lossy_tree *tree)
{
    struct list reached;
    list_init(&reached);
    reach_all(tree, &reached);
    while (!list_is_empty(&tree->inodes)) {
        inode_free(tree, CONTAINER_OF(list_first(&tree->inodes), struct lossy_inode, link));
    }
    for (struct list_link *link; (link = list_pop_front(&reached)) != NULL;) {
        struct lossy_inode *inode = CONTAINER_OF(link, struct lossy_inode, link);
        inode->is_marked = false;
        insert_sorted(tree, inode);
    }
    tree->inodes_at_sweep = tree->inode_count;
}

static void sweep_sometimes(struct lossy_tree *tree)
{
    if (tree->inode_count > 2 * tree->inodes_at_sweep + SWEEP_INODES_MIN) {
        sweep(tree);
    }
}

/* -- the tree -- */

void lossy_tree_init(struct lossy_tree *tree, enum lossy_names names)
{
    *tree = (struct lossy_tree){.names = names, .next_sequence = 1, .next_number = 1};
    list_init(&tree->inodes);
    list_init(&tree->changes);
    tree->root = inode_create(tree, S_IFDIR | 0755, NULL);
    tree->root->links = 1;
}

static void change_free(struct lossy_tree *tree, struct change *change)
{
    for (size_t i = 0; i < change->half_count; i++) {
        change->halves[i].entry->changes--;
    }
    list_remove(&change->link);
    tree->change_count--;
    mem_free(change);
}

void lossy_tree_deinit(struct lossy_tree *tree)
{
    LIST_FOR_EACH(&tree->changes, link)
    {
        change_free(tree, CONTAINER_OF(link, struct change, link));
    }
    LIST_FOR_EACH(&tree->inodes, link)
    {
        inode_free(tree, CONTAINER_OF(link, struct lossy_inode, link));
    }
}

struct lossy_inode *lossy_tree_find(
    const struct lossy_tree *tree, struct lossy_inode *dir, const char *name)
{
    (void)tree;
    const struct lossy_entry *entry = entry_find(dir, name);
    return entry == NULL ? NULL : entry->cached;
}

static int check_new_name(struct lossy_inode *dir, const char *name)
{
    const struct lossy_entry *entry = entry_find(dir, name);
    return !is_folder_inode(dir)                    ? ENOTDIR
           : strlen(name) >= LOSSY_NAME_SIZE        ? ENAMETOOLONG
           : entry != NULL && entry->cached != NULL ? EEXIST
                                                    : 0;
}

int lossy_tree_create(
    struct lossy_tree *tree,
    struct lossy_inode *dir,
    const char *name,
    mode_t mode,
    const char *target,
    struct lossy_inode **ret_inode)
{
    int error = check_new_name(dir, name);
    if (error != 0) {
        return error;
    }
    sweep_sometimes(tree);
    struct lossy_inode *inode = inode_create(tree, mode, target);
    set_name(tree, dir, name, inode);
    *ret_inode = inode;
    return 0;
}

int lossy_tree_link(
    struct lossy_tree *tree, struct lossy_inode *inode, struct lossy_inode *dir, const char *name)
{
    int error = check_new_name(dir, name);
    if (error != 0 || is_folder_inode(inode)) {
        return error != 0 ? error : EPERM;
    }
    set_name(tree, dir, name, inode);
    return 0;
}

static int check_removal(struct lossy_inode *inode, bool is_folder)
{
    return inode == NULL                                       ? ENOENT
           : is_folder && !is_folder_inode(inode)              ? ENOTDIR
           : !is_folder && is_folder_inode(inode)              ? EISDIR
           : is_folder_inode(inode) && !is_empty_folder(inode) ? ENOTEMPTY
                                                               : 0;
}

int lossy_tree_remove(
    struct lossy_tree *tree, struct lossy_inode *dir, const char *name, bool is_folder)
{
    int error = check_removal(lossy_tree_find(tree, dir, name), is_folder);
    if (error == 0) {
        set_name(tree, dir, name, NULL);
    }
    return error;
}

int lossy_tree_rename(
    struct lossy_tree *tree,
    struct lossy_inode *from_dir,
    const char *from,
    struct lossy_inode *to_dir,
    const char *to,
    bool may_replace)
{
    struct lossy_inode *inode = lossy_tree_find(tree, from_dir, from);
    struct lossy_inode *old = lossy_tree_find(tree, to_dir, to);
    if (inode == NULL || strlen(to) >= LOSSY_NAME_SIZE) {
        return inode == NULL ? ENOENT : ENAMETOOLONG;
    }
    int error = old == NULL    ? 0
                : !may_replace ? EEXIST
                               : check_removal(old, is_folder_inode(inode));
    if (error != 0 || old == inode) {
        return error;
    }
    struct lossy_entry *new_entry = entry_get(to_dir, to);
    struct lossy_entry *old_entry = entry_find(from_dir, from);
    entry_set_cached(from_dir, old_entry, NULL);
    entry_set_cached(to_dir, new_entry, inode);
    struct change *change = add_change(tree);
    add_half(change, to_dir, new_entry);
    add_half(change, from_dir, old_entry);
    return 0;
}

/* -- bytes -- */

size_t lossy_tree_pages(const struct lossy_tree *tree)
{
    size_t pages = 0;
    LIST_FOR_EACH(&tree->inodes, link)
    {
        pages += CONTAINER_OF(link, struct lossy_inode, link)->file.cached.page_count;
    }
    return pages;
}

static bool has_room(struct lossy_tree *tree, size_t pages)
{
    if (tree->page_count_max == 0 || pages == 0 ||
        lossy_tree_pages(tree) + pages <= tree->page_count_max) {
        return true;
    }
    sweep(tree);
    return lossy_tree_pages(tree) + pages <= tree->page_count_max;
}

int lossy_tree_write(
    struct lossy_tree *tree, struct lossy_inode *inode, uint64_t offset, struct bytes bytes)
{
    if (offset > LOSSY_FILE_SIZE_MAX || bytes.size > LOSSY_FILE_SIZE_MAX - offset) {
        return EFBIG;
    }
    if (!has_room(tree, lossy_file_pages_needed(&inode->file, offset, bytes.size))) {
        return ENOSPC;
    }
    lossy_file_write(&inode->file, offset, bytes);
    return 0;
}

int lossy_tree_resize(struct lossy_tree *tree, struct lossy_inode *inode, uint64_t size)
{
    (void)tree;
    if (size > LOSSY_FILE_SIZE_MAX) {
        return EFBIG;
    }
    lossy_file_resize(&inode->file, size);
    return 0;
}

/* -- names become certain -- */

static void keep_change(struct change *change)
{
    for (size_t i = 0; i < change->half_count; i++) {
        const struct half *half = &change->halves[i];
        if (half->entry->stable_sequence < change->sequence) {
            half->entry->stable = half->to;
            half->entry->stable_sequence = change->sequence;
        }
    }
}

/*
 * A kept rename comes with what gave the thing its old name. Such changes are older: one walk from
 * the newest to the oldest finds them all.
 */
static void keep_what_renames_need(struct lossy_tree *tree)
{
    for (struct list_link *link = tree->changes.head.prev; link != &tree->changes.head;
         link = link->prev) {
        struct change *change = CONTAINER_OF(link, struct change, link);
        for (size_t i = 0; i < change->half_count; i++) {
            change->is_kept |= change->halves[i].entry->is_needed;
        }
        if (change->is_kept && change->half_count == 2) {
            change->halves[1].entry->is_needed = true;
        }
    }
    LIST_FOR_EACH(&tree->changes, link)
    {
        struct change *change = CONTAINER_OF(link, struct change, link);
        change->halves[change->half_count - 1].entry->is_needed = false;
    }
}

static void settle_kept(struct lossy_tree *tree)
{
    keep_what_renames_need(tree);
    LIST_FOR_EACH(&tree->changes, link)
    {
        struct change *change = CONTAINER_OF(link, struct change, link);
        if (change->is_kept) {
            keep_change(change);
            change_free(tree, change);
        }
    }
}

/* The names of the inode and of the folders that it lies in. */
static void mark_own_names(struct lossy_tree *tree, const struct lossy_inode *inode)
{
    for (; inode != NULL && inode != tree->root; inode = inode->parent) {
        LIST_FOR_EACH(&tree->changes, link)
        {
            struct change *change = CONTAINER_OF(link, struct change, link);
            change->is_kept |= change->halves[0].to == inode;
        }
    }
}

void lossy_tree_sync(struct lossy_tree *tree, struct lossy_inode *inode)
{
    lossy_file_sync(&inode->file);
    if (tree->change_count == 0) {
        return;
    }
    LIST_FOR_EACH(&tree->changes, link)
    {
        struct change *change = CONTAINER_OF(link, struct change, link);
        for (size_t i = 0; i < change->half_count; i++) {
            change->is_kept |= change->halves[i].dir == inode;
        }
    }
    if (tree->names == LOSSY_NAMES_LINUX) {
        mark_own_names(tree, inode);
    }
    settle_kept(tree);
    if (is_folder_inode(inode)) {
        prune_entries(inode);
    }
}

/* -- the power cut -- */

static void cut_names(struct lossy_tree *tree, struct lossy_cut *cut)
{
    size_t count = tree->change_count;
    LIST_FOR_EACH(&tree->changes, link)
    {
        CONTAINER_OF(link, struct change, link)->is_kept =
            prng_below(&cut->prng, 100) < cut->keep_percent;
    }
    settle_kept(tree);
    cut->names_lost += tree->change_count;
    cut->names_kept += count - tree->change_count;
    LIST_FOR_EACH(&tree->changes, link)
    {
        change_free(tree, CONTAINER_OF(link, struct change, link));
    }
}

static void show_stable_names(struct lossy_inode *dir)
{
    LIST_FOR_EACH(&dir->entries, link)
    {
        struct lossy_entry *entry = CONTAINER_OF(link, struct lossy_entry, link);
        entry_set_cached(dir, entry, entry->stable);
    }
    prune_entries(dir);
}

static void adopt_entries(struct lossy_inode *dir)
{
    LIST_FOR_EACH(&dir->entries, link)
    {
        const struct lossy_entry *entry = CONTAINER_OF(link, struct lossy_entry, link);
        if (entry->cached != NULL) {
            entry->cached->parent = dir;
        }
    }
}

/* What no name leads to any more has no names either, though somebody may still hold it. */
static void empty_unreachable(struct lossy_tree *tree)
{
    struct list reached;
    list_init(&reached);
    reach(&reached, tree->root);
    for (struct list_link *link = reached.head.next; link != &reached.head; link = link->next) {
        reach_from_entries(&reached, CONTAINER_OF(link, struct lossy_inode, link));
    }
    LIST_FOR_EACH(&tree->inodes, link)
    {
        struct lossy_inode *inode = CONTAINER_OF(link, struct lossy_inode, link);
        LIST_FOR_EACH(&inode->entries, entry_link)
        {
            struct lossy_entry *entry = CONTAINER_OF(entry_link, struct lossy_entry, link);
            entry->stable = NULL;
            entry_set_cached(inode, entry, NULL);
        }
        prune_entries(inode);
        inode->parent = NULL;
    }
    for (struct list_link *link; (link = list_pop_front(&reached)) != NULL;) {
        struct lossy_inode *inode = CONTAINER_OF(link, struct lossy_inode, link);
        inode->is_marked = false;
        insert_sorted(tree, inode);
        adopt_entries(inode);
    }
}

void lossy_tree_cut(struct lossy_tree *tree, struct lossy_cut *cut)
{
    cut_names(tree, cut);
    LIST_FOR_EACH(&tree->inodes, link)
    {
        struct lossy_inode *inode = CONTAINER_OF(link, struct lossy_inode, link);
        lossy_file_cut(&inode->file, cut);
        show_stable_names(inode);
    }
    empty_unreachable(tree);
    sweep(tree);
}

/* -- paths -- */

static const char *name_of(const struct lossy_inode *inode)
{
    LIST_FOR_EACH(&inode->parent->entries, link)
    {
        const struct lossy_entry *entry = CONTAINER_OF(link, struct lossy_entry, link);
        if (entry->cached == inode) {
            return entry->name;
        }
    }
    return "(gone)";
}

void lossy_tree_path(const struct lossy_inode *inode, const char *name, char *to, size_t size)
{
    char text[LOSSY_NAME_SIZE * 4];
    (void)snprintf(to, size, "%s%s", name == NULL ? "" : "/", name == NULL ? "" : name);
    for (; inode->parent != NULL; inode = inode->parent) {
        (void)snprintf(text, sizeof(text), "/%.255s%.700s", name_of(inode), to);
        (void)snprintf(to, size, "%s", text);
    }
}

struct lossy_inode *lossy_tree_walk(const struct lossy_tree *tree, const char *path)
{
    struct lossy_inode *inode = tree->root;
    char name[LOSSY_NAME_SIZE];
    while (inode != NULL) {
        path += strspn(path, "/");
        size_t size = strcspn(path, "/");
        if (size == 0) {
            return inode;
        }
        (void)snprintf(name, sizeof(name), "%.*s", (int)MIN_OF(size, sizeof(name) - 1), path);
        inode = lossy_tree_find(tree, inode, name);
        path += size;
    }
    return NULL;
}
