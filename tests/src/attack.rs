//! The attack table: each row is a token that must bring nothing, through both doors, and what is on record of it.

use cortex_server::supervisor;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::world::{Answer, TestWorld};

/// What is on record of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audit {
    /// A denial of its own, under this code: the token is the issuer's.
    Denial(&'static str),
    /// A count, under this reason: anyone could have made it up.
    Counted(&'static str),
}

/// One row.
pub struct Attack {
    /// The row of the threat model.
    pub id: &'static str,
    /// What it is.
    pub what: String,
    /// The token.
    pub token: String,
    /// What is on record.
    pub audit: Audit,
}

/// A row.
pub fn attack(id: &'static str, what: impl Into<String>, token: impl Into<String>, audit: Audit) -> Attack {
    Attack { id, what: what.into(), token: token.into(), audit }
}

/// Runs every row: each answers `invalid_request` at both doors, is on record once for each, and brings nothing.
pub async fn refused(world: &TestWorld, attacks: Vec<Attack>) {
    assert!(!attacks.is_empty());
    for Attack { id, what, token, audit } in attacks {
        let before = on_record(world, audit).await;
        let form = world.exchange_token(&token, "urn:cortex:first-steps:api").await;
        let mut answers = vec![form];
        // What a header cannot carry comes by the form alone.
        if token.len() < 16_000 && !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) {
            answers.push(world.ask(&token, json!({"policy": "first-steps"})).await);
        }
        for answer in &answers {
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{id} {what}: {answer:?}");
            assert_eq!(answer.body["error"], "invalid_request", "{id} {what}: {answer:?}");
            assert_eq!(answer.headers["cache-control"], "no-store", "{id} {what}");
            assert_eq!(
                answer.body["decision_id"].is_string(),
                matches!(audit, Audit::Denial(_)),
                "{id} {what}"
            );
            shows_nothing_of(&token, answer, &format!("{id} {what}"));
        }
        let after = on_record(world, audit).await;
        assert_eq!(
            after - before,
            answers.len() as u64,
            "{id} {what}: on record as {audit:?}: {:?}",
            codes(world).await
        );
    }
    nothing_was_issued(world).await;
}

/// No cloud was called and nothing was signed.
pub async fn nothing_was_issued(world: &TestWorld) {
    assert_eq!(world.world.sandbox.mints(), [], "a cloud minted");
    let issued = world.record(&["issuance.intent", "issuance.issued", "issuance.outcome"]).await;
    assert!(issued.is_empty(), "{issued:?}");
}

/// No part of the token is in the answer.
pub fn shows_nothing_of(token: &str, answer: &Answer, what: &str) {
    let shown = format!("{:?} {}", answer.headers, answer.body);
    for part in token.split('.').filter(|part| part.len() > 8) {
        assert!(!shown.contains(part), "{what}: the answer shows a part of the token: {shown}");
    }
}

async fn on_record(world: &TestWorld, audit: Audit) -> u64 {
    match audit {
        Audit::Denial(code) => {
            let denials = world.record(&["denial"]).await;
            denials.iter().filter(|denial| denial["code"] == code).count() as u64
        }
        Audit::Counted(reason) => counted(world, reason).await,
    }
}

/// How many unverified callers were counted under `reason`.
pub async fn counted(world: &TestWorld, reason: &str) -> u64 {
    supervisor::flush(&world.world.cortex.broker).await;
    let counts = world.record(&["denials"]).await;
    counts.iter().filter(|row| row["reason"] == reason).filter_map(|row| row["count"].as_u64()).sum()
}

async fn codes(world: &TestWorld) -> Vec<Value> {
    let rows = world.record(&["denial", "denials"]).await;
    rows.iter().map(|row| json!([row["code"], row["reason"], row["count"]])).collect()
}
