//! The exchange of Cortex's token for Google's, and of that for a service account's.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use cortex_core::credential::Revocation;
use cortex_core::jwt::{SigningKey, TokenIssuer};
use cortex_core::{Body, Digest, IssuanceId, Lease, Minted, PolicyName, Secret};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::PoolProvider;
use super::call::Google;
use super::errors::Step;
use crate::account::{Accounts, Limits, Pass};
use crate::calls::{Planned, add, check_expiry};
use crate::config::BigQueryConfig;
use crate::{MintError, RemoteMint};

const JWT_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";
const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
/// What a federated token needs to act as a service account.
const IMPERSONATION_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// How long Cortex's token lives where it only opens the way to a service account. Google's federated token
/// ends with it.
const STEP_LIFETIME: SignedDuration = SignedDuration::from_mins(5);
/// Google's limit on an access token, in bytes.
const MAX_TOKEN: usize = 12_288;

/// One token, asked for.
pub(super) struct Request {
    pub(super) issuance_id: IssuanceId,
    pub(super) policy: PolicyName,
    pub(super) dag_id: String,
    /// The run as one string.
    pub(super) run: String,
    pub(super) project: String,
    pub(super) grant: String,
    pub(super) provider: PoolProvider,
    pub(super) service_account: Option<String>,
    pub(super) scopes: Vec<String>,
    pub(super) ttl: SignedDuration,
    pub(super) planned: Planned,
    pub(super) key: Arc<SigningKey>,
}

/// What the pool's provider maps: `google.subject` from `sub`, `attribute.grant` from `grant`.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    /// The lease, so that Google's logs and a deny policy name this one.
    sub: String,
    aud: String,
    iat: i64,
    exp: i64,
    jti: String,
    grant: &'a str,
    policy: &'a PolicyName,
    dag_id: &'a str,
    run: &'a str,
}

/// A token of RFC 8693, section 2.2.1.
#[derive(Deserialize)]
struct Exchanged {
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    issued_token_type: String,
    #[serde(default)]
    token_type: String,
    #[serde(default)]
    expires_in: Option<i64>,
}

/// The body of `generateAccessToken`.
#[derive(Serialize)]
struct GenerateAccessToken<'a> {
    scope: &'a [String],
    lifetime: String,
}

/// What `generateAccessToken` answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Generated {
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expire_time: Option<Timestamp>,
}

/// An access token and its end, as Google said it.
struct Token {
    text: Zeroizing<String>,
    expires_at: Timestamp,
}

/// Google's token services, as one Cortex calls them.
pub(super) struct Federation {
    config: BigQueryConfig,
    issuer: Arc<TokenIssuer>,
    google: Google,
    pub(super) accounts: Accounts,
}

impl Federation {
    pub(super) fn new(config: BigQueryConfig, issuer: Arc<TokenIssuer>) -> Self {
        let google = Google::new(config.calls.clone());
        let accounts = Accounts::new(Limits {
            provider: "bigquery",
            per_second: config.max_calls_per_second,
            at_once: config.max_concurrent_calls,
            breaker: config.breaker.clone(),
        });
        Self { config, issuer, google, accounts }
    }

    pub(super) fn issuer(&self) -> &TokenIssuer {
        &self.issuer
    }

    pub(super) fn config(&self) -> &BigQueryConfig {
        &self.config
    }

    fn subject_token(
        &self,
        request: &Request,
        lifetime: SignedDuration,
    ) -> Result<Zeroizing<String>, MintError> {
        let now = request.planned.now().as_second();
        let claims = Claims {
            iss: self.issuer.url(),
            sub: request.issuance_id.to_string(),
            aud: request.provider.token_audience(),
            iat: now,
            exp: now.saturating_add(lifetime.as_secs()),
            jti: request.issuance_id.to_string(),
            grant: &request.grant,
            policy: &request.policy,
            dag_id: &request.dag_id,
            run: &request.run,
        };
        request.key.sign("JWT", &claims).map_err(|error| MintError::Unavailable {
            message: format!("Cortex could not sign the token for Google: {error}."),
            retry_after: None,
        })
    }

