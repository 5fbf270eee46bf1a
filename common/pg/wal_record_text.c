/* wal_record_text.c - what a record is called, as pg_waldump calls it. */
#include <stdio.h>

#include "common/pg/wal_record.h"

/* Operation = high four bits of info; for Transaction and Heap some of them are flags. */
static const char *xlog_name(uint8_t op)
{
    static const char *const names[16] = {
        "CHECKPOINT_SHUTDOWN",
        "CHECKPOINT_ONLINE",
        "NOOP",
        "NEXTOID",
        "SWITCH",
        "BACKUP_END",
        "PARAMETER_CHANGE",
        "RESTORE_POINT",
        "FPW_CHANGE",
        "END_OF_RECOVERY",
        "FPI_FOR_HINT",
        "FPI",
        NULL,
        "OVERWRITE_CONTRECORD",
        "CHECKPOINT_REDO",
        NULL};
    return names[op >> 4];
}

static const char *xact_name(uint8_t op)
{
    static const char *const names[8] = {
        "COMMIT",         "PREPARE",    "ABORT",         "COMMIT_PREPARED",
        "ABORT_PREPARED", "ASSIGNMENT", "INVALIDATIONS", NULL};
    return names[op >> 4 & 7];
}

static const char *heap_name(uint8_t op)
{
    static const char *const names[8] = {"INSERT",     "DELETE",  "UPDATE", "TRUNCATE",
                                         "HOT_UPDATE", "CONFIRM", "LOCK",   "INPLACE"};
    return names[op >> 4 & 7];
}

static const char *heap2_name(uint8_t op)
{
    static const char *const names[8] = {
        "REWRITE", "PRUNE_ON_ACCESS", "PRUNE_VACUUM_SCAN", "PRUNE_VACUUM_CLEANUP",
        "VISIBLE", "MULTI_INSERT",    "LOCK_UPDATED",      "NEW_CID"};
    return names[op >> 4 & 7];
}

static const char *btree_name(uint8_t op)
{
    static const char *const names[16] = {
        "INSERT_LEAF", "INSERT_UPPER",     "INSERT_META",  "SPLIT_L",
        "SPLIT_R",     "INSERT_POST",      "DEDUP",        "DELETE",
        "UNLINK_PAGE", "UNLINK_PAGE_META", "NEWROOT",      "MARK_PAGE_HALFDEAD",
        "VACUUM",      "REUSE_PAGE",       "META_CLEANUP", NULL};
    return names[op >> 4];
}

/* Resource managers with few operations: name by rmgr and op. */
static const char *small_name(uint8_t rmgr, uint8_t op)
{
    switch (rmgr << 8 | op) {
    case RM_SMGR << 8 | 0x10: return "CREATE";
    case RM_SMGR << 8 | 0x20: return "TRUNCATE";
    case RM_CLOG << 8 | 0x00: return "ZEROPAGE";
    case RM_CLOG << 8 | 0x10: return "TRUNCATE";
    case RM_DBASE << 8 | 0x00: return "CREATE_FILE_COPY";
    case RM_DBASE << 8 | 0x10: return "CREATE_WAL_LOG";
    case RM_DBASE << 8 | 0x20: return "DROP";
    case RM_TBLSPC << 8 | 0x00: return "CREATE";
    case RM_TBLSPC << 8 | 0x10: return "DROP";
    case RM_MULTIXACT << 8 | 0x00: return "ZERO_OFF_PAGE";
    case RM_MULTIXACT << 8 | 0x10: return "ZERO_MEM_PAGE";
    case RM_MULTIXACT << 8 | 0x20: return "CREATE_ID";
    case RM_MULTIXACT << 8 | 0x30: return "TRUNCATE_ID";
    case RM_RELMAP << 8 | 0x00: return "UPDATE";
    case RM_STANDBY << 8 | 0x00: return "LOCK";
    case RM_STANDBY << 8 | 0x10: return "RUNNING_XACTS";
    case RM_STANDBY << 8 | 0x20: return "INVALIDATIONS";
    case RM_SEQ << 8 | 0x00: return "LOG";
    case RM_COMMIT_TS << 8 | 0x00: return "ZEROPAGE";
    case RM_COMMIT_TS << 8 | 0x10: return "TRUNCATE";
    case RM_REPLORIGIN << 8 | 0x00: return "SET";
    case RM_REPLORIGIN << 8 | 0x10: return "DROP";
    case RM_GENERIC << 8 | 0x00: return "Generic";
    case RM_LOGICALMSG << 8 | 0x00: return "MESSAGE";
    default: return NULL;
    }
}

static const char *operation_name(uint8_t rmgr, uint8_t op)
{
    switch (rmgr) {
    case RM_XLOG: return xlog_name(op);
    case RM_XACT: return xact_name(op);
    case RM_HEAP: return heap_name(op);
    case RM_HEAP2: return heap2_name(op);
    case RM_BTREE: return btree_name(op);
    default: return small_name(rmgr, op);
    }
}

struct wal_record_text wal_record_text(const struct wal_record *record)
{
    struct wal_record_text text;
    uint8_t op = record->info & 0xF0;
    const char *rmgr = wal_rmgr_name(record->rmgr);
    const char *name = operation_name(record->rmgr, op);
    if (name != NULL) {
        bool init_page =
            (record->rmgr == RM_HEAP || (record->rmgr == RM_HEAP2 && (op & 0x70) == 0x50)) &&
            (op & 0x80) != 0;
        snprintf(text.text, sizeof(text.text), "%s/%s%s", rmgr, name, init_page ? "+INIT" : "");
    } else {
        snprintf(text.text, sizeof(text.text), "%s/0x%02X", rmgr, (unsigned)op);
    }
    return text;
}
