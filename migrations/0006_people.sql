-- People: their sessions at the console, and those who are no longer let in.

-- Sessions. Rows leave when the session ends, with a record of it. Mutable: last_seen_at.
CREATE TABLE session (
    id           uuid PRIMARY KEY,           -- what admins and the record call it
    secret_hash  bytea NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),  -- SHA-256 of the browser's cookie
    issuer       text NOT NULL,
    subject      text NOT NULL,
    person       jsonb NOT NULL,             -- what the issuer said of them when they signed in
    started_at   timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    ends_at      timestamptz NOT NULL CHECK (ends_at > started_at)
);
CREATE INDEX session_by_person ON session (issuer, subject);
CREATE INDEX session_by_end ON session (ends_at);
CREATE INDEX session_by_use ON session (last_seen_at);

-- People who are not let in, whatever they show. Rows leave when they are let in again, with a record of it.
CREATE TABLE disabled_person (
    issuer      text NOT NULL,
    subject     text NOT NULL CHECK (octet_length(subject) BETWEEN 1 AND 255),
    disabled_by text NOT NULL,
    disabled_at timestamptz NOT NULL,
    PRIMARY KEY (issuer, subject)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON session TO cortex_server;
GRANT SELECT, INSERT, DELETE ON disabled_person TO cortex_server;

-- What people said to a grant is found by the grant; issuances are not in this index, so that it costs them nothing.
CREATE INDEX record_by_grant ON record (grant_id, id) WHERE grant_id IS NOT NULL AND issuance_id IS NULL;
