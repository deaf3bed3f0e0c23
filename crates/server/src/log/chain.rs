//! Sealing: what a process signs about each record in the moment in which it writes it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use cortex_log::note::{Signer, Verifier};
use cortex_log::seal::{self, Seal, SealError};
use cortex_log::{Hash, receipt::Receipt};
use jiff::Timestamp;
use uuid::Uuid;

use super::MERGE_DELAY;
use crate::random::Random;

/// How many leaves' hashes a process remembers until they are in the tree.
const REMEMBERED: usize = 200_000;

/// Who writes to a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The recorder: it commits for many at once.
    Recorder,
    /// A transaction that writes its own records.
    Desk,
    /// Whoever opens a tree.
    Sequencer,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Recorder => "recorder",
            Self::Desk => "desk",
            Self::Sequencer => "sequencer",
        }
    }
}

/// One writer of this process, with a key that nobody else has and that ends with the process.
pub(crate) struct Chain {
    pub(crate) id: Uuid,
    pub(crate) role: Role,
    pub(crate) enrolment: String,
    signer: Signer,
}

/// A record's seal, and the hash of the leaf that both make.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The signed note.
    pub seal: String,
    /// The leaf's hash.
    pub leaf: Hash,
    /// When it was sealed.
    pub at: Timestamp,
}

impl Sealed {
    /// Of a record that is written.
    pub(crate) fn read(entry: &[u8], seal: String) -> Result<Self, SealError> {
        let at = Timestamp::from_millisecond(Seal::parse(&seal)?.time_ms).unwrap_or_default();
        Ok(Self { leaf: Hash::leaf(&seal::join(entry, &seal)), seal, at })
    }

    /// What whoever caused the record is given, as evidence that it has to be in the log.
    pub fn receipt(&self, base: &str) -> Receipt {
        Receipt {
            origin: base.to_owned(),
            leaf_hash: self.leaf,
            time: self.at,
            merge_by: self.at.saturating_add(MERGE_DELAY).unwrap_or(Timestamp::MAX),
            seal: self.seal.clone(),
        }
    }
}

/// Records that are committed together, as their chain says.
pub(crate) struct Batch {
    pub(crate) chain: Uuid,
    /// The chain's head before.
    pub(crate) expected: i64,
    pub(crate) number: i64,
    /// The digest of the chain's batch before.
    pub(crate) previous: Hash,
    pub(crate) seals: Vec<Sealed>,
}

/// Where a chain ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tail {
    pub(crate) head: i64,
    pub(crate) digest: Hash,
}

impl Tail {
    /// Of a chain that has nothing yet.
    pub(crate) const NEW: Self = Self { head: 0, digest: Hash::ZERO };
}

impl Chain {
    pub(crate) fn key(&self) -> String {
        self.signer.verifier().to_string()
    }

    /// Seals the next batch.
    pub(crate) fn seal<'a>(
        &self,
        tail: Tail,
        entries: impl Iterator<Item = &'a [u8]>,
        at: Timestamp,
    ) -> Result<Batch, SealError> {
        let number = tail.head + 1;
        // To the millisecond, as the seal says it.
        let at = Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at);
        let merge_by = at.saturating_add(MERGE_DELAY).unwrap_or(Timestamp::MAX);
        let seals = (1_u32..).zip(entries).map(|(place, entry)| {
            let seal = Seal {
                chain: self.id,
                batch: number.unsigned_abs(),
                place,
                entry: Hash::of(entry),
                previous: tail.digest,
                time_ms: at.as_millisecond(),
                merge_by_ms: merge_by.as_millisecond(),
            };
            let seal = seal.sign(&self.signer)?;
            let leaf = Hash::leaf(&seal::join(entry, &seal));
            Ok(Sealed { seal, leaf, at })
        });
        let seals = seals.collect::<Result<_, SealError>>()?;
        Ok(Batch { chain: self.id, expected: tail.head, number, previous: tail.digest, seals })
    }
}

/// The chains of this process.
pub struct Chains {
    log: Signer,
    process: Uuid,
    desk: Mutex<HashMap<Uuid, Arc<Chain>>>,
    written: Mutex<Written>,
}

