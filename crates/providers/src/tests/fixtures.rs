//! One run, one issuer, one moment.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cortex_core::jwt::{SigningAlgorithm, SigningKey, TokenIssuer};
use cortex_core::{Attestation, Body, IssuanceId, Minted, PolicyName, Run};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::account::{Accounts, Limits, Pass};
use crate::config::AwsConfig;
use crate::{Ask, Ledger, Mint, MintError, Plan, Provider, Refusal};

pub(crate) const ISSUER: &str = "https://cortex.example";

pub(crate) fn now() -> Timestamp {
    "2026-11-22T00:00:00Z".parse().unwrap()
}

pub(crate) fn issuance_id() -> IssuanceId {
    IssuanceId::new(now(), [7; 10])
}

pub(crate) fn policy() -> PolicyName {
    "finance-data-publish".parse().unwrap()
}

pub(crate) fn run() -> Run {
    Run {
        issuer: "prod".parse().unwrap(),
        dag_id: "finance_publish".parse().unwrap(),
        run_id: "scheduled__2026-11-22T00:00:00+00:00".parse().unwrap(),
        task_id: "publish_mart".parse().unwrap(),
        map_index: None,
        try_number: 1,
        run_type: Some("scheduled".parse().unwrap()),
        triggered_by: None,
        triggering_user: None,
        team: Some("finance".parse().unwrap()),
        bundle: None,
        tags: std::collections::BTreeSet::default(),
        attestation: Attestation::Issuer,
    }
}

/// An issuer with a key that is made once for all tests.
pub(crate) fn issuer() -> Arc<TokenIssuer> {
    static KEY: OnceLock<Arc<SigningKey>> = OnceLock::new();
    let key = KEY.get_or_init(|| Arc::new(SigningKey::generate(SigningAlgorithm::RS256).unwrap()));
    Arc::new(TokenIssuer::new(ISSUER.into(), Arc::clone(key)))
}

/// An ask of `run` for `target`, with a ceiling of 30 minutes.
pub(crate) fn ask<'a>(run: &'a Run, policy: &'a PolicyName, target: &'a Value) -> Ask<'a> {
    Ask {
        issuance_id: issuance_id(),
        run,
        policy,
        target,
        max_ttl: SignedDuration::from_mins(30),
        requested_ttl: None,
        now: now(),
    }
}

/// A way into an account that nobody else uses.
pub(crate) async fn pass() -> Pass {
    let config = AwsConfig::default();
    let limits = Limits {
        provider: "aws",
        per_second: config.max_calls_per_second,
        at_once: config.max_concurrent_calls,
        breaker: config.breaker,
    };
    Accounts::new(limits).get("aws/1/eu-west-1").enter(Duration::ZERO).await.unwrap()
}

/// The key of the tests' secrets; a mint needs no more than a unit for its ticket.
#[derive(Debug)]
pub(crate) struct Key;

impl Ledger for Key {
    type Ticket = ();
}

/// Plans for `target` and the usual run.
pub(crate) fn plan(provider: &dyn Provider<Key>, target: &Value) -> Result<Plan<Key>, Refusal> {
    provider.plan(&ask(&run(), &policy(), target))
}

/// Mints what `plan` says.
pub(crate) async fn mint(plan: Plan<Key>) -> Result<Minted<Key>, MintError> {
    match plan.mint {
        Mint::Local(local) => local.mint(),
        Mint::Remote(remote) => remote.enter(Duration::ZERO).await?.mint(()).await,
    }
}

/// The token within.
pub(crate) fn token(minted: Minted<Key>) -> String {
    match minted.secret.open(&Key) {
        Body::Token(token) => token.to_string(),
        Body::AwsKeys { .. } => panic!("not a token"),
    }
}

/// The header and the claims of a token that [`issuer`] signed; the signature is checked.
pub(crate) fn verified(token: &str) -> (Value, Value) {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
    let jwk = serde_json::from_value(issuer().key().public_jwk().into()).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_aud = false;
    validation.validate_exp = false;
    let key = DecodingKey::from_jwk(&jwk).unwrap();
    let data = decode::<Value>(token, &key, &validation).unwrap();
    (serde_json::to_value(data.header).unwrap(), data.claims)
}
