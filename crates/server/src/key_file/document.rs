//! A wrapped key as its file holds it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cortex_providers::kms::{KmsKey, MAX_WRAPPED, Purpose};
use serde::{Deserialize, Serialize};

/// What this version writes and reads.
const VERSION: u8 = 1;

/// A wrapped key, and which key of a KMS unwraps it. That it says what it is for makes errors plain; what makes it so is
/// that the KMS authenticates the same.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    version: u8,
    pub(super) kms: KmsKey,
    pub(super) purpose: Purpose,
    /// The `iss` of the Cortex whose key it is.
    pub(super) issuer: String,
    /// What the KMS made of the key, in base64.
    wrapped: String,
}

/// What is wrong with a document. Nothing of it is quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is not JSON, or has other members than those of a wrapped key.
    #[error("its line {line} cannot be read")]
    Json {
        /// The line.
        line: usize,
    },
    /// A newer Cortex wrote it.
    #[error("it is of version {0}, and this Cortex reads version {VERSION}")]
    Version(u8),
    /// What is wrapped is not base64, or not as much as a KMS makes.
    #[error("`wrapped` is not base64 of 1 to {MAX_WRAPPED} bytes")]
    Wrapped,
}

impl Document {
    pub(super) fn new(kms: KmsKey, purpose: Purpose, issuer: String, wrapped: &[u8]) -> Self {
        Self { version: VERSION, kms, purpose, issuer, wrapped: STANDARD.encode(wrapped) }
    }

    pub(super) fn read(text: &[u8]) -> Result<Self, Malformed> {
        let document: Self =
            serde_json::from_slice(text).map_err(|error| Malformed::Json { line: error.line() })?;
        if document.version != VERSION {
            return Err(Malformed::Version(document.version));
        }
        document.wrapped()?;
        Ok(document)
    }

    /// What the KMS unwraps.
    pub(super) fn wrapped(&self) -> Result<Vec<u8>, Malformed> {
        let bytes = STANDARD.decode(&self.wrapped).map_err(|_| Malformed::Wrapped)?;
        if (1..=MAX_WRAPPED).contains(&bytes.len()) { Ok(bytes) } else { Err(Malformed::Wrapped) }
    }

    /// The file's content.
    pub(super) fn text(&self) -> String {
        // A document of text and one number has no way to fail.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}
