//! The clouds and APIs that Cortex mints credentials for. The only crate that links a cloud's SDK.
//!
//! A provider is one file and one line in [`BUILT_INS`]: how a policy's target is written (its schema and its
//! check), how it is planned for one run (pure: rendered scope, lifetime, worst-case expiry) and how the plan
//! is minted. The conformance tests run over every built-in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cortex_core::credential::Revocation;
use cortex_core::jwt::TokenIssuer;
use cortex_core::policy::{TargetProblem, Targets};
use cortex_core::{IssuanceId, Minted, PolicyName, Principal, Run};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

pub mod config;

mod account;
mod api;
mod aws;
mod bigquery;
mod body;
mod breaker;
mod calls;
pub mod kms;
mod local;
pub mod revocation;
mod snowflake;
mod target;
#[cfg(test)]
mod tests;

use account::{Account, Pass};

pub use account::{Cause, Shut};
pub use config::ProvidersConfig;
pub use revocation::{Enforced, Fate, RevokeError, RevokedLease, Revoker, Revokers, revokers};

/// One kind of target, before anything is configured: enough to check a policy on a laptop.
pub struct BuiltIn {
    /// Its name, the key under a policy's `what`.
    pub name: &'static str,
    /// The JSON Schema of its target.
    pub schema: fn() -> schemars::Schema,
    /// Checks a policy's target. On success, the resources that it names, for guardrails and for reading:
    /// `aws:arn:aws:iam::123456789012:role/finance-publish`, `snowflake:acme-prod/FINANCE_SVC/FINANCE_PUBLISH`.
    pub check: fn(&Value) -> Result<String, Vec<TargetProblem>>,
}

/// Every kind of target. A new cloud is one line here and one in [`registry`].
pub const BUILT_INS: &[BuiltIn] = &[aws::BUILT_IN, bigquery::BUILT_IN, snowflake::BUILT_IN, api::BUILT_IN];

/// The built-ins, as far as writing a policy needs them.
#[derive(Debug, Clone, Copy)]
pub struct BuiltIns;

impl Targets for BuiltIns {
    fn names(&self) -> Vec<&str> {
        BUILT_INS.iter().map(|built_in| built_in.name).collect()
    }

    fn check(&self, provider: &str, target: &Value) -> Result<String, Vec<TargetProblem>> {
        match BUILT_INS.iter().find(|built_in| built_in.name == provider) {
            Some(built_in) => (built_in.check)(target),
            None => Err(vec![TargetProblem {
                pointer: String::new(),
                message: format!("There is no provider {provider}."),
                remedy: format!("Write one of {}.", self.names().join(", ")),
            }]),
        }
    }
}

/// What one run asks of one target.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The issuance, which is the lease's id too.
    pub issuance_id: IssuanceId,
    /// Who asks.
    pub run: &'a Run,
    /// The policy that permits it.
    pub policy: &'a PolicyName,
    /// The policy's target for this provider, as [`BuiltIn::check`] accepted it.
    pub target: &'a Value,
    /// The longest lifetime that the policy allows.
    pub max_ttl: SignedDuration,
    /// The lifetime that the caller wants, if it said one. A provider whose shortest lifetime is longer may
    /// raise it, but never past `max_ttl`.
    pub requested_ttl: Option<SignedDuration>,
    /// Now.
    pub now: Timestamp,
}

impl Ask<'_> {
    /// The lifetime to ask for: the caller's wish within the policy's ceiling, in whole seconds.
    pub(crate) fn ttl(&self) -> SignedDuration {
        let wish = self.requested_ttl.unwrap_or(self.max_ttl).min(self.max_ttl);
        SignedDuration::from_secs(wish.as_secs())
    }

    /// The run as one string, as [`Principal::subject`] writes it.
    pub(crate) fn subject(&self) -> String {
        Principal::Run(self.run.clone()).subject()
    }
}

/// A credential, planned: what would be minted, before anything happened.
pub struct Plan<K> {
    /// The rendered scope: loggable, shown to an approver, and part of what they approve. It depends on the
    /// run, the policy and the lifetime alone, never on the issuance id or the time.
    pub scope: Value,
    /// The lifetime that is asked for.
    pub ttl: SignedDuration,
    /// No credential that this plan mints lives longer than this: what is on record when its outcome is lost.
    pub worst_case_expiry: Timestamp,
    /// How a credential of this plan can be ended before it expires.
    pub revocation: Revocation,
    /// How to mint it.
    pub mint: Mint<K>,
}

/// The member of a scope that names the task which asks and permits nothing.
const NAME_OF_TASK: &str = "session_name";

impl<K> Plan<K> {
    /// The scope without what merely names the task that asks: two tasks that may do the same have the same one.
    pub fn scope_of_any_task(&self) -> Value {
        let mut scope = self.scope.clone();
        if let Some(members) = scope.as_object_mut() {
            members.remove(NAME_OF_TASK);
        }
        scope
    }
}

