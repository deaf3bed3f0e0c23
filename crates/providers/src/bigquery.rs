//! `BigQuery`: a Google access token through Workload Identity Federation.
//!
//! Cortex's token carries the lease as its subject and the policy's grant as a claim; the pool's provider maps
//! them to `google.subject` and `attribute.grant`, and datasets are bound to the attribute once. So no IAM
//! binding is written for a run, and each of Google's log lines names its lease.

mod call;
mod errors;
mod federation;
mod revoker;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use cortex_core::jwt::{SigningAlgorithm, TokenIssuer};
use cortex_core::policy::TargetProblem;
use jiff::SignedDuration;
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) use revoker::revoker;

use crate::calls::Planned;
use crate::config::BigQueryConfig;
use crate::target::{self, Fault, Problems};
use crate::{Ask, BuiltIn, Mint, Plan, Provider, Refusal, Remote, local};
use federation::{Exchange, Federation, Request};

/// The longest life of a federated token, and the one to reckon with where its answer is lost.
const FEDERATED_MAX: SignedDuration = SignedDuration::from_hours(1);
const SCOPE_PREFIX: &str = "https://www.googleapis.com/auth/";

pub(crate) const BUILT_IN: BuiltIn = BuiltIn {
    name: "bigquery",
    schema: || schema_for!(Target),
    check: |value| compile(value).map(|target| target.resource()),
};

/// A Google access token for one grant in one project.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Target {
    /// The project that queries are billed to.
    project: String,
    /// The value of `attribute.grant` that datasets are bound to.
    grant: String,
    /// The pool's provider, in place of the configured one:
    /// `projects/<number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>`.
    #[serde(default)]
    provider: Option<String>,
    /// A service account to act as. Without one, the federated principal itself is bound to datasets.
    #[serde(default)]
    service_account: Option<String>,
    /// The token's OAuth scopes, without `https://www.googleapis.com/auth/`. Default: `bigquery`.
    #[serde(default = "default_scopes")]
    scopes: Vec<String>,
    /// What the token that is shown to Google is signed with. ES256 costs Cortex a tenth of the time.
    #[serde(default)]
    alg: SigningAlgorithm,
}

fn default_scopes() -> Vec<String> {
    vec!["bigquery".to_owned()]
}

/// A provider of a workload identity pool, by its resource name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolProvider {
    name: String,
    pool: String,
}

impl PoolProvider {
    /// The audience that Google's STS is asked for.
    fn audience(&self) -> String {
        format!("//iam.googleapis.com/{}", self.name)
    }

    /// The audience of the token that is shown: the provider's default.
    fn token_audience(&self) -> String {
        format!("https:{}", self.audience())
    }

    /// The number of the project that the pool is in.
    fn project_number(&self) -> &str {
        self.name.split('/').nth(1).unwrap_or_default()
    }

    /// The principal of a subject in the pool.
    fn principal(&self, subject: &str) -> String {
        format!("principal://iam.googleapis.com/{}/subject/{subject}", self.pool)
    }
}

/// Parses a pool provider's resource name.
pub(crate) fn parse_provider(name: &str) -> Result<PoolProvider, Fault> {
    let id = |id: &str| {
        (4..=32).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let parts: Vec<_> = name.split('/').collect();
    if let ["projects", number, "locations", "global", "workloadIdentityPools", pool, "providers", provider] =
        parts.as_slice()
        && (1..=20).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
        && id(pool)
        && id(provider)
    {
        let pool = format!("projects/{number}/locations/global/workloadIdentityPools/{pool}");
        return Ok(PoolProvider { name: name.to_owned(), pool });
    }
    Err(Fault::new(
        format!("{name:?} is not a workload identity pool's provider"),
        "write projects/<number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>",
    ))
}

/// A target, parsed.
struct Compiled {
    project: String,
    grant: String,
    provider: Option<PoolProvider>,
    service_account: Option<String>,
    scopes: Vec<String>,
    alg: SigningAlgorithm,
}

impl Compiled {
    fn resource(&self) -> String {
        let account = self.service_account.as_ref().map(|account| format!("/{account}"));
        format!("bigquery:{}/{}{}", self.project, self.grant, account.unwrap_or_default())
    }
}

fn compile(value: &Value) -> Result<Compiled, Vec<TargetProblem>> {
    let target: Target = target::read(value)?;
    let mut problems = Problems::default();
    problems.take("/project", check_project(&target.project));
    problems.take("/grant", check_grant(&target.grant));
    let provider = target.provider.as_deref().map(parse_provider);
    let provider = provider.and_then(|provider| problems.take("/provider", provider));
    let account = target.service_account.as_deref();
    problems.take("/service_account", account.map_or(Ok(()), check_service_account));
    problems.count("/scopes", target.scopes.len(), 16);
    for (at, scope) in target.scopes.iter().enumerate().take(16) {
        problems.take(&format!("/scopes/{at}"), check_scope(scope));
    }
    let scopes = target.scopes.iter().map(|scope| format!("{SCOPE_PREFIX}{scope}")).collect();
    let Target { project, grant, service_account, alg, .. } = target;
    problems.finish(Some(Compiled { project, grant, provider, service_account, scopes, alg }))
}

/// A project's id, which older ones have within a domain: `example.com:project`.
fn check_project(project: &str) -> Result<(), Fault> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:".contains(&b);
    let starts = project.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if starts && (6..=94).contains(&project.len()) && project.bytes().all(allowed) {
        return Ok(());
    }
    Err(Fault::new(format!("{project:?} is not a project's id"), "write one such as acme-finance"))
}

