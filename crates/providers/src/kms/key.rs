//! The names of keys: an AWS key's ARN, a Google key's resource name.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::aws::{is_region, partition_of};

/// A key of a KMS, by the name that its cloud gives it: which cloud it is stands in the name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum KmsKey {
    /// In AWS KMS.
    Aws(AwsKey),
    /// In Google Cloud KMS.
    Google(GoogleKey),
}

/// A name that is no key's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a key of a KMS: write arn:aws:kms:<region>:<account>:key/<id> (not an alias), or \
     projects/<project>/locations/<location>/keyRings/<ring>/cryptoKeys/<key> (not a version)"
)]
pub struct NotAKey(String);

/// A key of AWS KMS, by its ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsKey {
    arn: String,
    region: String,
}

impl AwsKey {
    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.split(':').collect();
        let ["arn", partition, "kms", region, account, resource] = parts.as_slice() else { return None };
        let id = resource.strip_prefix("key/")?;
        let account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        let id = (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let known = account && id && is_region(region) && partition_of(region) == *partition;
        known.then(|| Self { arn: text.to_owned(), region: (*region).to_owned() })
    }

    pub(super) fn arn(&self) -> &str {
        &self.arn
    }

    /// The region that it is in, whose KMS is asked.
    pub(super) fn region(&self) -> &str {
        &self.region
    }
}

/// A key of Google Cloud KMS, by its resource name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoogleKey(String);

impl GoogleKey {
    fn parse(text: &str) -> Option<Self> {
        let word = |word: &str, more: &[u8]| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || more.contains(&b);
            (1..=94).contains(&word.len()) && word.bytes().all(allowed)
        };
        let parts: Vec<_> = text.split('/').collect();
        let ["projects", project, "locations", location, "keyRings", ring, "cryptoKeys", key] =
            parts.as_slice()
        else {
            return None;
        };
        // A project of a domain is `example.com:project`.
        let project = word(project, b".:") && !project.contains("..");
        let named = project && word(location, b"") && word(ring, b"_") && word(key, b"_");
        named.then(|| Self(text.to_owned()))
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }
}

impl FromStr for KmsKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let aws = || AwsKey::parse(text).map(Self::Aws);
        let google = || GoogleKey::parse(text).map(Self::Google);
        aws().or_else(google).ok_or_else(|| NotAKey(text.to_owned()))
    }
}

impl TryFrom<String> for KmsKey {
    type Error = NotAKey;

    fn try_from(text: String) -> Result<Self, NotAKey> {
        text.parse()
    }
}

impl fmt::Display for KmsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aws(key) => &key.arn,
            Self::Google(key) => &key.0,
        })
    }
}

impl From<KmsKey> for String {
    fn from(key: KmsKey) -> Self {
        key.to_string()
    }
}
