//! A log as the broker makes it, for the tests to verify and to break.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "not every test uses all of it; what cannot be made has failed its test"
)]

use std::fs;
use std::path::Path;

use cortex_log::Hash;
use cortex_log::checkpoint::Checkpoint;
use cortex_log::note::Signer;
use cortex_log::opening::{ChainOpened, Head, Predecessor, ShardOpened, Standing};
use cortex_log::seal::{self, Seal};
use cortex_log::tile;
use cortex_log::tree::Frontier;
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) const BASE: &str = "cortex.acme.example/log";
/// 1 January 2026.
pub(crate) const START: i64 = 1_767_225_600_000;

/// One run of a replica.
pub(crate) struct Chain {
    pub(crate) signer: Signer,
    pub(crate) uuid: Uuid,
    pub(crate) batch: u64,
    pub(crate) digest: Hash,
    ended: bool,
}

pub(crate) struct Shard {
    pub(crate) name: String,
    pub(crate) leaves: Vec<Vec<u8>>,
    pub(crate) time_ms: i64,
}

pub(crate) struct Log {
    pub(crate) signer: Signer,
    pub(crate) chains: Vec<Chain>,
    pub(crate) shards: Vec<Shard>,
    clock: i64,
    written: u64,
}

impl Chain {
    /// A chain with a key of its own; the same number makes the same chain.
    pub(crate) fn new(number: u8) -> Self {
        let uuid = Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0000 + u128::from(number));
        let signer = Signer::from_seed(&uuid.to_string(), &[number; 32]).unwrap();
        Self { signer, uuid, batch: 0, digest: Hash::ZERO, ended: false }
    }

    pub(crate) fn seal(&self, place: u32, entry: &[u8], time_ms: i64) -> Seal {
        Seal {
            chain: self.uuid,
            batch: self.batch + 1,
            place,
            entry: Hash::of(entry),
            previous: self.digest,
            time_ms,
            merge_by_ms: time_ms + 30_000,
        }
    }
}

pub(crate) fn join(entry: &[u8], seal: &Seal, key: &Signer) -> Vec<u8> {
    seal::join(entry, &seal.sign(key).unwrap())
}

pub(crate) fn root(leaves: &[Vec<u8>]) -> Hash {
    let mut frontier = Frontier::empty();
    frontier.append(&hashes(leaves));
    frontier.root()
}

pub(crate) fn hashes(leaves: &[Vec<u8>]) -> Vec<Hash> {
    leaves.iter().map(|leaf| Hash::leaf(leaf)).collect()
}

impl Log {
    /// A log with one shard, which its first chain opened.
    pub(crate) fn new() -> Self {
        let signer = Signer::from_seed(BASE, &[200; 32]).unwrap();
        let mut log =
            Self { signer, chains: vec![Chain::new(1)], shards: Vec::new(), clock: START, written: 0 };
        log.open_shard("2026", 0, None);
        log
    }

    /// Two replicas that wrote `batches` batches each, one after the other, of three records.
    pub(crate) fn of_two(batches: usize) -> Self {
        let mut log = Self::new();
        let second = log.open_chain(None);
        for _ in 0..batches {
            log.write(0, 3);
            log.write(second, 3);
        }
        log
    }

    pub(crate) fn shard(&mut self) -> &mut Shard {
        self.shards.last_mut().unwrap()
    }

    /// The next chain begins; `predecessor` has ended.
    pub(crate) fn open_chain(&mut self, predecessor: Option<usize>) -> usize {
        let chain = Chain::new(u8::try_from(self.chains.len() + 1).unwrap());
        let predecessor = predecessor.map(|number| {
            let ended = &mut self.chains[number];
            ended.ended = true;
            Predecessor { chain: ended.uuid, batch: ended.batch, digest: ended.digest }
        });
        let opened = ChainOpened {
            chain: chain.uuid,
            key: chain.signer.verifier().to_string(),
            enrolment: seal::enrol(&self.signer, &chain.signer.verifier()).unwrap(),
            predecessor,
        };
        self.chains.push(chain);
        let number = self.chains.len() - 1;
        self.commit(number, &[record("log.chain_opened", &opened)]);
        number
    }

