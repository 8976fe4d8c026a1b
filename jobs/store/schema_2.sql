-- Version 2. Sets user_version in the same transaction, so a crash leaves version 1 as it was.
BEGIN IMMEDIATE;

-- A long task would be read with every row of its job. It is here, and the job's spec keeps its beginning.
CREATE TABLE task (
    job_id TEXT PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    text TEXT NOT NULL
) STRICT;

-- 2000 is TASK_PREVIEW of jobs.spec. The first condition spares short specs the parse.
INSERT INTO task (job_id, text)
SELECT id, json_extract(spec, '$.task') FROM job
WHERE length(spec) > 2000 AND length(json_extract(spec, '$.task')) > 2000;

UPDATE job
SET spec = json_set(
    spec,
    '$.task', substr(json_extract(spec, '$.task'), 1, 2000),
    '$.task_chars', length(json_extract(spec, '$.task'))
)
WHERE id IN (SELECT job_id FROM task);

-- With the end of each job in it, the trees that are over are found without reading the jobs.
DROP INDEX job_by_root;
CREATE INDEX job_by_root ON job (root_id, status, ended_at);

-- A digest of the request, so that its key is not answered for another one; NULL where an earlier version wrote the row.
ALTER TABLE batch ADD COLUMN request_digest TEXT;

PRAGMA user_version = 2;
COMMIT;
