-- Version 6. Sets user_version in the same transaction, so a crash leaves version 5 as it was.
BEGIN IMMEDIATE;

-- Parts of the trees in which no job starts before somebody resumes them. No foreign key: a path may be that of a batch
-- that began a tree, and the empty one is everything.
CREATE TABLE paused_path (
    path TEXT PRIMARY KEY,
    since REAL NOT NULL,
    by_job TEXT,  -- NULL: a person, whose pause no job lifts
    ends_running INTEGER NOT NULL CHECK (ends_running IN (0, 1))  -- what runs there is ended, by the next engine too
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 6;
COMMIT;
