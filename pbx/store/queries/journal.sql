-- Every statement takes columns as arrays, so a batch of many calls is one round trip, and changes nothing when it
-- is run again.

-- name: starts
INSERT INTO call (id, line, dialled, caller, sip_call_id, worker, started_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
ON CONFLICT (id) DO NOTHING;

-- name: events
INSERT INTO call_event (call_id, seq, at, kind, detail)
SELECT * FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::text[], $5::jsonb[])
ON CONFLICT (call_id, seq) DO NOTHING;

-- name: answers
UPDATE call
SET answered_at = given.at
FROM (
    SELECT call_id, min(at) AS at
    FROM unnest($1::uuid[], $2::timestamptz[]) AS pairs (call_id, at)
    GROUP BY call_id
) AS given
WHERE call.id = given.call_id AND (call.answered_at IS NULL OR call.answered_at > given.at);

-- name: ends
-- One row a given call: is it known at all, and did this statement end it (false when it had ended before).
-- An end that was assumed because the worker seemed dead gives way to the real one.
WITH given AS (
    SELECT *
    FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[])
        AS columns (call_id, at, cause, disposition, answered_by)
), changed AS (
    UPDATE call
    SET ended_at = given.at, cause = given.cause, disposition = given.disposition, answered_by = given.answered_by
    FROM given
    WHERE call.id = given.call_id AND (call.ended_at IS NULL OR call.cause = 'worker-lost')
    RETURNING call.id
)
SELECT
    given.call_id,
    EXISTS (SELECT FROM call WHERE call.id = given.call_id) AS known,
    EXISTS (SELECT FROM changed WHERE changed.id = given.call_id) AS changed
FROM given;
