//! AWS: a session of one role, cut down by a session policy to what one run may do.
//!
//! `web-identity` shows STS a token that Cortex signs, so that no static secret exists anywhere;
//! `assume-role` uses Cortex's own ambient credentials. Either way the session's name, its source identity and
//! its tag `lease` lead from AWS's logs back to the issuance.

mod arn;
mod deny;
mod errors;
mod iam;
mod revoker;
mod session;
mod session_policy;
mod signature;
mod sts;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use cortex_core::credential::Revocation;
use cortex_core::jwt::{SigningAlgorithm, TokenIssuer};
use cortex_core::policy::TargetProblem;
use cortex_core::template::Template;
use jiff::SignedDuration;
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) use arn::{is_external_id, is_region, partition_of};
pub(crate) use revoker::revoker;
pub(crate) use signature::{Unsigned, own_credentials};

use crate::calls::Planned;
use crate::config::AwsConfig;
use crate::target::{self, Fault, Problems, bounded_template, escape};
use crate::{Ask, BuiltIn, Mint, Plan, Provider, Refusal, Remote, local};
use arn::{RoleArn, is_word};
use session::{Method, Request};
use session_policy::{Allow, MAX_PLAIN, Rules, too_large};

/// AWS's shortest session (`AssumeRole`, `DurationSeconds`).
const MIN_TTL: SignedDuration = SignedDuration::from_secs(900);
/// AWS's longest session, if the role allows it.
const MAX_TTL: SignedDuration = SignedDuration::from_secs(43_200);
/// The session tag that carries the issuance's id; revocation denies by it.
const LEASE_TAG: &str = "lease";
/// The tags that Cortex sets itself.
const OWN_TAGS: [&str; 3] = [LEASE_TAG, "dag_id", "policy"];
/// AWS's limit of 50 session tags, less Cortex's own.
const MAX_TAGS: usize = 50 - OWN_TAGS.len();

pub(crate) const BUILT_IN: BuiltIn = BuiltIn {
    name: "aws",
    schema: || schema_for!(Target),
    check: |value| compile(value).map(|compiled| format!("aws:{}", compiled.role)),
};

/// A session of an AWS role, limited to `allow`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Target {
    /// The role's ARN, in full.
    role: String,
    /// What a run may do with it; the role has to allow it too. It becomes the session policy.
    allow: Vec<Allow>,
    /// The region whose STS is called and that clients are told. Default: the configured one.
    #[serde(default)]
    region: Option<String>,
    /// Further session tags: name to value. Values may have holes such as `{team}`.
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// How the role is assumed. Default: `web-identity`.
    #[serde(default)]
    method: MethodName,
    /// The external id that the role's trust policy demands; for `assume-role` only.
    #[serde(default)]
    external_id: Option<String>,
    /// What the token that is shown to STS is signed with; for `web-identity` only. ES256 costs Cortex a tenth of the time.
    /// Default: RS256.
    #[serde(default)]
    alg: Option<SigningAlgorithm>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum MethodName {
    /// `AssumeRoleWithWebIdentity`: Cortex is an OIDC provider in the account.
    #[default]
    WebIdentity,
    /// `AssumeRole` from the credentials that Cortex itself runs with.
    AssumeRole,
}

/// A target, parsed.
struct Compiled {
    role: RoleArn,
    rules: Rules,
    region: Option<String>,
    tags: BTreeMap<String, Template>,
    method: MethodName,
    external_id: Option<String>,
    alg: SigningAlgorithm,
}

fn compile(value: &Value) -> Result<Compiled, Vec<TargetProblem>> {
    let target: Target = target::read(value)?;
    let mut problems = Problems::default();
    let role = problems.take("/role", RoleArn::parse(&target.role));
    let partition = role.as_ref().map(RoleArn::partition);
    let rules = Rules::parse(&target.allow, partition, &mut problems);
    let region = target.region.as_deref();
    problems.take("/region", region.map_or(Ok(()), |region| check_region(region, partition)));
    let tags = compile_tags(&target.tags, &mut problems);
    let external_id = target.external_id.as_deref();
    problems.take("/external_id", external_id.map_or(Ok(()), |id| check_external_id(id, target.method)));
    problems.take("/alg", check_alg(target.alg, target.method));
    let Target { region, method, external_id, alg, .. } = target;
    let alg = alg.unwrap_or_default();
    problems.finish(role.map(|role| Compiled { role, rules, region, tags, method, external_id, alg }))
}

