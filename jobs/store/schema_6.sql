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

-- Notices for a person that are not delivered yet. One that tells of the end of a job is written in the transaction that
-- ends it, so that it is not lost with the engine. A delivered one is deleted.
CREATE TABLE notice (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,  -- the same at each try: a receiver drops repeats by it
    kind TEXT NOT NULL CHECK (kind IN (
        'end',  -- goes where the setting on_end says
        'attention'  -- goes where on_attention says
    )),
    body TEXT NOT NULL,  -- a JSON object
    at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at REAL NOT NULL,
    error TEXT,  -- of the last attempt
    given_up_at REAL  -- after the last attempt; kept for a while so that the person can be shown it
) STRICT;

-- The loop of each kind reads those that it still tries.
CREATE INDEX notice_due ON notice (kind, due_at) WHERE given_up_at IS NULL;

-- Pauses whose beginning was noted for a person, so that their end is noted too, by the next engine if need be.
CREATE TABLE noted_pause (
    key TEXT PRIMARY KEY,  -- of an account its digest, of its budget "$" and that, of a paused path "/" and the path
    until REAL,  -- NULL where somebody has to end it
    because TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Limits of a whole tree that a person may set while it lives. A job's own limits are in its spec.
-- max_jobs: most jobs below the root. limits_at: when a limit was last changed; an attempt that was launched before it
-- may have ended by a budget that was raised since.
ALTER TABLE tree ADD COLUMN max_jobs INTEGER CHECK (max_jobs >= 0);
ALTER TABLE tree ADD COLUMN limits_at REAL;

-- What attempts that ended have cost, by account and local day. Kept apart from the attempts, which are pruned within a
-- month, and written with their ends, so that a day's sum needs no look at them.
CREATE TABLE spending (
    account TEXT NOT NULL,  -- a digest, as the throttle names it
    day TEXT NOT NULL CHECK (day GLOB '????-??-??'),
    cost_usd REAL NOT NULL,
    PRIMARY KEY (account, day)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 6;
COMMIT;