/// What was written and is not in the tree yet, by chain and batch.
#[derive(Default)]
struct Written {
    batches: HashMap<Uuid, BTreeMap<i64, Vec<Hash>>>,
    hashes: usize,
}

impl Chains {
    /// Chains of a process that begins; `log` is the log's key, under the log's name.
    pub fn new(log: Signer, random: &dyn Random) -> Self {
        Self { log, process: uuid(random), desk: Mutex::default(), written: Mutex::default() }
    }

    /// The log's key.
    pub(crate) fn log(&self) -> &Signer {
        &self.log
    }

    /// The log's public key, under the log's name.
    pub fn verifier(&self) -> Verifier {
        self.log.verifier()
    }

    /// The log's name.
    pub fn base(&self) -> &str {
        self.log.name()
    }

    pub(crate) fn process(&self) -> Uuid {
        self.process
    }

    /// A chain that has written nothing yet.
    pub(crate) fn begin(&self, role: Role, random: &dyn Random) -> Result<Arc<Chain>, SealError> {
        let id = uuid(random);
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        random.fill(seed.as_mut_slice());
        let signer = Signer::from_seed(&id.to_string(), &seed)?;
        let enrolment = seal::enrol(&self.log, &signer.verifier())?;
        Ok(Arc::new(Chain { id, role, enrolment, signer }))
    }

    /// Keeps a chain for the desk's next transactions.
    pub(crate) fn keep(&self, chain: &Arc<Chain>) {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner).insert(chain.id, Arc::clone(chain));
    }

    /// A chain that was kept.
    pub(crate) fn kept(&self, id: Uuid) -> Option<Arc<Chain>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Remembers what was committed, so that a sequencer in this process need not read it again.
    pub(crate) fn wrote(&self, chain: Uuid, batch: i64, leaves: Vec<Hash>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.hashes + leaves.len() <= REMEMBERED {
            written.hashes += leaves.len();
            written.batches.entry(chain).or_default().insert(batch, leaves);
        }
    }

    /// What this process wrote to `chain` after batch `after`, up to `upto` at the most and as far as one follows the other;
    /// forgets it. A batch may be in the database a moment before it is remembered here.
    pub(crate) fn take(&self, chain: Uuid, after: i64, upto: i64) -> Vec<(i64, Vec<Hash>)> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(batches) = written.batches.get_mut(&chain) else { return Vec::new() };
        let later = batches.split_off(&(upto + 1));
        let taken = std::mem::replace(batches, later);
        written.hashes -= taken.values().map(Vec::len).sum::<usize>();
        let taken = taken.into_iter().filter(|(batch, _)| *batch > after);
        taken
            .zip(after + 1..)
            .take_while(|((batch, _), next)| batch == next)
            .map(|(taken, _)| taken)
            .collect()
    }
}

fn uuid(random: &dyn Random) -> Uuid {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SystemRandom;

    #[test]
    fn what_is_remembered_is_taken_once_and_never_past_a_gap() {
        let log = Signer::from_seed("cortex.example/log", &[7; 32]).unwrap();
        let chains = Chains::new(log, &SystemRandom);
        let chain = uuid(&SystemRandom);
        let numbers = |taken: Vec<(i64, Vec<Hash>)>| taken.into_iter().map(|(n, _)| n).collect::<Vec<_>>();
        for batch in [1, 2, 3, 5] {
            chains.wrote(chain, batch, vec![Hash::ZERO]);
        }
        assert_eq!(numbers(chains.take(chain, 0, 2)), [1, 2], "no further than the database");
        assert_eq!(numbers(chains.take(chain, 2, 4)), [3], "the fourth is there, and not remembered yet");
        assert!(chains.take(chain, 3, 5).is_empty(), "the database is asked for what was never remembered");
        assert!(chains.take(chain, 3, 5).is_empty(), "and for what was forgotten with it");
        chains.wrote(chain, 6, vec![Hash::ZERO]);
        assert_eq!(numbers(chains.take(chain, 5, 9)), [6]);
        assert_eq!(chains.written.lock().unwrap().hashes, 0);
    }
}
