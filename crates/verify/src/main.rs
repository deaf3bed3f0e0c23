//! The binary `cortex-verify`: verifies an issuance log, a receipt or a proof, with nothing but the log's key.

mod log;
mod proof;
mod receipt;
mod report;
mod source;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cortex_log::note::Verifier;
use cortex_log::witness::Cosigner;

use crate::report::{Outcome, Report};

/// Verifies Cortex's issuance log. It needs the log's public key and nothing else from the server's operators.
///
/// Exit status: 0 if all is whole, 1 if something is wrong (the first bad index is named), 2 if it could not be
/// checked.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Answer with JSON on standard output.
    #[arg(long, global = true)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  cortex-verify log https://cortex.acme.example/v1/log --key \"$KEY\"
  cortex-verify log ./export --key \"$KEY\" --older checkpoint-of-last-quarter
  cortex-verify receipt receipt.json --log ./export --key \"$KEY\"
  cortex-verify proof record.tlog-proof --leaf record.leaf --key \"$KEY\"

A live log asks for the token of an auditor: CORTEX_TOKEN.
KEY is the log's verifier key, NAME+ID+BASE64. Get it from the operators once, on a way that you trust.";

#[derive(Subcommand)]
enum Command {
    /// Verify every record of a log: seals, chains, tree, checkpoints, shards.
    Log(log::Arguments),
    /// Verify that the record of a receipt is in a log.
    Receipt(receipt::Arguments),
    /// Verify a proof (C2SP tlog-proof) that a leaf is in a log. Needs no log at hand.
    Proof(proof::Arguments),
}

/// The log's key and its witnesses.
#[derive(clap::Args)]
struct Trust {
    /// The log's verifier key, whose name is the log's base: NAME+ID+BASE64.
    #[arg(long, value_name = "VKEY")]
    key: Verifier,
    /// The key of a witness that must have cosigned the newest checkpoint. Repeatable.
    #[arg(long = "witness", value_name = "VKEY")]
    witnesses: Vec<Cosigner>,
}

/// Why nothing could be said.
#[derive(Debug, thiserror::Error)]
enum Unchecked {
    /// A file that was named on the command line could not be read.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that was named on the command line is not what it should be.
    #[error("{path}: {why}", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What it should be.
        why: String,
    },
    /// The log could not be read.
    #[error(transparent)]
    Source(#[from] source::SourceError),
    /// What was asked for is not in the log.
    #[error("{0}")]
    Absent(String),
}

fn main() -> ExitCode {
    // One cryptographic library for everything, whatever a dependency may prefer.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Arguments { command, json } = Arguments::parse();
    let outcome = match command {
        Command::Log(arguments) => log::run(&arguments),
        Command::Receipt(arguments) => receipt::run(&arguments),
        Command::Proof(arguments) => proof::run(&arguments),
    };
    let outcome = outcome.unwrap_or_else(|error| Outcome::Unchecked { error: error.to_string() });
    Report { json }.print(&outcome)
}

/// Reads a file that was named on the command line, of `limit` bytes at most.
fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Unchecked> {
    let file =
        std::fs::File::open(path).map_err(|source| Unchecked::File { path: path.to_owned(), source })?;
    let bytes =
        source::bounded(file, limit).map_err(|source| Unchecked::File { path: path.to_owned(), source })?;
    bytes.ok_or_else(|| unusable(path, &format!("longer than {limit} bytes")))
}

/// Reads a text file that was named on the command line.
fn read_text(path: &Path, limit: usize) -> Result<String, Unchecked> {
    String::from_utf8(read(path, limit)?).map_err(|_| unusable(path, &"not a text"))
}

fn unusable(path: &Path, why: &impl ToString) -> Unchecked {
    Unchecked::Unusable { path: path.to_owned(), why: why.to_string() }
}
