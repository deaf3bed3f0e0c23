//! Revoking federated tokens: one IAM deny policy on each project, written by Cortex as a subject of its own pool.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cortex_core::credential::Revocation;
use cortex_core::jwt::TokenIssuer;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::{PoolProvider, parse_provider};
use crate::config::BigQueryConfig;
use crate::revocation::{Enforced, LeftOut, RevokeError, RevokedLease, Revoker, WAYS};

/// The subject that Cortex is in the pool where it revokes; grant it `roles/iam.denyAdmin`.
const SUBJECT: &str = "cortex-revoker";
/// The name of the deny policy, of which Cortex is the only writer.
const POLICY: &str = "cortex-revocations";
/// How many principals one policy names at the most: Google allows 2,500 in all deny policies of a project together.
const MAX_PRINCIPALS: usize = 2_000;
/// Google allows five writes a minute for each project.
const PACE: SignedDuration = SignedDuration::from_secs(15);
/// How long Cortex's own token lives, and how long before its end it is renewed.
const TOKEN_LIFETIME: SignedDuration = SignedDuration::from_mins(10);
const MARGIN: SignedDuration = SignedDuration::from_mins(1);
/// The pause before an operation is asked for again.
const POLL: Duration = Duration::from_millis(500);
/// The largest answer that is read, in bytes: a policy of [`MAX_PRINCIPALS`].
const MAX_ANSWER: usize = 1 << 20;

/// Google's revoker, if one is configured.
pub(crate) fn revoker(config: &BigQueryConfig, issuer: &Arc<TokenIssuer>) -> Option<GoogleRevoker> {
    let provider = config.provider.as_deref().and_then(|name| parse_provider(name).ok());
    let provider = provider.filter(|_| config.revocation.enabled)?;
    Some(GoogleRevoker {
        config: config.clone(),
        provider,
        issuer: Arc::clone(issuer),
        http: OnceCell::new(),
        token: Mutex::default(),
    })
}

/// Who denies federated subjects at Google.
pub(crate) struct GoogleRevoker {
    config: BigQueryConfig,
    provider: PoolProvider,
    issuer: Arc<TokenIssuer>,
    http: OnceCell<Client>,
    token: Mutex<Option<(Zeroizing<String>, Timestamp)>>,
}

/// The claims of the token that Cortex shows to Google's STS for itself.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: String,
    iat: i64,
    exp: i64,
    /// The pool's provider maps it, so it has to be there; no dataset is bound to it.
    grant: &'a str,
}

#[derive(Deserialize)]
struct Exchanged {
    access_token: String,
    expires_in: i64,
}

/// A deny policy (IAM v2), as far as Cortex reads and writes it.
#[derive(Deserialize)]
struct DenyPolicy {
    #[serde(default)]
    etag: String,
    #[serde(default)]
    rules: Vec<Value>,
}

/// A long-running operation.
#[derive(Deserialize)]
struct Operation {
    name: String,
    #[serde(default)]
    done: bool,
    #[serde(default)]
    error: Option<Value>,
}

impl GoogleRevoker {
    async fn http(&self) -> Result<&Client, RevokeError> {
        let limits = &self.config.calls;
        let build = || async {
            Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(limits.connect_timeout.unsigned_abs())
                .timeout(limits.attempt_timeout.unsigned_abs())
                .build()
                .map_err(|_| RevokeError::new("Cortex could not set up its HTTPS client."))
        };
        self.http.get_or_try_init(build).await
    }

    /// A token of Cortex itself, kept while it lives.
    async fn token(&self, now: Timestamp) -> Result<Zeroizing<String>, RevokeError> {
        let kept = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((token, until)) = kept
            && now < until.saturating_sub(MARGIN).unwrap_or(until)
        {
            return Ok(token);
        }
        let (token, until) = self.exchange(now).await?;
        let mut kept = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((token.clone(), until));
        Ok(token)
    }

