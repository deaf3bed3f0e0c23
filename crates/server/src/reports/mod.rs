//! Saved reports for auditors: what is on record of a period, row by row, as far as one checkpoint of the log goes, each
//! row with what proves it. See `docs/audit.md`.

mod render;
mod rows;

use std::collections::VecDeque;

use jiff::Timestamp;
use sqlx::PgPool;
use uuid::Uuid;

use crate::store::StoreError;
use crate::store::log::read::Shard;
use crate::store::personal;
use crate::store::reports::{self as store, Access, Published};

pub(crate) use crate::store::reports::Period;
pub(crate) use render::Format;

/// How many records are read at a time.
const PAGE: i64 = 500;
/// The most rows of a report; one that has more breaks off, and says so by having no end.
const ROWS_MAX: u64 = 1_000_000;
/// The most rows of an access review: they are counted together, so all of them are held.
const ACCESSES_MAX: i64 = 50_000;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// Which tasks have used which access.
    AccessReview,
    /// Approvals, and who gave them.
    Approvals,
    /// Changes of policies and guardrails, and who made them.
    PolicyChanges,
    /// Revocations, and how long they took.
    Revocations,
    /// Every use of break glass.
    BreakGlass,
}

impl Report {
    /// All of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::AccessReview, Self::Approvals, Self::PolicyChanges, Self::Revocations, Self::BreakGlass];

    /// What it is called in addresses and files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AccessReview => "access-review",
            Self::Approvals => "approvals",
            Self::PolicyChanges => "policy-changes",
            Self::Revocations => "revocations",
            Self::BreakGlass => "break-glass",
        }
    }

    /// The report of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|report| report.name() == name)
    }

    /// What it is called on paper.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::AccessReview => "Access review",
            Self::Approvals => "Approvals and their approvers",
            Self::PolicyChanges => "Changes of policies and guardrails, with their authors",
            Self::Revocations => "Revocations and their delay",
            Self::BreakGlass => "Use of break glass",
        }
    }

    /// The controls that it is evidence for: SOC 2 (TSC 2017) and ISO/IEC 27001:2022, Annex A.
    pub(crate) fn controls(self) -> [(&'static str, &'static str); 2] {
        let (soc, iso) = match self {
            Self::AccessReview => ("CC6.1, CC6.2, CC6.3", "A.5.15, A.5.16, A.5.18, A.8.15"),
            Self::Approvals => ("CC6.1, CC6.2, CC6.3", "A.5.15, A.5.18, A.8.15"),
            Self::PolicyChanges => ("CC6.1, CC6.3, CC7.2", "A.5.15, A.5.18, A.8.15"),
            Self::Revocations => ("CC6.2, CC6.3, CC7.3, CC7.4", "A.5.17, A.5.18, A.8.15"),
            Self::BreakGlass => ("CC6.1, CC7.2, CC7.3, CC7.4", "A.5.15, A.5.18, A.8.15"),
        };
        [("SOC 2", soc), ("ISO/IEC 27001:2022", iso)]
    }

    /// The names of a row's cells.
    pub(crate) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::AccessReview => &[
                "airflow", "dag", "task", "policy", "provider", "target", "asked", "issued", "first_at",
                "last_at",
            ],
            Self::Approvals => &[
                "at",
                "event",
                "grant",
                "policy",
                "dag",
                "run",
                "who",
                "decision",
                "break_glass",
                "reason",
                "ticket",
            ],
            Self::PolicyChanges => &["at", "event", "name", "version", "digest", "who"],
            Self::Revocations => &[
                "at",
                "event",
                "revocation",
                "scope",
                "who",
                "reason",
                "provider",
                "target",
                "state",
                "issuances",
                "longest_delay_s",
            ],
            Self::BreakGlass => &[
                "at", "event", "who", "policy", "provider", "dag", "run", "task", "target", "grant",
                "decision", "reason",
            ],
        }
    }

    /// The kinds of records that its rows are; none where it is not made of kinds.
    fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::AccessReview | Self::BreakGlass => &[],
            Self::Approvals => &[
                "grant.requested",
                "preapproval.made",
                "grant.decided",
                "grant.withdrawn",
                "grant.expired",
                "grant.voided",
                "preapproval.ended",
            ],
            Self::PolicyChanges => &["policy.applied", "policy.retired", "guardrails.applied"],
            Self::Revocations => &["revocation.requested", "revocation.settled", "revocation.failing"],
        }
    }

    /// Whether it is made of what is known of a record a little after it is published.
    fn needs_facts(self) -> bool {
        matches!(self, Self::AccessReview | Self::BreakGlass)
    }
}

