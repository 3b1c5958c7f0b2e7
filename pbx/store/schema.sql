-- What the migrations make, written by `python -m pbx.store.schema`; never edited or run.

CREATE SCHEMA edge;

CREATE TABLE edge.location (
    id integer NOT NULL,
    ruid character varying(64) DEFAULT ''::character varying NOT NULL,
    username character varying(64) DEFAULT ''::character varying NOT NULL,
    domain character varying(64) DEFAULT NULL::character varying,
    contact character varying(512) DEFAULT ''::character varying NOT NULL,
    received character varying(128) DEFAULT NULL::character varying,
    path character varying(512) DEFAULT NULL::character varying,
    expires bigint DEFAULT 0 NOT NULL,
    q real DEFAULT 1.0 NOT NULL,
    callid character varying(255) DEFAULT 'Default-Call-ID'::character varying NOT NULL,
    cseq integer DEFAULT 1 NOT NULL,
    last_modified bigint DEFAULT 0 NOT NULL,
    flags integer DEFAULT 0 NOT NULL,
    cflags integer DEFAULT 0 NOT NULL,
    user_agent character varying(255) DEFAULT ''::character varying NOT NULL,
    socket character varying(64) DEFAULT NULL::character varying,
    methods integer,
    instance character varying(255) DEFAULT NULL::character varying,
    reg_id integer DEFAULT 0 NOT NULL,
    server_id integer DEFAULT 0 NOT NULL,
    connection_id integer DEFAULT 0 NOT NULL,
    keepalive integer DEFAULT 0 NOT NULL,
    partition integer DEFAULT 0 NOT NULL
);

CREATE TABLE edge.location_attrs (
    id integer NOT NULL,
    ruid character varying(64) DEFAULT ''::character varying NOT NULL,
    username character varying(64) DEFAULT ''::character varying NOT NULL,
    domain character varying(64) DEFAULT NULL::character varying,
    aname character varying(64) DEFAULT ''::character varying NOT NULL,
    atype integer DEFAULT 0 NOT NULL,
    avalue character varying(512) DEFAULT ''::character varying NOT NULL,
    last_modified bigint DEFAULT 0 NOT NULL
);

CREATE SEQUENCE edge.location_attrs_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE edge.location_attrs_id_seq OWNED BY edge.location_attrs.id;

CREATE SEQUENCE edge.location_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE edge.location_id_seq OWNED BY edge.location.id;

