//! `cortex-verify proof`: that a leaf is in a log, from a file that carries all that is needed.

use std::path::PathBuf;

use cortex_log::Hash;
use cortex_log::checkpoint::Checkpoint;
use cortex_log::proof::{self, MAX_FILE_BYTES, ProofFile};
use cortex_log::seal::MAX_LEAF_BYTES;

use crate::log::{self, Stop};
use crate::report::Outcome;
use crate::{Trust, Unchecked, read, read_text, unusable};

/// What is asked.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The proof: a C2SP tlog-proof.
    proof: PathBuf,
    /// The leaf's exact bytes: the record and its seal.
    #[arg(long)]
    leaf: PathBuf,
    #[command(flatten)]
    trust: Trust,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Unchecked> {
    match verify(arguments) {
        Ok(outcome) => Ok(outcome),
        Err(Stop::Found(outcome)) => Ok(*outcome),
        Err(Stop::Unchecked(error)) => Err(error),
    }
}

fn verify(arguments: &Arguments) -> Result<Outcome, Stop> {
    let Arguments { proof: path, leaf, trust } = arguments;
    let file: ProofFile = read_text(path, MAX_FILE_BYTES)?.parse().map_err(|error| unusable(path, &error))?;
    let leaf = Hash::leaf(&read(leaf, MAX_LEAF_BYTES)?);
    let checkpoint = Checkpoint::open_under(&file.checkpoint, &trust.key).map_err(|error| {
        let meaning = "The proof's checkpoint was altered, or is not of the log of the key that you gave.";
        Stop::found(Outcome::signed_wrongly(trust.key.name(), &error, meaning))
    })?;
    let witnesses = log::cosigned(&file.checkpoint, &checkpoint.origin, &trust.witnesses)?;
    proof::verify_inclusion(leaf, file.index, checkpoint.size, checkpoint.root, &file.hashes).map_err(
        |error| {
            let meaning = "The leaf or the proof was altered, or they do not belong together.";
            Stop::found(Outcome::signed_wrongly(&checkpoint.origin, &error, meaning))
        },
    )?;
    Ok(Outcome::Included { index: file.index, checkpoint: log::covered(&checkpoint), witnesses })
}
