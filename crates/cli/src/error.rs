//! What goes wrong at the command line; each text says what happened and what to do.

use std::process::ExitCode;

use cortex_devdb::DevDbError;
use cortex_providers::kms::KmsError;
use cortex_sandbox::SandboxError;
use cortex_server::StartError;
use cortex_server::config::ConfigError;
use cortex_server::keyring::KeyringError;
use cortex_server::log::LogKeyError;
use cortex_server::replay::ReplayError;
use cortex_server::store::StoreError;

/// What scripts tell apart. 0 is success, and 2 is also what the parser of the arguments ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did not work, and none of the others says why.
    Failed = 1,
    /// The command line is at fault.
    Usage = 2,
    /// Not allowed: no sign-in, no role, or the policy says no.
    Denied = 3,
    /// There is no such thing.
    NotFound = 4,
    /// It waits for people, or the time to wait for it is over.
    Waiting = 5,
    /// The server cannot be reached, or says to come back later.
    Unavailable = 6,
    /// A replayed change of a policy would have denied what was issued.
    WouldDeny = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What `--help` says of them.
pub(crate) const EXITS: &str = "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 denied or not allowed; 4 no such \
                                thing; 5 waits for people, or waited too long; 6 the server cannot be reached; 7 a \
                                replayed change would have denied what was issued.";

/// A command that did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration.
    #[error("the configuration cannot be used; nothing was started or changed\n{0}")]
    Config(#[from] ConfigError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A replay.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The signing keys.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The replica did not start.
    #[error("the server did not start: {0}")]
    Start(#[from] StartError),
    /// The log's key.
    #[error(transparent)]
    LogKey(#[from] LogKeyError),
    /// The KMS that wraps the key files.
    #[error("kms: {0}")]
    Kms(#[from] KmsError),
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
    /// The same, of a kind that scripts tell apart.
    #[error("{1}")]
    Of(Exit, String),
    /// A command that cannot be started; the number is what shells end with then.
    #[error("{1}")]
    NotStarted(u8, String),
}

impl Error {
    /// What kind of failure it is.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Of(exit, _) => *exit,
            _ => Exit::Failed,
        }
    }

    /// What the process ends with.
    pub fn code(&self) -> ExitCode {
        match self {
            Self::NotStarted(code, _) => ExitCode::from(*code),
            _ => self.exit().into(),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        Self::Of(Exit::Unavailable, format!("the server did not answer: {}", error.without_url()))
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Said(format!("JSON: {error}"))
    }
}
