-- Freezes and revocations.

-- One row: the number grows with every freeze, lift and revocation. Whatever is released says under which number it
-- was decided, and its commit compares. Mutable.
CREATE TABLE release_epoch (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    epoch  bigint NOT NULL
);
INSERT INTO release_epoch (epoch) VALUES (1);

-- The epoch for whoever releases something: it stays what it is until the caller's transaction has ended. The lock is
-- shared among releases; whoever changes the epoch takes it alone (see `close_releases`), and does not starve, for
-- later releases queue behind. The epoch is read after the lock was had, which takes a statement of its own.
CREATE FUNCTION epoch_of_release() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(x'636f72746578000a'::bigint);
    RETURN (SELECT epoch FROM release_epoch);
END $$;

-- Waits for the releases under way, and lets none begin before the caller's transaction has ended.
CREATE FUNCTION close_releases() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(x'636f72746578000a'::bigint);
END $$;

-- What is stopped. Mutable: lifted_at, lifted_by.
CREATE TABLE frozen (
    id        uuid PRIMARY KEY,
    scope     jsonb NOT NULL,
    reason    text NOT NULL CHECK (octet_length(reason) BETWEEN 1 AND 2000),
    set_by    text NOT NULL,
    set_at    timestamptz NOT NULL,
    until     timestamptz,                 -- ends by itself; none: when it is lifted
    lifted_at timestamptz,
    lifted_by text,
    CONSTRAINT freeze_ends_after_it_begins CHECK (until IS NULL OR until > set_at),
    CONSTRAINT freeze_lift_carries_its_data CHECK ((lifted_at IS NULL) = (lifted_by IS NULL))
);
CREATE INDEX freeze_in_force ON frozen (id) WHERE lifted_at IS NULL;

-- What is to be revoked: issuances with an id of at most `up_to`, within a scope or one by itself.
-- Mutable: spread_to, spread.
CREATE TABLE revocation (
    id           uuid PRIMARY KEY,
    issuance_id  uuid,
    scope        jsonb,
    since        timestamptz,
    up_to        uuid NOT NULL,
    reason       text NOT NULL CHECK (octet_length(reason) BETWEEN 1 AND 2000),
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL,
    spread_to    uuid NOT NULL,            -- issuances up to this id have been looked at
    spread       boolean NOT NULL DEFAULT false,
    CONSTRAINT revocation_names_one_thing CHECK (
        (issuance_id IS NULL) <> (scope IS NULL) AND (since IS NULL OR scope IS NOT NULL))
);
CREATE INDEX revocation_by_time ON revocation (requested_at);
CREATE INDEX revocation_to_spread ON revocation (id) WHERE NOT spread;

-- One row for each issuance that is revoked, whichever revocations hit it.
-- Mutable: state, settled_at, evidence, why.
CREATE TABLE revoked_lease (
    issuance_id   uuid PRIMARY KEY,
    provider      text NOT NULL,
    target        text NOT NULL,           -- what the cloud has to change, such as a role's ARN; empty for none
    means         jsonb NOT NULL,          -- how it can be ended: core's `Revocation`
    revoked_at    timestamptz NOT NULL,
    made_before   timestamptz NOT NULL,    -- no credential of this issuance is made at this time or later
    expires_at    timestamptz NOT NULL,
    state         text NOT NULL CHECK (state IN ('pending', 'enforced', 'expires_at')),
    settled_at    timestamptz,
    evidence      jsonb,
    why           text,
    -- The same rule as core's `revocation::State` enum.
    CONSTRAINT revocation_state_carries_its_data CHECK (
        CASE state
            WHEN 'pending'    THEN settled_at IS NULL AND evidence IS NULL AND why IS NULL
            WHEN 'enforced'   THEN settled_at IS NOT NULL AND evidence IS NOT NULL AND why IS NULL
            WHEN 'expires_at' THEN settled_at IS NOT NULL AND evidence IS NULL AND why IS NOT NULL
        END)
);
CREATE INDEX revoked_lease_pending ON revoked_lease (expires_at) WHERE state = 'pending';
CREATE INDEX revoked_lease_by_target ON revoked_lease (provider, target, expires_at) WHERE target <> '';

-- Which revocations hit which issuances. Rows may go once the issuance has expired.
CREATE TABLE revocation_hit (
    revocation_id uuid NOT NULL REFERENCES revocation (id),
    issuance_id   uuid NOT NULL REFERENCES revoked_lease (issuance_id),
    PRIMARY KEY (revocation_id, issuance_id)
);
CREATE INDEX revocation_hit_by_issuance ON revocation_hit (issuance_id);

-- What has to be changed at a cloud: one row, and at a time one worker, for each document there. Mutable.
CREATE TABLE revocation_target (
    provider      text NOT NULL,
    target        text NOT NULL,
    wanted        bigint NOT NULL,         -- grows whenever more has to be denied
    next_at       timestamptz NOT NULL,    -- when it is looked at next
    not_before    timestamptz NOT NULL,    -- the cloud's own pace
    attempts      integer NOT NULL DEFAULT 0,
    last_error    text,
    claim         uuid,                    -- of the worker that has it
    claimed_until timestamptz,             -- after this, another one takes it over
    PRIMARY KEY (provider, target),
    CONSTRAINT claim_ends CHECK ((claim IS NULL) = (claimed_until IS NULL))
);
CREATE INDEX revocation_target_by_time ON revocation_target (next_at);

GRANT SELECT, UPDATE ON release_epoch TO cortex_server;
GRANT SELECT, INSERT, UPDATE ON frozen, revocation, revoked_lease TO cortex_server;
GRANT SELECT, INSERT ON revocation_hit TO cortex_server;
GRANT SELECT, INSERT, UPDATE, DELETE ON revocation_target TO cortex_server;
