"""Why a branch of redo or of the decoder is not taken by WAL of Postgres 17; see branches.py.

The first reason that fits counts: file (a pattern), function (None: any) and a regular expression on the statement.
"""
from collections import namedtuple

Reason = namedtuple("Reason", "kind file function line why")

CLASSES = {
    "malformed": "Refusals of malformed records and pages",
    "unreachable": "Not in WAL of Postgres 17",
    "rare": "Needs a crash, a race, a wraparound or another state of the store",
}


def malformed(file, function, line, why):
    return Reason("malformed", file, function, line, why)


def unreachable(file, function, line, why):
    return Reason("unreachable", file, function, line, why)


def rare(file, function, line, why):
    return Reason("rare", file, function, line, why)


REASONS = [
    # What stands behind a name, before the general rules below take its lines.
    rare("redo.c", "apply", r"page_lsn\(redo->page\) >=", "a page that is ahead of the WAL: a base copied from a crash"),
    unreachable("gin.c", "insert", r"block_index == 1 && !leaf", "a leaf's record has no second block"),
    rare("wal_decode_slru.c", None, r"is_made|offsets_page_is_made|page->|zeroed_offsets_page",
         "multixacts over a page boundary as versions before 17.8 wrote them, or right after the store was opened"),
    rare("wal_decode_slru.c", "offsets_page_is_made", r"", "the same"),
    # -- the general rules --
    malformed("*", None, r"ASSERT\(", "the decoder's own invariants"),
    malformed("*", None, r"by its default, a refusal", "an operation or a block reference that the record does not have"),
    malformed("*", None, r"refuse|ERR_CORRUPT|\bcorrupt\(|err_set\(|err_wrap\(", "the condition guards a refusal"),
    malformed("*", None, r"TRY\(|cursor_is_good|err != ERR_NOT_FOUND|err != ERR_OK|err == ERR_OK",
              "an error found below is passed on"),
    malformed("wal_record.c", "image_refusal", r"", "flags and sizes of an image that cannot be"),
    malformed("wal_record.c", "decode_image_header", r"", "an image longer than a page"),
    malformed("wal_record.c", "wal_record_decode", r"", "a record shorter than its header"),
    malformed("wal_record.c", "wal_rmgr_name", r"", "names of resource managers in messages"),
    malformed("wal_image.c", "pglz_read_match", r"return 0", "a back reference that is cut short"),
    malformed("wal_image.c", "pglz_goes_on", r"", "bytes behind the end of the page"),
    malformed("gin.c", "tid_reader_step", r"", "a distance of more than seven bytes, a TID out of range"),
    malformed("gin.c", "tid_writer_add", r"", "TIDs out of order, a segment that outgrows the page"),
    malformed("gin.c", "read_segment", r"", "less data than a segment's header"),
    malformed("spgist.c", "read_leaf", r"", "less data than a tuple's header"),
    malformed("spgist.c", "read_inner", r"", "less data than a tuple's header"),
    malformed("spgist.c", "set_node_link", r"", "a node that the inner tuple does not have"),
    malformed("heap_tuple.c", "heap_is_block", r"", "a heap record whose block is a map page"),
    malformed("heap.c", "update", r"redo->key.fork == FORK_VM", "a map page at the place of a heap page"),
    malformed("wal_decode.c", "decode", r"record->rmgr < RM_COUNT", "a resource manager of an extension"),
    malformed("redo.c", "apply", r"record->rmgr < RM_COUNT", "a resource manager of an extension"),
    malformed("wal_decode_xact.c", "skip_text", r"", "a name of a prepared transaction without its end"),
    malformed("xact.c", "read_xact_end", r"strnlen", "a name of a prepared transaction without its end"),
    malformed("wal_decode_xact.c", "decode_prepare", r"is_file|file.data", "a PREPARE record that is no two-phase file"),
    # -- by design of Postgres --
    unreachable("wal_decode_block.c", "same_fork", r"", "one record, two databases or tablespaces with a table of one number"),
    unreachable("*", None, r"redo_goes_on_after_image|goes_on\b",
                "an image of a bucket in a split holds the flags already; GiST's needs a checkpoint within a split"),
    rare("wal_decode_block.c", "redo_goes_on_after_image", r"",
         "images of pages whose flags change after it: a checkpoint between the two records of a GiST split"),
    rare("gist.c", "gist_redo_after_image", r"", "a checkpoint between the two records of a GiST split"),
    rare("redo.c", "restore_image", r"RM_GIST", "a checkpoint between the two records of a GiST split"),
    rare("gist.c", "page_split", r"follow_right", "a split of a root whose pages do not follow"),
    rare("hash.c", "hash_redo_after_image", r"", "an image of a bucket right at the end of its split"),
    unreachable("*", "btree_redo", r"REUSE_PAGE", "for hot standby only: the record has no blocks"),
    unreachable("*", "gist_redo", r"PAGE_REUSE", "for hot standby and numbering only: the records have no blocks"),
    unreachable("*", "heap_redo", r"TRUNCATE", "for logical decoding only: the record has no blocks"),
    unreachable("*", "heap2_redo", r"NEW_CID", "for logical decoding only: the records have no blocks"),
    unreachable("*", "gin_redo", r"VACUUM_PAGE", "always an image: the page is not touched without one"),
    unreachable("*", "hash_redo", r"SPLIT_PAGE", "always an image: the page is not touched without one"),
    unreachable("*", "multixact_redo", r"TRUNCATE", "touches no page; the decoder keeps it as the oldest multixact"),
    unreachable("hash.c", "squeeze_page", r"without 4", "the page that goes is the last of its chain"),
    unreachable("hash.c", None, r"ONE_PHASE_GROUPS|BUCKETS_MAX|value < 2",
                "more than 2^30 buckets, or one"),
    unreachable("hash.c", "delete_moved_tuples", r"", "a record without tuples to delete"),
    unreachable("hash.c", "move_page_contents", r"", "a record without tuples to move"),
    unreachable("btree.c", "tuple_is_posting", r"", "a pivot among leaf tuples"),
    unreachable("btree.c", "insert", r"redo->block_index == [12]|BTREE_OP_INSERT_POST\) {", "a leaf's record has no second block, no meta page"),
    unreachable("generic.c", None, r"size > 0", "an empty piece"),
    unreachable("gin.c", "merge_segment", r"", "a TID that the segment has already"),
    unreachable("heap.c", "update_vm", r"", "heap blocks of one update on two map pages: tables above 255 MB"),
    unreachable("heap.c", None, r"(bitmap|data).size > 0", "a tuple without a byte behind its header, which is padded to 24"),
    unreachable("heap2.c", "freeze_tuple", r"", "tuples that VACUUM FULL of Postgres 8.4 moved"),
    unreachable("heap_tuple.c", "tuple_is_locked_only", r"", "a lock as Postgres 9.2 wrote it"),
    unreachable("page_items.c", "compact_items", r"", "items in another order, all of them at their place"),
    unreachable("smgr.c", "smgr_redo", r"page_is_new", "a table that has a map, without this page of it"),
    unreachable("smgr.c", "xlog_redo", r"", "an image record without an image"),
    unreachable("visibility_map.c", "vm_set", r"", "bits that are set already: VACUUM looks first"),
    unreachable("spgist.c", "move_leafs", r"replaces_dead", "leafs that move to the place of a dead tuple"),
    unreachable("spgist.c", None, r"is_build", "indexes are built without WAL, then logged as images"),
    unreachable("spgist.c", None, r"nulls", "a page of NULLs that splits: it holds hundreds of thousands"),
    rare("spgist.c", "add_node", r"without 2", "the parent of a tuple that moves is on a third page"),
    rare("spgist.c", "split_tuple", r"", "the postfix goes to a new page"),
    rare("spgist.c", "vacuum_redirect", r"", "no placeholder at the end of a page"),
    rare("hash.c", "add_overflow_page", r"without 3", "a new bitmap page: an index with 32,768 overflow pages"),
    unreachable("*", None, r"ID_TOP_XID", "wal_level logical: the slice that has it ends on another resource manager"),
    malformed("wal_decode.c", "names_no_blocks", r"", "blocks in records that have none"),
    malformed("wal_decode_block.c", None, r"XLOG_OP_FPI_FOR_HINT|is_named|page_key_equal|has_numbers",
              "image records without an image, a block that is named twice, too short for its numbers"),
    unreachable("wal_decode_xact.c", "parse_end", r"is_prepared", "only the end of a prepared transaction names its xid"),
    unreachable("xact.c", "read_xact_end", r"prepared \?", "only the end of a prepared transaction names its xid"),
    malformed("wal_decode_xact.c", "note_commit_time", r"", "a time before the year 2000"),
    malformed("xact.c", "xact_redo", r"", "a page that is neither CLOG nor, for a commit, commit_ts"),
    unreachable("xact.c", "slru_redo", r"", "truncation touches no page; the decoder keeps it as the oldest xid"),
    # -- what the decoder asks the store --
    rare("wal_decode_xact.c", "put_commit_ts", r"", "a store without pg_control"),
    rare("wal_decode_xact.c", "put_slru_pages", r"", "subtransactions on more than two pages, back to the first"),
    rare("wal_decode.c", None, r"load_|newest_commit_time|is_short|ERR_NOT_FOUND|state != NULL",
         "the state of a store with a history: walreplay begins with pg_control"),
    rare("*", None, r"xid == UINT32_MAX|behind < next|epoch > 0|multi \+ 1 == 0|multi == UINT32_MAX|offset \+ count == 0",
         "transaction ids or multixacts wrap around"),
    rare("wal_decode_slru.c", None, r"left_to_wrap|next_multi == 0", "multixact members wrap around"),
    rare("wal_decode_slru.c", "advance_multi", r"precedes", "a multixact that was known: WAL replayed twice"),
    rare("wal_decode_slru.c", "decode_clog", r"", "CLOG of more than a million transactions, cut"),
    rare("wal_decode_slru.c", "decode_commit_ts", r"", "commit timestamps cut while none are kept"),
    rare("wal_decode_xlog.c", None, r"", "checkpoints that say older things than records did; changed settings"),
    rare("wal_decode_rel.c", "drop_leftovers", r"", "a database copied over what a crash left"),
    rare("wal_decode_rel.c", "decode_create_file_copy", r"", "a database without relations, or copied onto itself"),
    rare("wal_decode_rel.c", "truncate_main", r"", "a table that is cut and was never made: WAL replayed twice"),
    rare("wal_decode_rel.c", None, r"create_fork|fork->exists|end.whole < blocks|TRUNCATE_VM|page\[0\]",
         "forks that exist already, maps that are shorter than the table"),
]
