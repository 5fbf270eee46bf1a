-- One round, while others write: rebuilds, summaries, vacuum.
SET client_min_messages = error;
SET lock_timeout = '2s';
REINDEX INDEX CONCURRENTLY tortured_btree;
VACUUM tortured;
REINDEX INDEX CONCURRENTLY tortured_gin;
SELECT brin_summarize_new_values('tortured_brin'), brin_desummarize_range('tortured_brin', 1), gin_clean_pending_list('tortured_gin');
DELETE FROM tortured WHERE k = (SELECT k FROM tortured ORDER BY random() LIMIT 1);
VACUUM tortured;
REINDEX INDEX CONCURRENTLY tortured_hash;
REINDEX INDEX CONCURRENTLY tortured_gist;
DELETE FROM tortured WHERE id % 4 = 0;
VACUUM (FREEZE) tortured;
REINDEX INDEX CONCURRENTLY tortured_spgist;
DROP INDEX CONCURRENTLY tortured_brin;
CREATE INDEX tortured_brin ON tortured USING brin (id, t) WITH (pages_per_range = 1, autosummarize = on);
VACUUM tortured;
