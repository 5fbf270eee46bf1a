-- What administrators and their tools ask a server, a line each, in this order, of a stock server and of a compute. FOLDER is one
-- that the server may write to. Answers are made such that they do not depend on sizes and moments that may differ.
SELECT pg_size_pretty(pg_database_size('postgres')) IS NOT NULL, pg_database_size('postgres') BETWEEN 6000000 AND 9000000
CREATE TABLE t AS SELECT i, repeat('x', 100) AS s FROM generate_series(1, 20000) i
CREATE INDEX t_i ON t (i)
VACUUM (ANALYZE) t
SELECT pg_relation_filepath('t') = 'base/' || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/' || pg_relation_filenode('t')
SELECT pg_relation_size('t'), pg_table_size('t'), pg_indexes_size('t'), pg_total_relation_size('t')
SELECT pg_relation_size('t', 'vm'), pg_relation_size('t', 'fsm')
SELECT (pg_stat_file(pg_relation_filepath('t'))).size
SELECT length(pg_read_binary_file(pg_relation_filepath('t'), 0, 8192))
SELECT count(*) > 0 FROM pg_ls_dir('base')
SELECT count(*) > 3 FROM pg_ls_dir('base/' || (SELECT oid FROM pg_database WHERE datname = current_database()))
SELECT count(*) > 0 FROM pg_ls_waldir()
SELECT count(*) >= 0 FROM pg_ls_logdir()
SELECT count(*) >= 0 FROM pg_ls_tmpdir()
SELECT pg_read_file('PG_VERSION')
SELECT pg_current_logfile()
SELECT pg_rotate_logfile()
COPY (SELECT 1) TO PROGRAM 'cat > /dev/null'
CREATE TEMP TABLE p (s text); COPY p FROM PROGRAM 'echo hello'; SELECT * FROM p
COPY (SELECT 42) TO 'FOLDER/copied'
COPY p FROM 'FOLDER/copied'
SELECT lo_import('FOLDER/copied') > 0
SELECT lo_export(loid, 'FOLDER/exported') FROM pg_largeobject LIMIT 1
SELECT sum(reads) IS NOT NULL, sum(hits) > 0, sum(writes) IS NOT NULL, sum(extends) > 0 FROM pg_stat_io
SELECT count(*) FROM pg_stat_io
SELECT wal_records > 0, wal_bytes > 0, wal_write > 0, wal_sync IS NOT NULL FROM pg_stat_wal
SELECT num_timed >= 0, buffers_written >= 0 FROM pg_stat_checkpointer
SELECT pg_current_wal_lsn() > '0/0', pg_current_wal_insert_lsn() >= pg_current_wal_flush_lsn()
SELECT pg_walfile_name(pg_current_wal_lsn()) ~ '^0000000100000000'
SELECT pg_is_in_recovery()
SELECT pg_create_restore_point('x') > '0/0'
SELECT pg_backup_start('x', true) > '0/0'
SELECT length(labelfile) > 0 FROM pg_backup_stop(false)
SELECT pg_promote()
SELECT pg_wal_replay_pause()
SELECT pg_reload_conf()
SELECT pg_export_snapshot() IS NOT NULL
SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL
SELECT count(*) > 3 FROM pg_hba_file_rules WHERE error IS NULL
SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL
SHOW data_checksums
SHOW data_directory_mode
SHOW server_version
SELECT count(*) FROM pg_config
SELECT (pg_control_system()).pg_control_version, (pg_control_init()).wal_block_size
SELECT (pg_control_checkpoint()).timeline_id
SELECT (pg_control_recovery()).min_recovery_end_timeline
SELECT pg_log_backend_memory_contexts(pg_backend_pid())
SELECT count(*) > 10 FROM pg_shmem_allocations
SELECT count(*) > 0 FROM pg_backend_memory_contexts
SELECT pg_collation_actual_version((SELECT oid FROM pg_collation WHERE collname = 'en-x-icu')) IS NOT NULL
SELECT count(*) > 400 FROM pg_timezone_names
SELECT count(*) FROM pg_prepared_xacts
CREATE EXTENSION pgstattuple; SELECT table_len, tuple_count FROM pgstattuple('t')
SELECT leaf_pages > 0 FROM pgstatindex('t_i')
CREATE EXTENSION pg_buffercache; SELECT count(*) > 0 FROM pg_buffercache WHERE relfilenode = pg_relation_filenode('t')
SELECT buffers_used > 0 FROM pg_buffercache_summary()
CREATE EXTENSION pg_prewarm; SELECT pg_prewarm('t'), pg_prewarm('t', 'read'), pg_prewarm('t', 'prefetch')
CREATE EXTENSION pg_visibility; SELECT * FROM pg_visibility_map_summary('t')
SELECT count(*) FROM pg_check_visible('t')
CREATE EXTENSION pageinspect; SELECT lower, upper, special, pagesize, version FROM page_header(get_raw_page('t', 0))
SELECT page_checksum(get_raw_page('t', 0), 0) IS NOT NULL
CREATE EXTENSION amcheck; SELECT bt_index_check('t_i', true), bt_index_parent_check('t_i', true, true)
SELECT count(*) FROM verify_heapam('t')
CREATE EXTENSION pg_walinspect; SELECT count(*) > 0 FROM pg_get_wal_records_info(pg_current_wal_lsn() - 1000, pg_current_wal_lsn())
SELECT count(*) > 0 FROM pg_get_wal_stats(pg_current_wal_lsn() - 1000, pg_current_wal_lsn())
CREATE EXTENSION pg_surgery; SELECT heap_force_freeze('t', ARRAY['(0,1)']::tid[])
CREATE EXTENSION pg_freespacemap; SELECT count(*) > 0 FROM pg_freespace('t')
CREATE EXTENSION pgrowlocks; SELECT count(*) FROM pgrowlocks('t')
CREATE EXTENSION pg_stat_statements; SELECT count(*) > 0 FROM pg_stat_statements
SELECT pg_stat_statements_reset() IS NOT NULL
SELECT autoprewarm_dump_now() > 0
LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SELECT 1
CREATE EXTENSION file_fdw; CREATE SERVER f FOREIGN DATA WRAPPER file_fdw; CREATE FOREIGN TABLE ft (a text) SERVER f OPTIONS (filename 'FOLDER/copied'); SELECT * FROM ft
CREATE EXTENSION dblink; SELECT * FROM dblink('port=' || current_setting('port') || ' host=' || current_setting('unix_socket_directories') || ' dbname=postgres', 'SELECT 1') AS d (n int)
CHECKPOINT
EXPLAIN (ANALYZE, BUFFERS, WAL, TIMING off, SUMMARY off, COSTS off) SELECT count(*) FROM t WHERE i < 10
SELECT name, setting FROM pg_settings WHERE name IN ('block_size', 'segment_size', 'wal_segment_size', 'wal_block_size', 'in_hot_standby', 'huge_pages_status', 'wal_level', 'archive_mode', 'hot_standby') ORDER BY 1
SELECT name FROM pg_settings WHERE pending_restart
SELECT count(*) FROM pg_stat_replication
SELECT count(*) FROM pg_stat_archiver
SELECT backend_type, count(*) FROM pg_stat_activity WHERE backend_type <> 'client backend' GROUP BY 1 ORDER BY 1
SET max_parallel_workers_per_gather = 2; SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SELECT count(*) FROM t
SET log_statement = 'all'; SELECT 1
ALTER SYSTEM SET work_mem = '8MB'
ALTER DATABASE postgres SET work_mem = '8MB'
ALTER ROLE postgres SET work_mem = '9MB'
SELECT pg_switch_wal() > '0/0'
SELECT pg_stat_reset_shared('io'), pg_stat_reset()
SELECT count(*) FROM pg_stat_subscription
SELECT pg_relation_filenode('pg_class') > 0, pg_filenode_relation(0, pg_relation_filenode('t'))::regclass
SELECT txid_current() > 0, pg_current_xact_id_if_assigned() IS NULL, pg_xact_commit_timestamp('1'::xid)
SELECT count(*) > 0 FROM pg_available_extensions
LISTEN x; NOTIFY x; SELECT pg_notification_queue_usage()
SELECT system_identifier > 0 FROM pg_control_system()
SELECT pg_column_compression(s) IS NULL FROM t LIMIT 1
SELECT pg_get_wal_resource_managers() IS NOT NULL LIMIT 1
SELECT count(*) > 0 FROM pg_ls_logicalmapdir()
SELECT count(*) = 0 FROM pg_ls_replslotdir('none')
SELECT * FROM pg_stat_get_backend_idset() LIMIT 0
SELECT pg_sync_replication_slots()
SELECT count(*) FROM pg_get_wal_summarizer_state()
SELECT count(*) FROM pg_available_wal_summaries()
