//! What an operator configures of Cortex's own keys.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cortex_core::jwt::SigningAlgorithm;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Cortex's own signing keys.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfig {
    /// What Cortex signs with besides RS256, which it always has a key for: policies' targets choose. Default none; `ES256`
    /// is the only other one, and publishes a key of another kind in the key set. A key that is added later signs once it
    /// was published for `publish_ahead_s`.
    pub algorithms: BTreeSet<SigningAlgorithm>,
    /// The file with the key that the signing keys are encrypted under: 32 bytes as 64 hexadecimal digits,
    /// readable by its owner alone, or what `kms.key` made of them. It is made on first start where it is missing. Default
    /// `cortex.key`.
    pub encryption_key_file: PathBuf,
    /// How long a new key is published before it signs, in seconds: at least as long as any verifier caches
    /// the key set. Default 86,400.
    pub publish_ahead_s: i64,
    /// How long a key stays published after it stopped signing, in seconds: the longest token's life and a
    /// cache's. Default 129,600.
    pub retire_after_s: i64,
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self {
            algorithms: BTreeSet::new(),
            encryption_key_file: "cortex.key".into(),
            publish_ahead_s: 86_400,
            retire_after_s: 129_600,
        }
    }
}

impl KeysConfig {
    /// Everything that Cortex signs with.
    pub(super) fn all_algorithms(&self) -> impl Iterator<Item = SigningAlgorithm> {
        let wanted = |algorithm: &SigningAlgorithm| {
            *algorithm == SigningAlgorithm::RS256 || self.algorithms.contains(algorithm)
        };
        SigningAlgorithm::ALL.into_iter().filter(wanted)
    }
}
