-- Statements of the outbox. Each starts with a line "-- name: x" and is used by emr_bridge.outbox alone.

-- name: enqueue
-- Store versions of notes and their outbox rows, in the caller's transaction; a replay changes nothing.
-- $1 call ids, $2 versions, $3 facts, $4 texts (one element a version), $5 connectors, $6 now
WITH given AS (
    SELECT * FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[]) AS g (call_id, version, facts, text)
), noted AS (
    INSERT INTO note (call_id, current_version, created_at)
    SELECT call_id, max(version), $6 FROM given GROUP BY call_id ORDER BY call_id
    ON CONFLICT (call_id) DO UPDATE SET current_version = greatest(note.current_version, excluded.current_version)
    RETURNING id, call_id
), versions AS (
    INSERT INTO note_version (note_id, version, facts, text, author, state, created_at)
    SELECT noted.id, given.version, given.facts::jsonb, given.text, 'careline', 'automatic', $6
    FROM given JOIN noted USING (call_id)
    ON CONFLICT DO NOTHING
), queued AS (
    INSERT INTO outbox (connector, call_id, version, state, next_attempt_at, created_at)
    SELECT target.name, given.call_id, given.version,
           CASE WHEN EXISTS (
               SELECT FROM outbox AS newer
               WHERE newer.connector = target.name AND newer.call_id = given.call_id
                 AND newer.version > given.version
           ) THEN 'superseded' ELSE 'queued' END,
           $6, $6
    FROM given JOIN noted USING (call_id) CROSS JOIN unnest($5::text[]) AS target (name)
    ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT pg_notify('careline_outbox', '') FROM (SELECT FROM queued LIMIT 1) AS something

-- name: versions_with_cause
-- Current versions of notes that tell this cause.
-- $1 call ids, $2 cause
SELECT note.call_id, note.current_version
FROM note JOIN note_version AS v ON v.note_id = note.id AND v.version = note.current_version
WHERE note.call_id = ANY ($1::uuid[]) AND v.facts ->> 'cause' = $2

-- name: claim
-- Take what is due for one connector: only the oldest unfinished version of each call, never one another courier has.
-- A row found in state sending belonged to a courier that did not come back: the note may have arrived.
-- $1 connector, $2 now, $3 limit, $4 courier, $5 end of the claim
WITH due AS (
    SELECT o.id, o.state AS was
    FROM outbox AS o
    WHERE o.connector = $1
      AND o.state IN ('queued', 'sending', 'delivered')
      AND o.next_attempt_at <= $2
      AND NOT EXISTS (
          SELECT FROM outbox AS earlier
          WHERE earlier.connector = o.connector AND earlier.call_id = o.call_id AND earlier.version < o.version
            AND earlier.state IN ('queued', 'sending', 'delivered', 'held')
      )
    ORDER BY o.next_attempt_at, o.id
    LIMIT $3
    FOR UPDATE OF o SKIP LOCKED
), abandoned AS (
    INSERT INTO delivery_attempt (outbox_id, n, step, at, class, sentence)
    SELECT o.id, o.attempts, 'send', $2, 'ambiguous',
           'The courier that had taken this note did not report back, so it may have been accepted.'
    FROM outbox AS o JOIN due ON due.id = o.id
    WHERE due.was = 'sending'
    ON CONFLICT DO NOTHING
), taken AS (
    UPDATE outbox AS o
    SET state = CASE o.state WHEN 'delivered' THEN 'delivered' ELSE 'sending' END,
        unsure = o.unsure OR o.state = 'sending',
        attempts = o.attempts + 1,
        claimed_by = $4, claim_until = $5, next_attempt_at = $5
    FROM due
    WHERE o.id = due.id
    RETURNING o.id, o.connector, o.call_id, o.version, o.attempts, o.read_backs, o.unsure, o.created_at,
              o.remote_encounter, o.remote_document, due.was
)
SELECT taken.*, v.facts::text AS facts, v.text, v.created_at AS written_at,
       (SELECT p.remote_document FROM outbox AS p
        WHERE p.connector = taken.connector AND p.call_id = taken.call_id AND p.version < taken.version
          AND p.remote_document IS NOT NULL
        ORDER BY p.version DESC LIMIT 1) AS replaces
FROM taken
JOIN note AS n ON n.call_id = taken.call_id
JOIN note_version AS v ON v.note_id = n.id AND v.version = taken.version
ORDER BY taken.id

-- name: delivered
-- The EMR accepted it; the claim goes on for the read-back. Repeating it, after its answer was lost, is harmless.
-- $1 id, $2 attempts, $3 courier, $4 now, $5 encounter, $6 document, $7 http status
WITH marked AS (
    UPDATE outbox
    SET state = 'delivered', delivered_at = coalesce(delivered_at, $4), remote_encounter = $5, remote_document = $6,
        unsure = false, last_error_class = NULL, last_error = NULL
    WHERE id = $1 AND attempts = $2 AND claimed_by = $3 AND state IN ('sending', 'delivered')
    RETURNING id, attempts
), logged AS (
    INSERT INTO delivery_attempt (outbox_id, n, step, at, class, http_status, sentence)
    SELECT id, attempts, 'send', $4, 'ok', $7, '' FROM marked
    ON CONFLICT DO NOTHING
)
SELECT count(*) FROM marked

-- name: filed
-- It was read back from the EMR: finished. Repeating it, after its answer was lost, is harmless.
-- $1 id, $2 attempts, $3 courier, $4 now
WITH marked AS (
    UPDATE outbox
    SET state = 'filed', filed_at = coalesce(filed_at, $4), claimed_by = NULL, claim_until = NULL, last_error_class = NULL,
        last_error = NULL
    WHERE id = $1 AND attempts = $2 AND (state = 'delivered' AND claimed_by = $3 OR state = 'filed')
    RETURNING id, attempts
), logged AS (
    INSERT INTO delivery_attempt (outbox_id, n, step, at, class, http_status, sentence)
    SELECT id, attempts, 'read-back', $4, 'ok', 200, '' FROM marked
    ON CONFLICT DO NOTHING
)
SELECT count(*) FROM marked

-- name: failed
-- The claim ends without success, in the state that follows.
-- $1 id, $2 attempts, $3 courier, $4 now, $5 state that follows, $6 next attempt at, $7 class, $8 sentence,
-- $9 http status, $10 step, $11 whether something may be at the EMR, $12 whether the document was not found
WITH marked AS (
    UPDATE outbox
    SET state = $5, next_attempt_at = $6, claimed_by = NULL, claim_until = NULL,
        last_error_class = $7, last_error = $8,
        unsure = unsure OR $11,
        read_backs = CASE WHEN $5 = 'queued' THEN 0 WHEN $12 THEN read_backs + 1 ELSE read_backs END
    WHERE id = $1 AND attempts = $2 AND claimed_by = $3 AND state IN ('sending', 'delivered')
    RETURNING id, attempts
), logged AS (
    INSERT INTO delivery_attempt (outbox_id, n, step, at, class, http_status, sentence)
    SELECT id, attempts, $10, $4, $7, $9, $8 FROM marked
    ON CONFLICT DO NOTHING
)
SELECT count(*) FROM marked

-- name: release
-- Give a claim back of which nothing was sent.
-- $1 id, $2 attempts, $3 courier, $4 now
WITH marked AS (
    UPDATE outbox
    SET state = CASE state WHEN 'delivered' THEN 'delivered' ELSE 'queued' END,
        next_attempt_at = $4, claimed_by = NULL, claim_until = NULL
    WHERE id = $1 AND attempts = $2 AND claimed_by = $3 AND state IN ('sending', 'delivered')
    RETURNING id
)
SELECT count(*) FROM marked

-- name: reclaim
-- End at once the claims of a courier of this name that it knows nothing of: they are its dead predecessor's, or the
-- answer to its claim was lost.
-- $1 connector, $2 courier, $3 ids it has under way, $4 now
UPDATE outbox SET next_attempt_at = $4, claim_until = $4
WHERE connector = $1 AND state IN ('queued', 'sending', 'delivered') AND claimed_by = $2 AND id <> ALL ($3::bigint[])

-- name: wake
-- The EMR answers again: what waits after a failed attempt is due now.
-- $1 connector, $2 now, $3 whether also what may be at the EMR already
UPDATE outbox SET next_attempt_at = $2
WHERE connector = $1 AND state IN ('queued', 'delivered') AND claimed_by IS NULL AND next_attempt_at > $2
  AND ($3 OR NOT unsure)

-- name: next_due
-- When the next row of a connector is due.
-- $1 connector
SELECT next_attempt_at FROM outbox
WHERE connector = $1 AND state IN ('queued', 'sending', 'delivered')
ORDER BY next_attempt_at LIMIT 1

-- name: lock_for_person
-- One row and whether a newer version exists, locked for a person's decision.
-- $1 id
SELECT o.state, EXISTS (
           SELECT FROM outbox AS newer
           WHERE newer.connector = o.connector AND newer.call_id = o.call_id AND newer.version > o.version
       ) AS has_newer
FROM outbox AS o WHERE o.id = $1 FOR UPDATE

-- name: redeliver
-- A person decided that it is to be sent (again).
-- $1 id, $2 now
UPDATE outbox
SET state = 'queued', next_attempt_at = $2, unsure = false, read_backs = 0, claimed_by = NULL, claim_until = NULL
WHERE id = $1

-- name: hold
-- A person decided that it is not to be sent for now.
-- $1 id, $2 sentence
UPDATE outbox SET state = 'held', last_error = $2, claimed_by = NULL, claim_until = NULL WHERE id = $1

-- name: settle
-- A person found it at the EMR.
-- $1 id, $2 document, $3 now
UPDATE outbox
SET state = 'filed', filed_at = $3, delivered_at = coalesce(delivered_at, $3),
    remote_document = coalesce($2, remote_document), unsure = false
WHERE id = $1

-- name: notify
-- Tell the couriers that there is something to do.
SELECT pg_notify('careline_outbox', '')

-- name: lag
-- How much is unfinished, by connector; oldest is the oldest note the EMR has not accepted.
SELECT connector,
       count(*) FILTER (WHERE state IN ('queued', 'sending')) AS waiting,
       count(*) FILTER (WHERE state = 'delivered') AS unread,
       count(*) FILTER (WHERE state = 'held') AS held,
       count(*) FILTER (WHERE state = 'dead') AS dead,
       min(created_at) FILTER (WHERE state <> 'delivered') AS oldest
FROM outbox
WHERE state IN ('queued', 'sending', 'delivered', 'held', 'dead')
GROUP BY connector ORDER BY connector
