//! Wrapping key files that are there: plain ones, and those that another key of a KMS wrapped.

use std::path::Path;
use std::sync::Arc;

use cortex_core::Clock;
use cortex_providers::kms::{KmsError, KmsKey, Purpose};

use super::wrapper::Wrapper;
use super::{Found, KeyFileError, find, make, place};
use crate::config::Config;
use crate::random::Random;

/// What was different when the files were wrapped that are to be wrapped again; each is none where it was as configured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Before<'a> {
    /// The key.
    pub key: Option<&'a KmsKey>,
    /// Where the KMS of that key is. None stands for the cloud's own address, where the key was another one.
    pub endpoint: Option<&'a str>,
    /// The `server.public_url`.
    pub issuer: Option<&'a str>,
}

/// What became of a file that was to be wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was wrapped as configured already, and opens.
    Already,
    /// It held its key as it is.
    Wrapped,
    /// It was wrapped in another way.
    Again,
    /// It was not there, and was made.
    Made,
}

/// Wraps files as configured.
pub struct Wrapping {
    now: Wrapper,
    before: Wrapper,
    random: Arc<dyn Random>,
}

impl Wrapping {
    /// As configured. Errors where no key of a KMS is.
    pub fn new(
        config: &Config,
        before: &Before<'_>,
        clock: &Arc<dyn Clock>,
        random: &Arc<dyn Random>,
    ) -> Result<Self, KmsError> {
        let now = Wrapper::as_it_was(config, &Before::default(), clock)?;
        let before = Wrapper::as_it_was(config, before, clock)?;
        Ok(Self { now, before, random: Arc::clone(random) })
    }

    /// Wraps the file of `purpose` in its place. With `may_create`, a missing one is made. The file is replaced whole or not
    /// at all, and only once the KMS has given back the very same key.
    pub async fn wrap(
        &self,
        path: &Path,
        purpose: Purpose,
        may_create: bool,
    ) -> Result<Outcome, KeyFileError> {
        let (key, outcome) = match find(path)? {
            None if may_create => {
                make(path, purpose, Some(&self.now), &*self.random).await?;
                return Ok(Outcome::Made);
            }
            None => return Err(KeyFileError::NothingToWrap),
            Some(Found::Wrapped(document)) if self.now.made(&document) => {
                self.now.unwrap(&document, purpose).await?;
                return Ok(Outcome::Already);
            }
            Some(Found::Wrapped(document)) => (self.before.unwrap(&document, purpose).await?, Outcome::Again),
            Some(Found::Plain(key)) => (key, Outcome::Wrapped),
        };
        let document = self.now.wrap(&key, purpose).await?;
        place::replace(path, document.text().as_bytes(), &*self.random).map_err(KeyFileError::Unwritten)?;
        Ok(outcome)
    }
}