    async fn exchange(&self, now: Timestamp) -> Result<(Zeroizing<String>, Timestamp), RevokeError> {
        let claims = Claims {
            iss: self.issuer.url(),
            sub: SUBJECT,
            aud: self.provider.token_audience(),
            iat: now.as_second(),
            exp: now.as_second().saturating_add(TOKEN_LIFETIME.as_secs()),
            grant: SUBJECT,
        };
        let token = self.issuer.key().sign("JWT", &claims);
        let token = token.map_err(|_| RevokeError::new("Cortex could not sign the token for Google."))?;
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", &*self.provider.audience()),
            ("scope", "https://www.googleapis.com/auth/cloud-platform"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("subject_token", &token),
        ];
        let request = self.http().await?.post(self.config.token_url()).form(&form);
        let (status, body) = send(request, "Google's STS").await?;
        let answer = serde_json::from_slice::<Exchanged>(&body).ok().filter(|_| status.is_success());
        let answer = answer.ok_or_else(|| {
            RevokeError::new(format!(
                "Google's STS gives this Cortex no token to revoke with: HTTP {status}."
            ))
        })?;
        let until = now.saturating_add(SignedDuration::from_secs(answer.expires_in)).unwrap_or(now);
        Ok((Zeroizing::new(answer.access_token), until))
    }

    async fn deny(
        &self,
        target: &str,
        leases: &[RevokedLease],
        now: Timestamp,
    ) -> Result<Enforced, RevokeError> {
        let token = self.token(now).await?;
        let call = Call { http: self.http().await?, token: &token };
        let attached = format!("cloudresourcemanager.googleapis.com/{target}").replace('/', "%2F");
        let collection = format!("{}/v2/policies/{attached}/denypolicies", self.config.iam_url());
        let policy = format!("{collection}/{POLICY}");
        let current = call.get(&policy).await?;
        let (named, rest) = leases.split_at(leases.len().min(MAX_PRINCIPALS));
        let principals: BTreeSet<&str> = named.iter().filter_map(principal).collect();
        let is_so = current.as_ref().is_some_and(|current| denied(&current.rules) == principals);
        let operation = match &current {
            None if principals.is_empty() => return Ok(Enforced::default()),
            Some(_) if is_so => None,
            Some(current) if principals.is_empty() => {
                Some(call.change(call.http.delete(with(&policy, "etag", &current.etag)?)).await?)
            }
            Some(current) => {
                let body = self.document(&principals, Some(&current.etag));
                Some(call.change(call.http.put(&policy).json(&body)).await?)
            }
            None => {
                let create = call.http.post(with(&collection, "policyId", POLICY)?);
                Some(call.change(create.json(&self.document(&principals, None))).await?)
            }
        };
        let operation = match operation {
            Some(operation) => Some(call.done(&self.config.iam_url(), operation).await?),
            None => None,
        };
        let evidence = json!({
            "by": "google_deny",
            "policy": format!("{target}/denypolicies/{POLICY}"),
            "operation": operation,
            "delay": WAYS.iter().find(|way| way.by == "google_deny").map(|way| way.delay),
        });
        Ok(Enforced { evidence, left_out: left_out(rest) })
    }

    fn document(&self, principals: &BTreeSet<&str>, etag: Option<&str>) -> Value {
        let mut document = json!({
            "displayName": "Revoked by Cortex",
            "rules": [{
                "description": "Leases that Cortex has revoked and that have not expired",
                "denyRule": {
                    "deniedPrincipals": principals,
                    "deniedPermissions": self.config.revocation.denied_permissions,
                },
            }],
        });
        if let Some(etag) = etag {
            document["etag"] = json!(etag);
        }
        document
    }
}

fn with(url: &str, name: &str, value: &str) -> Result<Url, RevokeError> {
    Url::parse_with_params(url, [(name, value)])
        .map_err(|_| RevokeError::new("providers.bigquery.revocation.endpoint is not a URL."))
}

