//! A leaf of the record as the request that it tells of.

use std::net::IpAddr;

use cortex_core::record::GrantUse;
use cortex_core::{DecisionId, Digest, IssuanceId, Principal, Reason};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::report::Why;
use super::sweep::made_at;

/// The codes of denials that a policy, its guardrails or the rendering of its target decided.
const DECIDED: [&str; 9] =
    ["no_match", "target", "where", "when", "attestation", "approval", "guardrail", "error", "bad_value"];

/// What was asked, and what came of it.
pub(super) struct Request {
    /// When it was decided: the time within the decision's id, which is that of the decision to the millisecond. The
    /// record's own time is that of its commit.
    pub(super) at: Timestamp,
    pub(super) decision_id: DecisionId,
    pub(super) principal: Principal,
    pub(super) source: Option<IpAddr>,
    pub(super) provider: String,
    pub(super) policy_digest: Option<Digest>,
    pub(super) break_glass: bool,
    pub(super) was: Was,
}

/// What came of it.
pub(super) enum Was {
    Issued {
        issuance_id: IssuanceId,
        ttl: SignedDuration,
        /// The rules that wanted people to approve; empty where none did.
        wanted: Vec<String>,
        /// People had approved the request, for this target or for another of the same bundle.
        approved: bool,
    },
    Denied {
        rules: Vec<String>,
    },
}

/// The members that openings and denials share, and those of each; scopes are read where they are compared.
#[derive(Deserialize)]
struct Leaf {
    kind: String,
    decision_id: Option<DecisionId>,
    issuance_id: Option<IssuanceId>,
    principal: Option<Principal>,
    caller: Option<Caller>,
    source: Option<IpAddr>,
    policy_digest: Option<Digest>,
    provider: Option<String>,
    #[serde(default)]
    rules: Vec<String>,
    grant: Option<GrantUse>,
    ttl_seconds: Option<i64>,
    code: Option<String>,
    #[serde(default)]
    reasons: Vec<Reason>,
}

#[derive(Deserialize)]
struct Caller {
    source: Option<IpAddr>,
}

/// Reads a leaf, or says why it cannot be decided again.
pub(super) fn read(leaf: &[u8]) -> Result<Request, Why> {
    let leaf: Leaf = serde_json::from_slice(leaf).map_err(|_| Why::Unreadable)?;
    match leaf.kind.as_str() {
        "issuance.intent" | "issuance.issued" => opening(leaf).ok_or(Why::Unreadable),
        "denial" => denial(leaf),
        "grant.requested" => Err(Why::WaitedForPeople),
        _ => Err(Why::Unreadable),
    }
}

fn opening(leaf: Leaf) -> Option<Request> {
    let decision_id = leaf.decision_id?;
    // A permit names the one rule that permits; anything else wanted people.
    let permitted = leaf.rules.iter().any(|rule| rule.ends_with("#who"));
    Some(Request {
        at: made_at(decision_id.uuid())?,
        decision_id,
        principal: leaf.principal?,
        source: leaf.caller?.source,
        provider: leaf.provider?,
        policy_digest: leaf.policy_digest,
        break_glass: leaf.grant.as_ref().is_some_and(|grant| grant.break_glass),
        was: Was::Issued {
            issuance_id: leaf.issuance_id?,
            ttl: SignedDuration::from_secs(leaf.ttl_seconds?),
            wanted: if permitted { Vec::new() } else { leaf.rules },
            approved: leaf.grant.is_some(),
        },
    })
}

fn denial(leaf: Leaf) -> Result<Request, Why> {
    let code = leaf.code.as_deref().ok_or(Why::Unreadable)?;
    if code == "freeze" {
        return Err(Why::Frozen);
    }
    if !DECIDED.contains(&code) {
        return Err(Why::NotThePolicy);
    }
    let decision_id = leaf.decision_id.ok_or(Why::Unreadable)?;
    let rules: Vec<_> = leaf.reasons.into_iter().map(|reason| reason.rule).collect();
    Ok(Request {
        at: made_at(decision_id.uuid()).ok_or(Why::Unreadable)?,
        decision_id,
        principal: leaf.principal.ok_or(Why::Unreadable)?,
        source: leaf.source,
        provider: leaf.provider.filter(|provider| !provider.is_empty()).ok_or(Why::TargetUnknown)?,
        policy_digest: leaf.policy_digest,
        // A denial says that the glass was to be broken only where that is why it was denied.
        break_glass: rules.iter().any(|rule| rule.ends_with("#break_glass")),
        was: Was::Denied { rules },
    })
}

/// The scope that was on record.
pub(super) fn scope(leaf: &[u8]) -> Option<Value> {
    #[derive(Deserialize)]
    struct Scope {
        scope: Value,
    }
    serde_json::from_slice::<Scope>(leaf).ok().map(|leaf| leaf.scope)
}
