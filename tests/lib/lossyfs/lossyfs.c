/*
 * lossyfs - a file system in memory that forgets at a power cut what nobody has synced.
 *
 *   lossyfs [--names=strict|linux] MOUNTPOINT     in the foreground, until SIGTERM or SIGINT
 *
 * Commands go into the file MOUNTPOINT/.lossyfs (lossy_control.h), which is also the sign that it
 * is mounted. It is not listed. What is in memory only has no pages of the kernel: all reads and
 * writes come here, and nothing is remembered from before a cut. One thread.
 */
#define FUSE_USE_VERSION 35

#include <errno.h>
#include <fuse_lowlevel.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "common/base/log.h"
#include "common/base/mem.h"
#include "tests/lib/lossyfs/lossy_control.h"

#define CONTROL_NAME ".lossyfs"
#define CONTROL_INO  2u /* no pointer is that */
#define WRITE_MAX    (1u << 20)

static struct lossy_tree tree;
static struct lossy_control control = {.tree = &tree};

static struct lossy_inode *inode_of(fuse_ino_t ino)
{
    return ino == FUSE_ROOT_ID ? tree.root : (struct lossy_inode *)(uintptr_t)ino; // NOLINT
}

static fuse_ino_t ino_of(const struct lossy_inode *inode)
{
    return inode == tree.root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)inode;
}

static void reply_error(fuse_req_t req, int error)
{
    (void)fuse_reply_err(req, error);
}

/* -- attributes -- */

static struct stat stat_of(const struct lossy_inode *inode)
{
    bool is_folder = S_ISDIR(inode->mode);
    return (struct stat){
        .st_ino = inode->number + CONTROL_INO,
        .st_mode = inode->mode,
        .st_nlink = is_folder ? 2 : inode->links,
        .st_uid = inode->uid,
        .st_gid = inode->gid,
        .st_size = (off_t)(inode->target != NULL ? strlen(inode->target) : inode->file.cached.size),
        .st_blksize = LOSSY_PAGE_SIZE,
        .st_blocks = (blkcnt_t)(inode->file.cached.page_count * (LOSSY_PAGE_SIZE / 512)),
        .st_mtim = inode->mtime,
        .st_ctim = inode->mtime,
        .st_atim = inode->mtime,
    };
}

static struct stat stat_of_control(void)
{
    return (struct stat){.st_ino = CONTROL_INO, .st_mode = S_IFREG | 0600, .st_nlink = 1};
}

static void touch(struct lossy_inode *inode)
{
    (void)clock_gettime(CLOCK_REALTIME, &inode->mtime);
}

/* Each answer with an entry is one more that the kernel will forget. */
static struct fuse_entry_param entry_of(struct lossy_inode *inode)
{
    inode->holds++;
    return (struct fuse_entry_param){.ino = ino_of(inode), .attr = stat_of(inode)};
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param entry = {.ino = CONTROL_INO, .attr = stat_of_control()};
    if (parent != FUSE_ROOT_ID || strcmp(name, CONTROL_NAME) != 0) {
        struct lossy_inode *inode = lossy_tree_find(&tree, inode_of(parent), name);
        if (inode == NULL) {
            reply_error(req, ENOENT);
            return;
        }
        entry = entry_of(inode);
    }
    (void)fuse_reply_entry(req, &entry);
}

static void forget(fuse_ino_t ino, uint64_t count)
{
    if (ino != CONTROL_INO && ino != FUSE_ROOT_ID) {
        inode_of(ino)->holds -= count;
    }
}

static void on_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
    forget(ino, count);
    fuse_reply_none(req);
}

static void on_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++) {
        forget(forgets[i].ino, forgets[i].nlookup);
    }
    fuse_reply_none(req);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
    (void)info;
    struct stat attr = ino == CONTROL_INO ? stat_of_control() : stat_of(inode_of(ino));
    (void)fuse_reply_attr(req, &attr, 0);
}

