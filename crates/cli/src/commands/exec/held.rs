//! The credentials that the command may use at this moment.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cortex_core::Clock as _;
use cortex_core::clock::SystemClock;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use crate::ask::{Bundle, Credential, Entry, Refusal};

/// Where one target stands.
enum Slot {
    /// A credential, and when to renew it.
    Live { credential: Credential, renew_at: Timestamp },
    /// The policy said no; the sentence says why.
    Over(String),
}

/// Why there is no credential at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Absent {
    /// For good.
    Over(String),
    /// It ended, and the next one is on its way if there is to be one.
    Ended,
}

/// All targets of one run.
pub(super) struct Held {
    slots: Mutex<BTreeMap<String, Slot>>,
    renew_before: Option<SignedDuration>,
    wanted: Notify,
}

impl Held {
    /// The first credentials. `renew_before` is how much of its life a credential has left when it is renewed.
    pub(super) fn new(credentials: &BTreeMap<String, Credential>, renew_before: Option<Duration>) -> Self {
        let renew_before =
            renew_before.map(|before| SignedDuration::try_from(before).unwrap_or(SignedDuration::MAX));
        let held = Self { slots: Mutex::default(), renew_before, wanted: Notify::new() };
        for (target, credential) in credentials {
            held.put(target.clone(), credential.clone());
        }
        held
    }

    /// The credential of `target`.
    pub(super) fn credential(&self, target: &str) -> Result<Credential, Absent> {
        match self.slots().get(target) {
            Some(Slot::Live { credential, .. }) if credential.expires_at > SystemClock.now() => {
                Ok(credential.clone())
            }
            Some(Slot::Live { .. }) => Err(Absent::Ended),
            Some(Slot::Over(why)) => Err(Absent::Over(why.clone())),
            None => Err(Absent::Over("this command was not given this target".to_owned())),
        }
    }

    /// The same for a client that needs it now: the renewal of one that has ended is hurried.
    pub(super) fn wanted_credential(&self, target: &str) -> Result<Credential, Absent> {
        let found = self.credential(target);
        if matches!(found, Err(Absent::Ended)) {
            self.wanted.notify_one();
        }
        found
    }

    /// Takes what a renewal brought. A target that is refused for now keeps what it has until that ends.
    pub(super) fn take(&self, bundle: Bundle) {
        for (target, entry) in bundle {
            match entry {
                Entry::Issued(credential) => self.put(target, credential),
                Entry::Refused(Refusal::Denied(why)) => {
                    self.slots().insert(target, Slot::Over(why));
                }
                Entry::Refused(_) => {}
            }
        }
    }

    /// Ends all of it.
    pub(super) fn end(&self, why: &str) {
        for slot in self.slots().values_mut() {
            *slot = Slot::Over(why.to_owned());
        }
    }

    /// When the next renewal is due; none where nothing is left to renew.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let renew_at = |slot: &Slot| match slot {
            Slot::Live { renew_at, .. } => Some(*renew_at),
            Slot::Over(_) => None,
        };
        self.slots().values().filter_map(renew_at).min()
    }

    /// Waits until somebody asks for a credential that has ended.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    fn put(&self, target: String, credential: Credential) {
        let renew_at = renew_at(credential.expires_at, self.renew_before, SystemClock.now());
        self.slots().insert(target, Slot::Live { credential, renew_at });
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When to renew a credential that came now. The server gives the same one again while it thinks that enough of it is
/// left, so that there is a pause between two questions, of a twentieth of what is left.
fn renew_at(expires_at: Timestamp, before: Option<SignedDuration>, now: Timestamp) -> Timestamp {
    let left = expires_at.duration_since(now).max(SignedDuration::ZERO);
    let before = before.unwrap_or(left * 3 / 10);
    let pause = (left / 20).max(SignedDuration::from_secs(1));
    let due = expires_at.saturating_sub(before).unwrap_or(Timestamp::MIN);
    due.max(now.saturating_add(pause).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_renewed_before_its_end_and_not_in_a_hurry() {
        let now: Timestamp = "2026-11-23T02:00:00Z".parse().unwrap();
        let after = |seconds| now.saturating_add(SignedDuration::from_secs(seconds)).unwrap();
        let before = |seconds| Some(SignedDuration::from_secs(seconds));
        for (life, asked, due) in [
            (1_000, None, 700),
            (900, before(600), 300),
            (900, before(899), 45),
            (900, before(100_000), 45),
            (60, None, 42),
            (10, before(9), 1),
            (0, None, 1),
        ] {
            assert_eq!(renew_at(after(life), asked, now), after(due), "{life} {asked:?}");
        }
    }
}
