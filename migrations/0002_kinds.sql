-- More kinds of things that are on record: what people do beyond approving, revocation, freeze, sign-in.
ALTER TABLE record DROP CONSTRAINT record_kind_check;
ALTER TABLE record ADD CONSTRAINT record_kind_check CHECK (kind IN (
    'issuance.intent', 'issuance.issued', 'issuance.outcome', 'denial', 'denials',
    'policy.applied', 'policy.retired', 'guardrails.applied',
    'grant.requested', 'grant.decided', 'grant.withdrawn', 'grant.expired', 'grant.voided',
    'preapproval.made', 'preapproval.ended',
    'freeze.set', 'freeze.lifted',
    'revocation.requested', 'revocation.settled',
    'session.started', 'session.ended', 'session.refused',
    'person.disabled', 'person.enabled',
    'notification.dead',
    'key.created', 'key.rotated', 'key.retired'));