fn check_region(region: &str, partition: Option<&str>) -> Result<(), Fault> {
    if !is_region(region) {
        return Err(Fault::new(format!("{region:?} is not a region"), "write one such as eu-west-1"));
    }
    match partition {
        Some(partition) if partition_of(region) != partition => Err(Fault::new(
            format!("{region:?} is not in the partition {partition} of the role"),
            "write a region of the role's partition",
        )),
        _ => Ok(()),
    }
}

fn check_external_id(id: &str, method: MethodName) -> Result<(), Fault> {
    if method == MethodName::WebIdentity {
        let message = "an external id has no meaning for method web-identity";
        return Err(Fault::new(message, "remove it, or write method: assume-role"));
    }
    if is_external_id(id) {
        return Ok(());
    }
    Err(Fault::new("the external id is not one", "write 2 to 1224 of A-Z a-z 0-9 _ + = , . @ : / -"))
}

fn check_alg(alg: Option<SigningAlgorithm>, method: MethodName) -> Result<(), Fault> {
    if alg.is_some() && method == MethodName::AssumeRole {
        let message = "alg has no meaning for method assume-role, which shows no token";
        return Err(Fault::new(message, "remove it, or write method: web-identity"));
    }
    Ok(())
}

fn compile_tags(tags: &BTreeMap<String, String>, problems: &mut Problems) -> BTreeMap<String, Template> {
    if tags.len() > MAX_TAGS {
        let message = format!("there are {} tags", tags.len());
        problems.add("/tags", Fault::new(message, format!("write at most {MAX_TAGS}; AWS takes 50")));
    }
    let mut compiled = BTreeMap::new();
    let mut seen: Vec<String> = Vec::new();
    for (key, value) in tags.iter().take(MAX_TAGS) {
        let pointer = format!("/tags/{}", escape(key));
        problems.take(&pointer, check_tag_key(key, &seen));
        seen.push(key.to_ascii_lowercase());
        let fits = value.len() <= 256 && value.bytes().all(|b| is_tag(b) || b"{}".contains(&b));
        if !fits {
            let message = "the tag's value has characters that AWS refuses, or more than 256";
            problems.add(&pointer, Fault::new(message, "use A-Z a-z 0-9, spaces and _ . : / = + - @"));
        } else if let Some(template) = problems.take(&pointer, bounded_template(value)) {
            compiled.insert(key.clone(), template);
        }
    }
    compiled
}

fn check_tag_key(key: &str, seen: &[String]) -> Result<(), Fault> {
    let lower = key.to_ascii_lowercase();
    if OWN_TAGS.contains(&lower.as_str()) {
        return Err(Fault::new(format!("Cortex sets the tag {lower} itself"), "choose another name"));
    }
    if seen.contains(&lower) {
        return Err(Fault::new("AWS does not tell tags apart by case", "choose another name"));
    }
    if lower.starts_with("aws:") || !(1..=128).contains(&key.len()) || !key.bytes().all(is_tag) {
        let message = format!("{key:?} is not a tag's name");
        return Err(Fault::new(
            message,
            "use 1 to 128 of A-Z a-z 0-9, spaces and _ . : / = + - @, not aws: first",
        ));
    }
    Ok(())
}

/// The ASCII part of what AWS takes in tags: `[\p{L}\p{Z}\p{N}_.:/=+\-@]`.
fn is_tag(byte: u8) -> bool {
    is_word(byte) || b" .:/=+-@".contains(&byte)
}

/// AWS, configured.
pub(crate) struct Aws {
    shared: Arc<sts::Sts>,
}

impl Aws {
    pub(crate) fn new(config: &AwsConfig, issuer: &Arc<TokenIssuer>) -> Self {
        Self { shared: Arc::new(sts::Sts::new(config.clone(), Arc::clone(issuer))) }
    }

    fn config(&self) -> &AwsConfig {
        self.shared.config()
    }

    /// The region of a target; one of another partition cannot be right.
    fn region(&self, compiled: &Compiled) -> Result<String, Refusal> {
        let region = compiled.region.as_ref().unwrap_or(&self.config().region);
        let partition = compiled.role.partition();
        if partition_of(region) == partition {
            return Ok(region.clone());
        }
        Err(refusal(
            format!("The role is in {partition} and the region {region} is not."),
            "Write a region of the role's partition into the policy's target.",
        ))
    }