static void on_setattr(
    fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *info)
{
    if (ino == CONTROL_INO) { /* somebody opened it with O_TRUNC */
        on_getattr(req, ino, info);
        return;
    }
    struct lossy_inode *inode = inode_of(ino);
    if ((to_set & FUSE_SET_ATTR_SIZE) != 0) {
        int error = lossy_control_on_change(&control);
        error = error != 0 ? error : lossy_tree_resize(&tree, inode, (uint64_t)attr->st_size);
        if (error != 0) {
            reply_error(req, error);
            return;
        }
        touch(inode);
    }
    if ((to_set & FUSE_SET_ATTR_MODE) != 0) {
        inode->mode = (inode->mode & S_IFMT) | (attr->st_mode & ~(mode_t)S_IFMT);
    }
    inode->uid = (to_set & FUSE_SET_ATTR_UID) != 0 ? attr->st_uid : inode->uid;
    inode->gid = (to_set & FUSE_SET_ATTR_GID) != 0 ? attr->st_gid : inode->gid;
    if ((to_set & FUSE_SET_ATTR_MTIME) != 0) {
        inode->mtime = attr->st_mtim;
    }
    on_getattr(req, ino, info);
}

static void on_statfs(fuse_req_t req, fuse_ino_t ino)
{
    (void)ino;
    size_t used = lossy_tree_pages(&tree);
    size_t all = tree.page_count_max != 0 ? tree.page_count_max : 16 * GIB / LOSSY_PAGE_SIZE;
    size_t unused = all > used ? all - used : 0;
    struct statvfs info = {
        .f_bsize = LOSSY_PAGE_SIZE,
        .f_frsize = LOSSY_PAGE_SIZE,
        .f_blocks = all,
        .f_bfree = unused,
        .f_bavail = unused,
        .f_files = 1u << 20,
        .f_ffree = 1u << 20,
        .f_namemax = LOSSY_NAME_SIZE - 1,
    };
    (void)fuse_reply_statfs(req, &info);
}

/* -- names -- */

/* 0 and an inode that the caller may answer with. */
static int create(
    fuse_req_t req,
    fuse_ino_t parent,
    const char *name,
    mode_t mode,
    const char *target,
    struct lossy_inode **ret_inode)
{
    const struct fuse_ctx *context = fuse_req_ctx(req);
    int error = lossy_control_on_change(&control);
    if (error == 0) {
        error = lossy_tree_create(&tree, inode_of(parent), name, mode, target, ret_inode);
    }
    if (error == 0) {
        (*ret_inode)->uid = context->uid;
        (*ret_inode)->gid = context->gid;
        touch(*ret_inode);
        touch(inode_of(parent));
    }
    return error;
}

static void create_and_reply(
    fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, const char *target)
{
    struct lossy_inode *inode = NULL;
    int error = create(req, parent, name, mode, target, &inode);
    if (error != 0) {
        reply_error(req, error);
        return;
    }
    struct fuse_entry_param entry = entry_of(inode);
    (void)fuse_reply_entry(req, &entry);
}

static void on_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
    (void)device;
    create_and_reply(req, parent, name, mode, NULL);
}

static void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    create_and_reply(req, parent, name, S_IFDIR | mode, NULL);
}

static void on_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    create_and_reply(req, parent, name, S_IFLNK | 0777, target);
}

static void on_readlink(fuse_req_t req, fuse_ino_t ino)
{
    (void)fuse_reply_readlink(req, inode_of(ino)->target);
}

static void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    int error = lossy_control_on_change(&control);
    reply_error(req, error != 0 ? error : lossy_tree_remove(&tree, inode_of(parent), name, false));
}

static void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    int error = lossy_control_on_change(&control);
    reply_error(req, error != 0 ? error : lossy_tree_remove(&tree, inode_of(parent), name, true));
}

static void on_rename(
    fuse_req_t req,
    fuse_ino_t parent,
    const char *name,
    fuse_ino_t new_parent,
    const char *new_name,
    unsigned flags)
{
    int error =
        (flags & ~(unsigned)RENAME_NOREPLACE) != 0 ? EINVAL : lossy_control_on_change(&control);
    reply_error(
        req, error != 0 ? error
                        : lossy_tree_rename(
                              &tree, inode_of(parent), name, inode_of(new_parent), new_name,
                              (flags & RENAME_NOREPLACE) == 0));
}

static void on_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
    int error = lossy_control_on_change(&control);
    error =
        error != 0 ? error : lossy_tree_link(&tree, inode_of(ino), inode_of(new_parent), new_name);
    if (error != 0) {
        reply_error(req, error);
        return;
    }
    struct fuse_entry_param entry = entry_of(inode_of(ino));
    (void)fuse_reply_entry(req, &entry);
}

