//! What is wrong with the log. While something is, no credential leaves.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use cortex_log::Hash;
use cortex_log::checkpoint::Checkpoint;
use uuid::Uuid;

/// What the database says and cannot be true; each text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The database has less than what was published.
    #[error(
        "the log in the database ends at {kept} of {}, and {} records had been published: an older state of the database \
         was restored. Restore a newer one, or write down what is lost with `cortex log recover`", .published.origin,
         .published.size
    )]
    Behind {
        /// What the anchor says.
        published: Checkpoint,
        /// How many leaves the database has.
        kept: u64,
    },
    /// The database has another history than the one that was published.
    #[error(
        "the log in the database is not the one that was published: at {} of {} its root is {found}. Somebody has changed it, \
         which `cortex log verify` shows; or a failover lost what was published, and the log went on without it: restore a \
         state from before that, and write down what is lost with `cortex log recover`", .published.size, .published.origin
    )]
    Forked {
        /// What the anchor says.
        published: Checkpoint,
        /// The database's root at that size.
        found: Hash,
    },
    /// The tree's hashes in the database are not those of its root.
    #[error(
        "the tiles of the log in the database do not have its root: {0}. Find out with `cortex log verify`"
    )]
    Tree(String),
    /// What a chain wrote is not what it sealed.
    #[error(
        "batch {batch} of chain {chain} was changed, or something before it is missing: {why}. Find out with `cortex log \
         verify`"
    )]
    Chain {
        /// The chain.
        chain: Uuid,
        /// The batch.
        batch: i64,
        /// What is wrong.
        why: String,
    },
    /// This process wrote more than the database has.
    #[error(
        "the database has forgotten what this process wrote: its chain {chain} was at batch {known} and is at {found}. An older \
         state was restored; start anew when it is recovered"
    )]
    Rewound {
        /// The chain.
        chain: Uuid,
        /// The last batch that was committed.
        known: i64,
        /// The last batch that the database has.
        found: i64,
    },
}

impl Fault {
    /// What is wrong, in a word, for those who may not know more.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Behind { .. } => "behind",
            Self::Forked { .. } => "forked",
            Self::Tree(_) => "tree",
            Self::Chain { .. } => "chain",
            Self::Rewound { .. } => "rewound",
        }
    }
}

/// Whether something is wrong; shared by all who have to know.
#[derive(Debug, Clone, Default)]
pub struct Health {
    log: Arc<ArcSwapOption<Fault>>,
    /// Does not go away while the process runs.
    own: Arc<ArcSwapOption<Fault>>,
    /// Why the anchor cannot be read or written.
    anchor: Arc<ArcSwapOption<String>>,
}

impl Health {
    /// What is wrong, if anything is.
    pub fn fault(&self) -> Option<Arc<Fault>> {
        self.own.load_full().or_else(|| self.log.load_full())
    }

    /// What the sequencer found out, each time.
    pub(super) fn found(&self, fault: Option<Fault>) {
        metrics::gauge!("cortex_log_fault").set(if fault.is_some() { 1.0 } else { 0.0 });
        if let Some(fault) = &fault
            && self.log.load().as_deref() != Some(fault)
        {
            tracing::error!(%fault, "the log is at fault; no credential leaves");
        }
        self.log.store(fault.map(Arc::new));
    }

    /// Why the anchor cannot be read or written, if it cannot: until it can, nothing new is signed.
    pub fn anchor_away(&self) -> Option<Arc<String>> {
        self.anchor.load_full()
    }

    /// How the anchor was found, each time.
    pub(super) fn anchored(&self, away: Option<String>) {
        metrics::gauge!("cortex_log_anchor_away").set(if away.is_some() { 1.0 } else { 0.0 });
        self.anchor.store(away.map(Arc::new));
    }

    /// What this process's own writer found out.
    pub(crate) fn rewound(&self, chain: Uuid, known: i64, found: i64) {
        let fault = Fault::Rewound { chain, known, found };
        tracing::error!(%fault, "the log is at fault; no credential leaves");
        self.own.store(Some(Arc::new(fault)));
    }
}
