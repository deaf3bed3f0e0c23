//! Why a token proves nothing. The caller is told that it was refused and no more; the code is for the record
//! and the detail for the log.

use std::borrow::Cow;
use std::fmt;

use cortex_core::{Digest, IssuerName};

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It is longer than [`MAX_TOKEN`](crate::MAX_TOKEN).
    Size,
    /// It is not three parts of strict base64url (RFC 7515, section 3.1).
    Shape,
    /// Its header or its payload is not one plain JSON object: two members of a name, too deep, too many values.
    Json,
    /// Its algorithm is unknown, not one that its issuer is pinned to, or not its key's.
    Alg,
    /// Its key id is malformed, missing where it is needed, or not in its issuer's key set.
    Kid,
    /// Its header names an extension that must be understood (RFC 7515, section 4.1.11).
    Crit,
    /// Its header brings a key or the address of one, or says that it is no ordinary JWS.
    Header,
    /// Its issuer is not configured, or not a single string.
    Iss,
    /// Its signature is not its issuer's.
    Sig,
    /// Its issuer's keys cannot be had: it passes by itself.
    JwksUnavailable,
    /// The cluster that it names does not vouch for it.
    Review,
    /// The cluster that it names cannot be asked: it passes by itself.
    ClusterUnavailable,
    /// It is of a service account that no task runs as.
    Workload,
    /// It is bound to no pod, or its pod is another one, has ended or is about to.
    Pod,
    /// Cortex issued it: a credential must not become the proof for the next one.
    SelfIssuer,
    /// It is of another type, such as a logout token.
    Typ,
    /// It is for another audience, or for more than one.
    Aud,
    /// It is an ID token of another sign-in: its `nonce` or its `azp` is not what was asked for.
    Nonce,
    /// It has expired, or says when in something other than a number.
    Exp,
    /// It is not valid yet, or says since when in something other than a number.
    Nbf,
    /// Its `exp` or `iat` is missing or is no plain number of seconds, or it lives longer than its issuer may
    /// let it.
    Lifetime,
    /// Its `jti` is missing or malformed although it is good for one exchange only.
    Jti,
    /// A claim that is needed is missing, or its value is not one that a principal can have.
    Claim,
    /// A claim is of another type than it has to be, such as a string where an array belongs.
    ClaimType,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 24] = [
        Self::Size,
        Self::Shape,
        Self::Json,
        Self::Alg,
        Self::Kid,
        Self::Crit,
        Self::Header,
        Self::Iss,
        Self::Sig,
        Self::JwksUnavailable,
        Self::Review,
        Self::ClusterUnavailable,
        Self::Workload,
        Self::Pod,
        Self::SelfIssuer,
        Self::Typ,
        Self::Aud,
        Self::Nonce,
        Self::Exp,
        Self::Nbf,
        Self::Lifetime,
        Self::Jti,
        Self::Claim,
        Self::ClaimType,
    ];

    /// The code used on record and in metrics; it never changes.
    pub fn code(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Shape => "shape",
            Self::Json => "json",
            Self::Alg => "alg",
            Self::Kid => "kid",
            Self::Crit => "crit",
            Self::Header => "header",
            Self::Iss => "iss",
            Self::Sig => "sig",
            Self::JwksUnavailable => "jwks_unavailable",
            Self::Review => "review",
            Self::ClusterUnavailable => "cluster_unavailable",
            Self::Workload => "workload",
            Self::Pod => "pod",
            Self::SelfIssuer => "self_issuer",
            Self::Typ => "typ",
            Self::Aud => "aud",
            Self::Nonce => "nonce",
            Self::Exp => "exp",
            Self::Nbf => "nbf",
            Self::Lifetime => "lifetime",
            Self::Jti => "jti",
            Self::Claim => "claim",
            Self::ClaimType => "claim_type",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// What is known of a token that was refused although its signature is genuine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The name of the issuer that signed it.
    pub issuer: IssuerName,
    /// Its `sub`, where it is 1 to 255 printable ASCII characters.
    pub subject: Option<String>,
    /// The token's SHA-256.
    pub token_digest: Digest,
}

/// A token that proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the token was refused: {reason}")]
pub struct Rejection {
    /// Why, for the record.
    pub reason: Reason,
    /// Whose it is, if its signature was verified: such a refusal is recorded by itself, any other is counted.
    pub verified: Option<Box<Known>>,
    /// What exactly is wrong, for the log alone. It holds no part of the token.
    pub detail: Cow<'static, str>,
}

impl Rejection {
    /// Whether the same token may be accepted a little later: its issuer cannot be asked just now.
    pub fn is_temporary(&self) -> bool {
        matches!(self.reason, Reason::JwksUnavailable | Reason::ClusterUnavailable)
    }
}

/// A refusal before it is known whose token it is.
#[derive(Debug)]
pub(crate) struct Refused {
    reason: Reason,
    detail: Cow<'static, str>,
}

impl Refused {
    pub(crate) fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// The refusal of a token that anyone could have made up.
    pub(crate) fn unverified(self) -> Rejection {
        Rejection { reason: self.reason, verified: None, detail: self.detail }
    }

    /// The refusal of a genuine token.
    pub(crate) fn verified(self, known: Known) -> Rejection {
        Rejection { reason: self.reason, verified: Some(Box::new(known)), detail: self.detail }
    }
}
