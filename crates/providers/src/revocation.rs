//! Ending credentials before they expire: which provider can do what, and how it is asked.
//!
//! No cloud takes a credential back. What can be done is to make it deny whoever holds it, in one document for each
//! role or project, of which Cortex is the only writer.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use cortex_core::IssuanceId;
use cortex_core::credential::Revocation;
use cortex_core::jwt::TokenIssuer;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{ProvidersConfig, aws, bigquery};

/// One way of ending a credential, as documentation and answers tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The provider.
    pub provider: &'static str,
    /// The way, as [`Revocation::by`] names it.
    pub by: &'static str,
    /// What is done, or why nothing can be.
    pub what: &'static str,
    /// How long after its confirmation it is felt.
    pub delay: &'static str,
}

/// Which provider can do what.
pub const WAYS: &[Way] = &[
    Way {
        provider: "aws",
        by: "aws_deny",
        what: "a deny statement on the role, for the session tag lease of each revoked session; where those do not fit \
               in the role's inline policies, for every session that was opened before the newest of the others ended",
        delay: "IAM is eventually consistent: seconds as a rule, and a few minutes at times",
    },
    Way {
        provider: "bigquery",
        by: "google_deny",
        what: "an IAM deny policy on the project, for the federated subject; jobs that run go on",
        delay: "two minutes as a rule, and seven or more at times",
    },
    Way {
        provider: "bigquery",
        by: "expiry_only",
        what: "the token acts as a service account, and denying the federated subject does not reach it",
        delay: "its expiry",
    },
    Way {
        provider: "snowflake",
        by: "expiry_only",
        what: "Snowflake cannot take a token back: it opens sessions until it expires, and a session that it opened \
               lives on by Snowflake's own rules, four hours and more. An administrator of the account ends those: \
               ALTER USER ... ABORT ALL QUERIES, or SYSTEM$ABORT_SESSION",
        delay: "its expiry, and for an open session longer",
    },
    Way {
        provider: "api",
        by: "introspection",
        what: "introspection says that it is not active; an API that verifies the token by itself takes it until it \
               expires",
        delay: "none for an API that asks",
    },
];

/// What becomes of a credential that is revoked.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// A cloud is asked to change this target, and has to confirm it.
    Asked {
        /// A role's ARN, or a project.
        target: String,
    },
    /// Cortex itself is who is asked: it takes effect with the record.
    AtOnce {
        /// What that means.
        evidence: Value,
    },
    /// Nothing but its expiry ends it.
    ExpiryOnly {
        /// Why.
        why: String,
    },
}

/// A credential that a cloud has to deny.
#[derive(Debug, Clone, PartialEq)]
pub struct RevokedLease {
    /// The issuance.
    pub issuance_id: IssuanceId,
    /// How it can be ended.
    pub means: Revocation,
    /// The credential was made before this time.
    pub made_before: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Whether the cloud has confirmed before that it denies it.
    pub enforced: bool,
}

/// What a cloud confirmed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Enforced {
    /// What was confirmed, by whom, and the delay until it is felt; no secret.
    pub evidence: Value,
    /// What did not fit.
    pub left_out: LeftOut,
}

/// What a cloud cannot deny beside the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// The issuances.
    pub issuances: Vec<IssuanceId>,
    /// Why.
    pub why: String,
}

/// A cloud that did not confirm. It may have changed its document all the same; asking again does no harm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RevokeError {
    /// What is the case and what to do, without a word of the cloud that may quote a secret.
    pub message: String,
    /// How long the cloud asks to be left alone.
    pub retry_after: Option<SignedDuration>,
}

impl RevokeError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), retry_after: None }
    }

    /// `provider` did not answer within [`Revoker::patience`].
    pub fn late(provider: &str) -> Self {
        Self::new(format!("{provider} did not answer in time."))
    }
}

/// A cloud that can be made to deny credentials.
#[async_trait]
pub trait Revoker: Send + Sync {
    /// Makes `target` deny exactly `leases`, whatever it denied before: all that are revoked there and live, newest
    /// first. Asked again for the same, it changes nothing. It may be dropped after [`Revoker::patience`].
    async fn enforce(
        &self,
        target: &str,
        leases: &[RevokedLease],
        now: Timestamp,
    ) -> Result<Enforced, RevokeError>;

    /// The longest that [`Revoker::enforce`] may take.
    fn patience(&self) -> SignedDuration;

    /// The least time between two changes of one target.
    fn pace(&self) -> SignedDuration;
}

/// The configured revokers, by provider.
#[derive(Clone, Default)]
pub struct Revokers(BTreeMap<&'static str, Arc<dyn Revoker>>);

/// Builds the revoker of every provider that is configured to revoke; `issuer` signs what Cortex shows to the clouds.
pub fn revokers(config: &ProvidersConfig, issuer: &Arc<TokenIssuer>) -> Revokers {
    let mut revokers: BTreeMap<&'static str, Arc<dyn Revoker>> = BTreeMap::new();
    if let Some(aws) = aws::revoker(&config.aws, issuer) {
        revokers.insert("aws", Arc::new(aws));
    }
    if let Some(bigquery) = bigquery::revoker(&config.bigquery, issuer) {
        revokers.insert("bigquery", Arc::new(bigquery));
    }
    Revokers(revokers)
}

impl Revokers {
    /// The revoker of `provider`, if it is configured.
    pub fn get(&self, provider: &str) -> Option<&dyn Revoker> {
        self.0.get(provider).map(|revoker| &**revoker)
    }

    /// The providers that are configured to revoke.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// What becomes of a credential of `provider` that can be ended by `means`.
    pub fn fate(&self, provider: &str, means: &Revocation) -> Fate {
        let way = WAYS.iter().find(|way| way.provider == provider && way.by == means.by());
        let what = way.map_or("nobody can end it", |way| way.what);
        let asked = |target: &str| {
            if self.0.contains_key(provider) {
                return Fate::Asked { target: target.to_owned() };
            }
            let why = format!(
                "this Cortex is not configured to revoke at {provider} (providers.{provider}.revocation); an \
                 administrator there can: {what}"
            );
            Fate::ExpiryOnly { why }
        };
        match means {
            Revocation::AwsDeny { role_arn } => asked(role_arn),
            Revocation::GoogleDeny { project, .. } => asked(&format!("projects/{project}")),
            Revocation::Introspection => Fate::AtOnce { evidence: json!({ "by": means.by(), "what": what }) },
            Revocation::ExpiryOnly => Fate::ExpiryOnly { why: what.to_owned() },
        }
    }
}