/// A grant becomes a part of `principalSet://…/attribute.grant/<grant>`.
fn check_grant(grant: &str) -> Result<(), Fault> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=100).contains(&grant.len()) && grant.bytes().all(allowed) {
        return Ok(());
    }
    Err(Fault::new(format!("{grant:?} is not a grant"), "write 1 to 100 of A-Z a-z 0-9 _ -"))
}

fn check_service_account(email: &str) -> Result<(), Fault> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    let ok = email.len() <= 254
        && email.split_once('@').is_some_and(|(name, domain)| {
            !name.is_empty()
                && name.bytes().all(allowed)
                && domain.bytes().all(allowed)
                && domain.ends_with(".gserviceaccount.com")
        });
    if ok {
        return Ok(());
    }
    let message = format!("{email:?} is not a service account");
    Err(Fault::new(message, "write its address, such as publish@acme-finance.iam.gserviceaccount.com"))
}

fn check_scope(scope: &str) -> Result<(), Fault> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if (1..=64).contains(&scope.len()) && scope.bytes().all(allowed) {
        return Ok(());
    }
    let message = format!("{scope:?} is not the last part of a scope");
    Err(Fault::new(message, "write one such as bigquery, without https://www.googleapis.com/auth/"))
}

/// `BigQuery`, configured.
pub(crate) struct BigQuery {
    shared: Arc<Federation>,
}

impl BigQuery {
    pub(crate) fn new(config: &BigQueryConfig, issuer: &Arc<TokenIssuer>) -> Self {
        Self { shared: Arc::new(Federation::new(config.clone(), Arc::clone(issuer))) }
    }

    fn provider(&self, compiled: &Compiled) -> Result<PoolProvider, Refusal> {
        if let Some(provider) = &compiled.provider {
            return Ok(provider.clone());
        }
        let configured = self.shared.config().provider.as_deref();
        configured.map_or_else(
            || {
                Err(Refusal {
                    message: "No workload identity pool is configured for BigQuery.".into(),
                    remedy:
                        "Write provider into the policy's target, or configure providers.bigquery.provider."
                            .into(),
                })
            },
            |name| parse_provider(name).map_err(Refusal::from),
        )
    }
}

impl<K: 'static> Provider<K> for BigQuery {
    fn plan(&self, ask: &Ask<'_>) -> Result<Plan<K>, Refusal> {
        let compiled = compile(ask.target)?;
        let provider = self.provider(&compiled)?;
        let config = self.shared.config();
        let most = match compiled.service_account {
            Some(_) => config.max_service_account_lifetime,
            None => FEDERATED_MAX,
        };
        let (ttl, _) = local::lifetime(ask, most)?;
        let planned = Planned::new(ask.now);
        // A lost answer may hold a token of whatever lifetime Google chose.
        let worst_case_expiry = match compiled.service_account {
            Some(_) => planned.worst_case(ttl, &config.calls, 2),
            None => planned.worst_case(FEDERATED_MAX, &config.calls, 1),
        };
        let scope = json!({
            "project": compiled.project,
            "grant": compiled.grant,
            "provider": provider.name,
            "service_account": compiled.service_account,
            "scopes": compiled.scopes,
            "ttl_seconds": ttl.as_secs(),
        });
        // Google counts exchanges by the project that the pool is in.
        let account = format!("bigquery/{}", provider.project_number());
        let request = Request {
            issuance_id: ask.issuance_id,
            policy: ask.policy.clone(),
            dag_id: ask.run.dag_id.to_string(),
            run: ask.subject(),
            project: compiled.project,
            grant: compiled.grant,
            provider,
            service_account: compiled.service_account,
            scopes: compiled.scopes,
            ttl,
            planned,
            key: local::signing_key(self.shared.issuer(), compiled.alg)?,
        };
        let revocation = request.revocation();
        let account = self.shared.accounts.get(&account);
        let mint = Exchange { federation: Arc::clone(&self.shared), request };
        let mint = Mint::Remote(Remote::new(account, mint));
        Ok(Plan { scope, ttl, worst_case_expiry, revocation, mint })
    }
}
