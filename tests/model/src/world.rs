//! Everything at one moment, and what must hold of it.

use std::collections::BTreeSet;

use crate::database::{Commit, Database, Record, Tree, What};
use crate::process::Process;

/// How many replicas there are.
pub const REPLICAS: usize = 2;

/// Rules of the product. Each can be taken out, to see what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule of its own")]
pub struct Rules {
    /// A cloud is asked only with a committed intent.
    pub intent_first: bool,
    /// A credential is released only after its outcome is committed.
    pub outcome_first: bool,
    /// The tree is changed by comparing what it was.
    pub compare_tree: bool,
    /// What is signed is in the anchor.
    pub anchor_first: bool,
    /// After an uncertain commit the pen looks where its chain ends.
    pub pen_looks: bool,
    /// Nothing is admitted or released while the log is at fault.
    pub heed_faults: bool,
}

impl Rules {
    /// As the product is.
    pub const ALL: Self = Self {
        intent_first: true,
        outcome_first: true,
        compare_tree: true,
        anchor_first: true,
        pen_looks: true,
        heed_faults: true,
    };
}

/// Where replicas keep what was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchors {
    /// In one place.
    Shared,
    /// Each in a file of its own.
    Each,
}

/// How much may happen: what keeps the model finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Callers who ask.
    pub asks: u8,
    /// Commits or answers that are lost, or late.
    pub losses: u8,
    /// Answers of a cloud that are lost.
    pub lost_mints: u8,
    /// Issuances that a supervisor ends while their replica is still at work.
    pub slow: u8,
    /// kill -9.
    pub kills: u8,
    /// Older states of the database that take its place.
    pub failovers: u8,
}

/// What is many steps; what is not looked at closely is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closely {
    /// Sent, carried out, answered.
    pub commits: bool,
    /// Gathered, committed, anchored, published.
    pub rounds: bool,
}

/// The model.
#[derive(Debug, Clone, Copy)]
pub struct Cortex {
    /// What holds.
    pub rules: Rules,
    /// Where the anchors are.
    pub anchors: Anchors,
    /// How much may happen.
    pub budget: Budget,
    /// What happens in between.
    pub closely: Closely,
}

/// What must never happen, and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broken {
    /// A cloud made a credential that no earlier durable intent knows of.
    MintedWithoutIntent,
    /// A credential left before its outcome was durable.
    ReleasedBeforeOutcome,
    /// A credential left of which the record says that none did.
    ReleasedAgainstOutcome,
    /// A replica that has looked at a database behind its anchor admitted something before the recovery.
    AdmittedInFault,
    /// A tree grew that does not continue the anchor, or something was signed that it does not hold.
    SignedInFault,
    /// A fault was found though nothing was lost.
    FalseAlarm,
}

/// A cloud, about one issuance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Asked, and on its way.
    Asked,
    /// A credential is made.
    Minted,
}

/// What happened, as nobody in the model knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each has happened or not, whatever else has")]
pub struct History {
    /// Records that were durable at some time.
    pub durable: BTreeSet<Record>,
    /// Records whose writer was told that they are.
    pub acknowledged: BTreeSet<Record>,
    /// Records that a failover has lost.
    pub lost: BTreeSet<Record>,
    /// Checkpoints that somebody outside may have.
    pub published: BTreeSet<Tree>,
    /// Credentials that left.
    pub released: BTreeSet<u8>,
    /// Answers that came too late to be released.
    pub superseded: bool,
    /// A commit that was given up arrived after all.
    pub late: bool,
    /// A failover lost something.
    pub failed_over: bool,
    /// Operators have written off what was lost.
    pub recovered: bool,
    /// Something left after that.
    pub released_after_recovery: bool,
    /// What must not happen.
    pub broken: Option<Broken>,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The replicas; none for one that does not run.
    pub replicas: [Option<Process>; REPLICAS],
    /// Postgres.
    pub database: Database,
    /// An older state of it, which may take its place.
    pub standby: Option<Database>,
    /// Commits that whoever sent them has given up, and that may still arrive.
    pub late: Vec<Commit>,
    /// The clouds, by issuance.
    pub calls: Vec<Option<Call>>,
    /// What was published, outside the database.
    pub anchors: Vec<Option<Tree>>,
    /// The next chain's name.
    pub next_chain: u8,
    /// What may still happen.
    pub budget: Budget,
    /// What has happened.
    pub history: History,
}

impl World {
    /// The beginning: nobody was asked anything.
    pub fn new(cortex: &Cortex) -> Self {
        let anchors = if cortex.anchors == Anchors::Shared { 1 } else { REPLICAS };
        Self {
            replicas: std::array::from_fn(|_| Some(Process::new())),
            database: Database::default(),
            standby: None,
            late: Vec::new(),
            calls: vec![None; usize::from(cortex.budget.asks)],
            anchors: vec![None; anchors],
            next_chain: 0,
            budget: cortex.budget,
            history: History::default(),
        }
    }

    /// The anchor of a replica.
    pub fn anchor(&self, replica: usize) -> Option<&Tree> {
        self.anchors.get(replica).or(self.anchors.first()).and_then(Option::as_ref)
    }

    /// Replaces it, if it still holds `seen`.
    pub(crate) fn replace_anchor(&mut self, replica: usize, seen: Option<&Tree>, next: &Tree) -> bool {
        let place = if replica < self.anchors.len() { replica } else { 0 };
        let Some(anchor) = self.anchors.get_mut(place) else { return false };
        if anchor.as_ref() != seen {
            return false;
        }
        *anchor = Some(next.clone());
        true
    }

    /// Whether the database continues what `anchored` says, or a recovery has written that off.
    pub fn continues(&self, anchored: Option<&Tree>) -> bool {
        let Some(anchored) = anchored else { return true };
        let database = &self.database;
        let trees = std::iter::once(&database.tree).chain(&database.closed);
        database.written_off.iter().any(|off| off.continues(anchored))
            || trees.into_iter().any(|tree| tree.continues(anchored))
    }

    /// Whether any anchor holds what the database has lost.
    pub fn is_behind(&self) -> bool {
        self.anchors.iter().any(|anchor| !self.continues(anchor.as_ref()))
    }

    /// Notes what must not happen; the first counts.
    pub(crate) fn broke(&mut self, broken: Broken) {
        self.history.broken.get_or_insert(broken);
    }

    /// A caller gets a credential.
    pub(crate) fn release(&mut self, issuance: u8) {
        let issued = Record { issuance, what: What::Issued };
        let otherwise = Record { issuance, what: What::Indeterminate };
        if self.database.has(otherwise) {
            self.broke(Broken::ReleasedAgainstOutcome);
        } else if !self.history.durable.contains(&issued) {
            self.broke(Broken::ReleasedBeforeOutcome);
        }
        self.history.released.insert(issuance);
        self.history.released_after_recovery |= self.history.recovered;
    }
}
