//! `cortex-verify log`: every record of a log.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cortex_log::Hash;
use cortex_log::audit::{Auditor, Fault, Recovery, Summary};
use cortex_log::checkpoint::Checkpoint;
use cortex_log::note::{MAX_NOTE_BYTES, Verifier};
use cortex_log::personal::Opening;
use cortex_log::tile::{self, Tile, TilePath, WIDTH};
use cortex_log::witness::Cosigner;
use jiff::Timestamp;

use crate::report::{Cosigned, Covered, Outcome, Recovered};
use crate::source::Source;
use crate::{Trust, Unchecked, read_text, unusable};

/// How many bundles are read and verified at a time.
const BUNDLES: u64 = 16;
/// How many shards a log has at most.
const MAX_SHARDS: usize = 1000;

/// What is asked.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The published log: a folder, or the address of a live log.
    log: Source,
    #[command(flatten)]
    trust: Trust,
    /// A folder with an archive of this log: old records that are no longer in the log itself are read there.
    #[arg(long, value_name = "FOLDER")]
    archive: Option<PathBuf>,
    /// A file with a checkpoint of this log that you kept: the log must have grown out of it. Repeatable.
    #[arg(long, value_name = "CHECKPOINT")]
    older: Vec<PathBuf>,
    /// The first shard to verify; all by default. What came before is taken as the shard says.
    #[arg(long, value_name = "SHARD")]
    from: Option<String>,
}

/// What ended the verification.
pub(crate) enum Stop {
    Found(Box<Outcome>),
    Unchecked(Unchecked),
}

impl Stop {
    pub(crate) fn found(outcome: Outcome) -> Self {
        Self::Found(Box::new(outcome))
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::found(fault.into())
    }
}

impl<E: Into<Unchecked>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Unchecked(error.into())
    }
}

