-- Version 3. Sets user_version in the same transaction, so a crash leaves version 2 as it was.
BEGIN IMMEDIATE;

-- What an attempt reported is in its output file, which the transcript command reads.
DROP TABLE event;
ALTER TABLE attempt DROP COLUMN offset;

PRAGMA user_version = 3;
COMMIT;
