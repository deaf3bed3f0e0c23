//! What can go wrong, said so that the reader can mend it.

use std::path::PathBuf;

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
pub enum DevDbError {
    /// No Postgres server was found on this machine.
    #[error("no PostgreSQL server found; install one with: {command}  (or point {var} at a folder that holds `postgres` and `initdb`)", var = crate::installation::PG_BIN)]
    NotInstalled {
        /// The one command that installs it on this platform.
        command: &'static str,
    },
    /// `CORTEX_PG_BIN` names a folder without the server's programs.
    #[error("{var} is {}, which does not hold `postgres` and `initdb`", dir.display(), var = crate::installation::PG_BIN)]
    NotABinDir {
        /// What the variable says.
        dir: PathBuf,
    },
    /// We are root, which Postgres refuses to run as, and there is no other account to run it as.
    #[error(
        "PostgreSQL does not run as root, and this machine has neither a `postgres` nor a `nobody` account"
    )]
    NoAccount,
    /// A file or a process of the cluster could not be made.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program of Postgres failed.
    #[error("{step} failed: {output}")]
    Failed {
        /// Which one.
        step: &'static str,
        /// The end of what it printed.
        output: String,
    },
    /// The server ended before it took a connection.
    #[error("the PostgreSQL server ended at its start; the end of its log:\n{log}")]
    ServerEnded {
        /// The end of its log.
        log: String,
    },
    /// A step took longer than it may.
    #[error("{step} took longer than {seconds} seconds; the end of the server's log:\n{log}")]
    Deadline {
        /// Which step.
        step: &'static str,
        /// How long it was given.
        seconds: u64,
        /// The end of the server's log; empty before there is one.
        log: String,
    },
    /// A database name that would need quoting, or that is longer than Postgres keeps (63 bytes).
    #[error("`{0}` is no database name: 1 to 63 of a-z 0-9 _, not starting with a digit")]
    DatabaseName(String),
    /// The server refused a statement.
    #[error("the PostgreSQL server refused: {source}; the end of its log:\n{log}")]
    Refused {
        /// What it said.
        source: sqlx::Error,
        /// The end of its log.
        log: String,
    },
}

impl DevDbError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
