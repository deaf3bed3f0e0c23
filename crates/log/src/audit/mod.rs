//! The whole log, verified leaf by leaf as it streams past: entries, seals, chains, tree, checkpoints, shards.
//!
//! ```text
//! Auditor::new ─ begin(shard) ─ ShardAudit::feed(leaves)… ─ ShardAudit::end(checkpoint) ─ begin(next) … ─ finish
//! ```
//!
//! The first [`Fault`] ends an audit: what comes after it proves nothing.

mod chain;
mod fault;
mod leaf;
mod tree;

use std::collections::HashMap;

use uuid::Uuid;

pub use self::fault::{Fault, What};

use self::chain::Chain;
use self::leaf::{Leaf, Signature};
use self::tree::Shard;
use crate::Hash;
use crate::checkpoint::Checkpoint;
use crate::note::Verifier;
use crate::opening::{ChainOpened, Head, Opening, Predecessor, ShardOpened, Standing};
use crate::seal::{self, SealError};
use crate::tile::Tile;

/// How many chains are followed at most: a chain is one run of one replica.
pub const MAX_CHAINS: usize = 100_000;

/// Verifies a log, shard by shard.
pub struct Auditor {
    log: Verifier,
    older: Vec<Checkpoint>,
    workers: usize,
    chains: HashMap<Uuid, Chain>,
    ends: Vec<End>,
    follows: Option<Head>,
    recoveries: Vec<Recovery>,
    head: Option<Checkpoint>,
    leaves: u64,
    skipped: u64,
    /// Chains may have ended among leaves that were skipped: one that is not known may stand as a shard says.
    forgot: bool,
}

/// Verifies one shard. It must be ended: what was only fed is not verified.
#[must_use]
pub struct ShardAudit<'a> {
    auditor: &'a mut Auditor,
    shard: Shard,
}

/// What a chain said of the one before it.
struct End {
    origin: String,
    index: u64,
    predecessor: Predecessor,
}

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many leaves, in all shards.
    pub leaves: u64,
    /// How many more were taken by their hashes alone ([`ShardAudit::skip`]).
    pub skipped: u64,
    /// How many chains wrote them.
    pub chains: usize,
    /// The head that the first shard continues, if it was not the log's first; what is before it was not verified.
    pub follows: Option<Head>,
    /// The shards that a recovery opened.
    pub recoveries: Vec<Recovery>,
}

/// A shard that was opened because the one before it had lost what was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The shard.
    pub origin: String,
    /// What its opening says about it.
    pub record: serde_json::Value,
}

impl Auditor {
    /// Begins an audit of the log with this key, whose name is the log's base. The log must be consistent with the
    /// `older` checkpoints, which are verified already.
    pub fn new(log: Verifier, older: Vec<Checkpoint>) -> Self {
        Self {
            log,
            older,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            chains: HashMap::new(),
            ends: Vec::new(),
            follows: None,
            recoveries: Vec::new(),
            head: None,
            leaves: 0,
            skipped: 0,
            forgot: false,
        }
    }

