-- name: lock
-- Held to the end of the transaction, so only one process migrates.
SELECT pg_advisory_xact_lock($1);

-- name: create
CREATE TABLE IF NOT EXISTS schema_version (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL
);

-- name: applied
SELECT version, name, checksum FROM schema_version ORDER BY version;

-- name: record
INSERT INTO schema_version (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4);
