-- Version 1. Sets user_version in the same transaction, so a crash leaves version 0 and an empty file.
BEGIN IMMEDIATE;

CREATE TABLE tree (
    id TEXT PRIMARY KEY,
    created_at REAL NOT NULL,
    client TEXT,
    max_budget_usd REAL CHECK (max_budget_usd > 0),
    deadline REAL
) STRICT, WITHOUT ROWID;

CREATE TABLE batch (
    id TEXT PRIMARY KEY,
    root_id TEXT NOT NULL REFERENCES tree (id),
    parent_id TEXT REFERENCES job (id),
    caller TEXT NOT NULL,
    idempotency_key TEXT,
    created_at REAL NOT NULL,
    UNIQUE (caller, idempotency_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE job (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    root_id TEXT NOT NULL REFERENCES tree (id),
    parent_id TEXT REFERENCES job (id),
    batch_id TEXT NOT NULL REFERENCES batch (id),
    position INTEGER NOT NULL,
    depth INTEGER NOT NULL CHECK (depth >= 0),
    path TEXT NOT NULL UNIQUE,  -- ids from the root, joined by "/": a subtree is one range of this index
    spec TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN (
        'queued',  -- claim -> running; fail_queued -> failed, cancelled; cancel_under -> cancelled
        'running',  -- settle -> completed, failed, timeout, cancelled, queued
        'completed',
        'failed',  -- requeue -> queued
        'timeout',  -- requeue -> queued
        'cancelled'  -- requeue -> queued
    )),
    reason TEXT CHECK (reason IN (
        'completed', 'completed_with_denials', 'schema_unmet', 'max_turns', 'budget_exhausted', 'max_output_tokens',
        'prompt_too_long', 'request_too_large', 'usage_limit', 'rate_limit', 'overloaded', 'server_error',
        'connection', 'auth', 'billing', 'model_not_found', 'invalid_request', 'refusal', 'startup', 'no_session',
        'session_in_use', 'interrupted', 'signal', 'truncated', 'unknown_error', 'deadline', 'stalled',
        'output_limit', 'lost', 'cancelled', 'dependency_failed', 'unmanaged_claude'
    )),
    attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    session_id TEXT,
    excerpt TEXT,
    error TEXT,
    cost_usd REAL NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    turns INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    created_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    CHECK ((status IN ('queued', 'running')) = (ended_at IS NULL)),
    CHECK (status IN ('queued', 'running') OR reason IS NOT NULL),
    CHECK (status <> 'running' OR attempt > 0)
) STRICT;

-- The two of the batch are for the foreign keys: without them each deleted job would scan every batch.
CREATE INDEX batch_by_root ON batch (root_id);
CREATE INDEX batch_by_parent ON batch (parent_id);
CREATE INDEX job_by_parent ON job (parent_id);
CREATE INDEX job_by_batch ON job (batch_id, position);
CREATE INDEX job_by_root ON job (root_id, status);
CREATE INDEX job_unfinished ON job (seq) WHERE status IN ('queued', 'running');

CREATE TABLE attempt (
    job_id TEXT NOT NULL REFERENCES job (id),
    number INTEGER NOT NULL CHECK (number > 0),
    session_id TEXT NOT NULL,
    token_hash TEXT UNIQUE,  -- set to NULL when the attempt is settled: the token is worth nothing from then on
    pid INTEGER,
    pid_start REAL,
    offset INTEGER NOT NULL DEFAULT 0 CHECK (offset >= 0),
    status TEXT CHECK (status IN ('completed', 'failed', 'timeout', 'cancelled', 'queued')),
    reason TEXT CHECK (reason IN (
        'completed', 'completed_with_denials', 'schema_unmet', 'max_turns', 'budget_exhausted', 'max_output_tokens',
        'prompt_too_long', 'request_too_large', 'usage_limit', 'rate_limit', 'overloaded', 'server_error',
        'connection', 'auth', 'billing', 'model_not_found', 'invalid_request', 'refusal', 'startup', 'no_session',
        'session_in_use', 'interrupted', 'signal', 'truncated', 'unknown_error', 'deadline', 'stalled',
        'output_limit', 'lost', 'cancelled', 'dependency_failed', 'unmanaged_claude'
    )),
    exit_code INTEGER,
    result TEXT,
    frame TEXT,
    cost_usd REAL NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    turns INTEGER NOT NULL DEFAULT 0,
    setting_sources TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    PRIMARY KEY (job_id, number),
    CHECK ((status IS NULL) = (ended_at IS NULL)),
    CHECK (status IS NULL OR token_hash IS NULL)
) STRICT;

CREATE TABLE event (
    job_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (job_id, attempt, offset),
    FOREIGN KEY (job_id, attempt) REFERENCES attempt (job_id, number)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 1;
COMMIT;