fn principal(lease: &RevokedLease) -> Option<&str> {
    match &lease.means {
        Revocation::GoogleDeny { principal, .. } => Some(principal),
        Revocation::AwsDeny { .. } | Revocation::Introspection | Revocation::ExpiryOnly => None,
    }
}

fn denied(rules: &[Value]) -> BTreeSet<&str> {
    let lists = rules.iter().filter_map(|rule| rule.pointer("/denyRule/deniedPrincipals")?.as_array());
    lists.flatten().filter_map(Value::as_str).collect()
}

fn left_out(rest: &[RevokedLease]) -> LeftOut {
    let why = format!(
        "the project's deny policy names {MAX_PRINCIPALS} leases that were revoked later, and no more fit"
    );
    LeftOut { issuances: rest.iter().map(|lease| lease.issuance_id).collect(), why }
}

/// A call to IAM in the name of Cortex.
struct Call<'a> {
    http: &'a Client,
    token: &'a str,
}

impl Call<'_> {
    async fn get(&self, url: &str) -> Result<Option<DenyPolicy>, RevokeError> {
        let (status, body) = self.send(self.http.get(url)).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => read(&body).map(Some),
            status => Err(refused(status)),
        }
    }

    async fn change(&self, request: RequestBuilder) -> Result<Operation, RevokeError> {
        let (status, body) = self.send(request).await?;
        if status.is_success() { read(&body) } else { Err(refused(status)) }
    }

    /// Waits for the end of an operation: only then is the policy in place. Answers the operation's name.
    async fn done(&self, base: &str, operation: Operation) -> Result<String, RevokeError> {
        let mut operation = operation;
        while !operation.done {
            tokio::time::sleep(POLL).await;
            let (status, body) = self.send(self.http.get(format!("{base}/v2/{}", operation.name))).await?;
            operation = if status.is_success() { read(&body)? } else { return Err(refused(status)) };
        }
        match operation.error {
            None => Ok(operation.name),
            Some(_) => Err(RevokeError::new("Google could not change the deny policy.")),
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), RevokeError> {
        send(request.bearer_auth(self.token), "Google's IAM").await
    }
}

async fn send(request: RequestBuilder, service: &str) -> Result<(StatusCode, Vec<u8>), RevokeError> {
    let failed = |what: &str| RevokeError::new(format!("{service} {what}."));
    let mut response = request.send().await.map_err(|error| {
        failed(if error.is_connect() { "could not be reached" } else { "did not answer in time" })
    })?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| failed("gave only a part of an answer"))? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(failed("gave an answer that is too large"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((response.status(), body))
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, RevokeError> {
    serde_json::from_slice(body)
        .map_err(|_| RevokeError::new("Google's IAM gave an answer that cannot be read."))
}

/// What a failure means; Google's own text is not passed on.
fn refused(status: StatusCode) -> RevokeError {
    match status {
        StatusCode::TOO_MANY_REQUESTS => RevokeError {
            message: "Google's IAM is throttling this project.".to_owned(),
            retry_after: Some(PACE),
        },
        StatusCode::FORBIDDEN => RevokeError::new(format!(
            "Google's IAM denies this Cortex: grant roles/iam.denyAdmin to the subject {SUBJECT} of its pool."
        )),
        StatusCode::CONFLICT => RevokeError::new("The deny policy was changed at the same time."),
        status => RevokeError::new(format!("Google's IAM answered HTTP {}.", status.as_u16())),
    }
}

#[async_trait]
impl Revoker for GoogleRevoker {
    async fn enforce(
        &self,
        target: &str,
        leases: &[RevokedLease],
        now: Timestamp,
    ) -> Result<Enforced, RevokeError> {
        self.deny(target, leases, now).await
    }

    fn patience(&self) -> SignedDuration {
        self.config.calls.revocation()
    }

    fn pace(&self) -> SignedDuration {
        PACE
    }
}
