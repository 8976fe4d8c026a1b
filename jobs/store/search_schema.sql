-- The index of `claude-jobs search`: a file of its own, next to the database. It is made from the database and may be
-- removed at any time.

-- Whole words, in any case, with or without accents. The text is kept here too, for the excerpts.
CREATE VIRTUAL TABLE doc USING fts5(task, answer, tokenize = "unicode61 remove_diacritics 2");

-- Which jobs are in it, and as they were after which attempt.
CREATE TABLE known (
    job_id TEXT PRIMARY KEY,
    doc_id INTEGER NOT NULL UNIQUE,  -- rowid in doc
    attempt INTEGER NOT NULL,
    is_over INTEGER NOT NULL CHECK (is_over IN (0, 1))
) STRICT, WITHOUT ROWID;

-- The few whose answer may still come.
CREATE INDEX known_live ON known (job_id) WHERE NOT is_over;

-- One row: jobs that ended before this time are in it with their answers.
CREATE TABLE progress (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    ended_at REAL NOT NULL
) STRICT;
INSERT INTO progress VALUES (1, 0);

-- Last, so that a file that was not finished has another version. It changes with this schema, and an index of another
-- version is made again.
PRAGMA user_version = 1;