/// The two ways of minting.
pub enum Mint<K> {
    /// Cortex signs it: no effect outside this process.
    Local(Box<dyn LocalMint<K>>),
    /// A cloud makes it: an effect outside, so an intent has to be on record first.
    Remote(Remote<K>),
}

/// What ties minting to a record: the key `K` to a secret says which ticket permits to mint it.
pub trait Ledger: 'static {
    /// Permission to call a cloud once: proof that the intent is on record.
    type Ticket: Send;
}

/// A call to a cloud, in front of its account's door.
pub struct Remote<K> {
    account: Arc<Account>,
    call: Box<dyn RemoteMint<K>>,
}

impl<K> Remote<K> {
    pub(crate) fn new(account: Arc<Account>, call: impl RemoteMint<K> + 'static) -> Self {
        Self { account, call: Box::new(call) }
    }

    /// Goes through the account's door, which takes `patience` at the most: nothing is called, and nothing need be on
    /// record. What this answers keeps a place of the account's quota until it is used or dropped.
    pub async fn enter(self, patience: Duration) -> Result<Entered<K>, Shut> {
        let pass = self.account.enter(patience).await?;
        Ok(Entered { pass, call: self.call })
    }
}

/// A call to a cloud whose account has let it in, and that nobody makes without a ticket.
pub struct Entered<K> {
    pass: Pass,
    call: Box<dyn RemoteMint<K>>,
}

impl<K: Ledger> Entered<K> {
    /// Calls the cloud; this uses the ticket up. It gives up within the provider's configured timeout;
    /// dropping it does not undo what the cloud may have done.
    pub async fn mint(self, _ticket: K::Ticket) -> Result<Minted<K>, MintError> {
        self.call.mint(&self.pass).await
    }
}

/// A credential that Cortex signs itself.
pub trait LocalMint<K>: Send + Sync {
    /// Signs it.
    fn mint(self: Box<Self>) -> Result<Minted<K>, MintError>;
}

/// A credential that a cloud makes.
#[async_trait]
pub(crate) trait RemoteMint<K>: Send + Sync {
    /// Calls the cloud, and compares what came back with what was asked.
    async fn mint(self: Box<Self>, pass: &Pass) -> Result<Minted<K>, MintError>;
}

/// A target that cannot be planned for this run: denied before anything happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What is the case, in one sentence, for the person who is denied.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// Why no credential came. Each says whether the cloud may nevertheless have minted one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The cloud refused: nothing was minted. A clear denial for the caller.
    #[error("{message}")]
    Refused {
        /// The cloud's error code, such as `PackedPolicyTooLarge`.
        code: String,
        /// What is the case, in one sentence.
        message: String,
        /// What to do about it.
        remedy: String,
    },
    /// The cloud could not be reached, or said to come back later: nothing was minted.
    #[error("{message}")]
    Unavailable {
        /// What is the case, in one sentence.
        message: String,
        /// When to try again, in seconds, if the cloud said so.
        retry_after: Option<u32>,
    },
    /// No answer, or half of one: it may have been minted.
    #[error("{message}")]
    Indeterminate {
        /// What is the case, in one sentence.
        message: String,
    },
    /// What came back is not what was asked: it is withheld, and it exists until its expiry.
    #[error("{message}")]
    Mismatch {
        /// What differs, in one sentence; never a secret.
        message: String,
        /// When what was withheld ends, if that is known.
        expires_at: Option<Timestamp>,
    },
}

impl From<Shut> for MintError {
    fn from(shut: Shut) -> Self {
        let seconds = shut.retry_after.as_secs_f64().ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "seconds of half a minute"
        )]
        let retry_after = Some(seconds as u32);
        Self::Unavailable { message: shut.message, retry_after }
    }
}

/// A configured provider.
pub trait Provider<K>: Send + Sync {
    /// Plans a credential for one run; pure and quick.
    fn plan(&self, ask: &Ask<'_>) -> Result<Plan<K>, Refusal>;
}

/// The configured providers, by name.
pub type Registry<K> = BTreeMap<&'static str, Arc<dyn Provider<K>>>;

/// Builds every provider from the configuration; `issuer` signs what Cortex shows to the clouds.
pub fn registry<K: 'static>(config: &ProvidersConfig, issuer: &Arc<TokenIssuer>) -> Registry<K> {
    let mut registry: Registry<K> = BTreeMap::new();
    registry.insert("aws", Arc::new(aws::Aws::new(&config.aws, issuer)));
    registry.insert("bigquery", Arc::new(bigquery::BigQuery::new(&config.bigquery, issuer)));
    registry.insert("snowflake", Arc::new(snowflake::Snowflake::new(&config.snowflake, issuer)));
    registry.insert("api", Arc::new(api::Api::new(config, issuer)));
    registry
}
