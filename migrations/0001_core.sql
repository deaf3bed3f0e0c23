-- The tables of Cortex. Forward only. "Immutable" says that rows are never changed once written; the role that
-- the server uses has no right to change them, and a trigger refuses it to everybody else.

-- The record: one row for each thing that happened. Immutable.
-- `leaf` is the record itself, its exact canonical bytes (RFC 8785); the other columns are projections of it,
-- for queries.
CREATE TABLE record (
    id            uuid PRIMARY KEY,          -- UUIDv7: sorts by time
    at            timestamptz NOT NULL,
    kind          text NOT NULL CHECK (kind IN (
                      'issuance.intent', 'issuance.issued', 'issuance.outcome', 'denial', 'denials',
                      'policy.applied', 'policy.retired', 'guardrails.applied',
                      'grant.requested', 'grant.decided',
                      'key.created', 'key.rotated', 'key.retired')),
    issuance_id   uuid,
    decision_id   uuid,                      -- of a denial: what the denied caller quotes
    principal     text,
    issuer        text,
    dag_id        text,
    run_id        text,
    task_id       text,
    policy        text,
    policy_digest bytea CHECK (octet_length(policy_digest) = 32),
    provider      text,
    outcome       text CHECK (outcome IN ('issued', 'failed', 'indeterminate')),
    reason        text,                      -- a short code: why it was denied or failed
    grant_id      uuid,
    expires_at    timestamptz,               -- of the credential; of an intent, the worst case
    leaf          bytea NOT NULL CHECK (octet_length(leaf) BETWEEN 2 AND 65535),
    -- The same rule as core's `What` enum.
    CONSTRAINT record_kind_carries_its_data CHECK (
        CASE kind
            WHEN 'issuance.intent'  THEN issuance_id IS NOT NULL AND outcome IS NULL AND policy IS NOT NULL
                                         AND provider IS NOT NULL AND expires_at IS NOT NULL
            WHEN 'issuance.issued'  THEN issuance_id IS NOT NULL AND outcome = 'issued' AND policy IS NOT NULL
                                         AND provider IS NOT NULL AND expires_at IS NOT NULL
            WHEN 'issuance.outcome' THEN issuance_id IS NOT NULL AND outcome IS NOT NULL
            WHEN 'denial'           THEN reason IS NOT NULL AND outcome IS NULL
            WHEN 'denials'          THEN reason IS NOT NULL AND outcome IS NULL
            ELSE outcome IS NULL
        END)
);
-- An issuance opens once and ends once.
CREATE UNIQUE INDEX record_opening ON record (issuance_id) WHERE kind IN ('issuance.intent', 'issuance.issued');
CREATE UNIQUE INDEX record_outcome ON record (issuance_id) WHERE kind = 'issuance.outcome';
CREATE UNIQUE INDEX record_decision ON record (decision_id) WHERE decision_id IS NOT NULL;
CREATE INDEX record_by_dag ON record (dag_id, run_id, id) WHERE dag_id IS NOT NULL;
CREATE INDEX record_by_policy ON record (policy, id) WHERE policy IS NOT NULL;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER record_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON record
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Intents without an outcome: what the supervisor has to finish. Rows leave with the outcome.
CREATE TABLE open_intent (
    issuance_id uuid PRIMARY KEY,
    deadline    timestamptz NOT NULL,        -- after it, the minting replica has given up
    worst_case_expiry timestamptz NOT NULL
);
CREATE INDEX open_intent_by_deadline ON open_intent (deadline);

-- Tokens of single-use issuers that were exchanged. Rows may go once the token has expired.
CREATE TABLE spent_token (
    issuer     text NOT NULL,
    jti_hash   bytea NOT NULL CHECK (octet_length(jti_hash) = 32),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (issuer, jti_hash)
);
CREATE INDEX spent_token_by_expiry ON spent_token (expires_at);

