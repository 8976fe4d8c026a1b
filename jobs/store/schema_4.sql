-- Version 4. Sets user_version in the same transaction, so a crash leaves version 3 as it was.
BEGIN IMMEDIATE;

-- Which binary ran an attempt, and which model answered it; unknown for attempts of earlier versions.
ALTER TABLE attempt ADD COLUMN cli TEXT;
ALTER TABLE attempt ADD COLUMN cli_version TEXT;
ALTER TABLE attempt ADD COLUMN model TEXT;

PRAGMA user_version = 4;
COMMIT;
