//! Revoking AWS sessions: one inline policy on each role, written by whoever Cortex is in that account.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use cortex_core::jwt::TokenIssuer;
use jiff::{SignedDuration, Timestamp};
use reqwest::Client;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::arn::{RoleArn, partition_of};
use super::deny::{MAX_INLINE, pack};
use super::iam::{Endpoint, InlinePolicy, Refused};
use super::sts::Sts;
use crate::config::{AwsConfig, AwsRevocationConfig, AwsRevocationMethod};
use crate::revocation::{Enforced, LeftOut, RevokeError, RevokedLease, Revoker, WAYS};

/// The `sub` of the token with which Cortex assumes the role that revokes.
const SUBJECT: &str = "cortex:revoker";
/// The name of its sessions.
const SESSION_NAME: &str = "cortex-revoker";
/// How long before their end credentials are renewed.
const MARGIN: SignedDuration = SignedDuration::from_mins(5);
/// The least time between two changes of one role: IAM throttles writers.
const PACE: SignedDuration = SignedDuration::from_secs(1);

/// AWS's revoker, if one is configured.
pub(crate) fn revoker(config: &AwsConfig, issuer: &Arc<TokenIssuer>) -> Option<AwsRevoker> {
    if config.revocation.method == AwsRevocationMethod::Off {
        return None;
    }
    let sts = Sts::new(config.clone(), Arc::clone(issuer));
    Some(AwsRevoker { sts, issuer: Arc::clone(issuer), http: OnceCell::new(), sessions: Mutex::default() })
}

/// Who denies sessions at AWS.
pub(crate) struct AwsRevoker {
    sts: Sts,
    issuer: Arc<TokenIssuer>,
    http: OnceCell<Client>,
    /// Sessions of the role that revokes, by its ARN.
    sessions: Mutex<HashMap<String, (Credentials, Timestamp)>>,
}

/// The claims that AWS reads from the token of the role that revokes.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    /// STS refuses the token for any other role.
    #[serde(rename = "https://aws.amazon.com/roles")]
    roles: [&'a str; 1],
}

impl AwsRevoker {
    fn config(&self) -> &AwsRevocationConfig {
        &self.sts.config().revocation
    }

    async fn http(&self) -> Result<&Client, RevokeError> {
        let limits = &self.sts.config().calls;
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

    async fn credentials(&self, role: &RoleArn, now: Timestamp) -> Result<Credentials, RevokeError> {
        match self.config().method {
            AwsRevocationMethod::WebIdentity => self.session(role, now).await,
            AwsRevocationMethod::Ambient | AwsRevocationMethod::Off => {
                let provider =
                    self.sts.ambient().await.map_err(|error| RevokeError::new(error.to_string()))?;
                let failed = "Cortex could not get AWS credentials of its own to revoke with.";
                provider.provide_credentials().await.map_err(|_| RevokeError::new(failed))
            }
        }
    }

    /// A session of the role that revokes in the account of `role`.
    async fn session(&self, role: &RoleArn, now: Timestamp) -> Result<Credentials, RevokeError> {
        let revoker = format!("arn:{}:iam::{}:role/{}", role.partition(), role.account(), self.config().role);
        if let Some((credentials, until)) = self.remembered(&revoker)
            && now < until.saturating_sub(MARGIN).unwrap_or(until)
        {
            return Ok(credentials);
        }
        let session = self.assume(&revoker, role.partition(), now).await?;
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(revoker, session.clone());
        Ok(session.0)
    }

    fn remembered(&self, revoker: &str) -> Option<(Credentials, Timestamp)> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(revoker).cloned()
    }

