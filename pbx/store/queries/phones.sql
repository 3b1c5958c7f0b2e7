-- Phone accounts and where they are registered.

-- name: add
-- No row when the name is taken.
INSERT INTO phone_account (username, display, ha1_md5, ha1_sha256, realm, made_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (username) DO NOTHING
RETURNING username, display, realm, enabled, made_at;

-- name: set_password
UPDATE phone_account SET ha1_md5 = $2, ha1_sha256 = $3, realm = $4 WHERE username = $1
RETURNING username, display, realm, enabled, made_at;

-- name: set_enabled
UPDATE phone_account SET enabled = $2 WHERE username = $1 RETURNING username;

-- name: remove
DELETE FROM phone_account WHERE username = $1 RETURNING username;

-- name: all_accounts
SELECT username, display, realm, enabled, made_at FROM phone_account ORDER BY username;

-- name: one_account
SELECT username, display, realm, enabled, made_at FROM phone_account WHERE username = $1;

-- name: contacts
-- $1: seconds since 1970. Kamailio keeps 0 in `expires` for a contact without an end.
SELECT username, contact, received, user_agent, socket, expires
FROM edge.location
WHERE (expires > $1 OR expires = 0) AND ($2::text IS NULL OR username = $2)
ORDER BY username, expires DESC;

-- name: set_edge_password
-- The role Kamailio logs in as, on a server that is not our own child. format() quotes; DDL takes no parameters.
SELECT format('ALTER ROLE kamailio LOGIN PASSWORD %L', $1::text);
