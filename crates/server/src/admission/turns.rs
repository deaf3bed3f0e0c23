//! Identical asks take turns: the second one waits for the first, and finds what that brought.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout_at};

use crate::leases::AskKey;

type Lock = tokio::sync::Mutex<()>;

/// The asks that are being answered. It has no entry for one that nobody waits for.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<AskKey, Weak<Lock>>>);

/// The turn of one ask, until it is dropped.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    ask: AskKey,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// The turns of all `asks`; none where one does not come by `deadline`. They are taken in order, so that no two
    /// requests wait for each other.
    pub(crate) async fn take(
        self: &Arc<Self>,
        asks: BTreeSet<AskKey>,
        deadline: Instant,
    ) -> Option<Vec<Turn>> {
        let mut taken = Vec::with_capacity(asks.len());
        for ask in asks {
            let lock = self.lock(ask);
            // From here on it is tidied up, whether its turn comes or not.
            let mut turn = Turn { turns: Arc::clone(self), ask, held: None };
            turn.held = Some(timeout_at(deadline, lock.lock_owned()).await.ok()?);
            taken.push(turn);
        }
        Some(taken)
    }

    fn lock(&self, ask: AskKey) -> Arc<Lock> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = turns.get(&ask).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(Lock::default());
        turns.insert(ask, Arc::downgrade(&lock));
        lock
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.held.take());
        let mut turns = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.get(&self.ask).is_some_and(|lock| lock.strong_count() == 0) {
            turns.remove(&self.ask);
        }
    }
}
