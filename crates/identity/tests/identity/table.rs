//! The attack table: each row is a token that must prove nothing, the reason on record, and whether it is recorded
//! against its issuer (its signature is genuine) or only counted (anyone could have made it up).

use cortex_identity::Reason;
use serde_json::{Value, json};

use crate::world::World;

/// Where a refusal is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audit {
    /// By itself, with its issuer.
    Denial,
    /// Counted: it is not known whose it is.
    Unverified,
}
use Audit::{Denial, Unverified};

pub(crate) struct Attack {
    id: &'static str,
    what: String,
    token: String,
    reason: Reason,
    audit: Audit,
}

pub(crate) fn attack(
    id: &'static str,
    what: impl Into<String>,
    token: impl Into<String>,
    reason: Reason,
    audit: Audit,
) -> Attack {
    Attack { id, what: what.into(), token: token.into(), reason, audit }
}

/// Runs every attack; each is refused as the table says, and no part of a token shows in the refusal.
pub(crate) async fn run(world: &World, attacks: Vec<Attack>) {
    assert!(!attacks.is_empty());
    for Attack { id, what, token, reason, audit } in attacks {
        let Err(rejection) = world.verify(&token).await else {
            panic!("{id} {what}: accepted");
        };
        assert_eq!(rejection.reason, reason, "{id} {what}: {}", rejection.detail);
        let recorded = if rejection.verified.is_some() { Denial } else { Unverified };
        assert_eq!(recorded, audit, "{id} {what}");
        assert!(!rejection.is_temporary(), "{id} {what}");
        let shown = format!("{rejection} {rejection:?}");
        for part in token.split('.').filter(|part| part.len() > 8) {
            assert!(!shown.contains(part), "{id} {what} shows a part of the token");
        }
        for claim in ["jti-canary", "finance_publish", "evil"] {
            assert!(!shown.contains(claim), "{id} {what} shows {claim}");
        }
    }
}

/// A header with these members beside or instead of the usual ones.
pub(crate) fn header(extra: &Value) -> String {
    let mut header = json!({"alg": "RS256", "kid": "main", "typ": "JWT"});
    header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    header.to_string()
}