    fn method(&self, compiled: &Compiled) -> Result<Method, Refusal> {
        match compiled.method {
            MethodName::WebIdentity => {
                Ok(Method::WebIdentity(local::signing_key(self.shared.issuer(), compiled.alg)?))
            }
            MethodName::AssumeRole => {
                let external_id = compiled.external_id.as_ref().or(self.config().external_id.as_ref());
                let external_id = external_id.cloned().ok_or_else(|| {
                    refusal(
                        "The target assumes a role without an external id.".to_owned(),
                        "Write external_id into the target, or configure providers.aws.external_id, and demand it in the role's trust policy.",
                    )
                })?;
                Ok(Method::AssumeRole { external_id })
            }
        }
    }
}

impl<K: 'static> Provider<K> for Aws {
    fn plan(&self, ask: &Ask<'_>) -> Result<Plan<K>, Refusal> {
        let compiled = compile(ask.target).map_err(Refusal::from)?;
        let ttl = lifetime(ask)?;
        let region = self.region(&compiled)?;
        let method = self.method(&compiled)?;
        let policy = compiled.rules.render(ask.run)?;
        let policy_text =
            policy.text().map_err(|error| refusal(error.to_string(), "Report this as a defect."))?;
        if policy_text.len() > MAX_PLAIN {
            return Err(too_large(policy_text.len()).into());
        }
        let tags = tags(&compiled, ask)?;
        let subject = ask.subject();
        let session_name = session::name(ask.run);
        let scope = json!({
            "role": compiled.role.as_str(),
            "region": region,
            "method": method.as_str(),
            "session_name": session_name,
            "session_policy": policy,
            "tags": tags,
            "ttl_seconds": ttl.as_secs(),
        });
        let planned = Planned::new(ask.now);
        // AWS counts calls of STS by account and region.
        let account = format!("aws/{}/{region}", compiled.role.account());
        let revocation = Revocation::AwsDeny { role_arn: compiled.role.to_string() };
        let request = Request {
            issuance_id: ask.issuance_id,
            role: compiled.role,
            region,
            session_name,
            policy: policy_text,
            tags,
            ttl,
            subject,
            method,
            planned,
        };
        let worst_case_expiry = planned.worst_case(ttl, &self.config().calls, 1);
        let mint = sts::AssumeRole { sts: Arc::clone(&self.shared), request };
        let mint = Mint::Remote(Remote::new(self.shared.accounts.get(&account), mint));
        Ok(Plan { scope, ttl, worst_case_expiry, revocation, mint })
    }
}

/// The lifetime within AWS's limits: a shorter wish is raised to AWS's minimum, a lower ceiling is refused.
fn lifetime(ask: &Ask<'_>) -> Result<SignedDuration, Refusal> {
    if ask.max_ttl < MIN_TTL {
        return Err(refusal(
            format!(
                "The policy allows {} seconds; AWS makes no session of less than 900.",
                ask.max_ttl.as_secs()
            ),
            "Raise the policy's max_ttl to 15m or more; a revocation ends a session sooner.",
        ));
    }
    Ok(ask.ttl().clamp(MIN_TTL, MAX_TTL))
}

/// The session tags without the lease's: part of the scope, so nothing in them changes from mint to mint.
fn tags(compiled: &Compiled, ask: &Ask<'_>) -> Result<BTreeMap<String, String>, Refusal> {
    let mut tags = BTreeMap::new();
    tags.insert("dag_id".to_owned(), ask.run.dag_id.to_string());
    tags.insert("policy".to_owned(), ask.policy.to_string());
    for (key, template) in &compiled.tags {
        tags.insert(key.clone(), template.fill(ask.run, is_tag)?);
    }
    let fault = tags.iter().find(|(_, value)| value.len() > 256 || !value.bytes().all(is_tag));
    match fault {
        None => Ok(tags),
        Some((key, _)) => Err(refusal(
            format!("The session tag {key} would have a value that AWS refuses."),
            "AWS takes 256 of A-Z a-z 0-9, spaces and _ . : / = + - @ in a tag: rename what it is made of.",
        )),
    }
}

fn refusal(message: String, remedy: &str) -> Refusal {
    Refusal { message, remedy: remedy.to_owned() }
}