-- Policies and guardrails, every version that ever was in force. Immutable.
CREATE TABLE document (
    kind       text NOT NULL CHECK (kind IN ('policy', 'guardrail')),
    name       text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 64),
    version    integer NOT NULL CHECK (version >= 1),
    digest     bytea NOT NULL CHECK (octet_length(digest) = 32),
    source     text NOT NULL CHECK (octet_length(source) BETWEEN 1 AND 65536),
    applied_by text NOT NULL,
    applied_at timestamptz NOT NULL,
    PRIMARY KEY (kind, name, version)
);
CREATE TRIGGER document_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON document
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Which version is in force. `revision` grows with every change, so that a replica reads only what is new.
-- Mutable: version, revision, retired.
CREATE TABLE document_head (
    kind     text NOT NULL,
    name     text NOT NULL,
    version  integer NOT NULL,
    revision bigint NOT NULL,
    retired  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (kind, name),
    FOREIGN KEY (kind, name, version) REFERENCES document (kind, name, version)
);
CREATE INDEX document_head_by_revision ON document_head (revision);
CREATE SEQUENCE document_revision;

-- Approvals. Mutable: status, expires_at. The decisions themselves are immutable.
CREATE TABLE grant_request (
    id             uuid PRIMARY KEY,
    request_digest bytea NOT NULL CHECK (octet_length(request_digest) = 32),
    request        jsonb NOT NULL,           -- what is approved, whole; its digest is `request_digest`
    policy         text NOT NULL,
    policy_digest  bytea NOT NULL,
    dag_id         text NOT NULL,
    run_id         text NOT NULL,
    triggering_user text,
    reason         text,
    approvers      jsonb NOT NULL,           -- the policy's approvers and quorum at the time of the request
    requested_at   timestamptz NOT NULL,
    status         text NOT NULL CHECK (status IN ('requested', 'approved', 'denied', 'expired')),
    expires_at     timestamptz NOT NULL,     -- of the request; once approved, of the grant
    decided_at     timestamptz,
    CONSTRAINT grant_status_carries_its_data CHECK (
        CASE status
            WHEN 'requested' THEN decided_at IS NULL
            WHEN 'approved'  THEN decided_at IS NOT NULL
            WHEN 'denied'    THEN decided_at IS NOT NULL
            WHEN 'expired'   THEN true
        END)
);
-- One live grant for one exact request.
CREATE UNIQUE INDEX grant_live ON grant_request (request_digest) WHERE status IN ('requested', 'approved');
CREATE INDEX grant_by_digest ON grant_request (request_digest, id);
CREATE INDEX grant_by_status ON grant_request (status, id);

CREATE TABLE grant_decision (
    grant_id   uuid NOT NULL REFERENCES grant_request (id),
    person     text NOT NULL,                -- the approver's principal
    approve    boolean NOT NULL,
    comment    text,
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (grant_id, person)
);
CREATE INDEX grant_decision_by_person ON grant_decision (person);
CREATE TRIGGER grant_decision_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON grant_decision
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Cortex's own signing keys, sealed under a key that is not in the database; their public halves are derived.
-- Mutable: active_from, retire_at, retired_at.
CREATE TABLE signing_key (
    kid         text PRIMARY KEY,
    sealed      bytea NOT NULL,              -- AES-256-GCM of the PKCS#8 key, the kid as associated data
    created_at  timestamptz NOT NULL,
    active_from timestamptz NOT NULL,        -- published at once, signs from here
    retired_at  timestamptz                  -- no longer published
);

-- The role that the server uses: it appends to the record and can change nothing in it.
-- Where the migrating user may not create roles, an administrator creates it once.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cortex_server') THEN
        CREATE ROLE cortex_server NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- another database of the same cluster was quicker
END $$;
GRANT SELECT, INSERT ON record, document, grant_decision TO cortex_server;
GRANT SELECT, INSERT, UPDATE, DELETE ON open_intent, spent_token TO cortex_server;
GRANT SELECT, INSERT, UPDATE ON document_head, grant_request, signing_key TO cortex_server;
GRANT USAGE ON SEQUENCE document_revision TO cortex_server;
