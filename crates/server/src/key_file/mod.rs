//! The two keys that are kept in files: 32 bytes each, as they are, or wrapped by a key management service. A plain file
//! has them as 64 hexadecimal digits, readable by its owner alone; a wrapped one is a small JSON document, and its key is
//! in memory only.

mod document;
mod place;
mod wrapper;
mod wrapping;

use std::path::Path;
use std::sync::Arc;

use cortex_core::Clock;
use cortex_providers::kms::{KmsError, KmsKey, Purpose};
use zeroize::Zeroizing;

use crate::config::Config;
use crate::random::Random;
use document::Document;
use wrapper::Wrapper;

pub use document::Malformed;
pub use wrapping::{Before, Outcome, Wrapping};

/// How many bytes a key has.
const KEY_BYTES: usize = 32;

/// A key's bytes, wiped when they are dropped. It cannot be shown.
pub(crate) struct KeyBytes(Zeroizing<[u8; KEY_BYTES]>);

impl KeyBytes {
    pub(crate) fn as_array(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    fn made(random: &dyn Random) -> Self {
        let mut bytes = Zeroizing::new([0_u8; KEY_BYTES]);
        random.fill(bytes.as_mut_slice());
        Self(bytes)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
        if bytes.len() != KEY_BYTES {
            return None;
        }
        key.copy_from_slice(bytes);
        Some(Self(key))
    }

    fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0_u8; KEY_BYTES]);
        hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).ok()?;
        Some(Self(bytes))
    }
}

/// Why a key file cannot be used; each text says what to do, and follows the name of the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It is not there.
    #[error("is missing, and {0}: put it back from its backup")]
    Missing(&'static str),
    /// It is not there, and nothing is there that it would be missing for.
    #[error("is missing: there is nothing to wrap; --make makes a key where there is none yet")]
    NothingToWrap,
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unread(std::io::Error),
    /// It cannot be written.
    #[error("cannot be written: {0}")]
    Unwritten(std::io::Error),
    /// It is neither a key nor a document.
    #[error("does not hold 64 hexadecimal digits")]
    NoKey,
    /// What the KMS gave back is no key.
    #[error(
        "was unwrapped to something else than a key of 32 bytes: put the right file back from its backup"
    )]
    NotOurs,
    /// It is no wrapped key that this version reads.
    #[error("is not a wrapped key: {0}; put it back from its backup")]
    Malformed(#[from] Malformed),
    /// It holds its key as it is, and should not.
    #[error("holds its key as it is, and kms.key is configured: wrap it with `cortex keys wrap`")]
    Plain,
    /// It is wrapped, and nothing is configured that unwraps it.
    #[error("is wrapped by {0}: configure that as kms.key")]
    Unconfigured(KmsKey),
    /// It is wrapped by another key.
    #[error(
        "is wrapped by {there}, and kms.key is {wanted}: configure that one, or wrap it again with \
             `cortex keys wrap --from {there}`"
    )]
    OtherKey {
        /// The key that wrapped it.
        there: KmsKey,
        /// The one that has to.
        wanted: KmsKey,
    },
    /// It is another file.
    #[error(
        "is wrapped as the key for {there}, and this one is for {wanted}: the two key files are mixed up"
    )]
    OtherPurpose {
        /// What it says that it is for.
        there: Purpose,
        /// What it has to be for.
        wanted: Purpose,
    },
    /// It is another Cortex's.
    #[error(
        "is wrapped for {there:?}, and server.public_url is {wanted:?}: it belongs to another Cortex; after a change \
             of the URL, wrap it again with `cortex keys wrap --from-issuer {there}`"
    )]
    OtherIssuer {
        /// Whose it says that it is.
        there: String,
        /// Whose it has to be.
        wanted: String,
    },
    /// The KMS.
    #[error("cannot be unwrapped or wrapped: {0}")]
    Kms(#[from] KmsError),
}

/// What a key file is for.
fn guards(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::SigningKeys => "the database holds keys that were sealed under it",
        Purpose::Log => "the database holds a log that was signed with it",
    }
}

/// What a file was found to hold.
enum Found {
    Plain(KeyBytes),
    Wrapped(Document),
}

/// How the key files of a Cortex are read and made.
pub struct KeyFiles {
    /// None where they hold their keys as they are.
    wrapper: Option<Wrapper>,
    random: Arc<dyn Random>,
}

impl KeyFiles {
    /// As configured.
    pub fn new(config: &Config, clock: &Arc<dyn Clock>, random: &Arc<dyn Random>) -> Result<Self, KmsError> {
        Ok(Self { wrapper: Wrapper::configured(config, clock)?, random: Arc::clone(random) })
    }

    /// Reads the key for `purpose`, or makes it where the file is missing and `may_create`.
    pub(crate) async fn load(
        &self,
        path: &Path,
        purpose: Purpose,
        may_create: bool,
    ) -> Result<KeyBytes, KeyFileError> {
        match (find(path)?, &self.wrapper) {
            (None, wrapper) if may_create => make(path, purpose, wrapper.as_ref(), &*self.random).await,
            (None, _) => Err(KeyFileError::Missing(guards(purpose))),
            (Some(Found::Plain(key)), None) => Ok(key),
            (Some(Found::Plain(_)), Some(_)) => Err(KeyFileError::Plain),
            (Some(Found::Wrapped(document)), None) => Err(KeyFileError::Unconfigured(document.kms)),
            (Some(Found::Wrapped(document)), Some(wrapper)) => {
                let key = wrapper.unwrap(&document, purpose).await?;
                tracing::info!(path = %path.display(), kms = %document.kms, "the KMS unwrapped a key");
                Ok(key)
            }
        }
    }
}

/// Makes a key and its file, which is not there yet. What is wrapped is on disk in no other way.
async fn make(
    path: &Path,
    purpose: Purpose,
    wrapper: Option<&Wrapper>,
    random: &dyn Random,
) -> Result<KeyBytes, KeyFileError> {
    let key = KeyBytes::made(random);
    let text = Zeroizing::new(match wrapper {
        Some(wrapper) => wrapper.wrap(&key, purpose).await?.text(),
        None => hex::encode(key.as_array()),
    });
    place::create(path, text.as_bytes()).map_err(KeyFileError::Unwritten)?;
    tracing::warn!(path = %path.display(), "made a key that nothing can replace: back it up");
    Ok(key)
}

/// What the file at `path` holds; none where there is none.
fn find(path: &Path) -> Result<Option<Found>, KeyFileError> {
    let Some(text) = place::read(path).map_err(KeyFileError::Unread)? else { return Ok(None) };
    if text.trim_ascii_start().starts_with(b"{") {
        return Ok(Some(Found::Wrapped(Document::read(&text)?)));
    }
    let key = std::str::from_utf8(&text).ok().and_then(KeyBytes::from_hex);
    key.map(|key| Some(Found::Plain(key))).ok_or(KeyFileError::NoKey)
}

#[cfg(test)]
mod tests;
