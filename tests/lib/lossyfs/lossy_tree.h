/*
 * lossy_tree.h - folders, files and links, in memory, with what a power cut may do to them.
 *
 * A name is on disk when its folder was synced. Until then each change to names (create, unlink,
 * link, rename) is kept or lost by itself: only a rename is one step and comes with what gave the
 * renamed thing its old name. With LOSSY_NAMES_LINUX a synced file or folder keeps the name that it
 * had, and its folders theirs: what ext4, XFS and btrfs do with a new file, and POSIX promises
 * nowhere.
 *
 * Functions that can fail answer 0 or an errno. Inodes live as long as a name, an unsynced change
 * or a holder leads to them. One thread. Pure, like lossy_file.h.
 */
#pragma once

#include <sys/stat.h>

#include "tests/lib/lossyfs/lossy_file.h"

#define LOSSY_NAME_SIZE 256

enum lossy_names { LOSSY_NAMES_STRICT, LOSSY_NAMES_LINUX };

struct lossy_inode {
    struct list_link link; /* of all inodes of the tree */
    uint64_t number;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    struct timespec mtime;
    size_t links;   /* names in the cache */
    uint64_t holds; /* whoever else knows the inode: the kernel, open files */
    struct lossy_file file;
    struct list entries;        /* of a folder: struct lossy_entry */
    char *target;               /* of a symbolic link */
    struct lossy_inode *parent; /* where it got a name last */
    bool is_marked;
};

/* A name as programs see it, and as the disk has it for certain. */
struct lossy_entry {
    struct list_link link;
    struct lossy_inode *cached, *stable; /* NULL: there is no such name */
    uint64_t stable_sequence;            /* of the change that made `stable` what it is */
    size_t changes;                      /* unsynced ones */
    bool is_needed;
    char name[LOSSY_NAME_SIZE];
};

struct lossy_tree {
    enum lossy_names names;
    struct lossy_inode *root;
    struct list inodes;
    struct list changes; /* of names, the oldest first */
    size_t change_count;
    uint64_t next_sequence, next_number;
    size_t page_count_max;  /* 0: the disk is never full */
    size_t inodes_at_sweep; /* when there are twice as many, look which are still needed */
    size_t inode_count;
};

void lossy_tree_init(struct lossy_tree *tree, enum lossy_names names);
void lossy_tree_deinit(struct lossy_tree *tree);

/* NULL: no such name. */
struct lossy_inode *lossy_tree_find(
    const struct lossy_tree *tree, struct lossy_inode *dir, const char *name);
/* The type is in `mode`; `target`: of a symbolic link, else NULL. */
int lossy_tree_create(
    struct lossy_tree *tree,
    struct lossy_inode *dir,
    const char *name,
    mode_t mode,
    const char *target,
    struct lossy_inode **ret_inode);
int lossy_tree_link(
    struct lossy_tree *tree, struct lossy_inode *inode, struct lossy_inode *dir, const char *name);
int lossy_tree_remove(
    struct lossy_tree *tree, struct lossy_inode *dir, const char *name, bool is_folder);
int lossy_tree_rename(
    struct lossy_tree *tree,
    struct lossy_inode *from_dir,
    const char *from,
    struct lossy_inode *to_dir,
    const char *to,
    bool may_replace);

int lossy_tree_write(
    struct lossy_tree *tree, struct lossy_inode *inode, uint64_t offset, struct bytes bytes);
int lossy_tree_resize(struct lossy_tree *tree, struct lossy_inode *inode, uint64_t size);
/* A file's bytes and size, or a folder's names. */
void lossy_tree_sync(struct lossy_tree *tree, struct lossy_inode *inode);

/* The disk as it comes back. `cut` has a prng and a percentage; the counts are added to it. */
void lossy_tree_cut(struct lossy_tree *tree, struct lossy_cut *cut);

/* Pages in use; the limit is on these. */
size_t lossy_tree_pages(const struct lossy_tree *tree);
/* "/folder/file"; what does not fit is cut off in front. */
void lossy_tree_path(const struct lossy_inode *inode, const char *name, char *to, size_t size);
/* From an absolute path; NULL: not there. */
struct lossy_inode *lossy_tree_walk(const struct lossy_tree *tree, const char *path);
