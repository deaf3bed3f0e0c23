//! What the clouds minted, also when the answer was then lost: a test compares it with what is on record.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A listener of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    /// STS, the little of IAM and the little of S3.
    Aws,
    /// The token service, IAM credentials and `BigQuery`.
    Google,
    /// Logins, queries and the SQL API.
    Snowflake,
    /// The development issuer: no cloud, it mints nothing, but it can be made to fail like one.
    Issuer,
    /// The REST API of an Airflow: it mints nothing either.
    Airflow,
    /// The API server of a Kubernetes cluster: the same.
    Kubernetes,
}

/// One credential or session that a cloud made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mint {
    /// Who made it.
    pub cloud: Cloud,
    /// The operation, such as `AssumeRoleWithWebIdentity`, `token`, `generateAccessToken` or `login`.
    pub operation: String,
    /// When.
    pub at: Timestamp,
    /// For whom: an assumed-role ARN, a federated principal or service account, a Snowflake user.
    pub subject: String,
    /// The lease that the caller named: the session tag `lease`, the federated subject or the claim `lease`.
    pub lease: Option<String>,
    /// When it ends. It is what the sandbox enforces, whatever a fault made the answer say.
    pub expires_at: Timestamp,
    /// How long the cloud took, from the call's first byte to its answer, in microseconds; 0 while it has none.
    pub took_us: u64,
    /// Whether the answer was handed to the network whole.
    pub delivered: bool,
}

/// The place of a mint in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MintId(u64);

/// The most mints that are remembered; the oldest go first.
const CAPACITY: usize = 100_000;

#[derive(Debug, Default)]
struct Entries {
    forgotten: u64,
    mints: VecDeque<Mint>,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Entries>);

impl Ledger {
    /// Notes a mint; it counts as lost until [`Ledger::delivered`].
    pub(crate) fn note(&self, mint: Mint) -> MintId {
        let mut entries = self.entries();
        if entries.mints.len() == CAPACITY {
            entries.mints.pop_front();
            entries.forgotten += 1;
        }
        let place = entries.forgotten + u64::try_from(entries.mints.len()).unwrap_or(u64::MAX);
        entries.mints.push_back(mint);
        MintId(place)
    }

    /// Its answer is made, after `took`.
    pub(crate) fn answered(&self, id: MintId, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.change(id, |mint| mint.took_us = took_us);
    }

    pub(crate) fn delivered(&self, id: MintId) {
        self.change(id, |mint| mint.delivered = true);
    }

    /// Changes a mint that is still remembered.
    fn change(&self, id: MintId, change: impl FnOnce(&mut Mint)) {
        let mut entries = self.entries();
        let index = id.0.checked_sub(entries.forgotten).and_then(|index| usize::try_from(index).ok());
        if let Some(mint) = index.and_then(|index| entries.mints.get_mut(index)) {
            change(mint);
        }
    }

    pub(crate) fn all(&self) -> Vec<Mint> {
        self.entries().mints.iter().cloned().collect()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mint_counts_as_lost_until_it_is_delivered_and_the_oldest_go_first() {
        let ledger = Ledger::default();
        let mint = |subject: usize| Mint {
            cloud: Cloud::Aws,
            operation: "AssumeRole".into(),
            at: Timestamp::UNIX_EPOCH,
            subject: subject.to_string(),
            lease: None,
            expires_at: Timestamp::UNIX_EPOCH,
            took_us: 0,
            delivered: false,
        };
        let first = ledger.note(mint(0));
        for n in 1..=CAPACITY {
            ledger.note(mint(n));
        }
        let last = ledger.note(mint(CAPACITY + 1));
        ledger.delivered(first);
        ledger.answered(last, Duration::from_millis(2));
        ledger.delivered(last);
        let all = ledger.all();
        assert_eq!((all.len(), all[0].subject.as_str()), (CAPACITY, "2"));
        assert_eq!(all.iter().filter(|mint| mint.delivered).count(), 1);
        assert_eq!((all[CAPACITY - 1].delivered, all[CAPACITY - 1].took_us), (true, 2_000));
    }
}
