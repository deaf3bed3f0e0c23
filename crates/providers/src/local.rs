//! Credentials that Cortex signs itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use cortex_core::credential::Revocation;
use cortex_core::jwt::{SigningAlgorithm, SigningKey, TokenIssuer};
use cortex_core::{Body, Lease, Minted, Secret};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use crate::{Ask, LocalMint, MintError, Refusal};

/// A JWT, ready to be signed.
pub(crate) struct Jwt<C> {
    pub(crate) key: Arc<SigningKey>,
    /// The header's `typ`.
    pub(crate) typ: &'static str,
    pub(crate) claims: C,
    pub(crate) lease: Lease,
    pub(crate) details: BTreeMap<String, Value>,
}

impl<C: Serialize + Send + Sync, K> LocalMint<K> for Jwt<C> {
    fn mint(self: Box<Self>) -> Result<Minted<K>, MintError> {
        let token = self.key.sign(self.typ, &self.claims).map_err(|error| MintError::Unavailable {
            message: format!("Cortex could not sign the token: {error}."),
            retry_after: None,
        })?;
        Ok(Minted { secret: Secret::seal(Body::Token(token)), lease: self.lease, details: self.details })
    }
}

/// The key that signs what a target wants signed with `algorithm`.
pub(crate) fn signing_key(
    issuer: &TokenIssuer,
    algorithm: SigningAlgorithm,
) -> Result<Arc<SigningKey>, Refusal> {
    issuer.key_for(algorithm).ok_or_else(|| Refusal {
        message: format!("The policy's target wants {algorithm}, and no key of Cortex signs with it yet."),
        remedy: format!(
            "An admin has to add {algorithm} to keys.algorithms; a new key signs once it was published for \
             keys.publish_ahead_s."
        ),
    })
}

/// The lifetime of a token that Cortex signs, and its end; `most` is the limit of who reads it.
pub(crate) fn lifetime(ask: &Ask<'_>, most: SignedDuration) -> Result<(SignedDuration, Timestamp), Refusal> {
    let ttl = ask.ttl().min(most);
    if ttl < SignedDuration::from_secs(1) {
        return Err(Refusal {
            message: "The lifetime that was asked for is less than a second.".into(),
            remedy: "Ask for a longer one, or raise the policy's max_ttl.".into(),
        });
    }
    // A token's `exp` has no fraction: the end on record is the one in the token.
    let end = ask.now.as_second().saturating_add(ttl.as_secs());
    Ok((ttl, Timestamp::from_second(end).unwrap_or(Timestamp::MAX)))
}

/// The lease of a token whose `jti` is the issuance's id.
pub(crate) fn lease(ask: &Ask<'_>, expires_at: Timestamp, revocation: Revocation) -> Lease {
    Lease {
        issuance_id: ask.issuance_id,
        expires_at,
        credential_id: ask.issuance_id.to_string(),
        provider_request_id: None,
        revocation,
        facts: BTreeMap::new(),
    }
}
