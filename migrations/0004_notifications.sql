-- What is still to be told to whom: written with the record that it tells of, gone once it is delivered.
-- Mutable: status, attempts, due_at, last_error.
CREATE TABLE notification (
    id         uuid PRIMARY KEY,
    endpoint   text NOT NULL,                -- by its configured name
    event      text NOT NULL,                -- the record's kind
    record_id  uuid NOT NULL,                -- what it tells of: rows of the record stay
    created_at timestamptz NOT NULL,
    status     text NOT NULL CHECK (status IN ('pending', 'dead')),
    attempts   integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at     timestamptz NOT NULL,         -- of the next try; while one is under way, when it is given up
    last_error text,
    CONSTRAINT notification_status_carries_its_data CHECK (
        CASE status
            WHEN 'pending' THEN true
            WHEN 'dead'    THEN attempts >= 1 AND last_error IS NOT NULL
        END)
);
CREATE INDEX notification_due ON notification (due_at) WHERE status = 'pending';
CREATE INDEX notification_by_age ON notification (created_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON notification TO cortex_server;
