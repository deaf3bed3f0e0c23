//! Where a run's token comes from: a file that somebody renews, or a command that prints a fresh one each time.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use cortex_core::Digest;
use tokio::process::Command;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::api;
use crate::error::{Error, Exit};

/// How long a command may take to print a token.
const DEADLINE: Duration = Duration::from_secs(30);
/// The largest token that a command may print, in bytes.
const TOKEN_MAX: usize = 64 << 10;

#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SubjectArgs {
    /// A file with the run's token, which somebody renews: it is read anew at each renewal.
    #[arg(long, env = "CORTEX_SUBJECT_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A command that prints a fresh token of the run each time, run by the shell: for tokens that are good for one
    /// exchange.
    #[arg(long, env = "CORTEX_SUBJECT_TOKEN_COMMAND", value_name = "COMMAND")]
    token_command: Option<String>,
}

enum Source {
    File(PathBuf),
    Command(String),
}

/// Gives the run's token.
pub(crate) struct Subject {
    source: Source,
    /// The token that was refused last: showing it again would only be refused again, and be on record again.
    refused: Option<Digest>,
}

impl Subject {
    /// The source that was named.
    pub(crate) fn new(args: SubjectArgs) -> Result<Self, Error> {
        let source = match (args.token_file, args.token_command) {
            (Some(file), None) => Source::File(file),
            (None, Some(command)) => Source::Command(command),
            (None, None) | (Some(_), Some(_)) => {
                let text = "name either --token-file or --token-command";
                return Err(Error::Of(Exit::Usage, text.to_owned()));
            }
        };
        Ok(Self { source, refused: None })
    }

    /// A token that was not refused before.
    pub(crate) async fn token(&self) -> Result<Zeroizing<String>, Error> {
        let token = match &self.source {
            Source::File(file) => api::token_in(file)?,
            Source::Command(command) => printed_by(command).await?,
        };
        if self.refused == Some(Digest::of(token.as_bytes())) {
            let text =
                "the run's token was refused before and has not changed since; wait until it is renewed";
            return Err(Error::Said(text.to_owned()));
        }
        Ok(token)
    }

    /// Remembers that `token` is not accepted any more.
    pub(crate) fn refuse(&mut self, token: &str) {
        self.refused = Some(Digest::of(token.as_bytes()));
    }
}

async fn printed_by(command: &str) -> Result<Zeroizing<String>, Error> {
    let wrong = |what: String| Error::Said(format!("--token-command: {what}"));
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let output = timeout(DEADLINE, shell.output())
        .await
        .map_err(|_| wrong(format!("it printed nothing within {} s", DEADLINE.as_secs())))?
        .map_err(|error| wrong(error.to_string()))?;
    let printed = Zeroizing::new(output.stdout);
    if !output.status.success() {
        return Err(wrong(format!("it failed: {}", output.status)));
    }
    let token = std::str::from_utf8(&printed).ok().map(str::trim).unwrap_or_default();
    if token.is_empty() || token.len() > TOKEN_MAX || token.contains(char::is_whitespace) {
        return Err(wrong("it has to print one token and nothing else".to_owned()));
    }
    Ok(Zeroizing::new(token.to_owned()))
}
