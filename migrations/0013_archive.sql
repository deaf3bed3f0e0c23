-- Old records leave the database for an archive: what is kept of them here, and what keeps them here.

-- The last checkpoint of each month that is over: what an archive can end with. Immutable.
CREATE TABLE log_month_end (
    shard      integer NOT NULL REFERENCES log_shard (number),
    size       bigint NOT NULL CHECK (size >= 1),
    time_ms    bigint NOT NULL,              -- the checkpoint's
    checkpoint text NOT NULL,                -- a signed note
    PRIMARY KEY (shard, size)
);
CREATE TRIGGER log_month_end_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON log_month_end
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT, INSERT ON log_month_end TO cortex_server;

-- How far the records of each tree are dropped: they are in the archive, and their hashes in the tiles. The server cannot
-- change it. Mutable: upto, which only grows; archive.
CREATE TABLE log_drop (
    shard   integer PRIMARY KEY REFERENCES log_shard (number),
    upto    bigint NOT NULL CHECK (upto >= 1), -- an index of the tree
    archive text NOT NULL
);
GRANT SELECT ON log_drop TO cortex_server;

-- Legal holds: what they cover is not dropped. Rows stay when a hold is lifted. Mutable: lifted_at, lifted_by.
CREATE TABLE log_hold (
    id        uuid PRIMARY KEY,
    scope     jsonb NOT NULL,
    held_from timestamptz,                   -- of what happened from then on
    until     timestamptz,                   -- and before then
    reason    text NOT NULL,
    set_by    text NOT NULL,
    set_at    timestamptz NOT NULL,
    lifted_at timestamptz,
    lifted_by text,
    CONSTRAINT hold_is_lifted_by_another CHECK (lifted_by <> set_by),
    CONSTRAINT hold_status_carries_its_data CHECK ((lifted_at IS NULL) = (lifted_by IS NULL)),
    CONSTRAINT hold_ends_after_it_begins CHECK (held_from < until)
);
CREATE INDEX log_hold_in_force ON log_hold (id) WHERE lifted_at IS NULL;
GRANT SELECT, INSERT, UPDATE ON log_hold TO cortex_server;

-- Rows of the record may go where their batch is dropped, and nowhere else, whoever asks; the server's role has no right
-- to delete at all.
CREATE FUNCTION refuse_early_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM gone g WHERE NOT EXISTS (
            SELECT FROM log_batch b JOIN log_drop d ON d.shard = b.shard
            WHERE b.chain = g.chain AND b.batch = g.batch AND b.first + b.count <= d.upto)) THEN
        RAISE EXCEPTION 'record is append-only: a row is not in what log_drop says' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER record_is_append_only ON record;
CREATE TRIGGER record_is_append_only BEFORE UPDATE OR TRUNCATE ON record
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER record_stays_until_dropped AFTER DELETE ON record REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_early_deletion();

-- What was made of a record goes after it.
CREATE FUNCTION refuse_orphaning() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM gone g JOIN record r ON r.id = g.id) THEN
        RAISE EXCEPTION '% is append-only: its record is there', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER record_fact_is_append_only ON record_fact;
CREATE TRIGGER record_fact_is_append_only BEFORE UPDATE OR TRUNCATE ON record_fact
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER record_fact_goes_last AFTER DELETE ON record_fact REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_orphaning();
DROP TRIGGER record_rule_is_append_only ON record_rule;
CREATE TRIGGER record_rule_is_append_only BEFORE UPDATE OR TRUNCATE ON record_rule
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER record_rule_goes_last AFTER DELETE ON record_rule REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_orphaning();
CREATE INDEX record_rule_by_record ON record_rule (id);
