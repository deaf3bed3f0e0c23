//! What goes wrong at the command line; each text says what happened and what to do.

use cortex_devdb::DevDbError;
use cortex_sandbox::SandboxError;
use cortex_server::StartError;
use cortex_server::config::ConfigError;
use cortex_server::keyring::KeyringError;
use cortex_server::store::StoreError;

/// A command that did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration.
    #[error("the configuration cannot be used; nothing was started or changed\n{0}")]
    Config(#[from] ConfigError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The signing keys.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The replica did not start.
    #[error("the server did not start: {0}")]
    Start(#[from] StartError),
    /// The private database did not start.
    #[error(transparent)]
    DevDb(#[from] DevDbError),
    /// The sandbox did not start.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A file or a socket.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Documents that are not accepted; every fault was printed.
    #[error("{0}; nothing was changed")]
    Documents(String),
    /// Anything else, in words.
    #[error("{0}")]
    Said(String),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        Self::Said(format!("the server did not answer: {error}"))
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Said(format!("JSON: {error}"))
    }
}