    /// Begins a shard. Shards come in their order.
    pub fn begin(&mut self, origin: &str) -> ShardAudit<'_> {
        let (older, others) =
            std::mem::take(&mut self.older).into_iter().partition(|old| old.origin == origin);
        self.older = others;
        ShardAudit { auditor: self, shard: Shard::new(origin, older) }
    }

    /// Follows the chains through these leaves up to the first that does not fit; answers with the signatures that
    /// are still to be checked.
    fn follow<'a>(
        &mut self,
        shard: &Shard,
        hashes: &[Hash],
        read: &'a [Result<Leaf<'a>, What>],
    ) -> (Vec<Signature<'a>>, Option<(usize, What)>) {
        let mut signatures = Vec::with_capacity(read.len());
        for (at, (hash, leaf)) in hashes.iter().zip(read).enumerate() {
            let index = shard.size() + u64::try_from(at).unwrap_or(0);
            let followed = leaf.as_ref().map_err(Clone::clone).and_then(|leaf| {
                self.open(shard, index, leaf)?;
                let chain = leaf.seal.chain;
                let chain = self.chains.get_mut(&chain).ok_or(What::Unenrolled(chain))?;
                chain.take(&leaf.seal, *hash)?;
                Ok(Signature { leaf, key: chain.key.clone() })
            });
            match followed {
                Ok(signature) => signatures.push(signature),
                Err(what) => return (signatures, Some((at, what))),
            }
        }
        (signatures, None)
    }

    /// What an entry about the log itself changes.
    fn open(&mut self, shard: &Shard, index: u64, leaf: &Leaf<'_>) -> Result<(), What> {
        match (&leaf.opening, index) {
            (Opening::Shard(opened), 0) => self.open_shard(&shard.origin, opened),
            (_, 0) => Err(What::Opening("the shard does not begin with its own opening")),
            (Opening::Shard(_), _) => Err(What::Opening("a shard is opened in the middle of another")),
            (Opening::Chain(opened), _) => self.open_chain(&shard.origin, index, leaf.seal.chain, opened),
            (Opening::Other, _) => Ok(()),
        }
    }

    fn open_shard(&mut self, origin: &str, opened: &ShardOpened) -> Result<(), What> {
        if opened.origin != origin {
            return Err(What::Opening("the shard's opening names another shard"));
        }
        match (&self.head, &opened.previous) {
            (Some(head), Some(previous)) if is_head(head, previous) => {}
            (Some(head), Some(previous)) => return Err(gap(head, previous, opened.recovered.is_some())),
            (Some(_), None) => return Err(What::Head),
            (None, previous) => self.follows.clone_from(previous),
        }
        let recovery = opened
            .recovered
            .iter()
            .map(|record| Recovery { origin: origin.to_owned(), record: record.clone() });
        self.recoveries.extend(recovery);
        for chain in self.chains.values_mut() {
            chain.active = false;
        }
        opened.chains.iter().try_for_each(|standing| self.carry(standing))
    }

    fn carry(&mut self, standing: &Standing) -> Result<(), What> {
        let (uuid, key) = self.enrolled(&standing.key, &standing.enrolment)?;
        match self.chains.get_mut(&uuid) {
            Some(chain) => {
                let stands = chain.carry(&key, standing.batch, standing.digest);
                return if stands { Ok(()) } else { Err(What::Standing(uuid)) };
            }
            None if self.head.is_some()
                && !self.forgot
                && (standing.batch, standing.digest) != (0, Hash::ZERO) =>
            {
                return Err(What::Standing(uuid));
            }
            None => self.add(uuid, Chain::after(key, standing.batch, standing.digest))?,
        }
        Ok(())
    }

    fn open_chain(
        &mut self,
        origin: &str,
        index: u64,
        sealed_by: Uuid,
        opened: &ChainOpened,
    ) -> Result<(), What> {
        let (uuid, key) = self.enrolled(&opened.key, &opened.enrolment)?;
        if uuid != opened.chain || uuid != sealed_by {
            return Err(What::Opening("a chain is opened by another"));
        }
        match self.chains.get_mut(&uuid) {
            Some(chain) if !chain.opened && *chain.key == key => chain.opened = true,
            Some(_) => return Err(What::Opening("a chain is opened twice")),
            None => {
                self.add(uuid, Chain::after(key, 0, Hash::ZERO))?;
                if let Some(chain) = self.chains.get_mut(&uuid) {
                    chain.opened = true;
                }
            }
        }
        opened.predecessor.iter().try_for_each(|predecessor| self.end_chain(origin, index, predecessor))
    }

    fn end_chain(&mut self, origin: &str, index: u64, predecessor: &Predecessor) -> Result<(), What> {
        let Predecessor { chain: uuid, batch, .. } = *predecessor;
        if let Some(chain) = self.chains.get_mut(&uuid) {
            if chain.is_beyond(batch, predecessor.digest) {
                return Err(What::Predecessor { chain: uuid, batch });
            }
            chain.ends_with = Some(batch);
        }
        self.ends.push(End { origin: origin.to_owned(), index, predecessor: predecessor.clone() });
        Ok(())
    }

    fn enrolled(&self, key: &str, enrolment: &str) -> Result<(Uuid, Verifier), What> {
        let enrolled = seal::enrolled(&self.log, enrolment).map_err(What::Enrolment)?;
        let uuid = enrolled.name().parse().map_err(|_| What::Enrolment(SealError::Enrolment))?;
        if enrolled.to_string() == key {
            Ok((uuid, enrolled))
        } else {
            Err(What::Enrolment(SealError::Enrolment))
        }
    }

    fn add(&mut self, uuid: Uuid, mut chain: Chain) -> Result<(), What> {
        if self.chains.len() >= MAX_CHAINS {
            return Err(What::TooManyChains);
        }
        // A successor may be in the log before what its predecessor left behind.
        let named = self.ends.iter().filter(|end| end.predecessor.chain == uuid);
        chain.ends_with = named.map(|end| end.predecessor.batch).min();
        self.chains.insert(uuid, chain);
        Ok(())
    }

    /// Ends the audit: chains that were succeeded must have ended as their successors found them, and no shard of an
    /// older checkpoint may be missing.
    pub fn finish(self) -> Result<Summary, Fault> {
        for End { origin, index, predecessor } in self.ends {
            let Some(chain) = self.chains.get(&predecessor.chain) else { continue };
            if chain.digest() != predecessor.digest {
                let what = What::Predecessor { chain: predecessor.chain, batch: predecessor.batch };
                return Err(Fault { origin, index, until: index + 1, what });
            }
        }
        if let Some(older) = self.older.into_iter().next() {
            return Err(Fault { origin: older.origin, index: 0, until: older.size, what: What::NoShard });
        }
        let Self { leaves, skipped, chains, follows, recoveries, .. } = self;
        Ok(Summary { leaves, skipped, chains: chains.len(), follows, recoveries })
    }
}

