//! A log, what was signed of it, and how it is audited.

use cortex_log::Hash;
use cortex_log::audit::{Auditor, Fault, Summary, What};
use cortex_log::checkpoint::Checkpoint;
use cortex_log::seal::{self, Seal};

use crate::made::{self, BASE, Log};

/// Audits what is there against the checkpoints that were signed. The published tiles are those that were signed
/// too, unless there are none.
pub(crate) struct Case {
    pub(crate) log: Log,
    pub(crate) signed: Vec<Checkpoint>,
    pub(crate) published: Vec<Vec<Hash>>,
    pub(crate) older: Vec<Checkpoint>,
}

impl Case {
    pub(crate) fn of(log: Log) -> Self {
        let signed = (0..log.shards.len()).map(|number| log.checkpoint(number)).collect();
        let published = log.shards.iter().map(|shard| made::hashes(&shard.leaves)).collect();
        Self { log, signed, published, older: Vec::new() }
    }

    pub(crate) fn leaves(&mut self) -> &mut Vec<Vec<u8>> {
        &mut self.log.shard().leaves
    }

    pub(crate) fn without_tiles(mut self) -> Self {
        self.published.iter_mut().for_each(Vec::clear);
        self
    }

    /// The same result must come out, however the leaves are cut.
    pub(crate) fn audit(&self) -> Result<Summary, Fault> {
        let results: Vec<_> = [1, 5, 64, 100_000].iter().map(|chunk| self.audit_by(*chunk)).collect();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{results:?}");
        results[0].clone()
    }

    pub(crate) fn audit_by(&self, chunk: usize) -> Result<Summary, Fault> {
        let mut auditor = Auditor::new(self.log.signer.verifier(), self.older.clone());
        for (number, shard) in self.log.shards.iter().enumerate() {
            let mut audit = auditor.begin(&format!("{BASE}/{}", shard.name));
            let mut published = self.published[number].chunks(chunk);
            for leaves in shard.leaves.chunks(chunk) {
                audit.feed(leaves, published.next().unwrap_or_default())?;
            }
            audit.end(&self.signed[number])?;
        }
        auditor.finish()
    }
}

pub(crate) fn fault(index: u64, until: u64, what: What) -> Result<Summary, Fault> {
    Err(Fault { origin: format!("{BASE}/2026"), index, until, what })
}

pub(crate) fn at(index: u64, what: What) -> Result<Summary, Fault> {
    fault(index, index + 1, what)
}

/// Of two replicas and 36 records: leaf 0 opens the shard, leaf 1 the second chain; then three records of the one
/// and three of the other, six times.
pub(crate) fn case() -> Case {
    Case::of(Log::of_two(6))
}

pub(crate) const LEAVES: u64 = 38;

pub(crate) fn parts(leaf: &[u8]) -> (Vec<u8>, Seal) {
    let (entry, note) = seal::split(leaf).unwrap();
    (entry.to_vec(), Seal::parse(note).unwrap())
}