/* -- files -- */

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
    info->direct_io = 1;
    if (ino != CONTROL_INO) {
        inode_of(ino)->holds++;
    }
    (void)fuse_reply_open(req, info);
}

static void on_create(
    fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *info)
{
    struct lossy_inode *inode = NULL;
    int error = create(req, parent, name, S_IFREG | mode, NULL, &inode);
    if (error != 0) {
        reply_error(req, error);
        return;
    }
    info->direct_io = 1;
    inode->holds++;
    struct fuse_entry_param entry = entry_of(inode);
    (void)fuse_reply_create(req, &entry, info);
}

static void on_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
    (void)info;
    if (ino != CONTROL_INO) {
        inode_of(ino)->holds--;
    }
    reply_error(req, 0);
}

static void reply_status(fuse_req_t req, size_t size, off_t offset)
{
    struct buf text = {0};
    lossy_control_status(&control, &text);
    size_t begin = MIN_OF((size_t)offset, text.size);
    (void)fuse_reply_buf(req, (const char *)text.data + begin, MIN_OF(size, text.size - begin));
    buf_deinit(&text);
}

static void on_read(
    fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *info)
{
    (void)info;
    if (ino == CONTROL_INO) {
        reply_status(req, size, offset);
        return;
    }
    int error = lossy_control_on_call(&control, LOSSY_READ, inode_of(ino));
    if (error != 0) {
        reply_error(req, error);
        return;
    }
    uint8_t *to = mem_alloc(size + 1);
    size_t got = lossy_file_read(&inode_of(ino)->file, (uint64_t)offset, to, size);
    (void)fuse_reply_buf(req, (const char *)to, got);
    mem_free(to);
}

static void run_command(fuse_req_t req, const char *bytes, size_t size)
{
    char line[1024];
    struct errmsg msg = {0};
    (void)snprintf(line, sizeof(line), "%.*s", (int)MIN_OF(size, sizeof(line) - 1), bytes);
    if (lossy_control_run(&control, line, &msg) == ERR_OK) {
        (void)fuse_reply_write(req, size);
        return;
    }
    (void)fprintf(stderr, "%s\n", msg.text);
    reply_error(req, EINVAL);
}

static int write_bytes(struct lossy_inode *inode, uint64_t offset, struct bytes bytes)
{
    int error = lossy_control_on_change(&control);
    error = error != 0 ? error : lossy_control_on_call(&control, LOSSY_WRITE, inode);
    error = error != 0 ? error : lossy_tree_write(&tree, inode, offset, bytes);
    if (error == 0) {
        touch(inode);
    }
    return error;
}

static void on_write(
    fuse_req_t req,
    fuse_ino_t ino,
    const char *data,
    size_t size,
    off_t offset,
    struct fuse_file_info *info)
{
    if (ino == CONTROL_INO) {
        run_command(req, data, size);
        return;
    }
    int error = write_bytes(inode_of(ino), (uint64_t)offset, bytes_of(data, size));
    if (error == 0 && (info->flags & O_DSYNC) != 0) {
        error = lossy_control_sync(&control, inode_of(ino));
    }
    if (error != 0) {
        reply_error(req, error);
        return;
    }
    (void)fuse_reply_write(req, size);
}

static void on_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *info)
{
    (void)data_only; /* the size belongs to the data */
    (void)info;
    if (ino == CONTROL_INO) {
        reply_error(req, 0);
        return;
    }
    int error = lossy_control_on_change(&control);
    reply_error(req, error != 0 ? error : lossy_control_sync(&control, inode_of(ino)));
}

static void on_fallocate(
    fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t size, struct fuse_file_info *info)
{
    (void)info;
    struct lossy_inode *inode = inode_of(ino);
    int error = mode != 0 ? EOPNOTSUPP : lossy_control_on_change(&control);
    if (error == 0 && (uint64_t)(offset + size) > inode->file.cached.size) {
        error = lossy_tree_resize(&tree, inode, (uint64_t)(offset + size));
    }
    reply_error(req, error);
}

/* -- lists of names: as they were when the folder was opened -- */