    async fn assume(
        &self,
        revoker: &str,
        partition: &str,
        now: Timestamp,
    ) -> Result<(Credentials, Timestamp), RevokeError> {
        let config = self.sts.config();
        let lifetime = config.token_lifetime.as_secs();
        let claims = Claims {
            iss: self.issuer.url(),
            sub: SUBJECT,
            aud: &config.audience,
            iat: now.as_second(),
            exp: now.as_second().saturating_add(lifetime),
            roles: [revoker],
        };
        let token = self.issuer.key().sign("JWT", &claims);
        let token = token.map_err(|_| RevokeError::new("Cortex could not sign the token for AWS."))?;
        let region = match Endpoint::of(partition, None) {
            Some(endpoint) if partition_of(&config.region) != partition => endpoint.region,
            _ => config.region.as_str(),
        };
        let answer = self
            .sts
            .client(region, None)
            .assume_role_with_web_identity()
            .role_arn(revoker)
            .role_session_name(SESSION_NAME)
            .web_identity_token(token.as_str())
            .send()
            .await
            .map_err(|error| {
                use aws_sdk_sts::error::ProvideErrorMetadata as _;
                let code = error.code().unwrap_or("no answer").to_owned();
                RevokeError::new(format!("AWS does not let this Cortex assume {revoker} to revoke: {code}."))
            })?;
        let keys = answer.credentials().ok_or_else(|| RevokeError::new("AWS answered without keys."))?;
        let expires_at = Timestamp::from_second(keys.expiration().secs()).unwrap_or(now);
        let token = Some(keys.session_token().to_owned());
        let keys =
            Credentials::new(keys.access_key_id(), keys.secret_access_key(), token, None, "cortex-revoker");
        Ok((keys, expires_at))
    }

    async fn deny(
        &self,
        target: &str,
        leases: &[RevokedLease],
        now: Timestamp,
    ) -> Result<Enforced, RevokeError> {
        let role =
            RoleArn::parse(target).map_err(|_| RevokeError::new(format!("{target} is not a role's ARN.")))?;
        let endpoint = Endpoint::of(role.partition(), self.config().endpoint.as_deref());
        let endpoint = endpoint.ok_or_else(|| {
            let partition = role.partition();
            RevokeError::new(format!(
                "configure providers.aws.revocation.endpoint for the partition {partition}."
            ))
        })?;
        let credentials = self.credentials(&role, now).await?;
        let policy = InlinePolicy {
            http: self.http().await?,
            endpoint: &endpoint,
            credentials: &credentials,
            role_name: role.name(),
            policy_name: &self.config().policy_name,
            now,
        };
        if leases.is_empty() {
            policy.delete().await.map_err(refusal)?;
            return Ok(Enforced::default());
        }
        let evidence = write(&policy, leases).await.map_err(refusal)?;
        Ok(Enforced { evidence, left_out: LeftOut::default() })
    }
}

/// Brings the policy to what it has to be. Where the role's other policies leave too little room, sessions are denied by
/// their age alone.
async fn write(policy: &InlinePolicy<'_>, leases: &[RevokedLease]) -> Result<Value, Refused> {
    let current = policy.get().await?;
    let mut refused = Refused::LimitExceeded;
    for room in [MAX_INLINE, 0] {
        let denial = pack(leases, room);
        let wanted = serde_json::from_str::<Value>(&denial.text).ok();
        let mut evidence = json!({
            "by": "aws_deny",
            "policy": policy.policy_name,
            "delay": WAYS.iter().find(|way| way.by == "aws_deny").map(|way| way.delay),
        });
        if let Some(older_than) = denial.older_than {
            evidence["every_session_opened_before"] = json!(older_than);
        }
        if wanted.is_some() && current == wanted {
            return Ok(evidence);
        }
        match policy.put(&denial.text).await {
            Ok(request_id) => {
                evidence["request_id"] = json!(request_id);
                return Ok(evidence);
            }
            Err(Refused::LimitExceeded) => refused = Refused::LimitExceeded,
            Err(other) => return Err(other),
        }
    }
    Err(refused)
}

fn refusal(refused: Refused) -> RevokeError {
    match refused {
        Refused::NoSuchEntity => RevokeError::new("The role is not there."),
        Refused::LimitExceeded => RevokeError::new(
            "The role's inline policies have no room for a deny statement: make them smaller, or use managed policies.",
        ),
        Refused::Other(error) => error,
    }
}

#[async_trait]
impl Revoker for AwsRevoker {
    async fn enforce(
        &self,
        target: &str,
        leases: &[RevokedLease],
        now: Timestamp,
    ) -> Result<Enforced, RevokeError> {
        self.deny(target, leases, now).await
    }

    fn patience(&self) -> SignedDuration {
        self.sts.config().calls.revocation()
    }

    fn pace(&self) -> SignedDuration {
        PACE
    }
}
