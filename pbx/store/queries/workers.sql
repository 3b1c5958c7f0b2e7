-- name: register
-- A restarted worker takes its row over; calls of its predecessor are told apart by started_at.
INSERT INTO worker (name, sip_address, pid, host, started_at, heartbeat_at, lease_until, draining)
VALUES ($1, $2, $3, $4, $5, $5, $6, false)
ON CONFLICT (name) DO UPDATE
SET sip_address = excluded.sip_address, pid = excluded.pid, host = excluded.host, started_at = excluded.started_at,
    heartbeat_at = excluded.heartbeat_at, lease_until = excluded.lease_until, draining = false;

-- name: heartbeat
-- Only the worker that registered: a zombie of the same name has another started_at.
UPDATE worker
SET heartbeat_at = $3, lease_until = $4
WHERE name = $1 AND started_at = $2;

-- name: drain
UPDATE worker SET draining = $2 WHERE name = $1;

-- name: forget
DELETE FROM worker WHERE name = $1 AND started_at = $2;

-- name: everyone
SELECT * FROM worker ORDER BY name;

-- name: dead
-- Workers whose lease is over; rows another process is burying are passed over.
SELECT name, started_at FROM worker WHERE lease_until < $1 ORDER BY name FOR UPDATE SKIP LOCKED;

-- name: end_ghosts
-- Live calls whose worker is given as dead, was restarted since the call began, or has no row.
WITH ghosts AS (
    SELECT call.id
    FROM call
    LEFT JOIN worker ON worker.name = call.worker AND NOT (worker.name = ANY ($2::text[]))
    WHERE call.ended_at IS NULL AND (worker.name IS NULL OR call.started_at < worker.started_at)
    ORDER BY call.id
    FOR UPDATE OF call SKIP LOCKED
)
UPDATE call
SET ended_at = greatest($1, call.started_at), cause = 'worker-lost', disposition = 'lost'
FROM ghosts
WHERE call.id = ghosts.id
RETURNING call.*;

-- name: bury
DELETE FROM worker WHERE name = ANY ($1::text[]);