    /// Exchanges a token of Cortex for a federated one, which ends when Cortex's does.
    async fn exchange(
        &self,
        request: &Request,
        scope: &str,
        lifetime: SignedDuration,
        pass: &Pass,
    ) -> Result<Token, MintError> {
        let subject_token = self.subject_token(request, lifetime)?;
        let audience = request.provider.audience();
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", &audience),
            ("scope", scope),
            ("requested_token_type", ACCESS_TOKEN_TYPE),
            ("subject_token_type", JWT_TYPE),
            ("subject_token", &subject_token),
        ];
        let url = self.config.token_url();
        let answer: Exchanged = self
            .google
            .post(pass, request.issuance_id, Step::Exchange, |http| http.post(&url).form(&form))
            .await?;
        let now = request.planned.now();
        let text = Zeroizing::new(answer.access_token);
        let expires_at = answer.expires_in.map(|seconds| add(now, SignedDuration::from_secs(seconds)));
        let bearer =
            answer.token_type.eq_ignore_ascii_case("Bearer") && answer.issued_token_type == ACCESS_TOKEN_TYPE;
        if !bearer {
            return Err(mismatch("Google answered with another kind of token than was asked", expires_at));
        }
        Token::checked(text, expires_at, now, lifetime)
    }

    /// Gets a service account's token with a federated one.
    async fn impersonate(
        &self,
        request: &Request,
        account: &str,
        federated: &Token,
        pass: &Pass,
    ) -> Result<Token, MintError> {
        let base = self.config.iam_credentials_url();
        let url = format!("{base}/v1/projects/-/serviceAccounts/{account}:generateAccessToken");
        let lifetime = format!("{}s", request.ttl.as_secs());
        let body = GenerateAccessToken { scope: &request.scopes, lifetime };
        let post = |http: &reqwest::Client| http.post(&url).bearer_auth(federated.text.as_str()).json(&body);
        let answer: Generated = self.google.post(pass, request.issuance_id, Step::Impersonate, post).await?;
        let text = Zeroizing::new(answer.access_token);
        Token::checked(text, answer.expire_time, request.planned.now(), request.ttl)
    }
}

impl Token {
    fn checked(
        text: Zeroizing<String>,
        expires_at: Option<Timestamp>,
        now: Timestamp,
        ttl: SignedDuration,
    ) -> Result<Self, MintError> {
        // RFC 6750, section 2.1: what a client can send as a bearer token.
        let sendable = (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if !sendable {
            return Err(mismatch("Google answered without a usable token", expires_at));
        }
        let expires_at =
            expires_at.ok_or_else(|| mismatch("Google answered a token without an expiry", None))?;
        check_expiry(expires_at, now, ttl)?;
        Ok(Self { text, expires_at })
    }
}

fn mismatch(what: &str, expires_at: Option<Timestamp>) -> MintError {
    MintError::Mismatch { message: format!("{what}; the credential was withheld."), expires_at }
}

/// One token to be minted.
pub(super) struct Exchange {
    pub(super) federation: Arc<Federation>,
    pub(super) request: Request,
}

#[async_trait]
impl<K> RemoteMint<K> for Exchange {
    async fn mint(self: Box<Self>, pass: &Pass) -> Result<Minted<K>, MintError> {
        let Self { federation, request } = *self;
        request.planned.fresh()?;
        let token = match &request.service_account {
            None => federation.exchange(&request, &request.scopes.join(" "), request.ttl, pass).await?,
            Some(account) => {
                let federated =
                    federation.exchange(&request, IMPERSONATION_SCOPE, STEP_LIFETIME, pass).await?;
                federation.impersonate(&request, account, &federated, pass).await?
            }
        };
        Ok(request.seal(token))
    }
}

impl Request {
    /// How the token can be ended before it expires.
    pub(super) fn revocation(&self) -> Revocation {
        match self.service_account {
            // Denying the federated subject does not reach a token that acts as the service account.
            Some(_) => Revocation::ExpiryOnly,
            None => Revocation::GoogleDeny {
                principal: self.provider.principal(&self.issuance_id.to_string()),
                project: self.project.clone(),
            },
        }
    }

    fn seal<K>(&self, token: Token) -> Minted<K> {
        let lease = Lease {
            issuance_id: self.issuance_id,
            expires_at: token.expires_at,
            credential_id: Digest::of(token.text.as_bytes()).to_string(),
            provider_request_id: None,
            revocation: self.revocation(),
            facts: BTreeMap::from([(
                "subject".to_owned(),
                json!(self.provider.principal(&self.issuance_id.to_string())),
            )]),
        };
        Minted { secret: Secret::seal(Body::Token(token.text)), lease, details: self.details() }
    }

    fn details(&self) -> BTreeMap<String, Value> {
        let mut details = BTreeMap::from([
            ("project".to_owned(), json!(self.project)),
            ("token_type".to_owned(), json!("Bearer")),
        ]);
        if let Some(account) = &self.service_account {
            details.insert("service_account".to_owned(), json!(account));
        }
        details
    }
}
