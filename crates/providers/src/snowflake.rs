//! Snowflake: a JWT that Cortex signs and Snowflake takes for a login.
//!
//! Only External OAuth ties the session to one role. A session that was opened outlives the token, and nothing
//! that Cortex can call ends it: leases say so.

mod claims;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use cortex_core::credential::Revocation;
use cortex_core::jwt::TokenIssuer;
use cortex_core::policy::TargetProblem;
use jiff::SignedDuration;
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::SnowflakeConfig;
use crate::target::{self, Fault, Problems};
use crate::{Ask, BuiltIn, Mint, Plan, Provider, Refusal, local};
use claims::Claims;

/// The longest lifetime of a key-pair token that Snowflake takes.
const KEY_PAIR_MAX: SignedDuration = SignedDuration::from_hours(1);
/// The longest lifetime of the other tokens; they only open a session.
const TOKEN_MAX: SignedDuration = SignedDuration::from_hours(24);
/// Roles that rule an account; External OAuth integrations block them by default, and so does Cortex.
const RESERVED_ROLES: [&str; 4] = ["ACCOUNTADMIN", "ORGADMIN", "GLOBALORGADMIN", "SECURITYADMIN"];

pub(crate) const BUILT_IN: BuiltIn = BuiltIn {
    name: "snowflake",
    schema: || schema_for!(Target),
    check: |value| {
        compile(value).map(|Target { account, user, role, .. }| format!("snowflake:{account}/{user}/{role}"))
    },
};

/// A login to Snowflake as one user with one role.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Target {
    /// The account's identifier, such as `acme-prod`.
    account: String,
    /// The user's login name, as Snowflake has it.
    user: String,
    /// The role, in upper case.
    role: String,
    /// How the user logs in. Default: `oauth`.
    #[serde(default)]
    method: Method,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Method {
    /// External OAuth: the token names the role, and the session has no other.
    #[default]
    Oauth,
    /// Workload identity federation: the session may use every role that is granted to the user.
    WorkloadIdentity,
    /// A key-pair JWT; Cortex's public key is registered at the user. At most one hour. The session may use
    /// every role that is granted to the user, and the key has to be registered anew when Cortex rotates it.
    KeyPair,
}

impl Method {
    fn as_str(self) -> &'static str {
        match self {
            Self::Oauth => "oauth",
            Self::WorkloadIdentity => "workload-identity",
            Self::KeyPair => "key-pair",
        }
    }

    /// What Snowflake's drivers call it.
    fn authenticator(self) -> &'static str {
        match self {
            Self::Oauth => "oauth",
            Self::WorkloadIdentity => "WORKLOAD_IDENTITY",
            Self::KeyPair => "SNOWFLAKE_JWT",
        }
    }

    fn max_ttl(self) -> SignedDuration {
        match self {
            Self::Oauth | Self::WorkloadIdentity => TOKEN_MAX,
            Self::KeyPair => KEY_PAIR_MAX,
        }
    }
}

fn compile(value: &Value) -> Result<Target, Vec<TargetProblem>> {
    let target: Target = target::read(value)?;
    let mut problems = Problems::default();
    problems.take("/account", check_account(&target.account));
    problems.take("/user", check_user(&target.user));
    problems.take("/role", check_role(&target.role));
    problems.finish(Some(target))
}

/// `org-account`, or a locator with its region and cloud; it becomes a host name.
fn check_account(account: &str) -> Result<(), Fault> {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().copied().all(inner)
    };
    if account.len() <= 200 && account.split('.').all(label) {
        return Ok(());
    }
    let message = format!("{account:?} is not an account's identifier");
    Err(Fault::new(message, "write one such as acme-prod or xy12345.eu-central-1"))
}

fn check_user(user: &str) -> Result<(), Fault> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_$.@-".contains(&b);
    if (1..=200).contains(&user.len()) && user.bytes().all(allowed) {
        return Ok(());
    }
    Err(Fault::new(format!("{user:?} is not a login name"), "write 1 to 200 of A-Z a-z 0-9 _ $ . @ -"))
}

/// A role as Snowflake stores it; a quoted one could hold anything, so there is none.
fn check_role(role: &str) -> Result<(), Fault> {
    let allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b'$';
    let starts = role.starts_with(|c: char| c.is_ascii_uppercase() || c == '_');
    if RESERVED_ROLES.contains(&role) {
        return Err(Fault::new(format!("{role} rules the account"), "create a role with what the run needs"));
    }
    if starts && role.len() <= 255 && role.bytes().all(allowed) {
        return Ok(());
    }
    Err(Fault::new(
        format!("{role:?} is not a plain role name"),
        "write it unquoted, in upper case: A-Z 0-9 _ $",
    ))
}

/// Snowflake, configured.
pub(crate) struct Snowflake {
    config: SnowflakeConfig,
    issuer: Arc<TokenIssuer>,
}

impl Snowflake {
    pub(crate) fn new(config: &SnowflakeConfig, issuer: &Arc<TokenIssuer>) -> Self {
        Self { config: config.clone(), issuer: Arc::clone(issuer) }
    }

    /// The host that clients connect to. Snowflake's host names have hyphens for underscores.
    fn host(&self, account: &str) -> String {
        let own = self.config.accounts.get(account).and_then(|own| own.host.clone());
        own.unwrap_or_else(|| {
            format!("{}.{}", account.to_ascii_lowercase().replace('_', "-"), self.config.domain)
        })
    }

    fn oauth_audience(&self, account: &str) -> String {
        let own = self.config.accounts.get(account).and_then(|own| own.oauth_audience.clone());
        own.unwrap_or_else(|| format!("https://{}", self.host(account)))
    }
}

impl<K: 'static> Provider<K> for Snowflake {
    fn plan(&self, ask: &Ask<'_>) -> Result<Plan<K>, Refusal> {
        let target = compile(ask.target)?;
        let (ttl, expires_at) = local::lifetime(ask, target.method.max_ttl())?;
        let key = self.issuer.key();
        let claims = Claims::new(self, &target, &key, ask, expires_at)?;
        let host = self.host(&target.account);
        let scope = json!({
            "account": target.account,
            "user": target.user,
            "role": target.role,
            "method": target.method.as_str(),
            "host": host,
            "ttl_seconds": ttl.as_secs(),
        });
        let details = BTreeMap::from([
            ("account".to_owned(), json!(target.account)),
            ("user".to_owned(), json!(target.user)),
            ("role".to_owned(), json!(target.role)),
            ("authenticator".to_owned(), json!(target.method.authenticator())),
            ("host".to_owned(), json!(host)),
        ]);
        let lease = local::lease(ask, expires_at, Revocation::ExpiryOnly);
        let mint = Mint::Local(Box::new(local::Jwt { key, typ: "JWT", claims, lease, details }));
        let revocation = Revocation::ExpiryOnly;
        Ok(Plan { scope, ttl, worst_case_expiry: expires_at, revocation, mint })
    }
}
