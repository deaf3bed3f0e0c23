//! The calls to AWS's STS.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sts::Client;
use aws_sdk_sts::config::retry::RetryConfig;
use aws_sdk_sts::config::timeout::TimeoutConfig;
use aws_sdk_sts::operation::RequestId as _;
use aws_sdk_sts::types::{AssumedRoleUser, Credentials, Tag};
use cortex_core::Minted;
use cortex_core::jwt::{SigningKey, TokenIssuer};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::LEASE_TAG;
use super::errors::classify;
use super::session::{Answer, Method, Request};
use super::signature::own_credentials;
use crate::account::{Accounts, Limits, Pass};
use crate::calls::{Attempt, with_retries};
use crate::config::AwsConfig;
use crate::{MintError, RemoteMint};

/// Reads the answer of either call: the SDK has a type for each, with the same members.
macro_rules! answer {
    ($output:expr) => {{
        let output = $output;
        #[expect(deprecated, reason = "AWS still answers it, and its documentation tells people to watch it")]
        let packed_policy_size = output.packed_policy_size();
        Answer {
            source_identity: output.source_identity().map(str::to_owned),
            packed_policy_size,
            session_token_size: output.session_token_size(),
            session_token_utilization: output.session_token_utilization(),
            request_id: output.request_id().map(str::to_owned),
            ..Answer::default()
        }
        .with(output.credentials(), output.assumed_role_user())
    }};
}

/// STS, as one Cortex calls it: a client for each region, made at its first use.
pub(super) struct Sts {
    config: AwsConfig,
    issuer: Arc<TokenIssuer>,
    pub(super) accounts: Accounts,
    clients: Mutex<HashMap<(String, bool), Client>>,
    ambient: OnceCell<SharedCredentialsProvider>,
}

impl Sts {
    pub(super) fn new(config: AwsConfig, issuer: Arc<TokenIssuer>) -> Self {
        let accounts = Accounts::new(Limits {
            provider: "aws",
            per_second: config.max_calls_per_second,
            at_once: config.max_concurrent_calls,
            breaker: config.breaker.clone(),
        });
        Self { config, issuer, accounts, clients: Mutex::default(), ambient: OnceCell::new() }
    }

    /// The same with these credentials in place of the ambient ones.
    #[cfg(test)]
    pub(super) fn with_credentials(mut self, credentials: SharedCredentialsProvider) -> Self {
        self.ambient = OnceCell::new_with(Some(credentials));
        self
    }

    pub(super) fn issuer(&self) -> &TokenIssuer {
        &self.issuer
    }

    pub(super) fn config(&self) -> &AwsConfig {
        &self.config
    }

    /// Cortex's own credentials, from AWS's default chain, looked for once.
    pub(super) async fn ambient(&self) -> Result<SharedCredentialsProvider, MintError> {
        let load = || async {
            own_credentials().await.ok_or_else(|| MintError::Unavailable {
                message: "Cortex has no AWS credentials of its own to assume roles with.".into(),
                retry_after: None,
            })
        };
        self.ambient.get_or_try_init(load).await.cloned()
    }

    pub(super) fn client(&self, region: &str, credentials: Option<SharedCredentialsProvider>) -> Client {
        let key = (region.to_owned(), credentials.is_some());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.entry(key).or_insert_with(|| self.new_client(region, credentials)).clone()
    }

    fn new_client(&self, region: &str, credentials: Option<SharedCredentialsProvider>) -> Client {
        let limits = &self.config.calls;
        // Cortex retries by itself: it has to know which try was lost.
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(limits.connect_timeout.unsigned_abs())
            .operation_timeout(limits.timeout.unsigned_abs())
            .build();
        let mut config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .use_fips(self.config.fips);
        if let Some(endpoint) = self.config.endpoint_for(region) {
            config = config.endpoint_url(endpoint);
        }
        if let Some(credentials) = credentials {
            config = config.credentials_provider(credentials);
        }
        Client::from_conf(config.build())
    }

    /// The token that Cortex shows to STS: good for one role, a few minutes and one issuance.
    fn web_identity_token(
        &self,
        request: &Request,
        key: &SigningKey,
    ) -> Result<Zeroizing<String>, MintError> {
        let now = request.planned.now().as_second();
        let claims = WebIdentityClaims {
            iss: self.issuer.url(),
            sub: &request.subject,
            aud: &self.config.audience,
            iat: now,
            exp: now.saturating_add(self.config.token_lifetime.as_secs()),
            jti: request.issuance_id.to_string(),
            source_identity: request.issuance_id.to_string(),
            roles: [request.role.as_str()],
            tags: SessionTags {
                principal_tags: request.all_tags().map(|(key, value)| (key, [value])).collect(),
                transitive_tag_keys: [LEASE_TAG],
            },
        };
        key.sign("JWT", &claims).map_err(|error| MintError::Unavailable {
            message: format!("Cortex could not sign the token for AWS: {error}."),
            retry_after: None,
        })
    }

