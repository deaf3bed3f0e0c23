//! One newtype for each identifier, so that a grant's id cannot be passed where an issuance's is meant.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An identifier that is not well-formed; the text says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(pub String);

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id: a UUID version 7 (RFC 9562), so that ids sort by the time they were made.
            /// `random` fills the bits that time does not.
            pub fn new(at: Timestamp, random: [u8; 10]) -> Self {
                let millis = u64::try_from(at.as_millisecond()).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
            }

            /// The UUID within.
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(value: Uuid) -> Self {
                Self(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::parse_str(text).map(Self).map_err(|_| InvalidId(format!("{text:?} is not a UUID")))
            }
        }
    )*};
}

uuid_id! {
    /// One credential's record, from intent to expiry. It is the lease's id too: one credential, one lease.
    IssuanceId;
    /// One approval by people.
    GrantId;
    /// One decision of a policy, permit or deny; what a denied caller quotes to an admin.
    DecisionId;
    /// One row of the record.
    RecordId;
    /// One notification to one endpoint; what a receiver tells a second delivery by.
    NotificationId;
    /// One freeze.
    FreezeId;
    /// One revocation, of one issuance or of many.
    RevocationId;
    /// One legal hold: records that nothing drops.
    HoldId;
    /// One person's session at the console. It is not what the browser shows: that is a secret.
    SessionId;
}

macro_rules! name {
    ($($(#[$doc:meta])* $name:ident, $max:literal, $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let bytes = text.as_bytes();
                let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
                let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                let ok = bytes.len() <= $max
                    && bytes.iter().all(inner)
                    && edge(bytes.first())
                    && edge(bytes.last())
                    && !text.contains("--");
                if ok {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidId(format!(
                        concat!("{:?} is not ", $what, " name: use 1 to {} of a-z, 0-9 and single hyphens, such as finance-publish"),
                        text, $max
                    )))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

name! {
    /// A policy's name: its business purpose. Lower case and hyphens only, so that no two names look alike.
    PolicyName, 64, "a policy";
    /// An issuer's name in the configuration: what policies say instead of a URL.
    IssuerName, 32, "an issuer";
}

/// A SHA-256 digest: 32 bytes, shown as `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        let mut out = [0; 32];
        out.copy_from_slice(digest.as_ref());
        Self(out)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bad = || InvalidId(format!("{text:?} is not sha256: and 64 hexadecimal digits"));
        let bytes = hex::decode(text.strip_prefix("sha256:").ok_or_else(bad)?).map_err(|_| bad())?;
        Ok(Self(bytes.try_into().map_err(|_| bad())?))
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = InvalidId;

    fn try_from(bytes: &[u8]) -> Result<Self, InvalidId> {
        let bytes = bytes.try_into().map_err(|_| InvalidId("a digest has 32 bytes".into()))?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
