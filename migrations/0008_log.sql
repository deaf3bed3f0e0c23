-- The log: every row of the record is sealed by a chain when it is written, and integrated into a tree afterwards.
-- What is here can be made anew from the record and the seals, or is proven false by them; see docs/issuance-log.md.

-- A chain is one writer of one process, with a key of its own that the log's key has enrolled.
-- Mutable: head, sequenced, digest, seen_at, closed.
CREATE TABLE log_chain (
    id        uuid PRIMARY KEY,
    process   uuid NOT NULL,
    replica   text NOT NULL,
    role      text NOT NULL CHECK (role IN ('recorder', 'desk', 'sequencer')),
    key       text NOT NULL,                 -- as a verifier key of C2SP signed-note
    enrolment text NOT NULL,                 -- a note by the log's key
    opened_at timestamptz NOT NULL,
    seen_at   timestamptz NOT NULL,          -- when its process last said that it is there
    head      bigint NOT NULL CHECK (head >= 0),              -- its last batch
    sequenced bigint NOT NULL CHECK (sequenced BETWEEN 0 AND head), -- its last batch that is in the tree
    digest    bytea NOT NULL CHECK (octet_length(digest) = 32), -- of its last batch with leaves that is in the tree
    closed    boolean NOT NULL DEFAULT false -- writes no more
) WITH (fillfactor = 50);
CREATE INDEX log_chain_by_process ON log_chain (process, role);
CREATE INDEX log_chain_by_replica ON log_chain (replica, role, opened_at);

-- One writer at a time, and none that has been overtaken: who does not know a chain's head cannot write to it.
CREATE FUNCTION advance_chain(which uuid, expected bigint, following bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE log_chain SET head = following WHERE id = which AND head = expected AND NOT closed;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the chain % is not at batch %', which, expected USING ERRCODE = 'CX001';
    END IF;
    RETURN following;
END $$;

ALTER TABLE record
    ADD COLUMN chain uuid,
    ADD COLUMN batch bigint,
    ADD COLUMN place integer,                -- in the batch; a row that was passed over leaves a gap
    ADD COLUMN seal  text,                   -- a note by the chain's key; the leaf of the tree is leaf, newline, seal
    -- Rows of before the log have none.
    ADD CONSTRAINT record_seal_is_whole CHECK (
        num_nulls(chain, batch, place, seal) IN (0, 4) AND octet_length(seal) + octet_length(leaf) < 65535);
CREATE UNIQUE INDEX record_by_chain ON record (chain, batch, place);

-- A shard is one tree: one for each year, and another one after a recovery. The newest is the one that grows.
-- Mutable: size, root, time_ms, checkpoint, published.
CREATE TABLE log_shard (
    number     integer PRIMARY KEY CHECK (number >= 1),
    name       text NOT NULL UNIQUE,         -- such as 2026, or 2026-2 after a recovery
    origin     text NOT NULL UNIQUE,
    size       bigint NOT NULL CHECK (size >= 0),
    root       bytea NOT NULL CHECK (octet_length(root) = 32),
    time_ms    bigint NOT NULL,              -- of this size; never decreases
    checkpoint text,                         -- the newest signed note
    published  bigint NOT NULL DEFAULT 0 CHECK (published BETWEEN 0 AND size) -- the size that it is of
);

-- Where in the tree a batch's leaves are. Immutable.
CREATE TABLE log_batch (
    shard  integer NOT NULL REFERENCES log_shard (number),
    first  bigint NOT NULL,
    count  integer NOT NULL CHECK (count >= 1),
    chain  uuid NOT NULL,
    batch  bigint NOT NULL,
    PRIMARY KEY (shard, first),
    UNIQUE (chain, batch)
);
CREATE TRIGGER log_batch_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON log_batch
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The tree's hashes, 256 to a tile (C2SP tlog-tiles). Mutable: hashes, which only grow.
CREATE TABLE log_tile (
    shard  integer NOT NULL REFERENCES log_shard (number),
    level  smallint NOT NULL CHECK (level BETWEEN 0 AND 8),
    idx    bigint NOT NULL CHECK (idx >= 0),
    hashes bytea NOT NULL CHECK (octet_length(hashes) BETWEEN 32 AND 8192 AND octet_length(hashes) % 32 = 0),
    PRIMARY KEY (shard, level, idx)
);

GRANT SELECT, INSERT, UPDATE ON log_chain, log_shard, log_tile TO cortex_server;
GRANT SELECT, INSERT ON log_batch TO cortex_server;
