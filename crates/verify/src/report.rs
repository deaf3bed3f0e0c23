//! What is said at the end: for people, or as JSON.

use std::process::ExitCode;

use cortex_log::audit::Fault;
use jiff::Timestamp;
use serde::Serialize;

/// What came out.
#[derive(Debug, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The whole log was verified.
    Whole {
        /// How many records.
        leaves: u64,
        /// How many runs of replicas wrote them.
        chains: usize,
        /// Each shard's checkpoint, oldest first.
        shards: Vec<Covered>,
        /// The witnesses that cosigned the newest.
        witnesses: Vec<Cosigned>,
        /// The head before the first shard, which was not verified.
        #[serde(skip_serializing_if = "Option::is_none")]
        follows: Option<String>,
        /// The shards that a recovery opened.
        recoveries: Vec<Recovered>,
        /// How many commitments to people the names that came along open; nothing if none came along.
        #[serde(skip_serializing_if = "Option::is_none")]
        openings: Option<usize>,
    },
    /// One record is in the log.
    Included {
        /// The leaf's index in its shard.
        index: u64,
        /// The checkpoint that covers it.
        checkpoint: Covered,
        /// The witnesses that cosigned the checkpoint.
        witnesses: Vec<Cosigned>,
    },
    /// Something is wrong.
    Fault {
        /// The shard.
        origin: String,
        /// The first bad index; nothing if no record is bad but what was signed about them.
        #[serde(skip_serializing_if = "Option::is_none")]
        index: Option<u64>,
        /// One more than the last index that the first bad one may be.
        #[serde(skip_serializing_if = "Option::is_none")]
        until: Option<u64>,
        /// What is wrong.
        what: String,
        /// What that means.
        meaning: String,
    },
    /// Nothing can be said.
    Unchecked {
        /// Why.
        error: String,
    },
}

/// A shard that a recovery opened.
#[derive(Debug, Serialize)]
pub(crate) struct Recovered {
    /// The shard.
    pub(crate) origin: String,
    /// What its opening says about the recovery.
    pub(crate) record: serde_json::Value,
}

/// A verified checkpoint.
#[derive(Debug, Serialize)]
pub(crate) struct Covered {
    /// The shard.
    pub(crate) origin: String,
    /// Its number of leaves.
    pub(crate) size: u64,
    /// The root.
    pub(crate) root: String,
    /// When it was signed; nothing if that is no time.
    pub(crate) time: Option<Timestamp>,
}

/// A verified cosignature.
#[derive(Debug, Serialize)]
pub(crate) struct Cosigned {
    /// The witness.
    pub(crate) witness: String,
    /// When it cosigned; nothing if that is no time.
    pub(crate) time: Option<Timestamp>,
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        let Fault { origin, index, until, what } = fault;
        let meaning = what.meaning().to_owned();
        Self::Fault { origin, index: Some(index), until: Some(until), what: what.to_string(), meaning }
    }
}

impl Outcome {
    /// Something that is wrong with no record in particular.
    pub(crate) fn signed_wrongly(origin: &str, what: &impl ToString, meaning: &str) -> Self {
        let (what, meaning) = (what.to_string(), meaning.to_owned());
        Self::Fault { origin: origin.to_owned(), index: None, until: None, what, meaning }
    }
}

/// How it is said.
pub(crate) struct Report {
    /// As JSON.
    pub(crate) json: bool,
}

impl Report {
    /// Says it, and answers with the exit status.
    pub(crate) fn print(&self, outcome: &Outcome) -> ExitCode {
        let code = match outcome {
            Outcome::Whole { .. } | Outcome::Included { .. } => ExitCode::SUCCESS,
            Outcome::Fault { .. } => ExitCode::from(1),
            Outcome::Unchecked { .. } => ExitCode::from(2),
        };
        if self.json {
            println!("{}", serde_json::json!(outcome));
        } else if let Outcome::Unchecked { error } = outcome {
            eprintln!("cortex-verify: could not be checked: {error}");
        } else {
            println!("{}", text(outcome));
        }
        code
    }
}

fn text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Whole { leaves, chains, shards, witnesses, follows, recoveries, openings } => {
            let mut lines = vec![format!("WHOLE: {leaves} records, written by {chains} chains.")];
            lines.extend(shards.iter().map(covered));
            lines.extend(witnesses.iter().map(cosigned));
            lines.extend(follows.iter().map(|head| format!("  What came before was not verified: {head}")));
            lines.extend(recoveries.iter().map(|Recovered { origin, record }| {
                format!("  A recovery opened {origin}, because what was published was lost: {record}")
            }));
            lines.extend(
                openings.map(|count| format!("  {count} names and texts are those that it commits to.")),
            );
            lines.join("\n")
        }
        Outcome::Included { index, checkpoint, witnesses } => {
            let mut lines = vec![format!("INCLUDED: leaf {index}.")];
            lines.push(covered(checkpoint));
            lines.extend(witnesses.iter().map(cosigned));
            lines.join("\n")
        }
        Outcome::Fault { origin, index, until, what, meaning } => {
            let place = match (index, until) {
                (Some(index), Some(until)) if *until > index + 1 => {
                    format!(", first bad index between {index} and {}", until - 1)
                }
                (Some(index), _) => format!(", first bad index {index}"),
                _ => String::new(),
            };
            format!("FAULT in {origin}{place}\n  What:  {what}.\n  Means: {meaning}")
        }
        Outcome::Unchecked { error } => error.clone(),
    }
}

fn covered(checkpoint: &Covered) -> String {
    let Covered { origin, size, root, time } = checkpoint;
    format!("  {origin}: {size} leaves, root {root}, signed {}", when(*time))
}

fn cosigned(cosigned: &Cosigned) -> String {
    format!("  Cosigned by {} {}", cosigned.witness, when(cosigned.time))
}

fn when(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "at no possible time".to_owned(), |time| format!("at {time}"))
}
