-- Notes of calls, their versions, and their way to each EMR.
--
-- A version is never changed after it was written: an amendment is the next version.
-- The delivery state of an outbox row and the class of its last error are two facts in two columns: what is done
-- next follows from the state; what may be done again follows from the class.
-- No time comes from the server's clock; the program gives every one.

CREATE TABLE note (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    call_id         uuid NOT NULL UNIQUE,
    current_version integer NOT NULL CHECK (current_version >= 1),
    created_at      timestamptz NOT NULL
);
COMMENT ON TABLE note IS 'The note of one call. It outlives the rows of the call, so it holds no foreign key to them.';
COMMENT ON COLUMN note.call_id IS 'The call; also the business identifier an EMR knows the encounter by.';
COMMENT ON COLUMN note.current_version IS 'Highest version written so far.';

CREATE TABLE note_version (
    note_id    bigint NOT NULL REFERENCES note (id),
    version    integer NOT NULL CHECK (version >= 1),
    facts      jsonb NOT NULL,
    text       text NOT NULL,
    author     text NOT NULL,
    state      text NOT NULL CHECK (state IN ('draft', 'automatic', 'signed', 'retracted')),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (note_id, version)
);
COMMENT ON TABLE note_version IS 'One version of a note, never changed once it is not a draft.';
COMMENT ON COLUMN note_version.facts IS 'The facts it was written from, as emr_bridge.facts.CallFacts.to_json gives them.';
COMMENT ON COLUMN note_version.text IS 'The note as a person reads it; the same bytes are delivered.';
COMMENT ON COLUMN note_version.author IS 'Person id of who wrote it, or careline for one written by the program.';
COMMENT ON COLUMN note_version.state IS
    'draft: being written. automatic: written by the program, signed by nobody. signed: a clinician''s. '
    'retracted: withdrawn, kept for the record.';

CREATE TABLE outbox (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connector        text NOT NULL,
    call_id          uuid NOT NULL REFERENCES note (call_id),
    version          integer NOT NULL CHECK (version >= 1),
    state            text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'sending', 'delivered', 'filed', 'held', 'dead', 'superseded')),
    next_attempt_at  timestamptz NOT NULL,
    attempts         integer NOT NULL DEFAULT 0,
    read_backs       integer NOT NULL DEFAULT 0,
    unsure           boolean NOT NULL DEFAULT false,
    claimed_by       text,
    claim_until      timestamptz,
    remote_encounter text,
    remote_document  text,
    last_error_class text CHECK (last_error_class IN ('transient', 'ambiguous', 'permanent')),
    last_error       text,
    created_at       timestamptz NOT NULL,
    delivered_at     timestamptz,
    filed_at         timestamptz,
    UNIQUE (connector, call_id, version),
    CHECK (state <> 'sending' OR claimed_by IS NOT NULL),
    CHECK ((claimed_by IS NULL) = (claim_until IS NULL)),
    CHECK (state <> 'filed' OR filed_at IS NOT NULL)
);
COMMENT ON TABLE outbox IS
    'One version of a note on its way to one EMR. Written in the transaction that ends the call.';
COMMENT ON COLUMN outbox.connector IS 'Name of the EMR connector in careline.toml.';
COMMENT ON COLUMN outbox.state IS
    'queued: waits for next_attempt_at. sending: a courier has it until claim_until. '
    'delivered: the EMR accepted it, it was not read back yet. filed: read back from the EMR. '
    'held: a person must look, because sending again could file it twice. '
    'dead: the EMR refused it for good; a person must correct the cause and redeliver. '
    'superseded: a newer version was already on its way when this one arrived; it is not sent.';
COMMENT ON COLUMN outbox.next_attempt_at IS
    'Nobody takes the row before this time; while it is claimed, the end of the claim.';
COMMENT ON COLUMN outbox.attempts IS 'Claims so far; with claimed_by it is the token that a late courier no longer has.';
COMMENT ON COLUMN outbox.read_backs IS 'Times the accepted document was looked for and not found.';
COMMENT ON COLUMN outbox.unsure IS
    'Something of it may be at the EMR already, though no answer said so: a lost answer, or a courier that died.';
COMMENT ON COLUMN outbox.claimed_by IS 'Courier that has it.';
COMMENT ON COLUMN outbox.claim_until IS 'Until then it is that courier''s alone.';
COMMENT ON COLUMN outbox.remote_encounter IS 'Reference at the EMR, such as Encounter/123.';
COMMENT ON COLUMN outbox.remote_document IS 'Reference at the EMR, such as DocumentReference/456.';
COMMENT ON COLUMN outbox.last_error_class IS
    'transient: surely not accepted, try again. ambiguous: may have been accepted, try again only where the EMR can '
    'tell a repeat. permanent: refused, trying again unchanged is pointless. NULL: the last attempt worked.';
COMMENT ON COLUMN outbox.last_error IS 'What happened and what to do, one sentence.';
COMMENT ON COLUMN outbox.delivered_at IS 'The EMR accepted it.';
COMMENT ON COLUMN outbox.filed_at IS 'It was read back from the EMR.';

-- The courier's hot query: what is due for one connector, oldest first.
CREATE INDEX outbox_due ON outbox (connector, next_attempt_at, id)
    WHERE state IN ('queued', 'sending', 'delivered');
-- Lag, alarms and the work list of the held and the dead: all that is not finished, which is little.
CREATE INDEX outbox_unfinished ON outbox (connector, created_at)
    WHERE state IN ('queued', 'sending', 'delivered', 'held', 'dead');

CREATE TABLE delivery_attempt (
    outbox_id   bigint NOT NULL REFERENCES outbox (id),
    n           integer NOT NULL,
    step        text NOT NULL CHECK (step IN ('send', 'read-back')),
    at          timestamptz NOT NULL,
    class       text NOT NULL CHECK (class IN ('ok', 'transient', 'ambiguous', 'permanent')),
    http_status integer,
    sentence    text NOT NULL,
    PRIMARY KEY (outbox_id, n, step)
);
COMMENT ON TABLE delivery_attempt IS 'What each claim of an outbox row led to; kept for the person who asks why.';
COMMENT ON COLUMN delivery_attempt.n IS 'The value of outbox.attempts during that claim.';
COMMENT ON COLUMN delivery_attempt.step IS 'send: the note was sent. read-back: it was looked for afterwards.';
COMMENT ON COLUMN delivery_attempt.class IS 'As outbox.last_error_class, or ok.';
COMMENT ON COLUMN delivery_attempt.http_status IS 'Status of the answer; NULL when there was none.';
COMMENT ON COLUMN delivery_attempt.sentence IS 'What happened, with the EMR''s own reason; empty when it worked.';
