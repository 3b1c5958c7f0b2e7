-- Phone accounts, and the schema `edge` that Kamailio's restricted role may see and nothing else.

-- One account a person or desk phone; its name is the SIP user part. The password itself is never stored.
CREATE TABLE phone_account (
    username text PRIMARY KEY CHECK (username ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$'),
    display text NOT NULL DEFAULT '',
    -- Digest's H(username:realm:password), RFC 2617 3.2.2.2 and RFC 8760 2.4: of use for this realm alone.
    ha1_md5 text NOT NULL CHECK (ha1_md5 ~ '^[0-9a-f]{32}$'),
    ha1_sha256 text NOT NULL CHECK (ha1_sha256 ~ '^[0-9a-f]{64}$'),
    realm text NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    made_at timestamptz NOT NULL
);

CREATE SCHEMA edge;

-- What Kamailio's auth_db reads: a disabled account looks like an unknown one. The view runs with its owner's
-- rights, so the role that reads it cannot reach phone_account.
CREATE VIEW edge.sip_auth AS
    SELECT username::varchar(64) AS username, ha1_md5::varchar(128) AS ha1_md5, ha1_sha256::varchar(128) AS ha1_sha256
    FROM phone_account
    WHERE enabled;

-- Kamailio refuses to start on tables of another layout than it was built for (table_version).
CREATE TABLE edge.version (
    id serial PRIMARY KEY,
    table_name varchar(32) NOT NULL UNIQUE,
    table_version integer NOT NULL DEFAULT 0
);
INSERT INTO edge.version (table_name, table_version) VALUES ('version', 1), ('location', 9), ('location_attrs', 1);

-- Registered contacts, layout 9 of Kamailio's usrloc. Times are seconds since 1970 (usrloc's expires_type = 1):
-- its other choice, timestamps without a zone, moves by an hour twice a year.
CREATE TABLE edge.location (
    id serial PRIMARY KEY,
    ruid varchar(64) NOT NULL DEFAULT '' UNIQUE,
    username varchar(64) NOT NULL DEFAULT '',
    domain varchar(64) DEFAULT NULL,
    contact varchar(512) NOT NULL DEFAULT '',
    received varchar(128) DEFAULT NULL,
    path varchar(512) DEFAULT NULL,
    expires bigint NOT NULL DEFAULT 0,
    q real NOT NULL DEFAULT 1.0,
    callid varchar(255) NOT NULL DEFAULT 'Default-Call-ID',
    cseq integer NOT NULL DEFAULT 1,
    last_modified bigint NOT NULL DEFAULT 0,
    flags integer NOT NULL DEFAULT 0,
    cflags integer NOT NULL DEFAULT 0,
    user_agent varchar(255) NOT NULL DEFAULT '',
    socket varchar(64) DEFAULT NULL,
    methods integer DEFAULT NULL,
    instance varchar(255) DEFAULT NULL,
    reg_id integer NOT NULL DEFAULT 0,
    server_id integer NOT NULL DEFAULT 0,
    connection_id integer NOT NULL DEFAULT 0,
    keepalive integer NOT NULL DEFAULT 0,
    partition integer NOT NULL DEFAULT 0
);
CREATE INDEX location_account_contact_idx ON edge.location (username, domain, contact);
CREATE INDEX location_expires_idx ON edge.location (expires);
CREATE INDEX location_connection_idx ON edge.location (server_id, connection_id);

CREATE TABLE edge.location_attrs (
    id serial PRIMARY KEY,
    ruid varchar(64) NOT NULL DEFAULT '',
    username varchar(64) NOT NULL DEFAULT '',
    domain varchar(64) DEFAULT NULL,
    aname varchar(64) NOT NULL DEFAULT '',
    atype integer NOT NULL DEFAULT 0,
    avalue varchar(512) NOT NULL DEFAULT '',
    last_modified bigint NOT NULL DEFAULT 0
);
CREATE INDEX location_attrs_account_record_idx ON edge.location_attrs (username, domain, ruid);
CREATE INDEX location_attrs_last_modified_idx ON edge.location_attrs (last_modified);

-- The embedded server has the role from its first start. On a server of the clinic's own it is made here when the
-- owner of the database may make roles; otherwise its administrator makes it before (CREATE ROLE kamailio LOGIN).
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'kamailio') THEN
        CREATE ROLE kamailio LOGIN;
    END IF;
END $$;
GRANT USAGE ON SCHEMA edge TO kamailio;
GRANT SELECT ON edge.sip_auth, edge.version TO kamailio;
GRANT SELECT, INSERT, UPDATE, DELETE ON edge.location, edge.location_attrs TO kamailio;
GRANT USAGE ON SEQUENCE edge.location_id_seq, edge.location_attrs_id_seq TO kamailio;
