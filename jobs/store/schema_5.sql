-- Version 5. Sets user_version in the same transaction, so a crash leaves version 4 as it was.
BEGIN IMMEDIATE;

-- What keeps a live job from work and outlives the engine. What the scheduler knows (a slot, a limit) is not written: it
-- changes for every job in line whenever one job ends.
ALTER TABLE job ADD COLUMN waiting_for TEXT CHECK (waiting_for IN (
    'siblings',  -- queued; set by admit
    'children',  -- queued; set by settle, where an attempt asked for subtasks
    'permission'  -- running
));

UPDATE job INDEXED BY job_by_status SET waiting_for = 'siblings'
WHERE status = 'queued' AND attempt = 0 AND json_type(spec, '$.depends_on') = 'array';

-- Only what asked for subtasks completed and is followed by another attempt.
UPDATE job INDEXED BY job_by_status SET waiting_for = 'children'
WHERE status = 'queued' AND EXISTS (
    SELECT 1 FROM attempt
    WHERE job_id = job.id AND number = job.attempt
        AND attempt.status = 'queued' AND attempt.reason IN ('completed', 'completed_with_denials')
);

PRAGMA user_version = 5;
COMMIT;
