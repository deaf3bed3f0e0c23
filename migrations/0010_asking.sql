-- How far each stream of records has come: everything before this place of the log has arrived where it goes.
-- Mutable: all but name.
CREATE TABLE stream_cursor (
    name       text PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 64),
    shard      integer NOT NULL CHECK (shard >= 1),
    next       bigint NOT NULL CHECK (next >= 0), -- the index in that tree
    claim      bigint NOT NULL DEFAULT 0,     -- grows with each claim: who was overtaken moves nothing
    failures   integer NOT NULL DEFAULT 0,    -- in a row
    last_error text,                          -- of the last of them
    due_at     timestamptz NOT NULL,          -- nobody claims it before
    CONSTRAINT stream_failure_carries_its_error CHECK ((failures = 0) = (last_error IS NULL))
);
GRANT SELECT, INSERT, UPDATE ON stream_cursor TO cortex_server;