    pub(crate) fn open_shard(&mut self, name: &str, by: usize, recovered: Option<Value>) {
        let opened = self.shard_opened(name, recovered);
        self.shards.push(Shard { name: name.to_owned(), leaves: Vec::new(), time_ms: self.clock });
        self.commit(by, &[record("log.shard_opened", &opened)]);
    }

    pub(crate) fn shard_opened(&self, name: &str, recovered: Option<Value>) -> ShardOpened {
        let head = |shard: &Shard| Head {
            origin: format!("{BASE}/{}", shard.name),
            size: shard.leaves.len().try_into().unwrap(),
            root: root(&shard.leaves),
        };
        let standing = |chain: &Chain| Standing {
            key: chain.signer.verifier().to_string(),
            enrolment: seal::enrol(&self.signer, &chain.signer.verifier()).unwrap(),
            batch: chain.batch,
            digest: chain.digest,
        };
        ShardOpened {
            origin: format!("{BASE}/{name}"),
            previous: self.shards.last().map(head),
            recovered,
            chains: self.chains.iter().filter(|chain| !chain.ended).map(standing).collect(),
        }
    }

    /// A batch of records.
    pub(crate) fn write(&mut self, chain: usize, records: u64) {
        let entries: Vec<_> = (0..records).map(|number| entry(self.written + number)).collect();
        self.written += records;
        self.commit(chain, &entries);
    }

    /// A batch of these entries, with gaps between the places.
    pub(crate) fn commit(&mut self, chain: usize, entries: &[Vec<u8>]) {
        self.clock += 200;
        let time = self.clock;
        let chain = &mut self.chains[chain];
        let seals = (0..).map(|number| number * 2).zip(entries);
        let leaves: Vec<_> =
            seals.map(|(place, entry)| join(entry, &chain.seal(place, entry, time), &chain.signer)).collect();
        chain.batch += 1;
        chain.digest = seal::batch_digest(hashes(&leaves));
        let shard = self.shards.last_mut().unwrap();
        shard.leaves.extend(leaves);
        shard.time_ms = time;
    }

    pub(crate) fn checkpoint(&self, shard: usize) -> Checkpoint {
        let Shard { name, leaves, time_ms } = &self.shards[shard];
        let size = leaves.len().try_into().unwrap();
        Checkpoint { origin: format!("{BASE}/{name}"), size, root: root(leaves), time_ms: *time_ms }
    }

    /// The checkpoint's note.
    pub(crate) fn sign(&self, checkpoint: &Checkpoint) -> String {
        checkpoint.sign(&self.signer.named(&checkpoint.origin).unwrap()).unwrap()
    }

    /// The log as files.
    pub(crate) fn publish(&self, root: &Path) {
        let names: Vec<_> = self.shards.iter().map(|shard| shard.name.as_str()).collect();
        fs::create_dir_all(root).unwrap();
        fs::write(root.join("shards"), names.join("\n") + "\n").unwrap();
        for (number, shard) in self.shards.iter().enumerate() {
            let folder = root.join(&shard.name);
            for tile in Frontier::empty().append(&hashes(&shard.leaves)) {
                let width = u16::try_from(tile.hashes.len()).unwrap();
                let path = tile::tile_path(tile.level, tile.index, width);
                put(&folder.join(path), &tile::encode_hashes(&tile.hashes));
            }
            for (index, leaves) in (0..).zip(shard.leaves.chunks(tile::WIDTH)) {
                let path = tile::entries_path(index, u16::try_from(leaves.len()).unwrap());
                put(&folder.join(path), &tile::encode_bundle(leaves).unwrap());
            }
            put(&folder.join("checkpoint"), self.sign(&self.checkpoint(number)).as_bytes());
        }
    }
}

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub(crate) fn entry(number: u64) -> Vec<u8> {
    json!({"kind": "issuance.outcome", "number": number, "run": "scheduled__2026-01-01T00:00:00+00:00"})
        .to_string()
        .into_bytes()
}

/// An entry of a kind about the log itself.
pub(crate) fn record(kind: &str, fields: &impl serde::Serialize) -> Vec<u8> {
    let mut value = serde_json::to_value(fields).unwrap();
    value["kind"] = kind.into();
    value.to_string().into_bytes()
}
