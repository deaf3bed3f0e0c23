//! `cortex-verify receipt`: that the log kept the promise of a receipt.

use std::path::PathBuf;

use cortex_log::Hash;
use cortex_log::note::Verifier;
use cortex_log::opening::Opening;
use cortex_log::receipt::{MAX_RECEIPT_BYTES, Receipt};
use cortex_log::seal::{self, Seal};
use cortex_log::tree::Frontier;
use jiff::Timestamp;

use crate::log::{self, Shard, Stop};
use crate::report::Outcome;
use crate::source::Source;
use crate::{Trust, Unchecked, read, unusable};

/// What is asked.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The receipt: JSON as it came with the credential.
    receipt: PathBuf,
    /// The published log: a folder, or the address of a live log.
    #[arg(long)]
    log: Source,
    #[command(flatten)]
    trust: Trust,
    /// A folder with an archive of the log: old records that are no longer in the log itself are read there.
    #[arg(long, value_name = "FOLDER")]
    archive: Option<PathBuf>,
}

/// What was found of a receipt's leaf and chain in a log.
#[derive(Default)]
struct Found {
    chain: Option<Verifier>,
    leaf: Option<(usize, u64)>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Unchecked> {
    match verify(arguments) {
        Ok(outcome) => Ok(outcome),
        Err(Stop::Found(outcome)) => Ok(*outcome),
        Err(Stop::Unchecked(error)) => Err(error),
    }
}

fn verify(arguments: &Arguments) -> Result<Outcome, Stop> {
    let Arguments { receipt: path, log, trust, archive } = arguments;
    let log = &log.clone().with_archive(archive.as_deref());
    let receipt: Receipt =
        serde_json::from_slice(&read(path, MAX_RECEIPT_BYTES)?).map_err(|error| unusable(path, &error))?;
    let seal = Seal::parse(&receipt.seal).map_err(|error| unusable(path, &error))?;
    let shards = log::shards(log, &trust.key, None)?;
    let mut found = Found::default();
    for (number, shard) in shards.iter().enumerate() {
        search(log, shard, number, &trust.key, (&receipt, &seal), &mut found)?;
    }
    let Some(chain) = found.chain else {
        let why = "its seal is of a chain that this log does not know: it is of another log, or everything that its \
            writer ever wrote was removed";
        return Err(unusable(path, &why).into());
    };
    receipt.verify(&chain).map_err(|error| unusable(path, &error))?;
    if let Some((number, index)) = found.leaf
        && let Some(shard) = shards.get(number)
    {
        let witnesses = log::cosigned(&shard.note, &shard.checkpoint.origin, &trust.witnesses)?;
        return Ok(Outcome::Included { index, checkpoint: log::covered(&shard.checkpoint), witnesses });
    }
    missing(&receipt, shards.last())
}

/// The log owes the leaf once a checkpoint is later than the receipt's merge-by.
fn missing(receipt: &Receipt, newest: Option<&Shard>) -> Result<Outcome, Stop> {
    let signed = newest.and_then(|shard| Timestamp::from_millisecond(shard.checkpoint.time_ms).ok());
    if signed.is_some_and(|signed| signed > receipt.merge_by) {
        let what = "the receipt is the log's own, its time has come, and its record is not there";
        return Ok(Outcome::signed_wrongly(
            &receipt.origin,
            &what,
            "A record that was promised was removed.",
        ));
    }
    let due = format!("the newest checkpoint is not later than the receipt's merge-by, {}", receipt.merge_by);
    Err(Unchecked::Absent(format!("{due}: ask again later")).into())
}

/// Reads a shard for the receipt's leaf and its chain's key; the shard's leaves must be what its checkpoint covers.
fn search(
    log: &Source,
    shard: &Shard,
    number: usize,
    key: &Verifier,
    (receipt, seal): (&Receipt, &Seal),
    found: &mut Found,
) -> Result<(), Stop> {
    let mut tree = Frontier::empty();
    let mut next = 0;
    while let Some(group) = log::read_group(log, shard, next)? {
        let hashes: Vec<_> = group.leaves.iter().map(|leaf| Hash::leaf(leaf)).collect();
        for (index, (leaf, hash)) in (tree.size()..).zip(group.leaves.iter().zip(&hashes)) {
            if *hash == receipt.leaf_hash && receipt.is_of(leaf) {
                found.leaf = Some((number, index));
            }
            if found.chain.is_none() {
                found.chain = enrolled(leaf, key, seal);
            }
        }
        tree.append(&hashes);
        next = tree.size() / 256;
        if !tree.size().is_multiple_of(256) || hashes.is_empty() {
            break;
        }
    }
    if (tree.size(), tree.root()) == (shard.checkpoint.size, shard.checkpoint.root) {
        return Ok(());
    }
    let what = "its leaves are not what its checkpoint covers; `cortex-verify log` names the first bad index";
    Err(Stop::found(Outcome::signed_wrongly(&shard.checkpoint.origin, &what, "The log was altered.")))
}

/// The key of the seal's chain, if this leaf tells it and the log's key vouches for it.
fn enrolled(leaf: &[u8], key: &Verifier, seal: &Seal) -> Option<Verifier> {
    let notes = match Opening::read(seal::split(leaf).ok()?.0).ok()? {
        Opening::Chain(opened) => vec![opened.enrolment],
        Opening::Shard(opened) => opened.chains.into_iter().map(|standing| standing.enrolment).collect(),
        Opening::Other => return None,
    };
    let chains = notes.iter().filter_map(|note| seal::enrolled(key, note).ok());
    let name = seal.chain.to_string();
    chains.into_iter().find(|chain| chain.name() == name)
}