    async fn with_web_identity(
        &self,
        request: &Request,
        key: &SigningKey,
        pass: &Pass,
    ) -> Result<Answer, MintError> {
        let token = self.web_identity_token(request, key)?;
        let client = self.client(&request.region, None);
        with_retries(&self.config.calls, pass, request.issuance_id, || async {
            let call = client
                .assume_role_with_web_identity()
                .role_arn(request.role.as_str())
                .role_session_name(&request.session_name)
                .web_identity_token(token.as_str())
                .policy(&request.policy)
                .duration_seconds(request.seconds());
            match call.send().await {
                Ok(output) => Attempt::Done(answer!(output)),
                Err(error) => classify(&error, &request.role),
            }
        })
        .await
    }

    async fn with_own_credentials(
        &self,
        request: &Request,
        external_id: &str,
        pass: &Pass,
    ) -> Result<Answer, MintError> {
        let client = self.client(&request.region, Some(self.ambient().await?));
        let tags = request.session_tags()?;
        with_retries(&self.config.calls, pass, request.issuance_id, || async {
            let call = client
                .assume_role()
                .role_arn(request.role.as_str())
                .role_session_name(&request.session_name)
                .policy(&request.policy)
                .duration_seconds(request.seconds())
                .external_id(external_id)
                .source_identity(request.issuance_id.to_string())
                .set_tags(Some(tags.clone()))
                .transitive_tag_keys(LEASE_TAG);
            match call.send().await {
                Ok(output) => Attempt::Done(answer!(output)),
                Err(error) => classify(&error, &request.role),
            }
        })
        .await
    }
}

/// One session to be minted.
pub(super) struct AssumeRole {
    pub(super) sts: Arc<Sts>,
    pub(super) request: Request,
}

#[async_trait]
impl<K> RemoteMint<K> for AssumeRole {
    async fn mint(self: Box<Self>, pass: &Pass) -> Result<Minted<K>, MintError> {
        self.request.planned.fresh()?;
        let answer = match &self.request.method {
            Method::WebIdentity(key) => self.sts.with_web_identity(&self.request, key, pass).await?,
            Method::AssumeRole { external_id } => {
                self.sts.with_own_credentials(&self.request, external_id, pass).await?
            }
        };
        self.request.accept(answer)
    }
}

impl Request {
    fn seconds(&self) -> i32 {
        i32::try_from(self.ttl.as_secs()).unwrap_or(i32::MAX)
    }

    fn all_tags(&self) -> impl Iterator<Item = (String, String)> {
        let own = [(LEASE_TAG.to_owned(), self.issuance_id.to_string())];
        self.tags.clone().into_iter().chain(own)
    }

    fn session_tags(&self) -> Result<Vec<Tag>, MintError> {
        let tags = self.all_tags().map(|(key, value)| Tag::builder().key(key).value(value).build());
        tags.collect::<Result<_, _>>().map_err(|error| MintError::Unavailable {
            message: format!("Cortex could not write the session tags: {error}."),
            retry_after: None,
        })
    }
}

/// The claims that AWS reads from a web identity token.
#[derive(Serialize)]
struct WebIdentityClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: String,
    #[serde(rename = "https://aws.amazon.com/source_identity")]
    source_identity: String,
    /// STS refuses the token for any other role.
    #[serde(rename = "https://aws.amazon.com/roles")]
    roles: [&'a str; 1],
    #[serde(rename = "https://aws.amazon.com/tags")]
    tags: SessionTags,
}

#[derive(Serialize)]
struct SessionTags {
    /// In this form of the claim, each value is an array of one.
    principal_tags: BTreeMap<String, [String; 1]>,
    transitive_tag_keys: [&'static str; 1],
}

impl Answer {
    fn with(self, credentials: Option<&Credentials>, user: Option<&AssumedRoleUser>) -> Self {
        let mut answer = self;
        if let Some(credentials) = credentials {
            credentials.access_key_id().clone_into(&mut answer.access_key_id);
            answer.secret_access_key = Zeroizing::new(credentials.secret_access_key().to_owned());
            answer.session_token = Zeroizing::new(credentials.session_token().to_owned());
            answer.expires_at = expiry(credentials);
        }
        if let Some(user) = user {
            user.arn().clone_into(&mut answer.arn);
            user.assumed_role_id().clone_into(&mut answer.assumed_role_id);
        }
        answer
    }
}

/// The SDK fills in the epoch where the answer has no expiry.
fn expiry(credentials: &Credentials) -> Option<Timestamp> {
    let seconds = credentials.expiration().secs();
    Timestamp::from_second(seconds).ok().filter(|_| seconds > 0)
}
