//! What one replica has in memory; a kill takes all of it.

use crate::database::{Answer, Commit, Growth, Record, Tail, Tree, What};

/// What a caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// It was asked; the intent is to be written.
    Asked(u8),
    /// The intent is durable: a cloud is asked.
    Calling(u8),
    /// How it ended is to be written.
    Finishing(u8, What),
}

impl Task {
    /// What it is about.
    pub fn issuance(self) -> u8 {
        let (Self::Asked(issuance) | Self::Calling(issuance) | Self::Finishing(issuance, _)) = self;
        issuance
    }

    /// What it wants on record now.
    pub fn record(self) -> Option<Record> {
        match self {
            Self::Asked(issuance) => Some(Record { issuance, what: What::Intent }),
            Self::Calling(_) => None,
            Self::Finishing(issuance, what) => Some(Record { issuance, what }),
        }
    }
}

/// The recorder's writer: one commit after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Writer {
    /// Nothing is under way.
    Idle,
    /// A commit is on its way, the second try of it where `again`.
    Sent(Commit, bool),
    /// It has happened, and its answer is on its way.
    Answered(Commit, Answer, bool),
    /// Nobody knows whether it has happened.
    Uncertain(Record),
}

/// A round of the sequencer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Round {
    /// None is under way.
    Idle,
    /// It has compared and gathered; nothing is written yet.
    Gathered(Growth),
    /// The tree is committed, and is to be anchored.
    Grown(Tree),
    /// It is to be signed and published.
    Anchored(Tree),
}

/// Why a process lets nothing go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The log in the database does not continue what the anchor holds.
    Behind,
    /// A chain is not what was sealed.
    Chain,
    /// The database has forgotten what this process wrote.
    Rewound,
}

/// A replica that runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    /// The recorder's chain.
    pub chain: Option<u8>,
    /// Where it ends; none where that is uncertain.
    pub tail: Option<Tail>,
    /// The last batch that is known to be committed.
    pub known: u8,
    /// What the sequencer found in its last round.
    pub found: Option<Fault>,
    /// What the pen found, for as long as the process runs.
    pub rewound: bool,
    /// What a caller waits for.
    pub task: Option<Task>,
    /// The recorder.
    pub writer: Writer,
    /// The sequencer.
    pub round: Round,
    /// What the anchor held when it was last compared with the database.
    pub seen: Option<Tree>,
}

impl Process {
    /// One that begins.
    pub fn new() -> Self {
        Self {
            chain: None,
            tail: None,
            known: 0,
            found: None,
            rewound: false,
            task: None,
            writer: Writer::Idle,
            round: Round::Idle,
            seen: None,
        }
    }

    /// Why nothing is admitted or released.
    pub fn fault(&self) -> Option<Fault> {
        if self.rewound { Some(Fault::Rewound) } else { self.found }
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}
