-- Version 3. Sets user_version in the same transaction, so a crash leaves version 2 as it was.
BEGIN IMMEDIATE;

-- What an attempt reported is in its output file, which the transcript command reads.
DROP TABLE event;
ALTER TABLE attempt DROP COLUMN offset;

-- An answer is kept once. In an array, the frame's own result is the attempt's, and null stands in its place.
-- A frame may hold NaN, as Python writes it; SQLite does not take that for JSON.
UPDATE attempt SET frame = json_array(json_set(frame, '$.result', NULL))
WHERE iif(json_valid(frame), json_type(frame, '$.result') = 'text' AND json_extract(frame, '$.result') = result, 0);

-- So is a task: what the job's spec keeps of it is its beginning, and this is the rest. 2000 is TASK_PREVIEW.
UPDATE task SET text = substr(text, 2001);

-- Jobs of one status, and trees that are over, without a look at the others. A row's place in an index ends with seq.
DROP INDEX job_unfinished;
DROP INDEX job_by_root;
CREATE INDEX job_by_status ON job (status);
CREATE INDEX job_by_root ON job (root_id, status);
CREATE INDEX job_by_depth ON job (depth);
CREATE INDEX job_ended ON job (root_id, ended_at) WHERE ended_at IS NOT NULL;

-- Sums over all jobs, kept as they change. What a job has used stays with the status in which it used it: only the
-- total over all statuses means something.
CREATE TABLE tally (
    status TEXT PRIMARY KEY,
    jobs INTEGER NOT NULL DEFAULT 0,
    cost_usd REAL NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    turns INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

INSERT INTO tally (status) VALUES ('queued'), ('running'), ('completed'), ('failed'), ('timeout'), ('cancelled');
UPDATE tally SET
    jobs = sums.jobs, cost_usd = sums.cost_usd, input_tokens = sums.input_tokens, output_tokens = sums.output_tokens,
    turns = sums.turns
FROM (
    SELECT
        status, count(*) AS jobs, sum(cost_usd) AS cost_usd, sum(input_tokens) AS input_tokens,
        sum(output_tokens) AS output_tokens, sum(turns) AS turns
    FROM job GROUP BY status
) AS sums
WHERE sums.status = tally.status;

CREATE TRIGGER tally_insert AFTER INSERT ON job BEGIN
    UPDATE tally SET jobs = jobs + 1 WHERE status = NEW.status;
END;

CREATE TRIGGER tally_update AFTER UPDATE OF status ON job BEGIN
    UPDATE tally SET jobs = jobs - 1 WHERE status = OLD.status;
    UPDATE tally SET
        jobs = jobs + 1,
        cost_usd = cost_usd + (NEW.cost_usd - OLD.cost_usd),
        input_tokens = input_tokens + NEW.input_tokens - OLD.input_tokens,
        output_tokens = output_tokens + NEW.output_tokens - OLD.output_tokens,
        turns = turns + NEW.turns - OLD.turns
    WHERE status = NEW.status;
END;

CREATE TRIGGER tally_delete AFTER DELETE ON job BEGIN
    UPDATE tally SET
        jobs = jobs - 1,
        cost_usd = cost_usd - OLD.cost_usd,
        input_tokens = input_tokens - OLD.input_tokens,
        output_tokens = output_tokens - OLD.output_tokens,
        turns = turns - OLD.turns
    WHERE status = OLD.status;
END;

PRAGMA user_version = 3;
COMMIT;
