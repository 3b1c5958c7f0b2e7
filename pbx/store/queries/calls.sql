-- name: one
SELECT * FROM call WHERE id = $1;

-- name: events
SELECT call_id, seq, at, kind, detail FROM call_event WHERE call_id = ANY ($1::uuid[]) ORDER BY call_id, seq;

-- name: live
-- Calls that have not ended, oldest first, with the end of their worker's lease (null: the worker is gone).
SELECT call.*, worker.lease_until
FROM call
LEFT JOIN worker ON worker.name = call.worker AND call.started_at >= worker.started_at
WHERE call.ended_at IS NULL
ORDER BY call.started_at, call.id;

-- name: latest
-- The newest calls before a place in the list; the place is (started_at, id) of the last one seen.
SELECT *
FROM call
WHERE (started_at, id) < ($1::timestamptz, $2::uuid)
ORDER BY started_at DESC, id DESC
LIMIT $3;
