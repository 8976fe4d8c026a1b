-- Every statement of the store. A header names it and says why it is as it is; values are bound, never spliced.

-- name: open_writer
-- FULL: an acknowledged write survives a power cut; NORMAL would lose the last commits.
PRAGMA foreign_keys = ON;
PRAGMA synchronous = FULL;

-- name: open_reader
-- The writer alone checkpoints: SQLite before 3.51.3 can corrupt a log that two connections reset at once.
PRAGMA query_only = ON;
PRAGMA wal_autocheckpoint = 0;

-- name: open_copier
-- As above, but a copy counts as a write, so this connection may.
PRAGMA wal_autocheckpoint = 0;

-- name: quick_check
-- Reads every page, and leaves out what only a full check would find: that an index holds what its table holds.
PRAGMA quick_check(1);

-- name: integrity_check
-- All of that too: asked where a query found damage that the quick check may not see.
PRAGMA integrity_check(1);

-- name: checkpoint
-- Puts into the file what it may of the log: all of it, unless another process reads what was before. Waits for nobody.
PRAGMA wal_checkpoint(PASSIVE);

-- name: extent
-- How long the file must be.
SELECT count(*), (SELECT page_count FROM pragma_page_count), (SELECT page_size FROM pragma_page_size)
FROM sqlite_schema;

-- name: ends
-- Reads both ends of every tree of pages, and what a crash most likely hit: whatever is not over, and the newest jobs.
SELECT
    (SELECT count(*) FROM (SELECT * FROM tree ORDER BY id LIMIT 1)),
    (SELECT max(created_at) FROM (SELECT * FROM tree ORDER BY id DESC LIMIT 1)),
    (SELECT max(created_at) FROM (SELECT * FROM batch ORDER BY id LIMIT 1)),
    (SELECT max(created_at) FROM (SELECT * FROM batch ORDER BY id DESC LIMIT 1)),
    (SELECT max(created_at) FROM (SELECT * FROM job ORDER BY seq LIMIT 1)),
    (SELECT max(length(spec)) FROM (SELECT * FROM job ORDER BY seq DESC LIMIT 1000)),
    (SELECT max(length(spec)) FROM job INDEXED BY job_by_status WHERE status IN ('queued', 'running')),
    (SELECT max(created_at) FROM (SELECT * FROM job ORDER BY id LIMIT 1)),
    (SELECT max(created_at) FROM (SELECT * FROM job ORDER BY path DESC LIMIT 1)),
    (SELECT max(started_at) FROM (SELECT * FROM attempt ORDER BY rowid LIMIT 1)),
    (SELECT max(length(frame)) FROM (SELECT * FROM attempt ORDER BY rowid DESC LIMIT 100)),
    (SELECT max(started_at) FROM (SELECT * FROM attempt ORDER BY job_id, number LIMIT 1));

-- name: table_names
-- For a check of one table at a time.
SELECT name FROM sqlite_schema WHERE type = 'table';

-- name: check_table
-- As quick_check, of one table and its indexes.
SELECT * FROM pragma_quick_check(?);

-- name: snapshot
-- One read transaction, so the copy is of one moment, and writers are not kept waiting.
VACUUM INTO ?;

-- name: shrink
-- A megabyte at a time: other writes need not wait for all of it.
PRAGMA incremental_vacuum(256);

-- name: free_pages
-- What is left to give back.
SELECT freelist_count FROM pragma_freelist_count;

-- name: forget_tokens
-- For a copy that leaves the state directory.
UPDATE attempt SET token_hash = NULL WHERE token_hash IS NOT NULL;

-- name: tree_ids
-- Their directories have these names.
SELECT id FROM tree ORDER BY created_at, id;

-- name: standing
-- As little as tells whether a directory is ahead of its row.
SELECT id, attempt, status = 'running' FROM job WHERE id IN (SELECT value FROM json_each(?));

-- name: restore_tree
-- What stands already is as true as what the directories say.
INSERT INTO tree (id, created_at, client, max_budget_usd, deadline) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- name: restore_batch
-- Its key went with the database.
INSERT INTO batch (id, root_id, parent_id, caller, created_at) VALUES (?, ?, ?, '', ?) ON CONFLICT DO NOTHING;

