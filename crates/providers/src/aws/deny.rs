//! The one inline policy in which Cortex denies a role's revoked sessions.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::revocation::RevokedLease;

/// What all inline policies of a role may have together, in characters without whitespace (IAM quotas).
pub(super) const MAX_INLINE: usize = 10_240;
/// How far AWS's clock may be ahead of ours.
const SKEW: SignedDuration = SignedDuration::from_secs(5);

/// A policy, and how it covers what it has to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Denial {
    /// The document, without whitespace.
    pub(super) text: String,
    /// How many sessions it names.
    pub(super) named: usize,
    /// Every session of the role that was opened before this is denied, because those that are revoked did not all fit.
    pub(super) older_than: Option<Timestamp>,
}

/// The policy that denies `leases`, newest first, in at most `room` characters: by their tag while they fit, and the
/// oldest by their age.
pub(super) fn pack(leases: &[RevokedLease], room: usize) -> Denial {
    if leases.len() <= fitting(leases, None, room) {
        return Denial { text: document(leases, None), named: leases.len(), older_than: None };
    }
    // Every time is written in as many characters.
    let dated = fitting(leases, Some(Timestamp::UNIX_EPOCH), room);
    let (named, rest) = leases.split_at(dated.min(leases.len()));
    let newest = rest.iter().map(|lease| lease.made_before).max();
    let older_than = newest.map(|newest| newest.saturating_add(SKEW).unwrap_or(newest));
    Denial { text: document(named, older_than), named: named.len(), older_than }
}

/// How many of `leases` fit beside the rest of the document.
fn fitting(leases: &[RevokedLease], older_than: Option<Timestamp>, room: usize) -> usize {
    // A UUID, its quotes and a comma, which the last one does not have.
    const ONE: usize = 36 + 3;
    let first = leases.get(..1).unwrap_or_default();
    (room + ONE).saturating_sub(document(first, older_than).len()) / ONE
}

fn document(leases: &[RevokedLease], older_than: Option<Timestamp>) -> String {
    let ids: Vec<String> = leases.iter().map(|lease| lease.issuance_id.to_string()).collect();
    let mut statements = Vec::new();
    // An empty list would deny nobody, and IAM refuses it.
    if !ids.is_empty() {
        statements.push(deny("RevokedLeases", &json!({ "StringEquals": { "aws:PrincipalTag/lease": ids } })));
    }
    if let Some(older_than) = older_than {
        let time = older_than.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        statements.push(deny("OlderSessions", &json!({ "DateLessThan": { "aws:TokenIssueTime": time } })));
    }
    json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
}

fn deny(sid: &str, condition: &Value) -> Value {
    json!({ "Sid": sid, "Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition })
}

#[cfg(test)]
mod tests {
    use cortex_core::IssuanceId;
    use cortex_core::credential::Revocation;
    use proptest::prelude::*;

    use super::*;

    fn leases(count: usize) -> Vec<RevokedLease> {
        let made = |n: usize| Timestamp::from_second(2_000_000_000 - i64::try_from(n).unwrap()).unwrap();
        let lease = |n: usize| RevokedLease {
            issuance_id: IssuanceId::new(made(n), [u8::try_from(n % 256).unwrap(); 10]),
            means: Revocation::ExpiryOnly,
            made_before: made(n),
            expires_at: made(0),
            enforced: false,
        };
        (0..count).map(lease).collect()
    }

    proptest! {
        #[test]
        fn every_lease_is_covered_and_the_policy_fits(count in 1_usize..2_000, room in 600_usize..MAX_INLINE) {
            let leases = leases(count);
            let denial = pack(&leases, room);
            prop_assert!(denial.text.len() <= room, "{} of {room}", denial.text.len());
            for lease in &leases {
                let named = denial.text.contains(&lease.issuance_id.to_string());
                let old = denial.older_than.is_some_and(|older_than| lease.made_before < older_than);
                prop_assert!(named || old);
            }
            prop_assert_eq!(denial.older_than.is_none(), denial.named == count);
        }
    }

    #[test]
    fn a_role_has_room_for_some_250_leases() {
        assert_eq!(pack(&leases(250), MAX_INLINE).named, 250);
        let full = pack(&leases(300), MAX_INLINE);
        assert!(full.named >= 250 && full.older_than.is_some(), "{}", full.named);
    }

    #[test]
    fn a_policy_without_room_for_names_denies_by_age_alone() {
        let denial = pack(&leases(3), 0);
        assert_eq!(denial.named, 0);
        let document: Value = serde_json::from_str(&denial.text).unwrap();
        assert_eq!(document["Statement"].as_array().unwrap().len(), 1, "{document}");
    }
}
