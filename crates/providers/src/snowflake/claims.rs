//! What each of Snowflake's three logins reads from a token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cortex_core::Digest;
use cortex_core::jwt::SigningKey;
use jiff::Timestamp;
use serde::Serialize;

use super::{Method, Snowflake, Target};
use crate::{Ask, Refusal};

/// The claims of one token.
#[derive(Serialize)]
pub(super) struct Claims {
    iss: String,
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    iat: i64,
    exp: i64,
    jti: String,
    /// External OAuth's scope: the one role of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    scp: Option<[String; 1]>,
}

impl Claims {
    pub(super) fn new(
        snowflake: &Snowflake,
        target: &Target,
        key: &SigningKey,
        ask: &Ask<'_>,
        expires_at: Timestamp,
    ) -> Result<Self, Refusal> {
        let claims = Self {
            iss: snowflake.issuer.url().to_owned(),
            sub: target.user.clone(),
            aud: None,
            iat: ask.now.as_second(),
            exp: expires_at.as_second(),
            jti: ask.issuance_id.to_string(),
            scp: None,
        };
        Ok(match target.method {
            Method::Oauth => Self {
                aud: Some(snowflake.oauth_audience(&target.account)),
                scp: Some([format!("session:role:{}", target.role)]),
                ..claims
            },
            Method::WorkloadIdentity => Self {
                sub: snowflake.config.workload_identity_subject.replace("{user}", &target.user),
                aud: Some(snowflake.config.workload_identity_audience.clone()),
                ..claims
            },
            Method::KeyPair => {
                let sub =
                    format!("{}.{}", key_pair_account(&target.account), target.user.to_ascii_uppercase());
                let iss = format!("{sub}.SHA256:{}", fingerprint(key)?);
                Self { iss, sub, ..claims }
            }
        })
    }
}

/// The account in a key-pair token: upper case, and a locator without its region and cloud.
fn key_pair_account(account: &str) -> String {
    account.split('.').next().unwrap_or(account).to_ascii_uppercase()
}

/// The fingerprint of a public key: base64 of the SHA-256 of its DER (X.509 `SubjectPublicKeyInfo`).
pub(super) fn fingerprint(key: &SigningKey) -> Result<String, Refusal> {
    let failed = || Refusal {
        message: "Cortex could not compute the fingerprint of its key.".into(),
        remedy: "Report this as a defect.".into(),
    };
    let der = key.public_der().map_err(|_| failed())?;
    Ok(STANDARD.encode(Digest::of(&der).as_bytes()))
}
