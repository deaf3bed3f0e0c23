//! A cloud's key management service, for the keys that Cortex keeps in files: AWS KMS or Google Cloud KMS wraps them, so
//! that a file is worth nothing without leave to use the key there.

mod aws;
mod call;
mod config;
mod google;
mod key;
mod metadata;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use config::KmsConfig;
pub use key::{AwsKey, GoogleKey, KmsKey};

use crate::config::CallLimits;
use aws::AwsKms;
use google::GoogleKms;
use metadata::MetadataServer;

/// The most that a KMS makes of a key of 32 bytes, in bytes. AWS takes no more than this back (`Decrypt`, `CiphertextBlob`).
pub const MAX_WRAPPED: usize = 6_144;

/// What a wrapped key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Signing keys in the database are encrypted under it.
    SigningKeys,
    /// Checkpoints of the log are signed with it.
    Log,
}

impl Purpose {
    /// The word for it, in a wrapped file and in what the KMS authenticates.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SigningKeys => "signing-keys",
            Self::Log => "log",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a wrapped key is bound to. The KMS authenticates it with the key and gives nothing back for any other, so no file
/// can stand in for another one. It is no secret: AWS writes it into its own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding<'a> {
    /// What the key is for.
    pub purpose: Purpose,
    /// Whose it is: the `iss` that Cortex signs under.
    pub issuer: &'a str,
}

impl Binding<'_> {
    /// AWS's encryption context. Policies of a key can demand its parts, as `kms:EncryptionContext:cortex:purpose`.
    fn context(&self) -> BTreeMap<&'static str, &str> {
        BTreeMap::from([("cortex:issuer", self.issuer), ("cortex:purpose", self.purpose.as_str())])
    }

    /// The same as bytes, for Google's additional authenticated data: JSON without spaces, its members in order.
    fn bytes(&self) -> Vec<u8> {
        // A map of text to text has no way to fail.
        serde_json::to_vec(&self.context()).unwrap_or_default()
    }
}

/// Why a KMS did not wrap or unwrap a key; each says what is the case and what to do. Nothing of a key is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    /// It could not be asked, or gave no answer: another time it may.
    #[error("{0}")]
    Away(String),
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// What it answered is not what it was asked for.
    #[error("{0}")]
    Mismatch(String),
}

enum Service {
    Aws(AwsKms),
    Google(GoogleKms),
}

/// One key of a KMS.
pub struct Kms {
    key: KmsKey,
    limits: CallLimits,
    service: Service,
}

impl Kms {
    /// A client for `key`. Nothing is called yet. Errors where `endpoint` is missing for a part of AWS whose address is not
    /// public, or where no HTTPS client can be made.
    pub fn new(key: &KmsKey, endpoint: Option<&str>, limits: &CallLimits) -> Result<Self, KmsError> {
        let service = match key {
            KmsKey::Aws(key) => Service::Aws(AwsKms::new(key, endpoint, limits)?),
            KmsKey::Google(key) => {
                let metadata = MetadataServer::of_this_machine(limits)?;
                Service::Google(GoogleKms::new(key, endpoint, metadata, limits)?)
            }
        };
        Ok(Self { key: key.clone(), limits: limits.clone(), service })
    }

    /// The key.
    pub fn key(&self) -> &KmsKey {
        &self.key
    }

    /// Wraps `plain`, and has it unwrapped again before anything relies on it: a Cortex that may encrypt and not decrypt
    /// would have lost the key. `now` is what requests are signed with.
    pub async fn wrap(
        &self,
        plain: &[u8],
        binding: &Binding<'_>,
        now: Timestamp,
    ) -> Result<Vec<u8>, KmsError> {
        let wrapped = call::with_retries(&self.limits, self.seed(now), || async {
            match &self.service {
                Service::Aws(aws) => aws.encrypt(plain, binding, now).await,
                Service::Google(google) => google.encrypt(plain, binding).await,
            }
        })
        .await?;
        if wrapped.is_empty() || wrapped.len() > MAX_WRAPPED {
            return Err(KmsError::Mismatch(format!("{} answered with {} bytes.", self.key, wrapped.len())));
        }
        let again = self.unwrap(&wrapped, binding, now).await?;
        verify_slices_are_equal(&again, plain).map_err(|_| {
            KmsError::Mismatch(format!("{} gave another key back than it was given.", self.key))
        })?;
        Ok(wrapped)
    }

    /// Unwraps what [`Kms::wrap`] answered for the same binding.
    pub async fn unwrap(
        &self,
        wrapped: &[u8],
        binding: &Binding<'_>,
        now: Timestamp,
    ) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        call::with_retries(&self.limits, self.seed(now), || async {
            match &self.service {
                Service::Aws(aws) => aws.decrypt(wrapped, binding, now).await,
                Service::Google(google) => google.decrypt(wrapped, binding).await,
            }
        })
        .await
    }

    /// What the pauses between tries are drawn from: replicas start at different nanoseconds.
    fn seed(&self, now: Timestamp) -> String {
        format!("{}/{}", self.key, now.as_nanosecond())
    }
}