/// Why there is no report; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    /// There is no checkpoint that it could be made from, or it is not read through yet.
    #[error("the newest records are not ready for a report yet; ask again in a few seconds")]
    NotYet,
    /// An access review of too much.
    #[error("this period has more than {ACCESSES_MAX} different accesses; ask for a shorter one")]
    TooMuch,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What every report says of itself.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) report: Report,
    pub(crate) period: Period,
    pub(crate) made_at: Timestamp,
    /// The tree whose checkpoint it is made from, as far as that goes.
    pub(crate) shard: Shard,
}

/// One row, and the records that it stands for.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) cells: Vec<String>,
    pub(crate) evidence: Vec<Published>,
}

/// A report that is being written.
pub(crate) struct Writing {
    pool: PgPool,
    head: Head,
    format: Format,
    state: State,
    rows: u64,
}

/// What is still to be written.
enum State {
    /// Everything.
    Head,
    /// Records behind this one.
    Records { after: Option<Uuid> },
    /// These accesses.
    Accesses(VecDeque<Access>),
    /// Nothing.
    Done,
}

impl Writing {
    /// A report as of the newest checkpoint, or of an earlier size of its tree.
    pub(crate) async fn begin(
        pool: PgPool,
        report: Report,
        period: Period,
        format: Format,
        (made_at, size): (Timestamp, Option<u64>),
    ) -> Result<Self, ReportError> {
        let mut shard = store::checkpoint(&pool).await?.ok_or(ReportError::NotYet)?;
        if report.needs_facts() && !store::facts_cover(&pool, &shard).await? {
            return Err(ReportError::NotYet);
        }
        shard.published = size.unwrap_or(shard.published).min(shard.published);
        Ok(Self { pool, head: Head { report, period, made_at, shard }, format, state: State::Head, rows: 0 })
    }

    /// What it says of itself.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// The next piece of it; none behind the last.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, ReportError> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Head => {
                self.state = self.first().await?;
                Ok(Some(self.format.begin(&self.head)))
            }
            State::Records { after } => self.records(after).await.map(Some),
            State::Accesses(accesses) => self.accesses(accesses).await.map(Some),
            State::Done => Ok(None),
        }
    }

    async fn first(&self) -> Result<State, ReportError> {
        if self.head.report != Report::AccessReview {
            return Ok(State::Records { after: None });
        }
        let found = store::accesses(&self.pool, &self.head.shard, self.head.period, ACCESSES_MAX + 1).await?;
        if i64::try_from(found.len()).is_ok_and(|count| count > ACCESSES_MAX) {
            return Err(ReportError::TooMuch);
        }
        Ok(State::Accesses(found.into()))
    }

    async fn records(&mut self, after: Option<Uuid>) -> Result<String, ReportError> {
        let Head { report, period, shard, .. } = &self.head;
        let found = match report {
            Report::BreakGlass => store::of_glass(&self.pool, shard, *period, after, PAGE).await?,
            _ => store::of_kinds(&self.pool, shard, report.kinds(), *period, after, PAGE).await?,
        };
        let last = found.last().map(|record| record.id);
        let full = i64::try_from(found.len()).is_ok_and(|count| count == PAGE);
        let mut text = String::new();
        let shown = found.iter().map(|record| record.leaf.as_slice());
        let shown = personal::open_leaves(&self.pool, shown).await?;
        for (record, shown) in found.into_iter().zip(shown) {
            let cells = rows::of_record(&self.pool, *report, &shown).await?;
            self.rows += 1;
            text.push_str(&self.format.row(&self.head, self.rows, &Row { cells, evidence: vec![record] })?);
        }
        if full && self.rows < ROWS_MAX {
            self.state = State::Records { after: last };
            return Ok(text);
        }
        if full {
            return Err(ReportError::TooMuch);
        }
        Ok(text + &self.format.end(self.rows))
    }

    async fn accesses(&mut self, mut left: VecDeque<Access>) -> Result<String, ReportError> {
        let page: Vec<Access> = left.drain(..left.len().min(250)).collect();
        let ids: Vec<Uuid> = page.iter().flat_map(|access| [access.first, access.last]).collect();
        let records = store::of_ids(&self.pool, &self.head.shard, &ids).await?;
        let mut text = String::new();
        for access in page {
            let row = rows::of_access(&access, &records)?;
            self.rows += 1;
            text.push_str(&self.format.row(&self.head, self.rows, &row)?);
        }
        if left.is_empty() {
            return Ok(text + &self.format.end(self.rows));
        }
        self.state = State::Accesses(left);
        Ok(text)
    }
}
