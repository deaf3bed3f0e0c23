//! A key of a KMS, and the Cortex whose keys it wraps.

use std::sync::Arc;

use cortex_core::Clock;
use cortex_providers::kms::{Binding, Kms, KmsConfig, KmsError, Purpose};

use super::document::Document;
use super::wrapping::Before;
use super::{KeyBytes, KeyFileError};
use crate::config::Config;

/// What wraps and unwraps.
pub(super) struct Wrapper {
    kms: Kms,
    issuer: String,
    clock: Arc<dyn Clock>,
}

impl Wrapper {
    /// As configured; none where key files hold their keys as they are.
    pub(super) fn configured(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Self>, KmsError> {
        if config.kms.key.is_none() {
            return Ok(None);
        }
        Self::as_it_was(config, &Before::default(), clock).map(Some)
    }

    /// As configured but for what was different `before`.
    pub(super) fn as_it_was(
        config: &Config,
        before: &Before<'_>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, KmsError> {
        let missing =
            |what: &str| KmsError::Refused(format!("{what} is not configured: nothing can be wrapped."));
        let KmsConfig { key, endpoint, calls } = &config.kms;
        let configured = key.as_ref().ok_or_else(|| missing("kms.key"))?;
        let key = before.key.unwrap_or(configured);
        // What is configured is where the configured key is.
        let endpoint = endpoint.as_deref().filter(|_| key == configured);
        let kms = Kms::new(key, before.endpoint.or(endpoint), calls)?;
        let issuer = before.issuer.or(config.server.public_url.as_deref());
        let issuer = issuer.ok_or_else(|| missing("server.public_url"))?.to_owned();
        Ok(Self { kms, issuer, clock: Arc::clone(clock) })
    }

    fn binding(&self, purpose: Purpose) -> Binding<'_> {
        Binding { purpose, issuer: &self.issuer }
    }

    pub(super) async fn wrap(&self, key: &KeyBytes, purpose: Purpose) -> Result<Document, KeyFileError> {
        let bound = self.binding(purpose);
        // Boxed, so that every start's future stays small.
        let wrapped = Box::pin(self.kms.wrap(key.as_array(), &bound, self.clock.now())).await?;
        Ok(Document::new(self.kms.key().clone(), purpose, self.issuer.clone(), &wrapped))
    }

    pub(super) async fn unwrap(
        &self,
        document: &Document,
        purpose: Purpose,
    ) -> Result<KeyBytes, KeyFileError> {
        if document.purpose != purpose {
            return Err(KeyFileError::OtherPurpose { there: document.purpose, wanted: purpose });
        }
        if document.issuer != self.issuer {
            let (there, wanted) = (document.issuer.clone(), self.issuer.clone());
            return Err(KeyFileError::OtherIssuer { there, wanted });
        }
        if document.kms != *self.kms.key() {
            let (there, wanted) = (document.kms.clone(), self.kms.key().clone());
            return Err(KeyFileError::OtherKey { there, wanted });
        }
        // What the KMS authenticates is what has to be, not what the document says.
        let (wrapped, bound) = (document.wrapped()?, self.binding(purpose));
        let plain = Box::pin(self.kms.unwrap(&wrapped, &bound, self.clock.now())).await?;
        KeyBytes::read(&plain).ok_or(KeyFileError::NotOurs)
    }

    /// Whether this is what wrapped `document`, going by its word.
    pub(super) fn made(&self, document: &Document) -> bool {
        document.kms == *self.kms.key() && document.issuer == self.issuer
    }
}
