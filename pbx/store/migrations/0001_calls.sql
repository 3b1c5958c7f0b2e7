-- Calls, what happened in them, and the workers that carry them. Times are given by the program, never now().

CREATE TABLE worker (
    name text PRIMARY KEY,               -- one per worker place, such as "host-a/worker-1"; a restart takes the row over
    sip_address text NOT NULL,           -- "address:port" the edge sends calls to
    pid integer NOT NULL,
    host text NOT NULL,
    started_at timestamptz NOT NULL,     -- calls of this name that started earlier belong to a dead predecessor
    heartbeat_at timestamptz NOT NULL,
    lease_until timestamptz NOT NULL,    -- after this it counts as dead; every call of it shares this lease
    draining boolean NOT NULL DEFAULT false  -- takes no new calls
);

CREATE TABLE call (
    id uuid PRIMARY KEY,                 -- made by the worker
    line text NOT NULL,                  -- name of the hotline that was dialled
    dialled text NOT NULL,               -- the number as dialled; PHI together with caller
    caller text NOT NULL,                -- the number shown; never an identity; PHI
    sip_call_id text NOT NULL,           -- Call-ID of the caller's leg (RFC 3261 20.8)
    worker text NOT NULL,                -- worker.name; no foreign key: calls outlive workers
    started_at timestamptz NOT NULL,
    answered_at timestamptz,             -- a clinician and the caller could talk: first event of kind "answered"
    ended_at timestamptz,
    cause text,                          -- what the network said (pbx.core.causes), or "worker-lost"
    disposition text,                    -- how the call went in our words
    answered_by text,                    -- who took the call
    CHECK ((ended_at IS NULL) = (cause IS NULL))
);
CREATE INDEX call_live ON call (worker, started_at) WHERE ended_at IS NULL;
CREATE INDEX call_started ON call (started_at DESC, id);

CREATE TABLE call_event (
    call_id uuid NOT NULL REFERENCES call (id) ON DELETE CASCADE,
    seq integer NOT NULL,                -- 1, 2, 3 … within the call, given by the worker: a replay changes nothing
    at timestamptz NOT NULL,
    kind text NOT NULL,
    detail jsonb NOT NULL,
    PRIMARY KEY (call_id, seq)
);
