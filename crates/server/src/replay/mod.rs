//! Replay: the requests on record, decided again under policies that are not in force yet.
//!
//! Each request is put to core's own engine as it was put then: who asked, from where, for how long, at the time of
//! its decision, with the approval that it had, and to the guardrails that hold now. What the record does not hold is
//! counted, not guessed. A [`Survey`] goes through the same records the other way: what was never used of a policy?

mod judge;
mod recorded;
mod report;
mod survey;
mod sweep;

use std::collections::HashMap;
use std::sync::Arc;

use cortex_core::jwt::{KeyError, SigningAlgorithm, SigningKey, TokenIssuer};
use cortex_core::policy::Policy;
use cortex_core::{Digest, PolicyName};
use cortex_providers::{BuiltIns, ProvidersConfig, Registry};
use jiff::{SignedDuration, Timestamp, civil};
use sqlx::PgPool;

use self::judge::{Candidate, Judge, Kept};
use self::sweep::Sweep;
use crate::library::Catalogue;
use crate::store::documents::{self, Kind, Version};
use crate::store::{Committed, StoreError};

pub use report::{Change, Changed, Group, NotDecided, Report, Why};
pub use survey::Survey;
pub(crate) use sweep::cores;
pub use sweep::{Bounds, Cut, Progress};

/// How far back a replay looks at the most, in days.
const DAYS_MAX: i64 = 3_660;

/// Why a replay does not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing can be decided without the guardrails.
    #[error("the guardrails in force cannot be read; an operator has to look")]
    Guardrails,
    /// The database took too long over a page.
    #[error("the database took too long; ask again, or for a shorter time")]
    Slow,
    /// A thread failed; the log says how.
    #[error("deciding again failed; the log says how")]
    Failed,
}

/// What is to be replayed.
pub struct Question {
    /// The policies as they are proposed, each of another name.
    pub policies: Vec<Policy>,
    /// From when on requests are decided again.
    pub since: Timestamp,
    /// Now.
    pub now: Timestamp,
}

/// What a replay decides with.
pub struct Means {
    /// The record.
    pub pool: PgPool,
    /// What is in force.
    pub catalogue: Arc<Catalogue>,
    /// What renders targets.
    pub registry: Registry<Committed>,
}

/// A replay under way. Dropping it ends it.
pub struct Replay {
    policies: Vec<PolicyName>,
    since: Timestamp,
    sweep: Sweep<Judge>,
}

impl Replay {
    /// Begins; nothing of the record has been read yet.
    pub async fn begin(means: Means, question: Question, bounds: Bounds) -> Result<Self, ReplayError> {
        let Question { policies, since, now } = question;
        let guardrails = means.catalogue.shared_guardrails().ok_or(ReplayError::Guardrails)?;
        let names: Vec<_> = policies.iter().map(|policy| policy.name().clone()).collect();
        let mut histories = Vec::with_capacity(names.len());
        for name in &names {
            let versions = documents::history(&means.pool, Kind::Policy, name.as_str()).await?;
            histories.push(in_force_since(versions, since));
        }
        let catalogue = means.catalogue;
        let compile = move || {
            let pairs = policies.into_iter().zip(histories);
            pairs.map(|(policy, history)| candidate(&catalogue, policy, history)).collect()
        };
        // Compiling takes a millisecond a version.
        let candidates = tokio::task::spawn_blocking(compile).await.map_err(|_| ReplayError::Failed)?;
        let judge = Judge { guardrails, registry: means.registry, candidates };
        let sweep = Sweep::new(means.pool, judge, names.clone(), (since, now), bounds);
        Ok(Self { policies: names, since, sweep })
    }

    /// Goes on for a page: how far it has come, or none at the end.
    pub async fn step(&mut self) -> Result<Option<Progress>, ReplayError> {
        self.sweep.step().await
    }

    /// What it came to.
    pub fn report(self) -> Report {
        report::report(self.policies, self.since, self.sweep.end())
    }
}

/// The versions that were in force at some time since then.
fn in_force_since(versions: Vec<Version>, since: Timestamp) -> Vec<Version> {
    let later = versions.iter().take_while(|version| version.applied_at >= since).count();
    versions.into_iter().take(later.saturating_add(1)).collect()
}

fn candidate(catalogue: &Catalogue, proposed: Policy, history: Vec<Version>) -> Candidate {
    let shelved = catalogue.policy(proposed.name()).and_then(|shelved| shelved.policy().cloned());
    let read = |version: Version| Policy::compile(&version.source, &BuiltIns).ok();
    let versions: HashMap<Digest, Policy> =
        history.into_iter().filter_map(read).map(|policy| (policy.digest(), policy)).collect();
    Candidate { proposed: Kept::new(Arc::new(proposed)), in_force: shelved.map(Kept::new), versions }
}

/// What renders targets, for those who only look: its key is made here and never signs.
pub fn planner(config: &ProvidersConfig, issuer_url: String) -> Result<Registry<Committed>, KeyError> {
    let issuer =
        Arc::new(TokenIssuer::new(issuer_url, Arc::new(SigningKey::generate(SigningAlgorithm::RS256)?)));
    Ok(cortex_providers::registry(config, &issuer))
}

/// A time in the past as people write it: `30d`, `12h`, `2w`, a date, or a time such as `2026-01-31T23:59:59Z`; ten
/// years back at the most.
pub fn since(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let wrong =
        || format!("{text:?}: write how long ago, such as 30d, 12h or 2w, or a date such as 2026-01-31");
    let at = match ago(text) {
        Some(ago) => now.checked_sub(ago).map_err(|_| wrong())?,
        None => text.parse::<Timestamp>().or_else(|_| midnight(text)).map_err(|_| wrong())?,
    };
    if at > now {
        return Err(format!("{text:?} is not in the past"));
    }
    let farthest = now.checked_sub(SignedDuration::from_hours(24 * DAYS_MAX)).unwrap_or(Timestamp::MIN);
    if at < farthest { Err(format!("{text:?} is more than {DAYS_MAX} days ago")) } else { Ok(at) }
}

fn ago(text: &str) -> Option<SignedDuration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let hours = match unit {
        "h" => 1,
        "d" => 24,
        "w" => 24 * 7,
        _ => return None,
    };
    let number = number.parse::<u32>().ok()?;
    Some(SignedDuration::from_hours(i64::from(number).checked_mul(hours)?))
}

fn midnight(text: &str) -> Result<Timestamp, jiff::Error> {
    let date: civil::Date = text.parse()?;
    Ok(date.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_the_past_is_read_as_people_write_it() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        for (text, at) in [
            ("30d", "2026-10-24T12:00:00Z"),
            ("12h", "2026-11-23T00:00:00Z"),
            ("2w", "2026-11-09T12:00:00Z"),
            ("0d", "2026-11-23T12:00:00Z"),
            ("2026-11-01", "2026-11-01T00:00:00Z"),
            ("2026-11-01T02:00:00+01:00", "2026-11-01T01:00:00Z"),
        ] {
            assert_eq!(since(text, now), Ok(at.parse().unwrap()), "{text}");
        }
        for text in [
            "",
            "d",
            "-1d",
            "1.5d",
            "30",
            "30m",
            "4000d",
            "4294967295w",
            "2026-11-24",
            "1900-01-01",
            "ü",
            "d30",
        ] {
            assert!(since(text, now).is_err(), "{text}");
        }
    }
}