-- name: restore_job
-- Keeps its place in the order of admission unless another job has it.
INSERT INTO job (seq, id, root_id, parent_id, batch_id, position, depth, path, spec, status, created_at)
VALUES (
    CASE WHEN EXISTS (SELECT 1 FROM job WHERE seq = :seq) THEN (SELECT max(seq) + 1 FROM job) ELSE :seq END,
    :id, :root_id, :parent_id, :batch_id, :seq, :depth, :path, :spec, 'queued', :created_at
)
ON CONFLICT (id) DO NOTHING;

-- name: restore_state
-- A job's directory is ahead of its row where an attempt, or the end of the one that runs, is not in the row.
UPDATE job
SET status = :status, reason = :reason, attempt = :attempt, session_id = :session_id, excerpt = :excerpt,
    error = :error, cost_usd = :cost_usd, input_tokens = :input_tokens, output_tokens = :output_tokens,
    turns = :turns, cancel_requested = :cancel_requested, started_at = :started_at, ended_at = :ended_at,
    waiting_for = NULL
WHERE id = :id
    AND (attempt < :attempt OR (attempt = :attempt AND status = 'running' AND :status <> 'running'));

-- name: restore_attempt
-- Of an attempt that stands already, only a missing end is added.
INSERT INTO attempt (
    job_id, number, session_id, token_hash, setting_sources, status, reason, exit_code, result, frame,
    cost_usd, input_tokens, output_tokens, turns, cli, cli_version, model, started_at, ended_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (job_id, number) DO UPDATE SET
    token_hash = NULL, status = excluded.status, reason = excluded.reason, exit_code = excluded.exit_code,
    result = excluded.result, frame = excluded.frame, cost_usd = excluded.cost_usd,
    input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens, turns = excluded.turns,
    cli_version = excluded.cli_version, model = excluded.model, ended_at = excluded.ended_at
WHERE attempt.status IS NULL AND excluded.status IS NOT NULL;

-- name: insert_tree
-- One row for each root, whether that is a batch or a job.
INSERT INTO tree (id, created_at, client, max_budget_usd, deadline) VALUES (?, ?, ?, ?, ?);

-- name: insert_batch
-- Its unique (caller, idempotency_key) is the last line against a submission that is written twice.
INSERT INTO batch (id, root_id, parent_id, caller, idempotency_key, request_digest, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: insert_job
-- Whatever is not named here starts at its default: never tried, nothing consumed.
INSERT INTO job (seq, id, root_id, parent_id, batch_id, position, depth, path, spec, status, waiting_for, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?);

-- name: insert_task
-- Of a job that is brought back the text may be there already.
INSERT INTO task (job_id, text) VALUES (?, ?) ON CONFLICT DO NOTHING;

-- name: last_seq
-- The order of admission is reckoned inside the admitting transaction; there is one writer.
SELECT coalesce(max(seq), 0) FROM job;

-- name: batch_by_key
-- A submission that was admitted before is answered before anything else is looked at.
SELECT request_digest, id, root_id, parent_id, idempotency_key, created_at
FROM batch
WHERE caller = ? AND idempotency_key = ?;

-- name: spawn_counts
-- Children of a parent and jobs of its tree, in one go.
SELECT (SELECT count(*) FROM job WHERE parent_id = ?), (SELECT count(*) FROM job WHERE root_id = ?);

-- name: is_below_cancelled
-- A retried job may run below an ancestor that is cancelled still: it may work, not spawn.
SELECT EXISTS (
    SELECT 1 FROM job
    WHERE id IN (SELECT value FROM json_each(?)) AND (cancel_requested OR status = 'cancelled')
);

-- name: claim
-- Guarded: of two claims of one job the second finds no row.
UPDATE job
SET status = 'running', reason = NULL, error = NULL, excerpt = NULL, waiting_for = NULL,
    attempt = attempt + 1, session_id = :session_id, started_at = :at
WHERE id = :job_id AND status = 'queued' AND NOT cancel_requested
RETURNING attempt;

-- name: insert_attempt
-- Written with the claim in one transaction, so a running job always has its attempt.
INSERT INTO attempt (job_id, number, session_id, token_hash, setting_sources, cli, cli_version, started_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: record_launch
-- Keyed by the attempt, so a late call never marks a newer one.
UPDATE attempt SET pid = ?, pid_start = ? WHERE job_id = ? AND number = ?;

-- name: settle
-- Guarded by status and attempt: an outcome is written once, and by the attempt that is under way.
-- A job whose cancel was ordered is not queued again.
UPDATE job
SET status = CASE WHEN :status = 'queued' AND cancel_requested THEN 'cancelled' ELSE :status END,
    reason = CASE WHEN :status = 'queued' AND cancel_requested THEN 'cancelled' ELSE :reason END,
    started_at = CASE WHEN :status = 'queued' AND NOT cancel_requested THEN NULL ELSE started_at END,
    ended_at = CASE WHEN :status = 'queued' AND NOT cancel_requested THEN NULL ELSE :at END,
    waiting_for = CASE WHEN NOT cancel_requested THEN :waiting_for END,
    excerpt = :excerpt, error = :error,
    cost_usd = cost_usd + :cost_usd, input_tokens = input_tokens + :input_tokens,
    output_tokens = output_tokens + :output_tokens, turns = turns + :turns
WHERE id = :job_id AND status = 'running' AND attempt = :attempt
RETURNING *;

-- name: settle_attempt
-- Forgets the token's hash: a process that survives its settlement is nobody.
UPDATE attempt
SET status = ?, reason = ?, exit_code = ?, result = ?, frame = ?,
    cost_usd = ?, input_tokens = ?, output_tokens = ?, turns = ?, ended_at = ?, token_hash = NULL,
    pid = coalesce(?, pid), pid_start = coalesce(?, pid_start), cli_version = coalesce(?, cli_version), model = ?,
    waits = ?
WHERE job_id = ? AND number = ?;

-- name: add_spending
-- One row for a day of an account, however many attempts end.
INSERT INTO spending (account, day, cost_usd) VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET cost_usd = cost_usd + excluded.cost_usd;

-- name: spending
-- Read once, at the start of an engine.
SELECT account, day, cost_usd FROM spending WHERE day >= ? ORDER BY account, day;

-- name: fail_queued
-- Guarded: a job that was claimed meanwhile is settled by its attempt.
UPDATE job
SET status = :status, reason = :reason, excerpt = :excerpt, error = :error, waiting_for = NULL, ended_at = :at
WHERE id = :job_id AND status = 'queued'
RETURNING *;

-- name: set_waiting_for
-- Guarded by what it waited for and by the status that goes with it: the end of one wait must not end another one.
UPDATE job SET waiting_for = :now
WHERE id = :job_id AND waiting_for IS :was
    AND status = CASE WHEN 'permission' IN (:now, :was) THEN 'running' ELSE 'queued' END
RETURNING *;

-- name: cancel_under
-- One statement for all subtrees, so that nothing is claimed or spawned between two of their jobs.
UPDATE job
SET cancel_requested = (status = 'running'),
    reason = CASE status WHEN 'queued' THEN 'cancelled' ELSE reason END,
    error = CASE status WHEN 'queued' THEN 'It was cancelled before it could start.' ELSE error END,
    ended_at = CASE status WHEN 'queued' THEN :at ELSE ended_at END,
    waiting_for = CASE status WHEN 'queued' THEN NULL ELSE waiting_for END,
    status = CASE status WHEN 'queued' THEN 'cancelled' ELSE status END
WHERE seq IN (
    SELECT job.seq FROM json_each(:paths) AS top
    JOIN job ON job.path = top.value OR (job.path > top.value || '/' AND job.path < top.value || '0')
) AND (status = 'queued' OR (status = 'running' AND NOT cancel_requested))
RETURNING *;

-- name: requeue
-- The attempt's row keeps what went wrong; the session stays, so that the next attempt may resume it.
-- Not below a job whose cancel was ordered and that still runs: the order holds for all that is below it.
UPDATE job
SET status = 'queued', reason = NULL, error = NULL, excerpt = NULL, cancel_requested = 0,
    started_at = NULL, ended_at = NULL
WHERE id = ? AND status IN ('failed', 'timeout', 'cancelled')
    AND NOT EXISTS (
        SELECT 1 FROM job AS above
        WHERE above.root_id = job.root_id AND above.status = 'running' AND above.cancel_requested
            AND substr(job.path, 1, length(above.path) + 1) = above.path || '/'
    )
RETURNING *;

-- name: pause
-- The first moment stays, a person's pause stays one, and what ends running jobs goes on doing so.
INSERT INTO paused_path (path, since, by_job, ends_running) VALUES (?, ?, ?, ?)
ON CONFLICT (path) DO UPDATE SET
    by_job = CASE WHEN excluded.by_job IS NULL THEN NULL ELSE by_job END,
    ends_running = max(ends_running, excluded.ends_running)
RETURNING path, since, by_job, ends_running;

-- name: unpause
-- By exact paths: the caller knows which pauses lie below the one that ends.
DELETE FROM paused_path WHERE path IN (SELECT value FROM json_each(:paths));

-- name: note_ended_pauses
-- Before they are deleted, in the same transaction. Two of one moment are one.
INSERT INTO ended_pause (path, since, until, by_job)
SELECT path, since, max(since, :at), by_job FROM paused_path WHERE path IN (SELECT value FROM json_each(:paths))
ON CONFLICT DO UPDATE SET until = max(until, excluded.until);

-- name: drop_ended_pauses
-- A path that has fewer than the most has no such row, and nothing is before NULL.
DELETE FROM ended_pause WHERE path IN (SELECT value FROM json_each(:paths)) AND since < (
    SELECT kept.since FROM ended_pause AS kept
    WHERE kept.path = ended_pause.path ORDER BY kept.since DESC LIMIT 1 OFFSET :most - 1
);

-- name: ended_pauses
-- Three ranges of the key. What was paused with everything before the tree began did not pause it.
SELECT path, since, until, by_job FROM ended_pause
WHERE path = :path OR (path > :path || '/' AND path < :path || '0')
    OR (path = '' AND until > (SELECT created_at FROM tree WHERE id = :path))
ORDER BY since, path;

-- name: delete_ended_pauses
-- With what everything was paused before any tree that is left began: nobody can ask for that any more.
DELETE FROM ended_pause WHERE EXISTS (
    SELECT 1 FROM (SELECT ? AS root_id) WHERE path = root_id OR (path > root_id || '/' AND path < root_id || '0')
        OR (path = '' AND until <= ifnull((SELECT min(created_at) FROM tree WHERE id <> root_id), until))
);

-- name: paused
-- Read once, at the start of an engine.
SELECT path, since, by_job, ends_running FROM paused_path ORDER BY since, path;

-- name: delete_pauses
-- A tree that is forgotten has nothing left to resume.
DELETE FROM paused_path WHERE EXISTS (
    SELECT 1 FROM (SELECT ? AS root_id) WHERE path = root_id OR (path > root_id || '/' AND path < root_id || '0')
);

-- name: limit_tree
-- Every change is noted, also one of a part; what is NULL stays as it is.
UPDATE tree
SET max_budget_usd = coalesce(:budget_usd, max_budget_usd), deadline = coalesce(:deadline, deadline),
    max_jobs = coalesce(:max_jobs, max_jobs), limits_at = :at
WHERE id = :root_id
RETURNING *;

-- name: set_spec
-- Only limits change in it.
UPDATE job SET spec = ? WHERE id = ?;

-- name: job
-- By the id that callers know.
SELECT * FROM job WHERE id = ?;

-- name: task
-- A short task is in the spec alone, of a long one the rest is here.
SELECT job.spec, task.text
FROM job LEFT JOIN task ON task.job_id = job.id WHERE job.id = ?;

-- name: jobs
-- The list comes as one JSON value, so that the statement is the same for any number of ids.
SELECT job.* FROM json_each(?) AS asked JOIN job ON job.id = asked.value ORDER BY asked.key;

-- name: jobs_in_batch
-- In the order of the submission.
SELECT * FROM job WHERE batch_id = ? ORDER BY position;

-- name: jobs_under
-- "0" follows "/": the range holds the descendants and no sibling whose id begins alike.
SELECT * FROM job WHERE path = :path OR (path > :path || '/' AND path < :path || '0') ORDER BY seq;

-- name: newest_jobs
-- Pages by seq, not by OFFSET: rows that arrive meanwhile shift nothing.
SELECT * FROM job WHERE seq < :before ORDER BY seq DESC LIMIT :limit;

-- name: newest_jobs_by_status
-- The index has them in order of seq.
SELECT * FROM job INDEXED BY job_by_status WHERE status = :status AND seq < :before ORDER BY seq DESC LIMIT :limit;

-- name: newest_jobs_of_tree
-- The page is chosen in the index alone; only its own rows are read.
SELECT * FROM job WHERE seq IN (
    SELECT seq FROM job INDEXED BY job_by_root WHERE root_id = :path AND seq < :before ORDER BY seq DESC LIMIT :limit
) ORDER BY seq DESC;

-- name: newest_jobs_of_tree_by_status
-- As above, and in order already.
SELECT * FROM job INDEXED BY job_by_root
WHERE root_id = :path AND status = :status AND seq < :before ORDER BY seq DESC LIMIT :limit;

-- name: newest_jobs_under
-- As jobs_under. Only the rows of the page are read, but where a status is asked for.
SELECT * FROM job WHERE seq IN (
    SELECT seq FROM job
    WHERE (path = :path OR (path > :path || '/' AND path < :path || '0')) AND seq < :before
        AND iif(:status IS NULL, 1, status = :status)
    ORDER BY seq DESC LIMIT :limit
) ORDER BY seq DESC;

-- name: ids_from
-- "{" follows every character of an id: each range is one of an index. A batch is as new as its newest job.
SELECT id FROM (
    SELECT id, seq FROM job WHERE id >= :beginning AND id < :beginning || '{'
        AND (:path IS NULL OR path = :path OR substr(path, 1, length(:path) + 1) = :path || '/')
    UNION ALL
    SELECT batch_id AS id, seq FROM job WHERE batch_id >= :beginning AND batch_id < :beginning || '{'
        AND (:path IS NULL OR path = :path OR substr(path, 1, length(:path) + 1) = :path || '/')
) GROUP BY id ORDER BY max(seq) DESC, id LIMIT :limit;

-- name: has_unfinished
-- Asked often: the first entry of the index is enough.
SELECT EXISTS (SELECT 1 FROM job INDEXED BY job_by_status WHERE status IN ('queued', 'running'));

-- name: unfinished
-- By the index, whatever the number of jobs that are over; they are few enough to be sorted.
SELECT * FROM job INDEXED BY job_by_status WHERE status IN ('queued', 'running') ORDER BY seq;

-- name: live_trees
-- By the index, as unfinished.
SELECT * FROM tree
WHERE id IN (SELECT root_id FROM job INDEXED BY job_by_status WHERE status IN ('queued', 'running'));

-- name: jobs_of_live_trees
-- Those that are over too: their siblings may ask for what they said, and they count in sums.
SELECT * FROM job INDEXED BY job_by_root
WHERE root_id IN (SELECT root_id FROM job INDEXED BY job_by_status WHERE status IN ('queued', 'running'))
ORDER BY seq;

-- name: running_attempts
-- The last attempt of each job that runs.
SELECT attempt.*
FROM job INDEXED BY job_by_status JOIN attempt ON attempt.job_id = job.id AND attempt.number = job.attempt
WHERE job.status = 'running';

-- name: batch
-- Without the caller: nobody needs it back.
SELECT id, root_id, parent_id, idempotency_key, created_at FROM batch WHERE id = ?;

-- name: tree
-- By the id of its root.
SELECT * FROM tree WHERE id = ?;

-- name: rollup_under
-- Grouped by status, so that counts and sums come in one pass.
SELECT status, count(*), sum(cost_usd), sum(input_tokens), sum(output_tokens), sum(turns), max(depth)
FROM job WHERE path = :path OR (path > :path || '/' AND path < :path || '0')
GROUP BY status;

-- name: rollup_batch
-- Siblings' subtrees never overlap, so nothing is counted twice.
SELECT job.status, count(*), sum(job.cost_usd), sum(job.input_tokens), sum(job.output_tokens), sum(job.turns),
    max(job.depth)
FROM job AS top
JOIN job ON job.path = top.path OR (job.path > top.path || '/' AND job.path < top.path || '0')
WHERE top.batch_id = ?
GROUP BY job.status;

-- name: rollup_all
-- Kept by triggers: no job is read.
SELECT status, jobs, cost_usd, input_tokens, output_tokens, turns, (SELECT coalesce(max(depth), 0) FROM job)
FROM tally;

-- name: ended_trees
-- Only whole trees are pruned: a live job may still ask for what its finished siblings said.
-- One index tells which jobs are over, the other which are not: no job is read.
SELECT root_id, max(ended_at), count(*) FROM job INDEXED BY job_ended
WHERE ended_at IS NOT NULL
GROUP BY root_id
HAVING max(ended_at) < ?
    AND root_id NOT IN (SELECT root_id FROM job INDEXED BY job_by_status WHERE status IN ('queued', 'running'))
ORDER BY max(ended_at), root_id;

-- name: is_over
-- Asked in the transaction that deletes: a retry may have revived the tree since it was chosen.
SELECT count(*) > 0 AND coalesce(sum(status IN ('queued', 'running')), 0) = 0 FROM job WHERE root_id = ?;

-- name: depth_costs
-- In the index alone, however many jobs there are.
SELECT depth, count(*), sum(cost_usd), sum(input_tokens), sum(output_tokens) FROM job INDEXED BY job_costs
GROUP BY depth ORDER BY depth;

-- name: depth_costs_of_tree
-- As above, one range of it.
SELECT depth, count(*), sum(cost_usd), sum(input_tokens), sum(output_tokens) FROM job INDEXED BY job_costs
WHERE root_id = ? GROUP BY depth ORDER BY depth;

-- name: model_costs
-- In the index alone, too.
SELECT model, count(*), sum(cost_usd), sum(input_tokens), sum(output_tokens) FROM attempt INDEXED BY attempt_costs
WHERE status IS NOT NULL GROUP BY model ORDER BY sum(cost_usd) DESC, model;

-- name: model_costs_of_tree
-- Of each job of the tree one range of the index.
SELECT model, count(*), sum(attempt.cost_usd), sum(attempt.input_tokens), sum(attempt.output_tokens)
FROM job INDEXED BY job_by_root
CROSS JOIN attempt INDEXED BY attempt_costs ON attempt.job_id = job.id AND attempt.status IS NOT NULL
WHERE job.root_id = ? GROUP BY model ORDER BY sum(attempt.cost_usd) DESC, model;

-- name: tree_costs
-- The dearest are chosen in the index; only of these more is read: the first job, and whether they are over.
WITH chosen AS (
    SELECT * FROM (
        SELECT root_id, count(*) AS jobs, sum(cost_usd) AS cost FROM job INDEXED BY job_costs
        GROUP BY root_id ORDER BY cost DESC LIMIT :limit
    )
    UNION
    SELECT root_id, count(*), sum(cost_usd) FROM job INDEXED BY job_costs
    WHERE root_id IN (SELECT value FROM json_each(:also)) GROUP BY root_id
)
SELECT root_id, jobs, cost, tree.max_budget_usd, tree.created_at,
    CASE WHEN NOT EXISTS (
        SELECT 1 FROM job INDEXED BY job_by_root WHERE root_id = tree.id AND status IN ('queued', 'running')
    ) THEN (SELECT max(ended_at) FROM job INDEXED BY job_ended WHERE root_id = tree.id AND ended_at IS NOT NULL) END,
    (SELECT spec FROM job WHERE id = tree.id OR (batch_id = tree.id AND position = 0) LIMIT 1)
FROM chosen JOIN tree ON tree.id = chosen.root_id
ORDER BY cost DESC, root_id;

-- name: delete_references
-- Jobs and batches name each other, so the links are cut before either is deleted.
UPDATE batch SET parent_id = NULL WHERE root_id = ?;

-- name: delete_attempts
-- Children before parents: the foreign keys hold at every statement.
DELETE FROM attempt WHERE job_id IN (SELECT id FROM job WHERE root_id = ?);

-- name: delete_jobs
-- One statement for all of them: the keys between jobs are checked at its end.
DELETE FROM job WHERE root_id = ?;

-- name: delete_batches
-- After the jobs, which refer to them.
DELETE FROM batch WHERE root_id = ?;

-- name: delete_tree
-- Last.
DELETE FROM tree WHERE id = ?;

-- name: attempt
-- By job and number.
SELECT * FROM attempt WHERE job_id = ? AND number = ?;

-- name: attempts_of
-- Without token, answer and frame: the latter two may have megabytes.
SELECT job_id, number, attempt.session_id, NULL, pid, pid_start, attempt.status, attempt.reason, exit_code, NULL, NULL,
    attempt.cost_usd, attempt.input_tokens, attempt.output_tokens, attempt.turns, setting_sources, attempt.started_at,
    attempt.ended_at, cli, cli_version, model, waits
FROM json_each(:ids) AS asked
JOIN job ON job.id = asked.value
JOIN attempt ON attempt.job_id = job.id AND attempt.number > job.attempt - :most
ORDER BY asked.key, attempt.number;

-- name: caller
-- The token counts while its attempt is the one that runs.
SELECT job.*
FROM attempt JOIN job ON job.id = attempt.job_id AND job.attempt = attempt.number
WHERE attempt.token_hash = ? AND job.status = 'running';

-- name: tree_is_live
-- Asked after each end of a job while a person wants to be told of the ends of trees: one look into the index.
SELECT EXISTS (SELECT 1 FROM job INDEXED BY job_by_root WHERE root_id = ? AND status IN ('queued', 'running'));

-- name: first_of_tree
-- The root itself, or the first job of the batch that is the root.
SELECT * FROM job WHERE id = :root_id OR (batch_id = :root_id AND position = 0) LIMIT 1;

-- name: first_not_completed
-- In the index alone but for the row that is returned.
SELECT * FROM job WHERE seq = (
    SELECT min(seq) FROM job INDEXED BY job_by_root
    WHERE root_id = ? AND status IN ('failed', 'timeout', 'cancelled')
);

-- name: insert_notice
-- One that waits already is not added again.
INSERT INTO notice (id, kind, body, at, due_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING;

-- name: notices
-- Those that are still tried, the next one first.
SELECT id, kind, body, at, attempts, due_at FROM notice INDEXED BY notice_due
WHERE kind = ? AND given_up_at IS NULL ORDER BY due_at, seq LIMIT ?;

-- name: notice_failed
-- By the id: a notice of a group is counted by itself.
UPDATE notice SET attempts = ?, due_at = ?, error = ?, given_up_at = ? WHERE id = ?;

-- name: delete_notices
-- The list comes as one JSON value.
DELETE FROM notice WHERE id IN (SELECT value FROM json_each(?));

-- name: delete_given_up
-- They have been shown for long enough.
DELETE FROM notice WHERE given_up_at < ?;

-- name: undelivered_notices
-- With max(), the other column is of the row that has the newest attempt.
SELECT kind, count(*) - count(given_up_at), count(given_up_at), error, max(due_at) FROM notice
WHERE attempts > 0 GROUP BY kind ORDER BY kind;

-- name: noted_pauses
-- Few: one for each account and each part of a tree that is paused.
SELECT key, until, because FROM noted_pause ORDER BY key;

-- name: note_pause
-- A pause that is noted already may have another end now.
INSERT INTO noted_pause (key, until, because) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET until = excluded.until, because = excluded.because;

-- name: forget_pause
-- With the notice that it is over.
DELETE FROM noted_pause WHERE key = ?;