static void on_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
    struct buf *list = MEM_NEW(struct buf);
    LIST_FOR_EACH(&inode_of(ino)->entries, link)
    {
        const struct lossy_entry *entry = CONTAINER_OF(link, struct lossy_entry, link);
        if (entry->cached == NULL) {
            continue;
        }
        struct stat attr = stat_of(entry->cached);
        size_t size = fuse_add_direntry(req, NULL, 0, entry->name, NULL, 0);
        off_t next = (off_t)(list->size + size);
        (void)fuse_add_direntry(
            req, (char *)buf_extend(list, size), size, entry->name, &attr, next);
    }
    inode_of(ino)->holds++;
    info->fh = (uint64_t)(uintptr_t)list;
    (void)fuse_reply_open(req, info);
}

static void on_readdir(
    fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *info)
{
    (void)ino;
    const struct buf *list = (const struct buf *)(uintptr_t)info->fh; // NOLINT
    size_t begin = MIN_OF((size_t)offset, list->size), end = begin;
    /* Whole entries only: each says where the next begins. */
    while (end < list->size) {
        uint64_t next;
        memcpy(&next, list->data + end + sizeof(uint64_t), sizeof(next)); /* fuse_dirent.off */
        if (next - begin > size) {
            break;
        }
        end = (size_t)next;
    }
    (void)fuse_reply_buf(req, end == begin ? NULL : (const char *)list->data + begin, end - begin);
}

static void on_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
    struct buf *list = (struct buf *)(uintptr_t)info->fh; // NOLINT
    buf_deinit(list);
    mem_free(list);
    inode_of(ino)->holds--;
    reply_error(req, 0);
}

static void on_init(void *nothing, struct fuse_conn_info *connection)
{
    (void)nothing;
    connection->max_write = WRITE_MAX;
    connection->want &= ~(unsigned)FUSE_CAP_WRITEBACK_CACHE;
}

static const struct fuse_lowlevel_ops ops = {
    .init = on_init,
    .lookup = on_lookup,
    .forget = on_forget,
    .forget_multi = on_forget_multi,
    .getattr = on_getattr,
    .setattr = on_setattr,
    .statfs = on_statfs,
    .mknod = on_mknod,
    .mkdir = on_mkdir,
    .symlink = on_symlink,
    .readlink = on_readlink,
    .unlink = on_unlink,
    .rmdir = on_rmdir,
    .rename = on_rename,
    .link = on_link,
    .open = on_open,
    .create = on_create,
    .release = on_release,
    .read = on_read,
    .write = on_write,
    .fsync = on_fsync,
    .fallocate = on_fallocate,
    .opendir = on_opendir,
    .readdir = on_readdir,
    .releasedir = on_releasedir,
    .fsyncdir = on_fsync,
};

static int serve(const char *mountpoint)
{
    char name[] = "lossyfs", option[] = "-ofsname=lossyfs,subtype=lossyfs,default_permissions";
    char *argv[] = {name, option, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(2, argv);
    struct fuse_session *session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
    int rc = 1;
    if (session != NULL && fuse_set_signal_handlers(session) == 0) {
        if (fuse_session_mount(session, mountpoint) == 0) {
            rc = fuse_session_loop(session);
            fuse_session_unmount(session);
        }
        fuse_remove_signal_handlers(session);
    }
    if (session != NULL) {
        fuse_session_destroy(session);
    }
    fuse_opt_free_args(&args);
    return rc == 0 || rc == SIGTERM || rc == SIGINT ? 0 : 1;
}

int main(int argc, char **argv)
{
    enum lossy_names names = LOSSY_NAMES_STRICT;
    int at = 1;
    if (argc > 2 && strcmp(argv[1], "--names=linux") == 0) {
        names = LOSSY_NAMES_LINUX;
    }
    at += argc > 2 ? 1 : 0;
    bool is_known =
        argc == 2 ||
        (argc == 3 && (names == LOSSY_NAMES_LINUX || strcmp(argv[1], "--names=strict") == 0));
    if (!is_known || argv[at][0] == '-') {
        (void)fputs("usage: lossyfs [--names=strict|linux] MOUNTPOINT\n", stderr);
        return 2;
    }
    lossy_tree_init(&tree, names);
    int rc = serve(argv[at]);
    lossy_tree_deinit(&tree);
    return rc;
}
