-- What auditors ask by that no column of the record has, of each record that has any of it: made from its leaf once
-- that is published, off the way of whoever asks for a credential. It can be made anew from the record at any time.
CREATE TABLE record_fact (
    id              uuid PRIMARY KEY,        -- the record's
    policy_digest   bytea CHECK (octet_length(policy_digest) = 32),
    target          text,                    -- what was accessed: a role, a project, an account's role, an audience
    triggering_user text,                    -- who started the run, as its Airflow calls them
    break_glass     boolean NOT NULL,        -- it let a run in although the policy was closed, or asks to
    CONSTRAINT record_fact_says_something CHECK (
        num_nonnulls(policy_digest, target, triggering_user) > 0 OR break_glass)
);
CREATE INDEX record_fact_by_target ON record_fact (target, id) WHERE target IS NOT NULL;
CREATE INDEX record_fact_by_version ON record_fact (policy_digest, id) WHERE policy_digest IS NOT NULL;
CREATE INDEX record_fact_by_user ON record_fact (triggering_user, id) WHERE triggering_user IS NOT NULL;
CREATE INDEX record_fact_of_glass ON record_fact (id) WHERE break_glass;
CREATE TRIGGER record_fact_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON record_fact
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- The rules that denied, of each denial.
CREATE TABLE record_rule (
    rule text NOT NULL,
    id   uuid NOT NULL,                      -- the record's
    PRIMARY KEY (rule, id)
);
CREATE TRIGGER record_rule_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON record_rule
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
GRANT SELECT, INSERT ON record_fact, record_rule TO cortex_server;

-- Everything that is no issuance, by its kind; issuances are not in this index, so that it costs them nothing.
CREATE INDEX record_by_kind ON record (kind, id)
    WHERE kind NOT IN ('issuance.intent', 'issuance.issued', 'issuance.outcome');
-- What people and services did; runs are found by their DAG.
CREATE INDEX record_by_person ON record (principal, id) WHERE principal NOT LIKE 'run:%';
-- Issuances under an approval.
CREATE INDEX record_under_grant ON record (grant_id, id) WHERE grant_id IS NOT NULL AND issuance_id IS NOT NULL;
-- Issuances that did not end as they were to.
CREATE INDEX record_not_issued ON record (outcome, id) WHERE kind = 'issuance.outcome' AND outcome <> 'issued';
-- A DAG's records in the order of time, however many runs it has.
CREATE INDEX record_by_dag_and_time ON record (dag_id, id) WHERE dag_id IS NOT NULL;