/// A shard with its checkpoint.
pub(crate) struct Shard {
    /// Its folder's name.
    pub(crate) name: String,
    /// Its verified checkpoint, and the note.
    pub(crate) checkpoint: Checkpoint,
    pub(crate) note: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome, Unchecked> {
    match verify(arguments) {
        Ok(outcome) => Ok(outcome),
        Err(Stop::Found(outcome)) => Ok(*outcome),
        Err(Stop::Unchecked(error)) => Err(error),
    }
}

fn verify(arguments: &Arguments) -> Result<Outcome, Stop> {
    let Arguments { log, trust, archive, older, from } = arguments;
    let log = &log.clone().with_archive(archive.as_deref());
    let shards = shards(log, &trust.key, from.as_deref())?;
    let verified = from.is_some().then_some(shards.as_slice());
    let older =
        older.iter().map(|path| open_older(path, &trust.key, verified)).collect::<Result<Vec<_>, _>>()?;
    let witnesses = match shards.last() {
        Some(newest) => cosigned(&newest.note, &newest.checkpoint.origin, &trust.witnesses)?,
        None => return Err(Unchecked::Absent("the log lists no shards".to_owned()).into()),
    };
    let mut auditor = Auditor::new(trust.key.clone(), older);
    let mut progress = Progress::new(shards.iter().map(|shard| shard.checkpoint.size).sum());
    for shard in &shards {
        audit(log, shard, &mut auditor, &mut progress)?;
    }
    let Summary { leaves, chains, follows, recoveries, .. } = auditor.finish()?;
    let recoveries =
        recoveries.into_iter().map(|Recovery { origin, record }| Recovered { origin, record }).collect();
    let follows = follows.map(|head| format!("{} of size {}, root {}", head.origin, head.size, head.root));
    let shards = shards.iter().map(|shard| covered(&shard.checkpoint)).collect();
    let openings = openings(log)?;
    Ok(Outcome::Whole { leaves, chains, shards, witnesses, follows, recoveries, openings })
}

/// That everything that came along opens its commitment; how many those are. Who was erased is not among them, and that
/// is no fault.
fn openings(log: &Source) -> Result<Option<usize>, Stop> {
    let Some(bytes) = log.openings()? else { return Ok(None) };
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut count = 0;
    for line in lines {
        count += 1;
        let opening: Opening = serde_json::from_slice(line)
            .map_err(|error| Unchecked::Absent(format!("line {count} of {log}/personal.jsonl: {error}")))?;
        if !opening.fits() {
            let what = format!("line {count}: {} is not the commitment to its value", opening.commitment);
            let meaning = "The log does not say this name or text: it was altered after it was recorded.";
            return Err(Stop::found(Outcome::signed_wrongly("personal.jsonl", &what, meaning)));
        }
    }
    Ok(Some(count))
}

/// An older checkpoint. Where only some shards are verified, it must be of one of these.
fn open_older(path: &Path, key: &Verifier, only: Option<&[Shard]>) -> Result<Checkpoint, Unchecked> {
    let note = read_text(path, MAX_NOTE_BYTES)?;
    let older = Checkpoint::open_under(&note, key).map_err(|error| unusable(path, &error))?;
    if only.is_some_and(|shards| !shards.iter().any(|shard| shard.checkpoint.origin == older.origin)) {
        return Err(unusable(path, &format!("of the shard {}, which --from leaves out", older.origin)));
    }
    Ok(older)
}

/// The shards of a log with their checkpoints, which are verified; from the shard that is named.
pub(crate) fn shards(log: &Source, key: &Verifier, from: Option<&str>) -> Result<Vec<Shard>, Stop> {
    let absent =
        |path: &str| Unchecked::Absent(format!("{log}/{path} is not there: is this a published log?"));
    let listed = log.text("shards")?.ok_or_else(|| absent("shards"))?;
    let mut names: Vec<_> = listed.lines().take(MAX_SHARDS + 1).collect();
    let plain =
        |name: &&str| name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') && !name.is_empty();
    if names.len() > MAX_SHARDS || !names.iter().all(plain) {
        return Err(Unchecked::Absent(format!("{log}/shards is not a list of shards")).into());
    }
    if let Some(from) = from {
        let Some(first) = names.iter().position(|name| *name == from) else {
            return Err(Unchecked::Absent(format!("{log}/shards does not list {from}")).into());
        };
        names.drain(..first);
    }
    names.into_iter().map(|name| shard(log, key, name)).collect()
}

fn shard(log: &Source, key: &Verifier, name: &str) -> Result<Shard, Stop> {
    let path = format!("{name}/checkpoint");
    let origin = format!("{}/{name}", key.name());
    let note = log.text(&path)?.ok_or_else(|| Unchecked::Absent(format!("{log}/{path} is not there")))?;
    let opened = key.named(&origin).map_err(Into::into).and_then(|key| Checkpoint::open(&note, &key));
    let checkpoint = opened.map_err(|error| {
        let meaning =
            "The checkpoint was altered or replaced, or this is not the log of the key that you gave.";
        Stop::found(Outcome::signed_wrongly(
            &origin,
            &format!("its checkpoint does not verify: {error}"),
            meaning,
        ))
    })?;
    Ok(Shard { name: name.to_owned(), checkpoint, note })
}

/// That all these witnesses cosigned a checkpoint, and when.
pub(crate) fn cosigned(note: &str, origin: &str, witnesses: &[Cosigner]) -> Result<Vec<Cosigned>, Stop> {
    let open = |witness: &Cosigner| match witness.open(note) {
        Ok(seconds) => {
            let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
            Ok(Cosigned { witness: witness.name().to_owned(), time })
        }
        Err(error) => {
            let meaning = "The witness has not seen this checkpoint: it may be shown to you alone.";
            Err(Stop::found(Outcome::signed_wrongly(origin, &error, meaning)))
        }
    };
    witnesses.iter().map(open).collect()
}

pub(crate) fn covered(checkpoint: &Checkpoint) -> Covered {
    let Checkpoint { origin, size, root, time_ms } = checkpoint;
    let time = Timestamp::from_millisecond(*time_ms).ok();
    Covered { origin: origin.clone(), size: *size, root: root.to_string(), time }
}

fn audit(log: &Source, shard: &Shard, auditor: &mut Auditor, progress: &mut Progress) -> Result<(), Stop> {
    let mut upper = BTreeMap::new();
    let mut audit = auditor.begin(&shard.checkpoint.origin);
    let mut next = 0;
    while let Some(read) = read_group(log, shard, next)? {
        let tiles = audit.feed(&read.leaves, &read.hashes)?;
        upper.extend(
            tiles.into_iter().filter(|tile| tile.level > 0).map(|tile| ((tile.level, tile.index), tile)),
        );
        progress.add(read.leaves.len());
        next += BUNDLES;
        if !read.complete {
            break;
        }
    }
    audit.end(&shard.checkpoint)?;
    compare(log, shard, upper.into_values())
}

/// Consecutive leaves with their published hashes.
pub(crate) struct Group {
    pub(crate) leaves: Vec<Vec<u8>>,
    hashes: Vec<Hash>,
    /// No bundle of the group is missing.
    complete: bool,
}

/// Bundles and tiles from an index on; nothing at the end.
pub(crate) fn read_group(log: &Source, shard: &Shard, first: u64) -> Result<Option<Group>, Stop> {
    let size = shard.checkpoint.size;
    let wanted: Vec<_> =
        (first..first + BUNDLES).map_while(|index| Some((index, tile::width(size, 0, index)?))).collect();
    if wanted.is_empty() {
        return Ok(None);
    }
    let entries = wanted.iter().map(|(index, width)| TilePath::Entries { index: *index, width: *width });
    let tiles =
        wanted.iter().map(|(index, width)| TilePath::Hashes { level: 0, index: *index, width: *width });
    let mut bytes = log.tiles(&shard.name, &entries.chain(tiles).collect::<Vec<_>>())?;
    let tiles = bytes.split_off(wanted.len());
    let mut group = Group { leaves: Vec::new(), hashes: Vec::new(), complete: true };
    for (((index, width), bundle), tile) in wanted.into_iter().zip(bytes).zip(tiles) {
        let Some(bundle) = bundle else {
            group.complete = false;
            break;
        };
        let leaves = tile::decode_bundle(&bundle).map_err(|error| {
            damaged(shard, TilePath::Entries { index, width }, index * 256, width, &error.to_string())
        })?;
        group.complete = leaves.len() >= usize::from(width);
        group.leaves.extend(leaves.into_iter().take(width.into()).map(<[u8]>::to_vec));
        let path = TilePath::Hashes { level: 0, index, width };
        let hashes = tile.ok_or("it is not there".to_owned());
        let hashes = hashes.and_then(|tile| tile::decode_hashes(&tile).map_err(|error| error.to_string()));
        let hashes = hashes.map_err(|why| damaged(shard, path, index * 256, width, &why))?;
        group.hashes.extend(hashes.into_iter().take(width.into()));
        if !group.complete {
            break;
        }
    }
    Ok(Some(group))
}

fn damaged(shard: &Shard, path: TilePath, first: u64, width: u16, why: &str) -> Stop {
    Stop::found(Outcome::Fault {
        origin: shard.checkpoint.origin.clone(),
        index: Some(first),
        until: Some(first + u64::from(width)),
        what: format!("{path}: {why}"),
        meaning: "A published file is damaged or missing, and with it what it says of these leaves."
            .to_owned(),
    })
}

/// Compares the published tiles above the lowest level with those of the leaves.
fn compare(log: &Source, shard: &Shard, tiles: impl Iterator<Item = Tile>) -> Result<(), Stop> {
    let tiles: Vec<_> = tiles.collect();
    for group in tiles.chunks(WIDTH) {
        let path = |tile: &Tile| {
            let width = tile::width(shard.checkpoint.size, tile.level, tile.index).unwrap_or_default();
            TilePath::Hashes { level: tile.level, index: tile.index, width }
        };
        let published = log.tiles(&shard.name, &group.iter().map(path).collect::<Vec<_>>())?;
        for (tile, published) in group.iter().zip(published) {
            let expected = tile::encode_hashes(&tile.hashes);
            if !published.is_some_and(|published| published.starts_with(&expected)) {
                let leaves = 256_u64.pow(u32::from(tile.level) + 1);
                let width = u16::try_from(tile.hashes.len()).unwrap_or_default();
                let why = "it is missing, or not that of the leaves, which are whole";
                return Err(damaged(shard, path(tile), tile.index * leaves, width, why));
            }
        }
    }
    Ok(())
}

/// A line on a terminal's standard error.
struct Progress {
    total: u64,
    done: u64,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    fn new(total: u64) -> Self {
        Self { total, done: 0, shown: None, terminal: std::io::stderr().is_terminal() }
    }

    fn add(&mut self, leaves: usize) {
        self.done += u64::try_from(leaves).unwrap_or(0);
        let due = self.shown.is_none_or(|shown| shown.elapsed() > Duration::from_millis(200));
        if self.terminal && due {
            self.shown = Some(Instant::now());
            let percent = self.done * 100 / self.total.max(1);
            eprint!("\r{} of {} leaves verified ({percent}%)", self.done, self.total);
            let _ = std::io::stderr().flush();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
