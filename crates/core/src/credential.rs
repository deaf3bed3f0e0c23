//! What leaves: a [`Secret`], sealed until its record is committed, and its [`Lease`], the half that may be
//! written down.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::ids::IssuanceId;

/// The secret itself. It has no `Serialize`, its `Debug` redacts, and its memory is wiped when it is dropped.
pub enum Body {
    /// One token: a JWT or an opaque access token.
    Token(Zeroizing<String>),
    /// AWS session credentials.
    AwsKeys {
        /// `ASIA…`; not secret by itself, and the name under which AWS logs the session.
        access_key_id: String,
        /// The signing secret.
        secret_access_key: Zeroizing<String>,
        /// The session token that goes with every request.
        session_token: Zeroizing<String>,
    },
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body(redacted)")
    }
}

/// A secret that only the holder of a `K` can open.
///
/// The server chooses a `K` that nothing but its committed outcome produces; so a release that is not on
/// record does not compile:
///
/// ```compile_fail
/// use cortex_core::{Body, Secret};
/// struct Committed(()); // private field: only its own module makes one
/// fn leak(secret: Secret<Committed>) -> Body {
///     secret.open() // there is no way in without a `&Committed`
/// }
/// ```
///
/// Nor does writing one down:
///
/// ```compile_fail
/// use cortex_core::Secret;
/// fn log(secret: &Secret<()>) -> String {
///     serde_json::to_string(secret).unwrap()
/// }
/// ```
pub struct Secret<K> {
    body: Body,
    key: PhantomData<fn(&K)>,
}

impl<K> Secret<K> {
    /// Seals `body`.
    pub fn seal(body: Body) -> Self {
        Self { body, key: PhantomData }
    }

    /// Opens it; the key proves that this is allowed.
    pub fn open(self, _key: &K) -> Body {
        self.body
    }
}

impl<K> fmt::Debug for Secret<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(sealed)")
    }
}

/// How a credential can be ended before it expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Revocation {
    /// A deny statement on the AWS role, keyed on the session tag `lease`.
    AwsDeny {
        /// The role that the statement is put on.
        role_arn: String,
    },
    /// An IAM deny policy on the federated subject.
    GoogleDeny {
        /// The principal that it denies.
        principal: String,
        /// The project that the policy is put on.
        project: String,
    },
    /// The API asks Cortex (RFC 7662) and is told that it is inactive.
    Introspection,
    /// Nothing ends it but its expiry.
    ExpiryOnly,
}

impl Revocation {
    /// The way's name, as on record.
    pub fn by(&self) -> &'static str {
        match self {
            Self::AwsDeny { .. } => "aws_deny",
            Self::GoogleDeny { .. } => "google_deny",
            Self::Introspection => "introspection",
            Self::ExpiryOnly => "expiry_only",
        }
    }
}

/// The loggable half of a credential: no secret is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// The issuance that it belongs to.
    pub issuance_id: IssuanceId,
    /// When the credential ends, as the provider said it.
    pub expires_at: Timestamp,
    /// The provider's own name for the credential: an AWS access key id, a JWT's `jti`, or `sha256:` of an
    /// opaque token.
    pub credential_id: String,
    /// The provider's id of the request that minted it, for its support and its logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_request_id: Option<String>,
    /// How it can be ended early.
    pub revocation: Revocation,
    /// What else the provider said of it, such as `assumed_role_arn` or `packed_policy_size`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub facts: BTreeMap<String, Value>,
}

/// What a provider's mint answers.
#[derive(Debug)]
pub struct Minted<K> {
    /// The sealed secret.
    pub secret: Secret<K>,
    /// Its loggable half.
    pub lease: Lease,
    /// What a client needs beside the secret to use it and what is no secret: `account`, `user`, `role`,
    /// `project`, `region`, `authenticator`.
    pub details: BTreeMap<String, Value>,
}
