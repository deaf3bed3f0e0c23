-- More kinds of things that are on record: a revocation that a cloud does not confirm, and what the log itself needs.
ALTER TABLE record DROP CONSTRAINT record_kind_check;
ALTER TABLE record ADD CONSTRAINT record_kind_check CHECK (kind IN (
    'issuance.intent', 'issuance.issued', 'issuance.outcome', 'denial', 'denials',
    'policy.applied', 'policy.retired', 'guardrails.applied',
    'grant.requested', 'grant.decided', 'grant.withdrawn', 'grant.expired', 'grant.voided',
    'preapproval.made', 'preapproval.ended',
    'freeze.set', 'freeze.lifted',
    'revocation.requested', 'revocation.failing', 'revocation.settled',
    'session.started', 'session.ended', 'session.refused',
    'person.disabled', 'person.enabled', 'person.erased',
    'notification.dead',
    'key.created', 'key.rotated', 'key.retired',
    'log.chain_opened', 'log.shard_opened', 'log.hold_set', 'log.hold_lifted', 'log.archived', 'log.dropped'));
