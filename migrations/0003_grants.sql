-- Approvals in full: what they hold for, how often they are used, how they end, and approvals of scheduled runs
-- before they run.
ALTER TABLE grant_request
    ADD COLUMN seq            bigint GENERATED ALWAYS AS IDENTITY, -- the order in which they were requested
    ADD COLUMN kind           text NOT NULL DEFAULT 'run' CHECK (kind IN ('run', 'standing')),
    ADD COLUMN requester      jsonb,             -- who asked: the principal of a run, or of a person
    ADD COLUMN policy_version integer CHECK (policy_version >= 1),
    ADD COLUMN valid_for      jsonb NOT NULL DEFAULT '"task"', -- of a run's: "task", "run" or {"window": ...}
    ADD COLUMN break_glass    boolean NOT NULL DEFAULT false,
    ADD COLUMN tasks          text[] NOT NULL DEFAULT '{}',    -- of a standing one; empty for every task
    ADD COLUMN issuer         text,              -- the Airflow of the runs
    ADD COLUMN ticket         text,
    ADD COLUMN max_uses       integer CHECK (max_uses >= 1),
    ADD COLUMN uses           integer NOT NULL DEFAULT 0 CHECK (uses >= 0 AND uses <= COALESCE(max_uses, uses)),
    ADD COLUMN ended_at       timestamptz,
    ADD COLUMN ended_by       text,
    ADD COLUMN ended_because  text,
    ALTER COLUMN run_id DROP NOT NULL;
-- Who asked before this is in the request, all but the attempt.
UPDATE grant_request g SET
    requester = (request - 'policy' - 'policy_digest' - 'targets' - 'ttl_seconds') || '{"kind": "run", "try_number": 1}',
    issuer = request ->> 'issuer',
    policy_version = COALESCE((SELECT max(d.version) FROM document d
                               WHERE d.kind = 'policy' AND d.name = g.policy AND d.digest = g.policy_digest), 1);
ALTER TABLE grant_request
    ALTER COLUMN requester SET NOT NULL,
    ALTER COLUMN issuer SET NOT NULL,
    ALTER COLUMN policy_version SET NOT NULL,
    DROP CONSTRAINT grant_request_status_check,
    DROP CONSTRAINT grant_status_carries_its_data,
    ADD CONSTRAINT grant_request_status_check CHECK (status IN (
        'requested', 'approved', 'denied', 'expired', 'spent', 'withdrawn', 'voided')),
    -- The same rules as core's `State` and `Asked`.
    ADD CONSTRAINT grant_status_carries_its_data CHECK (
        CASE status
            WHEN 'requested' THEN decided_at IS NULL AND ended_at IS NULL
            WHEN 'approved'  THEN decided_at IS NOT NULL AND ended_at IS NULL AND uses < COALESCE(max_uses, uses + 1)
            WHEN 'denied'    THEN decided_at IS NOT NULL AND ended_at IS NULL
            WHEN 'expired'   THEN true
            WHEN 'spent'     THEN decided_at IS NOT NULL AND uses = max_uses
            WHEN 'withdrawn' THEN ended_at IS NOT NULL AND ended_by IS NOT NULL
            WHEN 'voided'    THEN ended_at IS NOT NULL AND ended_because IS NOT NULL
        END),
    ADD CONSTRAINT grant_kind_carries_its_data CHECK (
        CASE kind
            WHEN 'run'      THEN run_id IS NOT NULL AND tasks = '{}'
            WHEN 'standing' THEN run_id IS NULL AND max_uses IS NULL AND NOT break_glass
        END);
DROP INDEX grant_by_digest;
CREATE INDEX grant_by_digest ON grant_request (request_digest, seq);
-- What waits or holds: what the supervisor ends, and what a new version of a policy makes void.
CREATE INDEX grant_live_by_expiry ON grant_request (expires_at) WHERE status IN ('requested', 'approved');
CREATE INDEX grant_live_by_policy ON grant_request (policy) WHERE status IN ('requested', 'approved');
CREATE INDEX grant_standing ON grant_request (policy, dag_id) WHERE kind = 'standing' AND status = 'approved';

-- Who decided, with their address and user name: two accounts of one person are one approver.
ALTER TABLE grant_decision ADD COLUMN account jsonb;
