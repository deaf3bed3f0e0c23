//! What is asked of STS for one run, and the comparison of what came back with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cortex_core::credential::Revocation;
use cortex_core::jwt::SigningKey;
use cortex_core::{Body, Digest, IssuanceId, Lease, Minted, Principal, Run, Secret};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::arn::{RoleArn, is_word};
use crate::MintError;
use crate::calls::{Planned, check_expiry};

/// How a role is assumed.
pub(super) enum Method {
    /// With a token that Cortex signs with this key.
    WebIdentity(Arc<SigningKey>),
    /// With Cortex's own credentials.
    AssumeRole {
        /// What the role's trust policy demands.
        external_id: String,
    },
}

impl Method {
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::WebIdentity(_) => "web-identity",
            Self::AssumeRole { .. } => "assume-role",
        }
    }
}

/// One session, asked for.
pub(super) struct Request {
    pub(super) issuance_id: IssuanceId,
    pub(super) role: RoleArn,
    pub(super) region: String,
    pub(super) session_name: String,
    pub(super) policy: String,
    /// The session tags without the lease's.
    pub(super) tags: BTreeMap<String, String>,
    pub(super) ttl: SignedDuration,
    /// The run as one string: the `sub` of the token.
    pub(super) subject: String,
    pub(super) method: Method,
    pub(super) planned: Planned,
}

/// What STS answered, whichever call it was. Absent parts are empty.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: Zeroizing<String>,
    pub(super) session_token: Zeroizing<String>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) arn: String,
    pub(super) assumed_role_id: String,
    pub(super) source_identity: Option<String>,
    pub(super) packed_policy_size: Option<i32>,
    pub(super) session_token_size: Option<i32>,
    pub(super) session_token_utilization: Option<i32>,
    pub(super) request_id: Option<String>,
}

/// The session's name: at most 20 letters of the DAG's id for people, and all of a SHA-256 of the run, so that two
/// runs never share one. 2 to 64 of `[\w+=,.@-]` (`AssumeRole`, `RoleSessionName`).
///
/// The tries of one task share it: it is part of the scope that people approve, and their approval holds for a
/// retry. The source identity and the tag `lease` tell the tries apart.
pub(super) fn name(run: &Run) -> String {
    let subject = Principal::Run(Run { try_number: 1, ..run.clone() }).subject();
    let letter = |b: u8| {
        if is_word(b) || b"+=,.@-".contains(&b) { char::from(b) } else { '-' }
    };
    let prefix: String = run.dag_id.as_str().bytes().take(20).map(letter).collect();
    format!("{prefix}.{}", URL_SAFE_NO_PAD.encode(Digest::of(subject.as_bytes()).as_bytes()))
}

impl Request {
    /// Compares `answer` with what was asked, and makes the credential of it.
    pub(super) fn accept<K>(&self, answer: Answer) -> Result<Minted<K>, MintError> {
        let mismatch = |what: &str| MintError::Mismatch {
            message: format!("{what}; the credential was withheld."),
            expires_at: answer.expires_at,
        };
        let key_ok =
            (16..=128).contains(&answer.access_key_id.len()) && answer.access_key_id.bytes().all(is_word);
        if !key_ok || answer.secret_access_key.is_empty() || answer.session_token.is_empty() {
            return Err(mismatch("AWS answered without a complete set of session keys"));
        }
        if answer.arn != self.role.session_arn(&self.session_name) {
            return Err(mismatch(
                "AWS answered with a session of another role, account or name than was asked",
            ));
        }
        if answer.source_identity.as_ref().is_some_and(|identity| *identity != self.issuance_id.to_string()) {
            return Err(mismatch("AWS answered with another source identity than was asked"));
        }
        let expires_at = answer.expires_at.ok_or_else(|| mismatch("AWS answered without an expiry"))?;
        check_expiry(expires_at, self.planned.now(), self.ttl)?;
        let facts = self.facts(&answer);
        let lease = Lease {
            issuance_id: self.issuance_id,
            expires_at,
            credential_id: answer.access_key_id.clone(),
            provider_request_id: answer.request_id,
            revocation: Revocation::AwsDeny { role_arn: self.role.to_string() },
            facts,
        };
        let body = Body::AwsKeys {
            access_key_id: answer.access_key_id,
            secret_access_key: answer.secret_access_key,
            session_token: answer.session_token,
        };
        Ok(Minted { secret: Secret::seal(body), lease, details: self.details() })
    }

    fn facts(&self, answer: &Answer) -> BTreeMap<String, Value> {
        let mut facts = BTreeMap::new();
        facts.insert("assumed_role_arn".to_owned(), json!(answer.arn));
        facts.insert("assumed_role_id".to_owned(), json!(answer.assumed_role_id));
        facts.insert("policy_characters".to_owned(), json!(self.policy.len()));
        let percentages = [
            ("packed_policy_size", answer.packed_policy_size),
            ("session_token_size", answer.session_token_size),
            ("session_token_utilization", answer.session_token_utilization),
        ];
        facts.extend(
            percentages.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))),
        );
        facts
    }

    fn details(&self) -> BTreeMap<String, Value> {
        BTreeMap::from([
            ("region".to_owned(), json!(self.region)),
            ("account".to_owned(), json!(self.role.account())),
            ("role_arn".to_owned(), json!(self.role.as_str())),
        ])
    }
}
