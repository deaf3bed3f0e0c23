//! What was used of one policy, and a tighter one out of it.

use cortex_core::PolicyName;
use cortex_core::policy::{Policy, Suggestion, Used, Window};
use cortex_providers::BuiltIns;
use jiff::Timestamp;
use sqlx::PgPool;

use super::recorded::{self, Was};
use super::report::Why;
use super::sweep::{Look, Sweep, Swept};
use super::{Bounds, Progress, ReplayError, in_force_since};
use crate::store::documents::{self, Kind, Version};

/// A look at what was used, under way. Dropping it ends it.
pub struct Survey {
    policy: Policy,
    versions: Vec<Policy>,
    /// Whether the policy was in force all the time.
    settled: bool,
    since: Timestamp,
    now: Timestamp,
    sweep: Sweep<Uses>,
}

impl Survey {
    /// Begins with the policy that is in force under this name; none where there is none.
    pub async fn begin(
        pool: PgPool,
        name: &PolicyName,
        (since, now): (Timestamp, Timestamp),
        bounds: Bounds,
    ) -> Result<Option<Self>, ReplayError> {
        let head = documents::head(&pool, Kind::Policy, name.as_str()).await?;
        let Some(head) = head.filter(|head| !head.retired) else { return Ok(None) };
        let history = documents::history(&pool, Kind::Policy, name.as_str()).await?;
        let history = in_force_since(history, since);
        let settled = history.last().is_some_and(|oldest| oldest.applied_at <= since);
        let compile = move || {
            let read = |version: &Version| Policy::compile(&version.source, &BuiltIns).ok();
            let versions: Option<Vec<_>> = history.iter().map(read).collect();
            (read(&head), versions)
        };
        let (policy, versions) =
            tokio::task::spawn_blocking(compile).await.map_err(|_| ReplayError::Failed)?;
        let Some(policy) = policy else { return Ok(None) };
        let sweep = Sweep::new(pool, Uses, vec![name.clone()], (since, now), bounds);
        // A version that cannot be read may have lacked anything.
        let settled = settled && versions.is_some();
        Ok(Some(Self { policy, versions: versions.unwrap_or_default(), settled, since, now, sweep }))
    }

    /// Goes on for a page: how far it has come, or none at the end.
    pub async fn step(&mut self) -> Result<Option<Progress>, ReplayError> {
        self.sweep.step().await
    }

    /// What it suggests.
    pub fn suggestion(self) -> Suggestion {
        let Swept { seen, cut, .. } = self.sweep.end();
        let whole = self.settled && cut.is_none() && seen.unreadable == 0;
        let window = Window { since: self.since, until: self.now, versions: &self.versions, whole };
        self.policy.tighten(&seen.used, &window, &BuiltIns)
    }
}

/// Counts what was issued.
struct Uses;

#[derive(Default)]
struct Seen {
    used: Used,
    unreadable: u64,
}

impl Look for Uses {
    type Seen = Seen;

    fn look(&self, _: usize, leaves: &[Vec<u8>]) -> Seen {
        let mut seen = Seen::default();
        for leaf in leaves {
            match recorded::read(leaf) {
                Ok(request) => {
                    if let (Was::Issued { .. }, Some(run)) = (&request.was, request.principal.as_run()) {
                        seen.used.note(run, &request.provider, request.at);
                    }
                }
                Err(Why::Unreadable) => seen.unreadable += 1,
                Err(_) => {}
            }
        }
        seen
    }

    fn add(seen: &mut Seen, more: Seen) {
        seen.used.add(more.used);
        seen.unreadable += more.unreadable;
    }
}
