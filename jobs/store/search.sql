-- Statements of the search index. `jobs` is the database, attached and read only.

-- name: attach
-- Read only: the store is its one writer.
ATTACH ? AS jobs;

-- name: version
-- Of the file's schema, and whether it has none yet.
SELECT user_version, NOT EXISTS (SELECT 1 FROM main.sqlite_schema) FROM pragma_user_version;

-- name: knows_a_job
-- False for an index that was made a moment ago.
SELECT EXISTS (SELECT 1 FROM known);

-- name: gone
-- Both columns are in indexes: no row of a job is read.
SELECT doc_id FROM known WHERE job_id NOT IN (SELECT id FROM jobs.job);

-- name: remove_doc
-- The text goes with it.
DELETE FROM doc WHERE rowid = ?;

-- name: remove_known
-- After its text: a crash between the two is one transaction that did not happen.
DELETE FROM known WHERE doc_id = ?;

-- name: newest_end
-- By the partial index of ends alone.
SELECT coalesce(max(ended_at), 0) FROM jobs.job INDEXED BY job_ended WHERE ended_at IS NOT NULL;

-- name: missing
-- New jobs, those that ended since, and those that a retry brought to another end; the newest first.
SELECT id FROM (
    SELECT id, seq FROM jobs.job WHERE id NOT IN (SELECT job_id FROM known)
    UNION
    SELECT job.id, job.seq FROM known INDEXED BY known_live JOIN jobs.job ON job.id = known.job_id
    WHERE NOT known.is_over AND job.ended_at IS NOT NULL
    UNION
    SELECT job.id, job.seq FROM jobs.job INDEXED BY job_ended JOIN known ON known.job_id = job.id
    WHERE job.ended_at >= (SELECT ended_at FROM progress) AND known.attempt <> job.attempt
) ORDER BY seq DESC;

-- name: texts
-- A long task is in two parts. The answer is that of the last attempt; without one, what went wrong is searched.
SELECT job.id, job.attempt, job.ended_at IS NOT NULL, known.doc_id,
    json_extract(job.spec, '$.task') || coalesce(task.text, ''), coalesce(attempt.result, job.error, '')
FROM json_each(?) AS asked
JOIN jobs.job ON job.id = asked.value
LEFT JOIN jobs.task ON task.job_id = job.id
LEFT JOIN jobs.attempt ON attempt.job_id = job.id AND attempt.number = job.attempt
LEFT JOIN known ON known.job_id = job.id;

-- name: insert_doc
-- Its rowid is the next one.
INSERT INTO doc (task, answer) VALUES (?, ?);

-- name: update_doc
-- The same row, so that what is known of it stays.
UPDATE doc SET task = ?, answer = ? WHERE rowid = ?;

-- name: note
-- Written with the text in one transaction.
INSERT INTO known (job_id, doc_id, attempt, is_over) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET attempt = excluded.attempt, is_over = excluded.is_over;

-- name: note_progress
-- Only once nothing is missing.
UPDATE progress SET ended_at = ?;

-- name: find
-- The newest jobs first. A job that was deleted since is not among them.
SELECT known.doc_id, job.id, job.root_id, job.status, job.created_at
FROM doc JOIN known ON known.doc_id = doc.rowid JOIN jobs.job ON job.id = known.job_id
WHERE doc MATCH :words AND (:status IS NULL OR job.status = :status)
    AND job.created_at >= :since AND job.created_at < :before
    AND (:directory IS NULL OR json_extract(job.spec, '$.cwd') = :directory
        OR substr(json_extract(job.spec, '$.cwd'), 1, length(:directory) + 1) = rtrim(:directory, '/') || '/')
ORDER BY job.seq DESC LIMIT :limit;

-- name: excerpts
-- For the rows that are shown alone: an excerpt reads the whole text.
SELECT snippet(doc, 0, char(2), char(3), '…', 40), snippet(doc, 1, char(2), char(3), '…', 40)
FROM doc WHERE doc MATCH ? AND rowid = ?;

-- name: with_transcripts
-- Jobs that have been started, the newest first.
SELECT id, root_id, status, created_at, attempt FROM jobs.job
WHERE attempt > 0 AND (:status IS NULL OR status = :status) AND created_at >= :since AND created_at < :before
    AND (:directory IS NULL OR json_extract(spec, '$.cwd') = :directory
        OR substr(json_extract(spec, '$.cwd'), 1, length(:directory) + 1) = rtrim(:directory, '/') || '/')
ORDER BY seq DESC;
