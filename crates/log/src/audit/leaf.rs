//! What can be said of a leaf by itself, for many leaves on all cores.

use std::sync::Arc;

use super::What;
use crate::Hash;
use crate::note::Verifier;
use crate::opening::Opening;
use crate::seal::{self, Seal, SealError};

/// Below this, starting threads costs more than it saves.
const WORTH_A_THREAD: usize = 64;

/// A leaf taken apart.
pub(super) struct Leaf<'a> {
    pub(super) seal: Seal,
    pub(super) note: &'a str,
    pub(super) opening: Opening,
}

/// Takes a leaf apart and checks that the seal is of the entry.
pub(super) fn read(leaf: &[u8]) -> Result<Leaf<'_>, What> {
    if leaf.len() > seal::MAX_LEAF_BYTES {
        return Err(What::Leaf(SealError::Leaf));
    }
    let (entry, note) = seal::split(leaf).map_err(What::Leaf)?;
    let seal = Seal::parse(note).map_err(What::Leaf)?;
    if Hash::of(entry) != seal.entry {
        return Err(What::Entry);
    }
    let opening = Opening::read(entry).map_err(|_| What::Opening("an entry about the log is malformed"))?;
    Ok(Leaf { seal, note, opening })
}

/// A signature to be checked: the seal's note, its chain and the chain's key.
pub(super) struct Signature<'a> {
    pub(super) leaf: &'a Leaf<'a>,
    pub(super) key: Arc<Verifier>,
}

/// The first wrong signature.
pub(super) fn first_forged(signatures: &[Signature<'_>], workers: usize) -> Option<(usize, What)> {
    let checked =
        on_all_cores(signatures, workers, |Signature { leaf, key }| Seal::verify(leaf.note, key).err());
    signatures.iter().zip(checked).enumerate().find_map(|(at, (signature, error))| {
        error.map(|error| (at, What::Signature(signature.leaf.seal.chain, error)))
    })
}

/// Does the same to each item, in order.
pub(super) fn on_all_cores<'a, T: Sync, R: Send>(
    items: &'a [T],
    workers: usize,
    act: impl Fn(&'a T) -> R + Sync,
) -> Vec<R> {
    if items.len() < WORTH_A_THREAD || workers < 2 {
        return items.iter().map(act).collect();
    }
    std::thread::scope(|scope| {
        let act = &act;
        let parts = items.chunks(items.len().div_ceil(workers));
        let threads: Vec<_> =
            parts.map(|part| scope.spawn(move || part.iter().map(act).collect::<Vec<_>>())).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.flatten().collect()
    })
}
