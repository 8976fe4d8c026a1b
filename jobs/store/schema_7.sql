-- Version 7. Sets user_version in the same transaction, so a crash leaves version 6 as it was.
BEGIN IMMEDIATE;

-- When an attempt that is over did no work: an array of [kind, from, until], the kinds 'children' and 'permission', the
-- times in seconds since the epoch. NULL where it never waited, and for attempts of earlier versions.
ALTER TABLE attempt ADD COLUMN waits TEXT;

-- Pauses of parts of the trees that somebody has ended. No foreign key, for the reasons of paused_path.
CREATE TABLE ended_pause (
    path TEXT NOT NULL,
    since REAL NOT NULL,
    until REAL NOT NULL,
    by_job TEXT,  -- NULL: a person
    PRIMARY KEY (path, since)
) STRICT, WITHOUT ROWID;

-- Costs by tree, depth and model, all of it in the index: the rows themselves have tasks, answers and frames.
CREATE INDEX job_costs ON job (root_id, depth, cost_usd, input_tokens, output_tokens);
CREATE INDEX attempt_costs ON attempt (job_id, model, cost_usd, input_tokens, output_tokens, status)
WHERE status IS NOT NULL;

PRAGMA user_version = 7;
COMMIT;