CREATE TABLE public.phone_account (
    username text NOT NULL,
    display text DEFAULT ''::text NOT NULL,
    ha1_md5 text NOT NULL,
    ha1_sha256 text NOT NULL,
    realm text NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    made_at timestamp with time zone NOT NULL,
    CONSTRAINT phone_account_ha1_md5_check CHECK ((ha1_md5 ~ '^[0-9a-f]{32}$'::text)),
    CONSTRAINT phone_account_ha1_sha256_check CHECK ((ha1_sha256 ~ '^[0-9a-f]{64}$'::text)),
    CONSTRAINT phone_account_username_check CHECK ((username ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$'::text))
);

CREATE VIEW edge.sip_auth AS
 SELECT (username)::character varying(64) AS username,
    (ha1_md5)::character varying(128) AS ha1_md5,
    (ha1_sha256)::character varying(128) AS ha1_sha256
   FROM public.phone_account
  WHERE enabled;

CREATE TABLE edge.version (
    id integer NOT NULL,
    table_name character varying(32) NOT NULL,
    table_version integer DEFAULT 0 NOT NULL
);

CREATE SEQUENCE edge.version_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE edge.version_id_seq OWNED BY edge.version.id;

CREATE TABLE public.call (
    id uuid NOT NULL,
    line text NOT NULL,
    dialled text NOT NULL,
    caller text NOT NULL,
    sip_call_id text NOT NULL,
    worker text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    answered_at timestamp with time zone,
    ended_at timestamp with time zone,
    cause text,
    disposition text,
    answered_by text,
    CONSTRAINT call_check CHECK (((ended_at IS NULL) = (cause IS NULL)))
);

CREATE TABLE public.call_event (
    call_id uuid NOT NULL,
    seq integer NOT NULL,
    at timestamp with time zone NOT NULL,
    kind text NOT NULL,
    detail jsonb NOT NULL
);

CREATE TABLE public.delivery_attempt (
    outbox_id bigint NOT NULL,
    n integer NOT NULL,
    step text NOT NULL,
    at timestamp with time zone NOT NULL,
    class text NOT NULL,
    http_status integer,
    sentence text NOT NULL,
    CONSTRAINT delivery_attempt_class_check CHECK ((class = ANY (ARRAY['ok'::text, 'transient'::text, 'ambiguous'::text, 'permanent'::text]))),
    CONSTRAINT delivery_attempt_step_check CHECK ((step = ANY (ARRAY['send'::text, 'read-back'::text])))
);

COMMENT ON TABLE public.delivery_attempt IS 'What each claim of an outbox row led to; kept for the person who asks why.';

COMMENT ON COLUMN public.delivery_attempt.n IS 'The value of outbox.attempts during that claim.';

COMMENT ON COLUMN public.delivery_attempt.step IS 'send: the note was sent. read-back: it was looked for afterwards.';

COMMENT ON COLUMN public.delivery_attempt.class IS 'As outbox.last_error_class, or ok.';

COMMENT ON COLUMN public.delivery_attempt.http_status IS 'Status of the answer; NULL when there was none.';

COMMENT ON COLUMN public.delivery_attempt.sentence IS 'What happened, with the EMR''s own reason; empty when it worked.';

CREATE TABLE public.note (
    id bigint NOT NULL,
    call_id uuid NOT NULL,
    current_version integer NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT note_current_version_check CHECK ((current_version >= 1))
);

COMMENT ON TABLE public.note IS 'The note of one call. It outlives the rows of the call, so it holds no foreign key to them.';

COMMENT ON COLUMN public.note.call_id IS 'The call; also the business identifier an EMR knows the encounter by.';

COMMENT ON COLUMN public.note.current_version IS 'Highest version written so far.';

ALTER TABLE public.note ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.note_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.note_version (
    note_id bigint NOT NULL,
    version integer NOT NULL,
    facts jsonb NOT NULL,
    text text NOT NULL,
    author text NOT NULL,
    state text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT note_version_state_check CHECK ((state = ANY (ARRAY['draft'::text, 'automatic'::text, 'signed'::text, 'retracted'::text]))),
    CONSTRAINT note_version_version_check CHECK ((version >= 1))
);

COMMENT ON TABLE public.note_version IS 'One version of a note, never changed once it is not a draft.';

COMMENT ON COLUMN public.note_version.facts IS 'The facts it was written from, as emr_bridge.facts.CallFacts.to_json gives them.';

COMMENT ON COLUMN public.note_version.text IS 'The note as a person reads it; the same bytes are delivered.';

COMMENT ON COLUMN public.note_version.author IS 'Person id of who wrote it, or careline for one written by the program.';

COMMENT ON COLUMN public.note_version.state IS 'draft: being written. automatic: written by the program, signed by nobody. signed: a clinician''s. retracted: withdrawn, kept for the record.';

CREATE TABLE public.outbox (
    id bigint NOT NULL,
    connector text NOT NULL,
    call_id uuid NOT NULL,
    version integer NOT NULL,
    state text DEFAULT 'queued'::text NOT NULL,
    next_attempt_at timestamp with time zone NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    read_backs integer DEFAULT 0 NOT NULL,
    unsure boolean DEFAULT false NOT NULL,
    claimed_by text,
    claim_until timestamp with time zone,
    remote_encounter text,
    remote_document text,
    last_error_class text,
    last_error text,
    created_at timestamp with time zone NOT NULL,
    delivered_at timestamp with time zone,
    filed_at timestamp with time zone,
    CONSTRAINT outbox_check CHECK (((state <> 'sending'::text) OR (claimed_by IS NOT NULL))),
    CONSTRAINT outbox_check1 CHECK (((claimed_by IS NULL) = (claim_until IS NULL))),
    CONSTRAINT outbox_check2 CHECK (((state <> 'filed'::text) OR (filed_at IS NOT NULL))),
    CONSTRAINT outbox_last_error_class_check CHECK ((last_error_class = ANY (ARRAY['transient'::text, 'ambiguous'::text, 'permanent'::text]))),
    CONSTRAINT outbox_state_check CHECK ((state = ANY (ARRAY['queued'::text, 'sending'::text, 'delivered'::text, 'filed'::text, 'held'::text, 'dead'::text, 'superseded'::text]))),
    CONSTRAINT outbox_version_check CHECK ((version >= 1))
);

COMMENT ON TABLE public.outbox IS 'One version of a note on its way to one EMR. Written in the transaction that ends the call.';

COMMENT ON COLUMN public.outbox.connector IS 'Name of the EMR connector in careline.toml.';

COMMENT ON COLUMN public.outbox.state IS 'queued: waits for next_attempt_at. sending: a courier has it until claim_until. delivered: the EMR accepted it, it was not read back yet. filed: read back from the EMR. held: a person must look, because sending again could file it twice. dead: the EMR refused it for good; a person must correct the cause and redeliver. superseded: a newer version was already on its way when this one arrived; it is not sent.';

COMMENT ON COLUMN public.outbox.next_attempt_at IS 'Nobody takes the row before this time; while it is claimed, the end of the claim.';

COMMENT ON COLUMN public.outbox.attempts IS 'Claims so far; with claimed_by it is the token that a late courier no longer has.';

COMMENT ON COLUMN public.outbox.read_backs IS 'Times the accepted document was looked for and not found.';

COMMENT ON COLUMN public.outbox.unsure IS 'Something of it may be at the EMR already, though no answer said so: a lost answer, or a courier that died.';

COMMENT ON COLUMN public.outbox.claimed_by IS 'Courier that has it.';

COMMENT ON COLUMN public.outbox.claim_until IS 'Until then it is that courier''s alone.';

COMMENT ON COLUMN public.outbox.remote_encounter IS 'Reference at the EMR, such as Encounter/123.';

COMMENT ON COLUMN public.outbox.remote_document IS 'Reference at the EMR, such as DocumentReference/456.';

COMMENT ON COLUMN public.outbox.last_error_class IS 'transient: surely not accepted, try again. ambiguous: may have been accepted, try again only where the EMR can tell a repeat. permanent: refused, trying again unchanged is pointless. NULL: the last attempt worked.';

COMMENT ON COLUMN public.outbox.last_error IS 'What happened and what to do, one sentence.';

COMMENT ON COLUMN public.outbox.delivered_at IS 'The EMR accepted it.';

COMMENT ON COLUMN public.outbox.filed_at IS 'It was read back from the EMR.';

ALTER TABLE public.outbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.schema_version (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone NOT NULL
);

CREATE TABLE public.worker (
    name text NOT NULL,
    sip_address text NOT NULL,
    pid integer NOT NULL,
    host text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    heartbeat_at timestamp with time zone NOT NULL,
    lease_until timestamp with time zone NOT NULL,
    draining boolean DEFAULT false NOT NULL
);

ALTER TABLE ONLY edge.location ALTER COLUMN id SET DEFAULT nextval('edge.location_id_seq'::regclass);

ALTER TABLE ONLY edge.location_attrs ALTER COLUMN id SET DEFAULT nextval('edge.location_attrs_id_seq'::regclass);

ALTER TABLE ONLY edge.version ALTER COLUMN id SET DEFAULT nextval('edge.version_id_seq'::regclass);

ALTER TABLE ONLY edge.location_attrs
    ADD CONSTRAINT location_attrs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY edge.location
    ADD CONSTRAINT location_pkey PRIMARY KEY (id);

ALTER TABLE ONLY edge.location
    ADD CONSTRAINT location_ruid_key UNIQUE (ruid);

ALTER TABLE ONLY edge.version
    ADD CONSTRAINT version_pkey PRIMARY KEY (id);

ALTER TABLE ONLY edge.version
    ADD CONSTRAINT version_table_name_key UNIQUE (table_name);

ALTER TABLE ONLY public.call_event
    ADD CONSTRAINT call_event_pkey PRIMARY KEY (call_id, seq);

ALTER TABLE ONLY public.call
    ADD CONSTRAINT call_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.delivery_attempt
    ADD CONSTRAINT delivery_attempt_pkey PRIMARY KEY (outbox_id, n, step);

ALTER TABLE ONLY public.note
    ADD CONSTRAINT note_call_id_key UNIQUE (call_id);

ALTER TABLE ONLY public.note
    ADD CONSTRAINT note_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.note_version
    ADD CONSTRAINT note_version_pkey PRIMARY KEY (note_id, version);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_connector_call_id_version_key UNIQUE (connector, call_id, version);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.phone_account
    ADD CONSTRAINT phone_account_pkey PRIMARY KEY (username);

ALTER TABLE ONLY public.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.worker
    ADD CONSTRAINT worker_pkey PRIMARY KEY (name);

CREATE INDEX location_account_contact_idx ON edge.location USING btree (username, domain, contact);

CREATE INDEX location_attrs_account_record_idx ON edge.location_attrs USING btree (username, domain, ruid);

CREATE INDEX location_attrs_last_modified_idx ON edge.location_attrs USING btree (last_modified);

CREATE INDEX location_connection_idx ON edge.location USING btree (server_id, connection_id);

CREATE INDEX location_expires_idx ON edge.location USING btree (expires);

CREATE INDEX call_live ON public.call USING btree (worker, started_at) WHERE (ended_at IS NULL);

CREATE INDEX call_started ON public.call USING btree (started_at DESC, id);

CREATE INDEX outbox_due ON public.outbox USING btree (connector, next_attempt_at, id) WHERE (state = ANY (ARRAY['queued'::text, 'sending'::text, 'delivered'::text]));

CREATE INDEX outbox_unfinished ON public.outbox USING btree (connector, created_at) WHERE (state = ANY (ARRAY['queued'::text, 'sending'::text, 'delivered'::text, 'held'::text, 'dead'::text]));

ALTER TABLE ONLY public.call_event
    ADD CONSTRAINT call_event_call_id_fkey FOREIGN KEY (call_id) REFERENCES public.call(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.delivery_attempt
    ADD CONSTRAINT delivery_attempt_outbox_id_fkey FOREIGN KEY (outbox_id) REFERENCES public.outbox(id);

ALTER TABLE ONLY public.note_version
    ADD CONSTRAINT note_version_note_id_fkey FOREIGN KEY (note_id) REFERENCES public.note(id);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_call_id_fkey FOREIGN KEY (call_id) REFERENCES public.note(call_id);

GRANT USAGE ON SCHEMA edge TO kamailio;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE edge.location TO kamailio;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE edge.location_attrs TO kamailio;

GRANT USAGE ON SEQUENCE edge.location_attrs_id_seq TO kamailio;

GRANT USAGE ON SEQUENCE edge.location_id_seq TO kamailio;

GRANT SELECT ON TABLE edge.sip_auth TO kamailio;

GRANT SELECT ON TABLE edge.version TO kamailio;