impl ShardAudit<'_> {
    /// Takes the shard's next leaves; thousands at once use all cores. `published` are the hashes for these leaves
    /// out of the published tiles of level 0, or nothing: they let a fault of the tree name its leaf. Answers with
    /// the tiles that grew.
    pub fn feed(
        &mut self,
        leaves: &[impl AsRef<[u8]> + Sync],
        published: &[Hash],
    ) -> Result<Vec<Tile>, Fault> {
        let Self { auditor, shard } = self;
        let read = leaf::on_all_cores(leaves, auditor.workers, |leaf| {
            (Hash::leaf(leaf.as_ref()), leaf::read(leaf.as_ref()))
        });
        let (hashes, read): (Vec<_>, Vec<_>) = read.into_iter().unzip();
        let (signatures, fault) = auditor.follow(shard, &hashes, &read);
        let fault = leaf::first_forged(&signatures, auditor.workers).or(fault);
        if let Some((at, what)) = fault {
            let until = at + 1;
            let index = shard.size() + u64::try_from(at).unwrap_or(0);
            shard
                .compare(hashes.get(..until).unwrap_or(&hashes), published.get(..until).unwrap_or(published));
            return Err(shard.fault_at(index, what));
        }
        auditor.leaves += u64::try_from(leaves.len()).unwrap_or(0);
        shard.append(&hashes, published)
    }

    /// Takes the shard's next leaves by their hashes alone, where the leaves themselves are kept elsewhere: the tree and its
    /// checkpoints are verified with them, what they say is not. Answers with the tiles that grew.
    pub fn skip(&mut self, hashes: &[Hash]) -> Result<Vec<Tile>, Fault> {
        self.auditor.skipped += u64::try_from(hashes.len()).unwrap_or(0);
        self.shard.append(hashes, hashes)
    }

    /// Goes on after leaves that were skipped, with the chains as they stand there; what was known of them is forgotten.
    /// What they stand at has to come from the tree's hashes, or it proves nothing.
    pub fn resume(&mut self, chains: &[Standing]) -> Result<(), Fault> {
        self.auditor.chains.clear();
        self.auditor.forgot = true;
        for standing in chains {
            let taken = self.auditor.enrolled(&standing.key, &standing.enrolment).and_then(|(uuid, key)| {
                self.auditor.add(uuid, Chain::after(key, standing.batch, standing.digest))
            });
            taken.map_err(|what| self.shard.fault_at(self.shard.size(), what))?;
        }
        Ok(())
    }

    /// Ends the shard: its leaves must be what its checkpoint, which is verified already, covers.
    pub fn end(mut self, checkpoint: &Checkpoint) -> Result<(), Fault> {
        self.shard.end(checkpoint, self.auditor.head.as_ref().map(|head| head.time_ms))?;
        self.auditor.head = Some(checkpoint.clone());
        Ok(())
    }
}

fn is_head(head: &Checkpoint, previous: &Head) -> bool {
    (&head.origin, head.size, head.root) == (&previous.origin, previous.size, previous.root)
}

/// Why a shard does not begin at the head before it.
fn gap(head: &Checkpoint, previous: &Head, recovered: bool) -> What {
    if recovered && previous.origin == head.origin && previous.size < head.size {
        return What::GivenUp { origin: head.origin.clone(), from: previous.size, last: head.size - 1 };
    }
    What::Head
}
