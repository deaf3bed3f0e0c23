//! Private HTTP APIs: a JWT access token (RFC 9068) that Cortex signs.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use cortex_core::PolicyName;
use cortex_core::credential::Revocation;
use cortex_core::jwt::{SigningAlgorithm, TokenIssuer};
use cortex_core::policy::TargetProblem;
use jiff::SignedDuration;
use reqwest::Url;
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::ProvidersConfig;
use crate::target::{self, Fault, Problems};
use crate::{Ask, BuiltIn, Mint, Plan, Provider, Refusal, local};

/// The longest lifetime of an access token.
const MAX_TTL: SignedDuration = SignedDuration::from_hours(24);

pub(crate) const BUILT_IN: BuiltIn = BuiltIn {
    name: "api",
    schema: || schema_for!(Target),
    check: |value| compile(value).map(|target| format!("api:{}", target.audience)),
};

/// An access token for one private API.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Target {
    /// The API: one absolute URI without a fragment (RFC 8707), which it finds in `aud`.
    audience: String,
    /// What the token is good for, in the API's own words. None: the token has no scope.
    #[serde(default)]
    scopes: Vec<String>,
    /// What the token is signed with. ES256 costs Cortex a tenth of the time; the API has to take it.
    #[serde(default)]
    alg: SigningAlgorithm,
}

/// The claims of RFC 9068, section 2.2, and who runs.
#[derive(Serialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    /// The DAG is the client: `<issuer's name>:<dag_id>`.
    client_id: String,
    iat: i64,
    exp: i64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    dag_id: String,
    run_id: String,
    task_id: String,
    policy: PolicyName,
}

fn compile(value: &Value) -> Result<Target, Vec<TargetProblem>> {
    let target: Target = target::read(value)?;
    let mut problems = Problems::default();
    problems.take("/audience", check_audience(&target.audience));
    for (at, scope) in target.scopes.iter().enumerate() {
        problems.take(&format!("/scopes/{at}"), check_scope(scope));
    }
    if target.scopes.len() > 64 {
        problems.add("/scopes", Fault::new("there are more than 64 scopes", "write fewer"));
    }
    problems.finish(Some(target))
}

/// A scope token of RFC 6749, section 3.3.
fn check_scope(scope: &str) -> Result<(), Fault> {
    let allowed = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    if (1..=128).contains(&scope.len()) && scope.bytes().all(allowed) {
        return Ok(());
    }
    Err(Fault::new(
        format!("{scope:?} is not a scope"),
        "write 1 to 128 of printable ASCII without spaces, \" and \\",
    ))
}

fn check_audience(audience: &str) -> Result<(), Fault> {
    let bad = |why: &str, remedy: &str| Err(Fault::new(format!("{audience:?} {why}"), remedy));
    let example = "write an absolute URI, such as https://payments.internal.example";
    let graphic = (1..=255).contains(&audience.len()) && audience.bytes().all(|b| b.is_ascii_graphic());
    let Some(url) = Url::parse(audience).ok().filter(|_| graphic) else {
        return bad("is not an absolute URI of at most 255 characters", example);
    };
    if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return bad("has a fragment, a user or a password", example);
    }
    // APIs compare letter by letter, so a spelling that a parser would change is nobody's name.
    let canonical = url.as_str() == audience || url.as_str().strip_suffix('/') == Some(audience);
    if !canonical {
        return bad(
            "has another spelling of the same URI",
            "write it in lower case and without dot segments or default ports",
        );
    }
    if is_clouds(&url) {
        return bad(
            "is an audience of a cloud, which would take the token for a login",
            "use that cloud's own target",
        );
    }
    Ok(())
}

/// Whether a cloud that trusts Cortex as an issuer could take `url` for itself. An API behind AWS's gateway
/// (`execute-api`) is a private API all the same.
fn is_clouds(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_else(|| url.path()).trim_matches('.').to_ascii_lowercase();
    let within =
        |domain: &str| host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    let aws = within("amazonaws.com") || within("amazonaws.com.cn") || within("amazonaws.eu");
    let sts = aws && host.split('.').any(|label| label == "sts" || label == "sts-fips" || label == "tokens");
    let google = within("googleapis.com") || within("gserviceaccount.com");
    let snowflake = ["com", "cn", "mil"].iter().any(|top| within(&format!("snowflakecomputing.{top}")));
    sts || google || snowflake
}

/// Private APIs, configured.
pub(crate) struct Api {
    reserved: Vec<String>,
    issuer: Arc<TokenIssuer>,
}

impl Api {
    /// The other providers' audiences are reserved too, so the whole configuration is read.
    pub(crate) fn new(config: &ProvidersConfig, issuer: &Arc<TokenIssuer>) -> Self {
        let mut reserved = config.reserved_audiences();
        reserved.push(issuer.url().to_owned());
        Self { reserved, issuer: Arc::clone(issuer) }
    }

    fn check_reserved(&self, audience: &str) -> Result<(), Refusal> {
        if self.reserved.iter().any(|reserved| is_below(audience, reserved)) {
            return Err(Refusal {
                message: format!(
                    "{audience} is reserved: a token for it would open something else than a private API."
                ),
                remedy: "An admin has to give the API an audience of its own.".into(),
            });
        }
        Ok(())
    }
}

/// Whether `audience` is `reserved` or a path below it.
fn is_below(audience: &str, reserved: &str) -> bool {
    let rest = audience.strip_prefix(reserved.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

impl<K: 'static> Provider<K> for Api {
    fn plan(&self, ask: &Ask<'_>) -> Result<Plan<K>, Refusal> {
        let target = compile(ask.target)?;
        self.check_reserved(&target.audience)?;
        let (ttl, expires_at) = local::lifetime(ask, MAX_TTL)?;
        let scope = Some(target.scopes.join(" ")).filter(|scope| !scope.is_empty());
        let claims = Claims {
            iss: self.issuer.url().to_owned(),
            sub: ask.subject(),
            aud: target.audience.clone(),
            client_id: format!("{}:{}", ask.run.issuer, ask.run.dag_id),
            iat: ask.now.as_second(),
            exp: expires_at.as_second(),
            jti: ask.issuance_id.to_string(),
            scope: scope.clone(),
            dag_id: ask.run.dag_id.to_string(),
            run_id: ask.run.run_id.to_string(),
            task_id: ask.run.task_id.to_string(),
            policy: ask.policy.clone(),
        };
        let details = BTreeMap::from([
            ("audience".to_owned(), json!(target.audience)),
            ("scope".to_owned(), json!(scope)),
            ("token_type".to_owned(), json!("Bearer")),
        ]);
        let rendered = json!({ "audience": target.audience, "scope": scope, "ttl_seconds": ttl.as_secs() });
        let lease = local::lease(ask, expires_at, Revocation::Introspection);
        let key = local::signing_key(&self.issuer, target.alg)?;
        let mint = Mint::Local(Box::new(local::Jwt { key, typ: "at+jwt", claims, lease, details }));
        let revocation = Revocation::Introspection;
        Ok(Plan { scope: rendered, ttl, worst_case_expiry: expires_at, revocation, mint })
    }
}
